package discord

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"dreamcad/bots/discord/discordtest"
	"dreamcad/queue"
	"dreamcad/storage"
)

// answerTo waits for the answer to an interaction.
func (w *world) answerTo(in *discordtest.Interaction) discordtest.Message {
	w.T.Helper()
	_, _, m := w.server.WaitAnswer(in, patience)
	if m == nil {
		w.T.Fatalf("no answer; log:\n%s", w.Log)
	}
	return *m
}

// finished makes a job of a person and returns its result message.
func (w *world) finished(user, prompt string) (string, discordtest.Message) {
	w.T.Helper()
	job, _ := w.dream(user, prompt)
	w.Complete(w.Lease())
	var out []discordtest.Message
	if !w.server.Wait(patience, func() bool {
		out = outcomes(w.server.Messages(w.Channel), "v1:vary:"+job)
		for _, m := range w.server.Messages(w.Channel) {
			if !m.Deleted && strings.Contains(string(m.Components), "v1:vary:"+job) {
				out = append(out, m)
			}
		}
		return len(out) > 0
	}) {
		w.T.Fatalf("no result; log:\n%s", w.Log)
	}
	return job, out[0]
}

// The buttons of a result: anybody varies, refines to the next quality and
// retries with their own quota; only the owner deletes.
func TestResultButtons(t *testing.T) {
	w := newWorld(t)
	w.start()
	job, result := w.finished("42", "a mug")
	first, err := w.Q.Job(w.Ctx, job)
	if err != nil {
		t.Fatal(err)
	}
	for verb, check := range map[string]func(queue.Job) bool{
		"vary":   func(j queue.Job) bool { return *j.Seed != *first.Seed && j.Quality == first.Quality },
		"retry":  func(j queue.Job) bool { return *j.Seed == *first.Seed && j.Quality == first.Quality },
		"refine": func(j queue.Job) bool { return *j.Seed == *first.Seed && j.Quality == queue.Standard },
	} {
		user := "7" + verb
		if m := w.answerTo(w.server.Click(w.person(user), result, "v1:"+verb+":"+job)); m.Ephemeral || !strings.Contains(m.Content, "Queued") {
			t.Errorf("%s: %+v", verb, m)
			continue
		}
		if j := w.Newest(user); j.Parent != job || j.Prompt != "a mug" || !check(j) {
			t.Errorf("%s made %+v", verb, j.Request)
		}
	}
	if m := w.answerTo(w.server.Click(w.person("7"), result, "v1:delete:"+job)); !strings.Contains(m.Content, "Only the person") {
		t.Errorf("a stranger deletes: %q", m.Content)
	}
	if gone, _ := storage.Revoked(w.Ctx, w.Store, job); gone {
		t.Error("a stranger's click revoked the links")
	}
	if m := w.answerTo(w.server.Click(w.person("42"), result, "v1:delete:"+job)); !m.Ephemeral || !strings.Contains(m.Content, "are deleted") {
		t.Errorf("the owner deletes: %+v", m)
	}
	if gone, err := storage.Revoked(w.Ctx, w.Store, job); !gone || err != nil {
		t.Errorf("the links still work: %v", err)
	}
}

// /history is paged and has a menu that leads to each result again.
func TestHistory(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.server.SetLimit("POST channels messages", discordtest.Limit{Requests: 1000, Window: patience})
	job, _ := w.finished("42", "a mug")
	for i := range 9 {
		w.finished("42", fmt.Sprintf("mug %d", i))
	}
	m := w.answerTo(w.server.Command(w.person("42"), "history", nil))
	if !m.Ephemeral || !strings.Contains(string(m.Components), "v1:history:2") || strings.Count(string(m.Components), "v1:show:") != 8 {
		t.Fatalf("history: %q %s", m.Content, m.Components)
	}
	next := w.answerTo(w.server.Click(w.person("42"), m, "v1:history:2"))
	if strings.Count(string(next.Components), "v1:show:") != 2 || !strings.Contains(string(next.Components), job) {
		t.Errorf("page 2: %q %s", next.Content, next.Components)
	}
	shown := w.answerTo(w.server.Pick(w.person("42"), next, "v1:menu", "v1:show:"+job))
	if !shown.Ephemeral || !strings.Contains(string(shown.Components), "/r/"+job+"/model.glb") || !strings.Contains(string(shown.Components), "v1:vary:"+job) {
		t.Errorf("shown: %q %s", shown.Content, shown.Components)
	}
	if shown = w.answerTo(w.server.Pick(w.person("7"), next, "v1:menu", "v1:show:"+job)); strings.Contains(string(shown.Components), "/r/") {
		t.Errorf("a stranger gets links: %s", shown.Components)
	}
}

// /admin does what it says for those on the service's list, and nothing for
// anybody else, whatever Discord lets them see.
func TestAdminCommands(t *testing.T) {
	w := newWorld(t)
	w.start()
	job, _ := w.dream("42", "a mug")
	commands := []struct {
		name  string
		args  map[string]any
		check func() bool
	}{
		{"pause", nil, func() bool { st, _ := w.Q.Stats(w.Ctx); return len(st.Switches) == 1 }},
		{"resume", nil, func() bool { st, _ := w.Q.Stats(w.Ctx); return len(st.Switches) == 0 }},
		{"drain", nil, func() bool { return true }},
		{"status", nil, func() bool { return true }},
		{"cancel", map[string]any{"job": job}, func() bool { j, _ := w.Q.Job(w.Ctx, job); return j.Status == queue.Cancelled }},
		{"quota", map[string]any{"user": "42", "limit": 1}, func() bool { return true }},
		{"block", map[string]any{"user": "42"}, func() bool {
			m := w.answerTo(w.server.Command(w.person("42"), "dream", map[string]any{"prompt": "a cup"}))
			return m.Ephemeral && strings.Contains(m.Content, "cannot use this service")
		}},
		{"unblock", map[string]any{"user": "42"}, func() bool {
			m := w.answerTo(w.server.Command(w.person("42"), "dream", map[string]any{"prompt": "a cup"}))
			over := w.answerTo(w.server.Command(w.person("42"), "dream", map[string]any{"prompt": "a jug"}))
			return strings.Contains(m.Content, "Queued") && strings.Contains(over.Content, "1 job of today is used up")
		}},
	}
	for _, c := range commands {
		options := map[string]any{c.name + ".": ""}
		for k, v := range c.args {
			options[c.name+"."+k] = v
		}
		if m := w.answerTo(w.server.Command(w.person("42"), "admin", options)); !m.Ephemeral || !strings.Contains(m.Content, "Only an administrator") {
			t.Errorf("anybody may %s: %+v", c.name, m)
		}
		if m := w.answerTo(w.server.Command(w.person("9"), "admin", options)); !m.Ephemeral || m.Content == "" || !c.check() {
			t.Errorf("/admin %s: %q", c.name, m.Content)
		}
	}
}

// /quota, /privacy, /forget-me and /ingest: what they answer and to whom.
func TestOwnData(t *testing.T) {
	w := newWorld(t)
	w.start()
	job, _ := w.finished("42", "a mug")
	for name, want := range map[string]string{"quota": "no daily limit", "privacy": "/forget-me", "queue": "waiting", "help": "/jobs list"} {
		if m := w.answerTo(w.server.Command(w.person("42"), name, nil)); !m.Ephemeral || !strings.Contains(m.Content, want) {
			t.Errorf("/%s: %+v", name, m)
		}
	}
	ask := w.answerTo(w.server.Command(w.person("42"), "forget-me", nil))
	if !strings.Contains(string(ask.Components), "v1:forget-me:yes") {
		t.Fatalf("forget-me: %s", ask.Components)
	}
	if m := w.answerTo(w.server.Click(w.person("42"), ask, "v1:forget-me:yes")); !m.Ephemeral || !strings.Contains(m.Content, "Deleted: 1 job ") {
		t.Errorf("forget-me: %+v", m)
	}
	if _, err := w.Q.Job(w.Ctx, job); queue.CodeOf(err) != queue.CodeNotFound {
		t.Errorf("the job is still there: %v", err)
	}
	file := discordtest.Upload{Name: "p.txt", Data: []byte("a\nb\n")}
	if m := w.answerTo(w.server.Command(w.person("42"), "ingest", map[string]any{"file": file})); !strings.Contains(m.Content, "only by those") {
		t.Errorf("anybody may ingest: %q", m.Content)
	}
	// Answers come in the language of the person's client.
	german := w.person("42")
	german.Locale = "de"
	if m := w.answerTo(w.server.Command(german, "history", nil)); !strings.Contains(m.Content, "keine beendeten") {
		t.Errorf("in German: %q", m.Content)
	}
}

// Completion offers a person's own jobs and no others, by id and by prompt.
func TestCompletionOfOwnJobs(t *testing.T) {
	w := newWorld(t)
	w.start()
	mug, _ := w.dream("42", "a mug")
	cup, _ := w.dream("42", "a cup")
	other, _ := w.dream("7", "a mug of mine")
	for typed, want := range map[string][]string{"": {mug, cup}, "mug": {mug}, "CUP": {cup}, "zzz": nil} {
		in := w.server.Autocomplete(w.person("42"), "jobs", map[string]any{"show.job": typed}, "show.job")
		_, data, _ := w.server.WaitAnswer(in, patience)
		for _, id := range want {
			if !bytes.Contains(data, []byte(id)) {
				t.Errorf("%q lacks %s: %s", typed, id, data)
			}
		}
		if n := bytes.Count(data, []byte(`"value"`)); n != len(want) || bytes.Contains(data, []byte(other)) {
			t.Errorf("%q: %s", typed, data)
		}
	}
}
