package slack

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"dreamcad/bots/slack/slacktest"
	"dreamcad/queue"
	"dreamcad/storage"
)

// said is the acknowledgement of a command.
func (w *world) said(user, text string) string {
	w.T.Helper()
	in := w.server.WaitAck(w.server.Command(user, w.Channel, text), patience)
	if in.Acked.IsZero() {
		w.T.Fatalf("%q is not acknowledged; log:\n%s", text, w.Log)
	}
	return string(in.Ack)
}

// told is what a click brought by its response URL.
func (w *world) told(in *slacktest.Interaction) string {
	w.T.Helper()
	if !w.server.Wait(patience, func() bool { return len(w.server.Answered(in).Responses) == 1 }) {
		w.T.Fatalf("a click is not answered; log:\n%s", w.Log)
	}
	return string(w.server.Answered(in).Responses[0])
}

// finished makes a job of a person and returns its result message.
func (w *world) finished(user, prompt string) (string, slacktest.Message) {
	w.T.Helper()
	job, _ := w.dream(user, prompt+" --quality draft")
	w.Complete(w.Lease())
	var out slacktest.Message
	if !w.server.Wait(patience, func() bool {
		list := w.server.Messages(w.Channel)
		i := slices.IndexFunc(list, func(m slacktest.Message) bool { return bytes.Contains(m.Blocks, []byte("v1:vary:"+job)) })
		if i >= 0 {
			out = list[i]
		}
		return i >= 0
	}) {
		w.T.Fatalf("no result; log:\n%s", w.Log)
	}
	return job, out
}

// The buttons of a result: anybody varies, refines to the next quality and
// retries with their own quota; only the owner deletes.
func TestResultButtons(t *testing.T) {
	w := newWorld(t)
	w.server.Unlimited()
	w.start()
	job, result := w.finished("U42", "a mug")
	first, err := w.Q.Job(w.Ctx, job)
	if err != nil {
		t.Fatal(err)
	}
	for verb, check := range map[string]func(queue.Job) bool{
		"vary":   func(j queue.Job) bool { return *j.Seed != *first.Seed && j.Quality == first.Quality },
		"retry":  func(j queue.Job) bool { return *j.Seed == *first.Seed && j.Quality == first.Quality },
		"refine": func(j queue.Job) bool { return *j.Seed == *first.Seed && j.Quality == queue.Standard },
	} {
		user := "U7" + strings.ToUpper(verb)
		if text := w.told(w.server.Click(user, result, "v1:"+verb+":"+job)); !strings.Contains(text, "Queued") {
			t.Errorf("%s: %s", verb, text)
			continue
		}
		if j := w.Newest(user); j.Parent != job || j.Prompt != "a mug" || !check(j) {
			t.Errorf("%s made %+v", verb, j)
		}
	}
	if text := w.told(w.server.Click("U7", result, "v1:delete:"+job)); !strings.Contains(text, "Only the person") {
		t.Errorf("a stranger deletes: %s", text)
	}
	if gone, _ := storage.Revoked(w.Ctx, w.Store, job); gone {
		t.Error("a stranger's click revoked the links")
	}
	if text := w.told(w.server.Click("U42", result, "v1:delete:"+job)); !strings.Contains(text, "are deleted") {
		t.Errorf("the owner deletes: %s", text)
	}
	if gone, err := storage.Revoked(w.Ctx, w.Store, job); !gone || err != nil {
		t.Errorf("the links still work: %v", err)
	}
}

// history is paged and has a menu that leads to each result again.
func TestHistory(t *testing.T) {
	w := newWorld(t)
	w.server.Unlimited()
	w.Render.Results.Read = nil // pictures take a while
	w.start()
	job, result := w.finished("U42", "a mug")
	for i := range 9 {
		w.finished("U42", fmt.Sprintf("mug %d", i))
	}
	first := w.said("U42", "history")
	if !strings.Contains(first, "v1:history:2") || strings.Count(first, "v1:show:") != 8 {
		t.Fatalf("history: %s", first)
	}
	if page := w.told(w.server.Click("U42", result, "v1:history:2")); strings.Count(page, "v1:show:") != 2 || !strings.Contains(page, job) {
		t.Errorf("page 2: %s", page)
	}
	if shown := w.told(w.server.Pick("U42", result, "v1:show:"+job)); !strings.Contains(shown, "/r/"+job+"/model.glb") || !strings.Contains(shown, "v1:vary:"+job) {
		t.Errorf("shown: %s", shown)
	}
	if shown := w.told(w.server.Pick("U7", result, "v1:show:"+job)); strings.Contains(shown, "/r/") {
		t.Errorf("a stranger gets links: %s", shown)
	}
	if shown := w.said("U42", "show "+strings.ToLower(job)); !strings.Contains(shown, "/model.glb") {
		t.Errorf("show: %s", shown)
	}
}

// admin does what it says for those on the service's list, and nothing for
// anybody else.
func TestAdminCommands(t *testing.T) {
	w := newWorld(t)
	w.start()
	job, _ := w.dream("U42", "a mug")
	for _, c := range []struct {
		text  string
		check func() bool
	}{
		{"pause", func() bool { st, _ := w.Q.Stats(w.Ctx); return len(st.Switches) == 1 }},
		{"resume", func() bool { st, _ := w.Q.Stats(w.Ctx); return len(st.Switches) == 0 }},
		{"drain", func() bool { return true }},
		{"status", func() bool { return true }},
		{"cancel " + job, func() bool { j, _ := w.Q.Job(w.Ctx, job); return j.Status == queue.Cancelled }},
		{"quota <@U42|bob> 1", func() bool { return true }},
		{"block <@U42|bob>", func() bool { return strings.Contains(w.said("U42", "a cup"), "cannot use this service") }},
		{"unblock <@U42|bob>", func() bool {
			return strings.Contains(w.said("U42", "a cup"), "Queued") && strings.Contains(w.said("U42", "a jug"), "1 job of today is used up")
		}},
	} {
		if text := w.said("U42", "admin "+c.text); !strings.Contains(text, "Only an administrator") {
			t.Errorf("anybody may %s: %s", c.text, text)
		}
		if text := w.said("U9", "admin "+c.text); !strings.Contains(text, "ephemeral") || !c.check() {
			t.Errorf("admin %s: %s", c.text, text)
		}
	}
}

// quota, privacy, forget-me and ingest: what they answer and to whom.
func TestOwnData(t *testing.T) {
	w := newWorld(t)
	w.start()
	job, result := w.finished("U42", "a mug")
	for text, want := range map[string]string{"quota": "no daily limit", "privacy": "/dream forget-me", "queue": "waiting", "help": "/dream a ceramic coffee mug: make it (options: kind, seed, quality, negative, formats, model, private)\\n• /dream jobs list", "forget-me": "v1:forget-me:yes"} {
		if got := w.said("U42", text); !strings.Contains(got, "ephemeral") || !strings.Contains(got, want) {
			t.Errorf("%s: %s", text, got)
		}
	}
	if text := w.told(w.server.Click("U42", result, "v1:forget-me:yes")); !strings.Contains(text, "Deleted: 1 job ") {
		t.Errorf("forget-me: %s", text)
	}
	if _, err := w.Q.Job(w.Ctx, job); queue.CodeOf(err) != queue.CodeNotFound {
		t.Errorf("the job is still there: %v", err)
	}
	file := w.server.AddFile("p.txt", []byte("a\nb\n"))
	in := w.server.Submit("U42", "ingest", w.Channel, map[string]map[string]any{"file": {"file": map[string]any{"type": "file_input", "files": []any{map[string]any{"id": file}}}}})
	w.server.WaitAck(in, patience)
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.Channel), "only by those")) == 1 }) {
		t.Errorf("anybody may ingest; log:\n%s", w.Log)
	}
	// Answers come in the language of the person's client, once it is known.
	w.server.SetLocale("U50", "de-DE")
	w.said("U50", "help")
	if !w.server.Wait(patience, func() bool { return strings.Contains(w.said("U50", "history"), "keine beendeten") }) {
		t.Error("no German")
	}
}
