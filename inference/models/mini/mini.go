// Package mini embeds the small model that the program ships. Importing it
// adds 16 MB to a binary, so only cmd and tests do.
package mini

import "embed"

// FS is the bundle: model.json, weights.safetensors, merges.txt.
//
//go:embed model.json merges.txt weights.safetensors
var FS embed.FS
