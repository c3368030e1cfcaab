package worker

import (
	"path/filepath"
	"time"

	"dreamcad/queue"
	"dreamcad/storage"
)

// newManifest describes a finished job whose files lie in dir. Device, version and
// timings are left to the caller.
func newManifest(job *queue.Job, attempt, dir string, o *Outcome) (*storage.Manifest, error) {
	files, err := describe(dir, o.Products)
	if err != nil {
		return nil, err
	}
	m := &storage.Manifest{
		Schema: storage.ManifestSchema, Job: job.ID, Attempt: attempt, Parent: job.Parent,
		Kind: string(job.Kind), Quality: o.Quality, Class: string(job.Class), Prompt: job.Prompt, Negative: job.Negative,
		Model: o.Model, Settings: o.Settings, Published: time.Now().UTC().Truncate(time.Millisecond),
		PeakMemory: o.PeakMemory, Cameras: o.Cameras, Notices: o.Notices, Files: files,
	}
	if job.Seed != nil {
		m.Seed = *job.Seed
	}
	return m, nil
}

func describe(dir string, products []Product) ([]storage.File, error) {
	var files []storage.File
	for _, p := range products {
		f, err := storage.DescribeFile(p.Role, p.Name, filepath.Join(dir, p.Name))
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}
