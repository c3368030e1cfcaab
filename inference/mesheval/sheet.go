package mesheval

import (
	"fmt"
	"image"
	"image/draw"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
)

// Sheet writes a contact sheet (JPEG) of a run, a row a mesh: two of the four views,
// seven renders of the mesh, two of its bare shape.
func Sheet(path string, list []Figures) (err error) {
	var rows []image.Image
	var size image.Point
	for _, f := range list {
		im, err := readPNG(filepath.Join(f.Folder, rowName))
		if err != nil {
			return fmt.Errorf("making the contact sheet: %w", err)
		}
		rows = append(rows, im)
		size = image.Pt(max(size.X, im.Bounds().Dx()), size.Y+im.Bounds().Dy())
	}
	sheet := image.NewRGBA(image.Rectangle{Max: size})
	y := 0
	for _, im := range rows {
		draw.Draw(sheet, im.Bounds().Add(image.Pt(0, y)), im, image.Point{}, draw.Src)
		y += im.Bounds().Dy()
	}
	w, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("making the contact sheet: %w", err)
	}
	if err := jpeg.Encode(w, sheet, &jpeg.Options{Quality: 88}); err != nil {
		_ = w.Close()
		return fmt.Errorf("making the contact sheet: %w", err)
	}
	return w.Close()
}

func readPNG(path string) (image.Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return png.Decode(f)
}
