package inference

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"dreamcad/inference/asset"
	"dreamcad/inference/device/cpu"
	"dreamcad/inference/distill"
	"dreamcad/inference/field"
	"dreamcad/inference/mesh"
)

// quickMesh is a recipe of a few seconds.
func quickMesh() MeshSettings {
	s := DefaultMeshSettings()
	stage := func(grid, iterations int, bilaplace float32) distill.Stage {
		return distill.Stage{Grid: grid, Iterations: iterations, Beta: [2]float64{1, 0.4}, Bilaplace: bilaplace, Laplace: 0.1, Eikonal: 1}
	}
	s.Draft.Scaffold = []distill.Stage{stage(48, 60, 5)}
	s.Draft.Rounds = []distill.Round{{Azimuth: 45, Elevation: 40, Timestep: 341, Stride: 170}}
	s.Draft.Final = []distill.Stage{stage(48, 60, 5)}
	s.Draft.Hollow = nil
	s.Surface = mesh.Options{Faces: 3000, Texture: 256}
	s.Turntable = Turntable{Frames: 4, Size: 64, Elevation: 20, Delay: 10}
	s.Formats = []string{"obj", "glb", "stl"}
	return s
}

// TestMeshOfPrompt goes from a prompt to files, reads the OBJ back and lays it over
// the views from their cameras; and saves and resumes once on the way.
func TestMeshOfPrompt(t *testing.T) {
	m := open(t, cpu.Options{})
	set := quickMesh()
	order := Order{Request: Request{Prompt: "a red mug", Seed: 4, Steps: 12}, Mesh: &set}
	k, err := m.NewMaking(order)
	if err != nil {
		t.Fatal(err)
	}
	var stages []string
	boundaries := 0
	var images []field.Image // the resumed making has them as files only
	for !k.Done() {
		if s, _, _ := k.Progress(); len(stages) == 0 || stages[len(stages)-1] != s {
			stages = append(stages, s)
		}
		boundary, err := k.Step(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if boundary {
			boundaries++
		}
		if images == nil {
			images = k.Images()
		}
		if boundary && boundaries == 2 { // the scaffold is done, the round lies ahead
			var b bytes.Buffer
			if err := k.Save(&b); err != nil {
				t.Fatal(err)
			}
			if k, err = m.ResumeMaking(order, &b); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := strings.Join(stages, " "); got != "text views optimise extract texture preview" {
		t.Errorf("stages %s", got)
	}
	files := map[string][]byte{}
	var names []string
	for _, f := range k.Take() {
		files[f.Name] = f.Data
		names = append(names, f.Role+":"+f.Name)
	}
	want := "view:view-0.png view:view-1.png view:view-2.png view:view-3.png sheet:views.png mesh-glb:model.glb mesh-obj:model.obj mesh-mtl:model.mtl texture:texture.png mesh-stl:model.stl turntable:turntable.gif preview:preview.png"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("files %s", got)
	}
	var read mesh.Mesh
	for line := range strings.Lines(string(files[asset.NameOBJ])) {
		var x, y, z float32
		var v, n [3]int32
		if _, err := fmt.Sscanf(line, "v %g %g %g", &x, &y, &z); err == nil {
			read.Vertices = append(read.Vertices, mesh.Vec{z, x, y}) // back to the network's world
		} else if _, err := fmt.Sscanf(line, "f %d/%d/%d %d/%d/%d %d/%d/%d", &v[0], &n[0], &n[0], &v[1], &n[1], &n[1], &v[2], &n[2], &n[2]); err == nil {
			read.Faces = append(read.Faces, [3]int32{v[0] - 1, v[1] - 1, v[2] - 1})
		}
	}
	if c := read.Check(); !c.Manifold {
		t.Errorf("the file's surface: %+v", c)
	}
	cams := k.Cameras()
	if len(cams) != 4 {
		t.Fatalf("%d cameras", len(cams))
	}
	for i, c := range cams {
		if iou := mesh.IoU(read.Silhouette(c, images[i].Size), field.Mask(images[i])); iou < 0.85 {
			t.Errorf("view %d: the file's silhouette overlaps it by %.3f", i, iou)
		}
	}
}

func TestMeshSettingsRefused(t *testing.T) {
	for name, change := range map[string]func(*MeshSettings){
		"faces":     func(s *MeshSettings) { s.Surface.Faces = 3 },
		"texture":   func(s *MeshSettings) { s.Surface.Texture = 100000 },
		"turntable": func(s *MeshSettings) { s.Turntable.Frames = 0 },
		"format":    func(s *MeshSettings) { s.Formats = []string{"fbx"} },
		"grid":      func(s *MeshSettings) { s.Draft.Scaffold[0].Grid = 7 },
		"timestep":  func(s *MeshSettings) { s.Draft.Rounds[0].Timestep = 1000 },
		"hollow":    func(s *MeshSettings) { s.Draft.Hollow.Fit.Grid = 32 },
	} {
		s := DefaultMeshSettings()
		change(&s)
		if s.Check() == nil {
			t.Errorf("%s: a bad value was accepted", name)
		}
	}
	s := DefaultMeshSettings()
	if err := s.Check(); err != nil {
		t.Error(err)
	}
}
