package storage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Roles of files in a manifest.
const (
	RoleView      = "view"      // view-0.png … view-3.png
	RoleSheet     = "sheet"     // views.png, 2×2
	RoleMeshOBJ   = "mesh-obj"  // model.obj
	RoleMeshMTL   = "mesh-mtl"  // model.mtl
	RoleTexture   = "texture"   // texture.png
	RoleMeshGLB   = "mesh-glb"  // model.glb
	RoleMeshSTL   = "mesh-stl"  // model.stl
	RoleTurntable = "turntable" // turntable.gif or .webp
	RolePreview   = "preview"   // preview.png: the mesh from the four cameras
)

// ManifestSchema is the number that this program writes into new manifests.
const ManifestSchema = 1

// maxManifest bounds what is read as a manifest, in bytes.
const maxManifest = 1 << 20

// Manifest describes one published result. It is written once per job.
type Manifest struct {
	Schema     int                `json:"schema"`
	Job        string             `json:"job"`
	Attempt    string             `json:"attempt"` // lease id of the attempt whose files count
	Parent     string             `json:"parent,omitempty"`
	Kind       string             `json:"kind"`
	Quality    string             `json:"quality,omitempty"`
	Class      string             `json:"class,omitempty"` // decides how long the result is kept
	Prompt     string             `json:"prompt"`
	Negative   string             `json:"negative,omitempty"`
	Seed       int64              `json:"seed"`
	Model      ModelRef           `json:"model"`
	Settings   json.RawMessage    `json:"settings,omitempty"`
	Device     string             `json:"device,omitempty"`
	Version    string             `json:"version,omitempty"`
	Published  time.Time          `json:"published"`
	Timings    map[string]float64 `json:"timings,omitempty"`     // seconds by stage
	PeakMemory int64              `json:"peak_memory,omitempty"` // bytes
	Cameras    []Camera           `json:"cameras,omitempty"`     // one a view
	Notices    []string           `json:"notices,omitempty"`     // sentences for the requester
	Files      []File             `json:"files"`
}

// ModelRef names the model that made a result.
type ModelRef struct {
	Name   string `json:"name"`
	Digest string `json:"digest,omitempty"`
}

// Camera is where a view was seen from. Angles in degrees; azimuth 0 looks at the
// front and grows counter-clockwise seen from above; distance in units of the mesh.
type Camera struct {
	Azimuth   float64 `json:"azimuth"`
	Elevation float64 `json:"elevation"`
	FOV       float64 `json:"fov"`
	Distance  float64 `json:"distance"`
}

// File is one file of a result.
type File struct {
	Role      string `json:"role"`
	Name      string `json:"name"`
	MediaType string `json:"media_type"`
	Bytes     int64  `json:"bytes"`
	SHA256    string `json:"sha256"` // hex
}

// DescribeFile makes the record of a file on the local disk.
func DescribeFile(role, name, path string) (File, error) {
	f, err := os.Open(path)
	if err != nil {
		return File{}, fmt.Errorf("describing result file %q: %w", name, err)
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return File{}, fmt.Errorf("describing result file %q: %w", name, err)
	}
	return File{Role: role, Name: name, MediaType: MediaType(name), Bytes: n, SHA256: hex.EncodeToString(h.Sum(nil))}, nil
}

// Find returns the file of that name.
func (m *Manifest) Find(name string) (File, bool) {
	for _, f := range m.Files {
		if f.Name == name {
			return f, true
		}
	}
	return File{}, false
}

// FileKey is where a file of this result is stored.
func (m *Manifest) FileKey(name string) string { return FileKey(m.Job, m.Attempt, name) }

// Validate checks what readers rely on.
func (m *Manifest) Validate() error {
	if m.Schema < 1 || m.Schema > ManifestSchema {
		return fmt.Errorf("manifest of job %q has schema %d, this program knows 1 to %d", m.Job, m.Schema, ManifestSchema)
	}
	if !ValidName(m.Job) || !ValidName(m.Attempt) {
		return fmt.Errorf("manifest names job %q, attempt %q", m.Job, m.Attempt)
	}
	seen := map[string]bool{}
	for _, f := range m.Files {
		if !ValidName(f.Name) || seen[f.Name] || f.Bytes < 0 || len(f.SHA256) != 2*sha256.Size {
			return fmt.Errorf("manifest of job %q has a bad record for file %q", m.Job, f.Name)
		}
		seen[f.Name] = true
	}
	return nil
}

// ReadManifest returns the manifest of a job, or ErrNotFound.
func ReadManifest(ctx context.Context, s Store, job string) (*Manifest, error) {
	if !ValidName(job) {
		return nil, &Error{Op: "read manifest", Key: job, Kind: ErrInvalidKey}
	}
	data, err := ReadAll(ctx, s, ResultKey(job), maxManifest)
	if err != nil {
		return nil, err
	}
	m := &Manifest{}
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("reading manifest of job %q: %w", job, err)
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	if m.Job != job {
		return nil, fmt.Errorf("manifest under job %q names job %q", job, m.Job)
	}
	return m, nil
}

// Publish makes m the result of its job unless the job has one, and returns the
// manifest that counts: m, or that of another attempt. Every file of m must be
// stored already. A lost answer is no problem: the call may be repeated, and finds
// its own manifest.
func Publish(ctx context.Context, s Store, m *Manifest) (*Manifest, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("publishing job %q: %w", m.Job, err)
	}
	if len(data) > maxManifest {
		return nil, fmt.Errorf("publishing job %q: manifest of %d bytes", m.Job, len(data))
	}
	err = s.Create(ctx, ResultKey(m.Job), append(data, '\n'))
	if err == nil {
		return m, nil
	}
	// Even an error that is not ErrExists may stand for a write that took effect.
	won, readErr := ReadManifest(ctx, s, m.Job)
	switch {
	case readErr == nil:
		return won, nil
	case errors.Is(err, ErrExists):
		return nil, readErr
	}
	return nil, fmt.Errorf("publishing job %q: %w", m.Job, err)
}

// Unpublish revokes every link to a job's files, now and later. The files stay
// until they expire.
func Unpublish(ctx context.Context, s Store, job string) error {
	if !ValidName(job) {
		return &Error{Op: "unpublish", Key: job, Kind: ErrInvalidKey}
	}
	err := s.Create(ctx, revokedKey(job), []byte("revoked\n"))
	if errors.Is(err, ErrExists) {
		return nil
	}
	return err
}

// Republish lets the links of a job work again.
func Republish(ctx context.Context, s Store, job string) error {
	if !ValidName(job) {
		return &Error{Op: "republish", Key: job, Kind: ErrInvalidKey}
	}
	return s.Delete(ctx, revokedKey(job))
}

// Revoked tells whether the job was unpublished.
func Revoked(ctx context.Context, s Store, job string) (bool, error) {
	_, err := s.Stat(ctx, revokedKey(job))
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// FindUnpublished returns the key of the newest file of that name among the
// attempts of a job that has no manifest yet, or ErrNotFound.
func FindUnpublished(ctx context.Context, s Store, job, name string) (string, error) {
	if !ValidName(job) || !ValidName(name) {
		return "", &Error{Op: "find", Key: job + "/" + name, Kind: ErrInvalidKey}
	}
	var best Info
	for info, err := range s.List(ctx, JobPrefix(job)) {
		if err != nil {
			return "", err
		}
		_, folder, file, ok := splitJobKey(info.Key)
		if ok && folder != "" && folder != ckptFolder && file == name && (best.Key == "" || info.Modified.After(best.Modified)) {
			best = info
		}
	}
	if best.Key == "" {
		return "", &Error{Op: "find", Key: JobPrefix(job) + name, Kind: ErrNotFound}
	}
	return best.Key, nil
}
