package discord

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"dreamcad/bots/chattest"
	"dreamcad/bots/discord/discordtest"
	"dreamcad/queue"
)

func TestJobFromCommandToResult(t *testing.T) {
	w := newWorld(t)
	w.start()
	job, status := w.dream("42", "a *ceramic* coffee mug @everyone")
	if !strings.Contains(status.Content, `a \*ceramic\* coffee mug \@everyone`) || !strings.Contains(string(status.Components), "v1:cancel:"+job) {
		t.Errorf("ack %q with %s", status.Content, status.Components)
	}
	l := w.Lease()
	w.Beat(l, queue.Beat{Progress: &queue.Progress{Stage: queue.StageViews, Step: 7, Total: 30}})
	seen := func(cond func(m discordtest.Message) bool) bool {
		return w.server.Wait(patience, func() bool {
			for _, m := range w.server.Messages(w.Channel) {
				if m.ID == status.ID && cond(m) {
					return true
				}
			}
			return false
		})
	}
	if !seen(func(m discordtest.Message) bool { return strings.Contains(m.Content, "step 7 of 30") }) {
		t.Errorf("no progress; log:\n%s", w.Log)
	}
	w.Beat(l, queue.Beat{Views: chattest.Results[:1], Progress: &queue.Progress{Stage: queue.StageOptimise, Step: 1, Total: 8}})
	if !seen(func(m discordtest.Message) bool { return len(m.Attachments) == 1 && m.Attachments[0].Description != "" }) {
		t.Errorf("no grid of views; log:\n%s", w.Log)
	}
	w.Complete(l)
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.Channel), "is ready")) == 1 }) {
		t.Fatalf("no result; log:\n%s", w.Log)
	}
	m := outcomes(w.server.Messages(w.Channel), "is ready")[0]
	if !slices.Equal(m.Pinged, []string{"42"}) || m.Everyone {
		t.Errorf("the result notified %v, everyone %v", m.Pinged, m.Everyone)
	}
	if len(m.Attachments) != 2 || !strings.Contains(m.Content, "Model: mini") {
		t.Errorf("%d pictures, %q", len(m.Attachments), m.Content)
	}
	for _, want := range []string{"/model.glb?", "/model.obj?", "/jobs/" + job, "v1:vary:" + job, "v1:retry:" + job, "v1:delete:" + job} {
		if !strings.Contains(string(m.Components), want) {
			t.Errorf("the result lacks %q: %s", want, m.Components)
		}
	}
	if !seen(func(m discordtest.Message) bool {
		return strings.HasPrefix(m.Content, "Ready") && !strings.Contains(string(m.Components), "cancel") && len(m.Attachments) == 1
	}) {
		t.Error("the status message still offers to cancel")
	}
	w.pingsNobodyElse()
}

func TestButtons(t *testing.T) {
	w := newWorld(t)
	w.start()
	job, status := w.dream("42", "a mug")
	in := w.server.Click(w.person("7"), status, "v1:cancel:"+job)
	if _, _, m := w.server.WaitAnswer(in, patience); m == nil || !m.Ephemeral || !strings.Contains(m.Content, "Only the person") {
		t.Errorf("a stranger's click: %+v", m)
	}
	in = w.server.Click(w.person("42"), status, "v1:cancel:"+job)
	if _, _, m := w.server.WaitAnswer(in, patience); m == nil || !strings.Contains(m.Content, "is cancelled") {
		t.Errorf("the owner's click: %+v", m)
	}
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.Channel), "was cancelled")) == 1 }) {
		t.Errorf("no outcome; log:\n%s", w.Log)
	}
	in = w.server.Click(w.person("7"), status, "v1:retry:"+job)
	if _, _, m := w.server.WaitAnswer(in, patience); m == nil || m.Ephemeral || !strings.Contains(m.Content, "Queued") {
		t.Errorf("retry: %+v", m)
	}
	for _, bad := range []string{"v1:admin:pause", "nonsense", "v1:cancel:NOSUCHJOB1"} {
		in = w.server.Click(w.person("42"), status, bad)
		if _, _, m := w.server.WaitAnswer(in, patience); m == nil || !m.Ephemeral {
			t.Errorf("button %q: %+v", bad, m)
		}
	}
}

func TestCommandsAndCompletion(t *testing.T) {
	w := newWorld(t)
	w.start()
	if n := len(w.server.Commands()); n != len(w.bot.commands()) {
		t.Fatalf("%d commands registered", n)
	}
	job, _ := w.dream("42", "a mug")
	w.dream("7", "a cup")
	in := w.server.Autocomplete(w.person("42"), "jobs", map[string]any{"cancel.job": ""}, "cancel.job")
	_, data, _ := w.server.WaitAnswer(in, patience)
	if !bytes.Contains(data, []byte(job)) || bytes.Count(data, []byte(`"value"`)) != 1 {
		t.Errorf("completion: %s", data)
	}
	for name, options := range map[string]map[string]any{
		"help": nil, "queue": nil, "quota": nil, "privacy": nil, "forget-me": nil,
		"history": {"page": 1}, "jobs": {"show.job": job}, "admin": {"status.": ""},
	} {
		in := w.server.Command(w.person("42"), name, options)
		if _, _, m := w.server.WaitAnswer(in, patience); m == nil || !m.Ephemeral || m.Content == "" {
			t.Errorf("/%s: %+v", name, m)
		}
	}
	in = w.server.Command(w.person("42"), "dream", nil)
	kind, data, _ := w.server.WaitAnswer(in, patience)
	if kind != 9 || !bytes.Contains(data, []byte(`"prompt"`)) {
		t.Errorf("/dream without a prompt: %d %s", kind, data)
	}
	in = w.server.Submit(w.person("42"), "v1:modal:views::true:5", map[string]string{"prompt": "a vase\nwith flowers", "negative": ""})
	if _, _, m := w.server.WaitAnswer(in, patience); m == nil || !m.Ephemeral || !strings.Contains(m.Content, "seed 5") || !strings.Contains(m.Content, "a vase with flowers") {
		t.Errorf("form: %+v", m)
	}
	in = w.server.Command(w.person("9"), "ingest", map[string]any{"file": discordtest.Upload{Name: "p.txt", Data: []byte("a\nb\n")}})
	if _, _, m := w.server.WaitAnswer(in, patience); m == nil || !strings.Contains(m.Content, "2 lines") {
		t.Errorf("ingest: %+v", m)
	}
}

// Commands are written once, however often a bot starts with the same definition.
func TestRegisterOnlyOnChange(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		w.bot = w.newBot()
		w.start()()
	}
	if n := len(w.server.Requests("PUT", "/applications")); n != 1 {
		t.Errorf("the commands were written %d times", n)
	}
}
