package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"dreamcad/bots"
	"dreamcad/bots/parse"
	"dreamcad/queue"
)

// maxCommand bounds the body of a command, in bytes: far above any valid line.
const maxCommand = 64 << 10

// fileView is a file as the API shows it: the manifest's record and a link.
type fileView struct {
	Role      string `json:"role"`
	Name      string `json:"name"`
	MediaType string `json:"media_type"`
	Bytes     int64  `json:"bytes"`
	URL       string `json:"url"`
}

// jobView is a job as the API shows it; ui/src/api.ts holds the other half.
type jobView struct {
	ID        string       `json:"id"`
	Short     string       `json:"short"`
	Prompt    string       `json:"prompt"`
	Kind      queue.Kind   `json:"kind"`
	State     queue.Status `json:"state"`
	Created   time.Time    `json:"created"`
	Stage     queue.Stage  `json:"stage,omitempty"`
	Step      int          `json:"step,omitempty"`
	Total     int          `json:"total,omitempty"`
	Position  int          `json:"position,omitempty"`
	ETA       string       `json:"eta,omitempty"`
	Error     string       `json:"error,omitempty"`
	Notices   []string     `json:"notices,omitempty"`
	Files     []fileView   `json:"files,omitempty"`
	Final     bool         `json:"final"`
	CanCancel bool         `json:"can_cancel"`
}

// view describes a job; place may be nil.
func (s *Server) view(j queue.Job, place *queue.Place) jobView {
	v := jobView{
		ID: j.ID, Short: parse.Short(j.ID), Prompt: j.Prompt, Kind: j.Kind, State: j.Status,
		Created: j.Submitted, Final: j.Status.Terminal(), CanCancel: !j.Status.Terminal(),
	}
	if j.Progress != nil && j.Status == queue.Leased {
		v.Stage, v.Step, v.Total = j.Progress.Stage, j.Progress.Step, j.Progress.Total
	}
	if place != nil && j.Status == queue.Queued {
		v.Position = place.Position
		v.ETA = waiting(*place, j.Model)
	}
	if j.Failure != nil && j.Status != queue.Done {
		v.Error = j.Failure.Sentence
	}
	files := j.Views
	if j.Result != nil {
		files, v.Notices = j.Result.Files, j.Result.Notices
	}
	until := time.Now().Add(s.config.LinkLife).Truncate(time.Hour)
	for _, f := range files {
		v.Files = append(v.Files, fileView{f.Role, f.Name, f.MediaType, f.Bytes, s.signer.Path(j.ID, f.Name, until)})
	}
	return v
}

// waiting words the range of the wait; it says nothing that was not measured.
func waiting(p queue.Place, model string) string {
	switch {
	case p.Paused != "":
		return "paused by an operator (" + p.Paused + ")"
	case p.Slots == 0 && model != "":
		return "no running worker has the model " + model
	case p.Slots == 0:
		return "no worker is running yet"
	case !p.Known:
		return ""
	case p.StartHigh < 5*time.Second:
		return "starts within seconds"
	}
	return fmt.Sprintf("starts in %s to %s", about(p.StartLow), about(p.StartHigh))
}

// about rounds a wait to what people say.
func about(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Round(5*time.Second).Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Round(time.Minute).Minutes()))
	}
	return fmt.Sprintf("%d h", int(d.Round(time.Hour).Hours()))
}

// load reads a job with its place in line.
func (s *Server) load(r *http.Request, id string) (jobView, error) {
	j, err := s.deps.Jobs.Job(r.Context(), id)
	if err != nil {
		return jobView{}, err
	}
	var place *queue.Place
	if j.Status == queue.Queued {
		if p, err := s.deps.Jobs.Place(r.Context(), id); err == nil {
			place = &p
		}
	}
	return s.view(j, place), nil
}

// buttonView is a button below an answer; pressing it sends the id back.
type buttonView struct {
	ID      string `json:"id"`
	Label   string `json:"label"`
	Confirm string `json:"confirm,omitempty"`
	Danger  bool   `json:"danger,omitempty"`
}

// command runs a typed line or a pressed button and answers with what the
// service says, the job that it is about, and links in place of attachments.
func (s *Server) command(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Line   string `json:"line"`
		Button string `json:"button"`
		Key    string `json:"key"` // the page's id of this wish: a repeated request makes one job
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCommand))
	if err := decoder.Decode(&body); err != nil || len(body.Key) > 100 {
		refuse(w, http.StatusBadRequest, "The request is not JSON of the form {\"line\": \"/dream …\"}, or it is larger than 64 kB.")
		return
	}
	c := bots.Command{From: Requester(), Origin: queue.Origin{Platform: "web"}}
	if body.Key != "" {
		c.Key = "web/" + body.Key
	}
	var reply bots.Reply
	if body.Button != "" {
		if err := bots.ParseButton(body.Button, &c); err != nil {
			refuse(w, http.StatusBadRequest, "This button is not known here.")
			return
		}
		reply = s.deps.Commands.Execute(r.Context(), c)
	} else {
		reply = s.deps.Commands.Line(r.Context(), body.Line, c)
	}
	status := http.StatusOK
	if reply.Refused {
		status = http.StatusUnprocessableEntity
	}
	answerJSON(w, status, s.reply(r, reply))
}

// replyView is an answer as the API shows it.
type replyView struct {
	Text    string       `json:"text"`
	Error   bool         `json:"error,omitempty"`
	Buttons []buttonView `json:"buttons,omitempty"`
	Job     *jobView     `json:"job,omitempty"`
	Jobs    []jobView    `json:"jobs,omitempty"`
}

func (s *Server) reply(r *http.Request, reply bots.Reply) replyView {
	lines := []string{bots.PlainText.Encode(reply.Text)}
	for _, f := range reply.Fields {
		lines = append(lines, bots.PlainText.Encode(f.Name)+": "+bots.PlainText.Encode(f.Value))
	}
	v := replyView{Text: strings.Join(lines, "\n"), Error: reply.Refused}
	for _, b := range reply.Buttons {
		if b.ID != "" {
			v.Buttons = append(v.Buttons, buttonView{b.ID, b.Label, b.Confirm, b.Style == bots.Danger})
		}
	}
	if reply.Job != "" {
		if job, err := s.load(r, reply.Job); err == nil {
			v.Job = &job
		}
	}
	for _, id := range reply.Jobs {
		if job, err := s.load(r, id); err == nil {
			v.Jobs = append(v.Jobs, job)
		}
	}
	return v
}

func (s *Server) listJobs(w http.ResponseWriter, r *http.Request) {
	jobs, err := s.deps.Jobs.List(r.Context(), queue.Filter{User: Requester().User(), Limit: 60})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	views := make([]jobView, 0, len(jobs))
	for _, j := range jobs {
		views = append(views, s.view(j, nil))
	}
	answerJSON(w, http.StatusOK, views)
}

func (s *Server) getJob(w http.ResponseWriter, r *http.Request) {
	v, err := s.find(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	answerJSON(w, http.StatusOK, v)
}

// find loads the job whose id, or unique ending, is in the path.
func (s *Server) find(r *http.Request) (jobView, error) {
	id, err := s.deps.Jobs.Resolve(r.Context(), r.PathValue("id"))
	if err != nil {
		return jobView{}, err
	}
	return s.load(r, id)
}

// fail answers with the one sentence that people may see and logs the rest.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusInternalServerError
	switch queue.CodeOf(err) {
	case queue.CodeNotFound, queue.CodeAmbiguous, queue.CodeInvalid:
		status = http.StatusNotFound
	case queue.CodeUnavailable:
		status = http.StatusServiceUnavailable
	}
	if status != http.StatusNotFound && !errors.Is(err, r.Context().Err()) {
		s.deps.Log.Error("web request failed", "path", r.URL.Path, "err", err)
	}
	refuse(w, status, queue.SentenceOf(err))
}

func refuse(w http.ResponseWriter, status int, sentence string) {
	answerJSON(w, status, struct {
		Text  string `json:"text"`
		Error bool   `json:"error"`
	}{sentence, true})
}

func answerJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a reader who went away is no error of ours
}
