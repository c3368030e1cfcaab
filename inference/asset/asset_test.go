package asset

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"image/gif"
	"image/png"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"dreamcad/inference/camera"
	"dreamcad/inference/field"
	"dreamcad/inference/mesh"
)

// sample is a textured lump: a ball with a nose towards the front (+x) and a red top.
func sample(t testing.TB) (*mesh.Textured, []field.View) {
	t.Helper()
	const n = 40
	g, err := field.NewGrid(n)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n * n * n {
		var p [3]float64
		for k, c := range [3]int{i % n, i / n % n, i / n / n} {
			p[k] = (float64(c)+0.5)*2/n - 1
		}
		f := max(0.5-math.Sqrt(p[0]*p[0]+p[1]*p[1]+p[2]*p[2]), 0.2-math.Sqrt((p[0]-0.55)*(p[0]-0.55)+p[1]*p[1]+p[2]*p[2]))
		c := []float32{float32(f), 0.2, 0.3, 0.9}
		if p[2] > 0.15 {
			c = []float32{float32(f), 0.9, 0.1, 0.1}
		}
		copy(g.V[i*4:], c)
	}
	var views []field.View
	for k := range 4 {
		c := field.Camera{Camera: camera.FromFront(20+90*float64(k), 25), Lens: camera.Lens{FOV: 40, Distance: 2.8}}
		im := g.Render(c, 96, 0.3).Image
		views = append(views, field.View{Camera: c, Image: im, Mask: field.Mask(im), Weight: 1, Source: true})
	}
	m, err := mesh.Surface(g, views, mesh.Options{Faces: 3000, Texture: 256})
	if err != nil {
		t.Fatal(err)
	}
	return m.Bake(m.Unwrap(256), views), views
}

// soup is what a reader of a file finds, in the file's axes.
type soup struct {
	points  [][3]float64
	normals [][3]float64
	uv      [][2]float64 // v downwards
	faces   [][3][3]int  // point, uv, normal of each corner
}

// readOBJ knows as much of OBJ as the files need, and is strict about it.
func readOBJ(t *testing.T, data []byte) soup {
	t.Helper()
	var s soup
	numbers := func(f []string) (v []float64) {
		for _, w := range f {
			x, err := strconv.ParseFloat(w, 64)
			if err != nil {
				t.Fatal(err)
			}
			v = append(v, x)
		}
		return v
	}
	r := bufio.NewScanner(bytes.NewReader(data))
	for r.Scan() {
		f := strings.Fields(r.Text())
		switch f[0] {
		case "v":
			v := numbers(f[1:])
			s.points = append(s.points, [3]float64(v))
		case "vn":
			s.normals = append(s.normals, [3]float64(numbers(f[1:])))
		case "vt":
			v := numbers(f[1:])
			s.uv = append(s.uv, [2]float64{v[0], 1 - v[1]})
		case "f":
			if len(f) != 4 {
				t.Fatalf("face %q", r.Text())
			}
			var face [3][3]int
			for k, c := range f[1:] {
				for q, w := range strings.Split(c, "/") {
					i, err := strconv.Atoi(w)
					if err != nil || i < 1 || i > []int{len(s.points), len(s.uv), len(s.normals)}[q] {
						t.Fatalf("face %q", r.Text())
					}
					face[k][q] = i - 1
				}
			}
			s.faces = append(s.faces, face)
		case "#", "mtllib", "o", "usemtl", "s":
		default:
			t.Fatalf("line %q", r.Text())
		}
	}
	return s
}

// mesh puts the points back into the network's world.
func (s *soup) mesh() *mesh.Mesh {
	m := &mesh.Mesh{}
	for _, p := range s.points {
		m.Vertices = append(m.Vertices, mesh.Vec{float32(p[2]), float32(p[0]), float32(p[1])})
	}
	for _, f := range s.faces {
		m.Faces = append(m.Faces, [3]int32{int32(f[0][0]), int32(f[1][0]), int32(f[2][0])})
	}
	return m
}

// TestOBJ reads the written file back: closed, outward, inside the unit sphere, and
// over the views when drawn from the manifest's cameras.
func TestOBJ(t *testing.T) {
	tex, views := sample(t)
	s := readOBJ(t, OBJ(tex, NameMTL))
	m := s.mesh()
	if c := m.Check(); !c.Manifold || c.Components != 1 {
		t.Fatalf("%+v", c)
	}
	var volume float64
	var front float64
	for _, f := range s.faces {
		a, b, c := s.points[f[0][0]], s.points[f[1][0]], s.points[f[2][0]]
		volume += (a[0]*(b[1]*c[2]-b[2]*c[1]) + a[1]*(b[2]*c[0]-b[0]*c[2]) + a[2]*(b[0]*c[1]-b[1]*c[0])) / 6
	}
	if volume < 0.4 || volume > 0.75 {
		t.Errorf("the lump's volume is %.3f; negative means inside out", volume)
	}
	for _, p := range s.points {
		if p[0]*p[0]+p[1]*p[1]+p[2]*p[2] > 1 {
			t.Fatalf("the point %v is outside the unit sphere", p)
		}
		front = max(front, p[2])
	}
	if front < 0.65 {
		t.Errorf("the nose does not point to +z: the furthest point is at %.2f", front)
	}
	for _, v := range views {
		if iou := mesh.IoU(m.Silhouette(v.Camera, 96), v.Mask); iou < 0.95 {
			t.Errorf("azimuth %g: the written file overlaps the view by %.3f", v.Camera.FrontAzimuth(), iou)
		}
	}
	// The texture's red texels belong to the upper part.
	im, err := png.Decode(bytes.NewReader(must(t, tex)))
	if err != nil {
		t.Fatal(err)
	}
	size := float64(im.Bounds().Dx())
	wrong := 0
	for _, f := range s.faces {
		var u, v, height float64
		for _, c := range f {
			u, v, height = u+s.uv[c[1]][0]/3, v+s.uv[c[1]][1]/3, height+s.points[c[0]][1]/3
		}
		r, _, b, _ := im.At(int(u*size), int(v*size)).RGBA()
		if height > 0.2 && r < b || height < 0.1 && r > b {
			wrong++
		}
	}
	if wrong > len(s.faces)/50 {
		t.Errorf("%d of %d faces have the colour of another place", wrong, len(s.faces))
	}
}

func must(t *testing.T, tex *mesh.Textured) []byte {
	t.Helper()
	b, err := PNG(tex.Texture)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSTL(t *testing.T) {
	tex, _ := sample(t)
	b := STL(tex.Mesh)
	n := binary.LittleEndian.Uint32(b[80:])
	if int(n) != len(tex.Mesh.Faces) || len(b) != 84+50*int(n) {
		t.Fatalf("%d bytes for %d faces, the mesh has %d", len(b), n, len(tex.Mesh.Faces))
	}
	f := func(i int) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b[i:])) }
	for k := range int(n) {
		o := 84 + 50*k
		var p [3][3]float32
		for c := range 3 {
			for a := range 3 {
				p[c][a] = f(o + 12 + 12*c + 4*a)
			}
		}
		v := tex.Mesh.Vertices[tex.Mesh.Faces[k][0]]
		if p[0] != [3]float32{v[1], v[2], v[0]} {
			t.Fatalf("facet %d starts at %v, the mesh at %v", k, p[0], v)
		}
	}
}

// TestGLB checks the container by hand.
func TestGLB(t *testing.T) {
	tex, _ := sample(t)
	glb, err := GLB(tex, must(t, tex))
	if err != nil {
		t.Fatal(err)
	}
	u32 := func(i int) int { return int(binary.LittleEndian.Uint32(glb[i:])) }
	if u32(0) != glbMagic || u32(4) != 2 || u32(8) != len(glb) || u32(16) != glbJSON {
		t.Fatal("the header is wrong")
	}
	var doc struct {
		Accessors []struct {
			Count int
			Max   []float64
		}
		BufferViews []struct{ ByteOffset, ByteLength int }
		Buffers     []struct{ ByteLength int }
	}
	if err := json.Unmarshal(glb[20:20+u32(12)], &doc); err != nil {
		t.Fatal(err)
	}
	bin := 20 + u32(12)
	if u32(bin+4) != glbBinary || u32(bin) != doc.Buffers[0].ByteLength || bin+8+u32(bin) != len(glb) {
		t.Fatal("the binary chunk is wrong")
	}
	if doc.Accessors[3].Count != 3*len(tex.Mesh.Faces) || doc.Accessors[0].Max[2] < 0.65 {
		t.Errorf("accessors %+v", doc.Accessors)
	}
	img := doc.BufferViews[4]
	if _, err := png.Decode(bytes.NewReader(glb[bin+8+img.ByteOffset : bin+8+img.ByteOffset+img.ByteLength])); err != nil {
		t.Errorf("the embedded texture: %v", err)
	}
}

// TestGLBValidator runs Khronos' glTF validator, which comes with the packages of the
// web console.
func TestGLBValidator(t *testing.T) {
	module, err := filepath.Abs("../../bots/web/ui/node_modules/gltf-validator")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(module); err != nil {
		t.Fatalf("the glTF validator is missing; `make web` installs it: %v", err)
	}
	tex, _ := sample(t)
	glb, err := GLB(tex, must(t, tex))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "model.glb")
	if err := os.WriteFile(file, glb, 0o600); err != nil {
		t.Fatal(err)
	}
	script := `const v = require(process.argv[1]), fs = require("fs");
v.validateBytes(new Uint8Array(fs.readFileSync(process.argv[2]))).then(r => console.log(JSON.stringify(r.issues)))`
	out, err := exec.Command("node", "-e", script, module, file).CombinedOutput()
	if err != nil {
		t.Fatalf("running the validator: %v\n%s", err, out)
	}
	var issues struct {
		NumErrors, NumWarnings int
		Messages               []struct{ Code, Message, Pointer string }
	}
	if err := json.Unmarshal(out, &issues); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if issues.NumErrors+issues.NumWarnings > 0 {
		t.Errorf("%d errors, %d warnings: %+v", issues.NumErrors, issues.NumWarnings, issues.Messages)
	}
}

func TestTurntable(t *testing.T) {
	tex, views := sample(t)
	var cams []field.Camera
	for _, v := range views {
		cams = append(cams, v.Camera)
	}
	frames := tex.DrawAll(cams, 64)
	data, err := Turntable(frames, 10)
	if err != nil {
		t.Fatal(err)
	}
	g, err := gif.DecodeAll(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if len(g.Image) != 4 || g.LoopCount != 0 || g.Delay[0] != 10 {
		t.Fatalf("%d frames, loop %d, delay %d", len(g.Image), g.LoopCount, g.Delay[0])
	}
	var worst float64
	for i, f := range frames {
		for k := range 64 * 64 {
			r, _, _, _ := g.Image[i].At(k%64, k/64).RGBA()
			worst = max(worst, math.Abs(float64(r)/65535-float64(f.Pix[k*3])))
		}
	}
	if worst > 0.06 {
		t.Errorf("the palette is off by up to %.3f", worst)
	}
}

func TestFormats(t *testing.T) {
	tex, _ := sample(t)
	files, err := MeshFiles(tex, nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name)
	}
	if got := strings.Join(names, " "); got != "model.glb model.obj model.mtl texture.png" {
		t.Errorf("files %s", got)
	}
	if !strings.Contains(string(MTL(NameTexture)), "map_Kd "+NameTexture) {
		t.Error("the material does not name the texture")
	}
	if _, err := MeshFiles(tex, []string{"fbx"}); err == nil {
		t.Error("an unknown format was accepted")
	}
}
