// Package assets embeds the console's bundled scripts. Only cmd imports it;
// without `make web` the folder holds an empty marker and the console says so.
package assets

import (
	"embed"
	"io/fs"
)

//go:embed all:dist
var files embed.FS

// FS returns the bundle, and whether it was built.
func FS() (fs.FS, bool) {
	sub, err := fs.Sub(files, "dist")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	_, err = fs.Stat(sub, "app.js")
	return sub, err == nil
}
