package bots

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"dreamcad/bots/parse"
	"dreamcad/queue"
)

// Results gives access to what jobs published, for previews and links.
type Results struct {
	// Link returns an address for a file of a finished job that works until
	// the given time; "" when there is none to give.
	Link func(ctx context.Context, job string, f queue.File) (url string, until time.Time)
	// Page returns the address of the job's page in the console, or "".
	Page func(job string) string
	// Read returns the bytes of a file of the attempt (≤ limit bytes).
	Read func(ctx context.Context, job, lease, name string, limit int64) ([]byte, error)
}

// Renderer words what happens to a job.
type Renderer struct {
	Results Results
	// Next is Service.Next: what Refine would make.
	Next func(queue.Kind, queue.Quality) (queue.Kind, queue.Quality, bool)
	// MaxFile is the largest file to attach, in bytes; 0 is 8 MB, under
	// the 10 MiB of an unboosted Discord server.
	MaxFile int64
}

// LocaleOf is the locale in which a job was asked for.
func LocaleOf(o queue.Origin) Lang { return Language(o.Extra["locale"]) }

// progress words how far a job is. A share is shown as step of steps, as
// measured; nothing is made into a percentage.
func (l Lang) progress(stage queue.Stage, step, total int) string {
	text := l.Say("stage." + string(stage))
	if total > 0 {
		return l.Say("progress.step", text, step, total)
	}
	return text
}

// Status is the message that follows a job while it waits and runs.
func (r *Renderer) Status(j *queue.Job, e *queue.Event) Message {
	l := LocaleOf(j.Origin)
	state := l.Say("status." + string(j.Status))
	if e != nil && e.Stage != "" {
		state = l.progress(e.Stage, e.Step, e.Total)
		if e.Remaining > 0 {
			ready := e.At.Add(time.Duration(e.Remaining * float64(time.Second)))
			state = l.Say("progress.ready", state, When(ready))
		}
	}
	m := Message{Text: l.Say("progress", settingsLine(l, &j.Request), parse.Short(j.ID), state)}
	if !j.Status.Terminal() {
		m.Buttons = []Button{cancelButton(l, j.ID)}
	}
	return m
}

// Views is Status with the grid of the four views.
func (r *Renderer) Views(j *queue.Job, e *queue.Event) Message {
	m := r.Status(j, e)
	m.Files = r.pictures(j, e.LeaseID, e.Files, "sheet")
	return m
}

// Over is what the status message becomes at the end: no Cancel button any more.
func (r *Renderer) Over(j *queue.Job, k queue.EventKind) Message {
	l := LocaleOf(j.Origin)
	line, short := settingsLine(l, &j.Request), parse.Short(j.ID)
	switch k {
	case queue.EventDone:
		return Message{Text: l.Say("done.status", line, short), Tone: Good}
	case queue.EventCancelled:
		return Message{Text: l.Say("cancelled.now", line, short)}
	}
	return Message{Text: l.Say("failed.status", line, short), Tone: Bad}
}

// Outcome is the new message at the end of a job, which notifies the requester
// and nobody else.
func (r *Renderer) Outcome(ctx context.Context, j *queue.Job, e *queue.Event) Message {
	l := LocaleOf(j.Origin)
	short, prompt := parse.Short(j.ID), User(j.Prompt)
	who := Person(j.Requester.ID)
	retry := Button{ID: ButtonID(parse.Retry, j.ID), Label: l.Say("button.retry")}
	m := Message{Mention: j.Requester.ID}
	switch e.Kind {
	case queue.EventCancelled:
		m.Text = l.Say("cancelled", who, short, prompt)
		m.Buttons = []Button{retry}
		return m
	case queue.EventFailed:
		reason := l.Say("failed.reason")
		if e.Message != "" {
			reason = User(e.Message)
		}
		m.Text, m.Tone = l.Say("failed", who, short, prompt, reason), Bad
		m.Buttons = []Button{retry}
		return m
	}
	m.Text, m.Tone = l.Say("done", who, short, prompt), Good
	files, lease := e.Files, e.LeaseID
	if j.Result != nil {
		files, lease = j.Result.Files, j.Result.Winner
	}
	m.Files = r.pictures(j, lease, files, "sheet", "turntable")
	r.describe(l, &m, j, e.At, files)
	for _, f := range r.links(ctx, l, &m, j, files) {
		r.enclose(l, &m, j, lease, f)
	}
	if e.Message != "" {
		m.Text += "\n" + User(e.Message)
	}
	for _, n := range e.Notices {
		m.Text += "\n" + User(n)
	}
	r.offers(l, &m, j)
	return m
}

// offers adds what can be done with a finished job.
func (r *Renderer) offers(l Lang, m *Message, j *queue.Job) {
	m.Buttons = append(m.Buttons, Button{ID: ButtonID(parse.Vary, j.ID), Label: l.Say("button.vary"), Style: Primary})
	if kind, _, ok := r.next(j); ok {
		label := "button.refine"
		if kind != j.Kind {
			label = "button.mesh"
		}
		m.Buttons = append(m.Buttons, Button{ID: ButtonID(parse.Refine, j.ID), Label: l.Say(label)})
	}
	m.Buttons = append(m.Buttons, Button{ID: ButtonID(parse.Retry, j.ID), Label: l.Say("button.retry")},
		Button{ID: ButtonID(parse.Delete, j.ID), Label: l.Say("button.delete"), Style: Danger, Confirm: l.Say("confirm.delete")})
}

// Again adds to a message about a job that is over what its outcome told:
// figures, links and buttons, without pictures.
func (r *Renderer) Again(ctx context.Context, l Lang, m *Message, j *queue.Job) {
	if j.Status != queue.Done || j.Result == nil {
		m.Buttons = append(m.Buttons, Button{ID: ButtonID(parse.Retry, j.ID), Label: l.Say("button.retry")})
		return
	}
	r.describe(l, m, j, j.Ended, j.Result.Files)
	r.links(ctx, l, m, j, j.Result.Files)
	r.offers(l, m, j)
}

func (r *Renderer) next(j *queue.Job) (queue.Kind, queue.Quality, bool) {
	if r.Next == nil {
		return "", "", false
	}
	return r.Next(j.Kind, j.Quality)
}

// describe adds seed, model, time and sizes.
func (r *Renderer) describe(l Lang, m *Message, j *queue.Job, ended time.Time, files []queue.File) {
	if j.Seed != nil {
		m.Fields = append(m.Fields, Field{l.Say("done.seed"), strconv.FormatInt(*j.Seed, 10)})
	}
	model := j.Model
	if j.Result != nil && j.Result.Model != "" {
		model = j.Result.Model
	}
	if model != "" {
		m.Fields = append(m.Fields, Field{l.Say("done.model"), User(model)})
	}
	if !j.Started.IsZero() && ended.After(j.Started) {
		m.Fields = append(m.Fields, Field{l.Say("done.time"), l.duration(ended.Sub(j.Started))})
	}
	var sizes []string
	for _, f := range files {
		if slices.Contains([]string{"mesh-glb", "mesh-obj", "mesh-stl"}, f.Role) {
			sizes = append(sizes, f.Name+" "+size(f.Bytes))
		}
	}
	if sizes != nil {
		m.Fields = append(m.Fields, Field{l.Say("done.sizes"), strings.Join(sizes, ", ")})
	}
}

// links adds buttons that lead to the meshes (or the sheet) and the job's
// page. It returns the files for which there is no address.
func (r *Renderer) links(ctx context.Context, l Lang, m *Message, j *queue.Job, files []queue.File) (without []queue.File) {
	labels := map[string]string{"mesh-glb": "GLB", "mesh-obj": "OBJ", "mesh-stl": "STL"}
	if j.Kind == queue.Views {
		labels = map[string]string{"sheet": "PNG"}
	}
	var until time.Time
	for _, f := range files {
		label, ok := labels[f.Role]
		if !ok || r.Results.Link == nil {
			continue
		}
		if url, end := r.Results.Link(ctx, j.ID, f); url != "" {
			m.Buttons = append(m.Buttons, Button{URL: url, Label: label})
			until = end
		} else {
			without = append(without, f)
		}
	}
	if r.Results.Page != nil {
		if url := r.Results.Page(j.ID); url != "" {
			m.Buttons = append(m.Buttons, Button{URL: url, Label: l.Say("done.page")})
		}
	}
	if !until.IsZero() {
		m.Text += "\n" + l.Say("done.until", When(until))
	}
	return without
}

func (r *Renderer) maxFile() int64 {
	if r.MaxFile == 0 {
		return 8 << 20
	}
	return r.MaxFile
}

// enclose adds to the message itself a file that has no address, if it is
// small enough; otherwise the message says where it is. Pictures are shown anyway.
func (r *Renderer) enclose(l Lang, m *Message, j *queue.Job, lease string, f queue.File) {
	switch limit := r.maxFile(); {
	case slices.ContainsFunc(m.Files, func(have File) bool { return have.Name == f.Name }):
	case f.Bytes > limit || r.Results.Read == nil:
		m.Text += "\n" + l.Say("done.large", f.Name, size(f.Bytes), parse.Short(j.ID))
	default:
		m.Files = append(m.Files, File{Name: f.Name, MediaType: f.MediaType, Bytes: f.Bytes,
			Read: func(ctx context.Context) ([]byte, error) { return r.Results.Read(ctx, j.ID, lease, f.Name, limit) }})
	}
}

// pictures are the files of those roles that chat can show, small enough.
func (r *Renderer) pictures(j *queue.Job, lease string, files []queue.File, roles ...string) []File {
	limit := r.maxFile()
	l := LocaleOf(j.Origin)
	var out []File
	for _, role := range roles {
		for _, f := range files {
			if f.Role != role || f.Bytes > limit || r.Results.Read == nil || !pictureTypes[f.MediaType] {
				continue
			}
			alt := l.Say("views.alt", parse.Clean(j.Prompt))
			if role == "turntable" {
				alt = l.Say("turntable.alt", parse.Clean(j.Prompt))
			}
			out = append(out, File{Name: f.Name, MediaType: f.MediaType, Bytes: f.Bytes, Alt: alt, Spoiler: j.Origin.Extra[adultMark] != "",
				Read: func(ctx context.Context) ([]byte, error) { return r.Results.Read(ctx, j.ID, lease, f.Name, limit) }})
			break
		}
	}
	return out
}

// Batch is the message at the end of a prompt file.
func (r *Renderer) Batch(b *queue.Batch) Message {
	l := LocaleOf(b.Origin)
	return Message{
		Text:    l.Say("batch", Person(b.Owner.ID), User(b.Name), b.Done, b.Failed, b.Cancelled),
		Mention: b.Owner.ID, Tone: Good,
	}
}

// Alert is the message of the ops channel about an alert. It notifies nobody.
func (r *Renderer) Alert(a *queue.Alert, decided string) Message {
	l := Lang("en") // operators read logs in English too
	if a.State == queue.Resolved {
		return Message{Text: l.Say("alert.resolved", l.Say("severity."+string(a.Severity))+" · "+User(a.Code), User(a.Text)), Tone: Good}
	}
	m := Message{
		Text: l.Say("alert.firing", l.Say("severity."+string(a.Severity)), User(a.Code), User(a.Text)) +
			"\n" + l.Say("alert.since", When(a.Since), User(a.Source)),
		Tone: map[queue.Severity]Tone{queue.Critical: Bad, queue.Warning: Warn}[a.Severity],
		Buttons: []Button{
			{ID: ButtonID(parse.Ack, a.Code+":"+a.Key), Label: l.Say("button.ack")},
			{ID: ButtonID(parse.Silence, a.Code+":"+a.Key), Label: l.Say("button.silence")},
		},
	}
	if decided != "" {
		m.Text += "\n" + decided
	}
	return m
}
