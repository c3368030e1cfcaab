package web

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"

	"dreamcad/queue"
)

//go:embed templates/*.html
var templateFiles embed.FS

var templates = template.Must(template.ParseFS(templateFiles, "templates/*.html"))

func (s *Server) consolePage(w http.ResponseWriter, r *http.Request) {
	s.render(w, http.StatusOK, "console.html", struct{ Built, Monitor bool }{s.deps.Built, s.deps.Monitor != nil})
}

func (s *Server) jobPage(w http.ResponseWriter, r *http.Request) {
	v, err := s.find(r)
	if err != nil {
		status := http.StatusNotFound
		if queue.CodeOf(err) == queue.CodeUnavailable {
			status = http.StatusServiceUnavailable
		}
		s.render(w, status, "error.html", queue.SentenceOf(err))
		return
	}
	s.render(w, http.StatusOK, "job.html", struct {
		Built bool
		Job   jobView
	}{s.deps.Built, v})
}

// render writes a whole page or, if the template fails, an error and no half page.
func (s *Server) render(w http.ResponseWriter, status int, name string, data any) {
	var page bytes.Buffer
	if err := templates.ExecuteTemplate(&page, name, data); err != nil {
		s.deps.Log.Error("render page", "page", name, "err", err)
		http.Error(w, "this page could not be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = page.WriteTo(w)
}
