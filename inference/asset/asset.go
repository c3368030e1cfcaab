// Package asset writes textured meshes and pictures as files: OBJ with MTL and PNG,
// GLB, STL, contact sheets and turntables.
//
// Files have y up and the front of the object towards +z (glTF's convention), in
// metres; package mesh has z up and the front towards +x. See Export.
package asset

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"slices"

	"dreamcad/inference/field"
	"dreamcad/inference/mesh"
)

// Roles, names and media types of the files, as manifests list them.
const (
	RoleView      = "view"
	RoleSheet     = "sheet"
	RoleOBJ       = "mesh-obj"
	RoleMTL       = "mesh-mtl"
	RoleTexture   = "texture"
	RoleGLB       = "mesh-glb"
	RoleSTL       = "mesh-stl"
	RoleTurntable = "turntable"
	RolePreview   = "preview"

	NameOBJ       = "model.obj"
	NameMTL       = "model.mtl"
	NameTexture   = "texture.png"
	NameGLB       = "model.glb"
	NameSTL       = "model.stl"
	NameTurntable = "turntable.gif"
	NamePreview   = "preview.png"
)

// File is one finished file of an asset.
type File struct {
	Role, Name, MediaType string
	Data                  []byte
}

// Formats are the mesh formats that can be asked for.
var Formats = []string{"glb", "obj", "stl"}

// CheckFormats says which of the wanted formats is unknown, if any.
func CheckFormats(formats []string) error {
	for _, f := range formats {
		if !slices.Contains(Formats, f) {
			return fmt.Errorf("mesh format %q: want one of %v", f, Formats)
		}
	}
	return nil
}

// MeshFiles writes a mesh in the given formats; none means glb and obj. The texture is
// a file of its own beside an OBJ; a GLB holds it.
func MeshFiles(t *mesh.Textured, formats []string) ([]File, error) {
	if len(formats) == 0 {
		formats = []string{"glb", "obj"}
	}
	if err := CheckFormats(formats); err != nil {
		return nil, err
	}
	texture, err := PNG(t.Texture)
	if err != nil {
		return nil, err
	}
	var files []File
	for _, f := range Formats {
		if !slices.Contains(formats, f) {
			continue
		}
		switch f {
		case "obj":
			files = append(files,
				File{RoleOBJ, NameOBJ, "model/obj", OBJ(t, NameMTL)},
				File{RoleMTL, NameMTL, "model/mtl", MTL(NameTexture)},
				File{RoleTexture, NameTexture, "image/png", texture})
		case "glb":
			glb, err := GLB(t, texture)
			if err != nil {
				return nil, err
			}
			files = append(files, File{RoleGLB, NameGLB, "model/gltf-binary", glb})
		case "stl":
			files = append(files, File{RoleSTL, NameSTL, "model/stl", STL(t.Mesh)})
		}
	}
	return files, nil
}

// axes takes the network's world to the files' axes: (x, y, z) to (y, z, x).
func axes(p mesh.Vec) mesh.Vec { return mesh.Vec{p[1], p[2], p[0]} }

// picture converts to 8 bits a channel.
func picture(im field.Image) *image.RGBA {
	out := image.NewRGBA(image.Rect(0, 0, im.Size, im.Size))
	paste(out, im, 0, 0)
	return out
}

func paste(dst *image.RGBA, im field.Image, x0, y0 int) {
	for y := range im.Size {
		for x := range im.Size {
			p := im.Pix[(y*im.Size+x)*3:]
			dst.SetRGBA(x0+x, y0+y, color.RGBA{level(p[0]), level(p[1]), level(p[2]), 255})
		}
	}
}

func level(v float32) uint8 { return uint8(min(max(v, 0), 1)*255 + 0.5) }

// PNG encodes one picture.
func PNG(im field.Image) ([]byte, error) { return encode(picture(im)) }

// Sheet lays pictures of one size out in rows of columns and encodes them as PNG.
func Sheet(images []field.Image, columns int) ([]byte, error) {
	if len(images) == 0 || columns < 1 {
		return nil, fmt.Errorf("making a sheet of %d pictures in %d columns", len(images), columns)
	}
	size := images[0].Size
	rows := (len(images) + columns - 1) / columns
	out := image.NewRGBA(image.Rect(0, 0, columns*size, rows*size))
	for i := range out.Pix {
		out.Pix[i] = 255
	}
	for i, im := range images {
		paste(out, im, i%columns*size, i/columns*size)
	}
	return encode(out)
}

func encode(im image.Image) ([]byte, error) {
	var b bytes.Buffer
	if err := png.Encode(&b, im); err != nil {
		return nil, fmt.Errorf("encoding a PNG: %w", err)
	}
	return b.Bytes(), nil
}
