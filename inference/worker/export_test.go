package worker

// SetAt lets a test act at the worker's named points: leased, step, checkpoint,
// kept, artifacts, manifest, completed, abandoned.
func SetAt(w *Worker, at func(point string)) { w.at = at }
