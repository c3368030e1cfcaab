package slack

import (
	"bytes"
	"slices"
	"testing"

	"dreamcad/bots/chattest"
	"dreamcad/bots/slack/slacktest"
	"dreamcad/queue"
)

func TestJobFromCommandToResult(t *testing.T) {
	w := newWorld(t)
	w.start()
	job, status := w.dream("U42", "a *ceramic* coffee mug &lt;!channel&gt; --seed 7")
	if !bytes.Contains(status.Blocks, []byte("v1:cancel:"+job)) || status.Everyone {
		t.Errorf("public message %s", status.Blocks)
	}
	l := w.Lease()
	w.Beat(l, queue.Beat{Progress: &queue.Progress{Stage: queue.StageViews, Step: 7, Total: 30}})
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.Channel), "step 7 of 30")) == 1 }) {
		t.Errorf("no progress; log:\n%s", w.Log)
	}
	w.Beat(l, queue.Beat{Views: chattest.Results[:1], Progress: &queue.Progress{Stage: queue.StageOptimise, Step: 1, Total: 8}})
	if !w.server.Wait(patience, func() bool {
		return slices.ContainsFunc(w.server.Messages(w.Channel), func(m slacktest.Message) bool {
			return m.Thread == status.TS && bytes.Contains(m.Blocks, []byte("slack_file"))
		})
	}) {
		t.Errorf("no grid of views; log:\n%s", w.Log)
	}
	w.Complete(l)
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.Channel), "is ready")) == 1 }) {
		t.Fatalf("no result; log:\n%s", w.Log)
	}
	m := outcomes(w.server.Messages(w.Channel), "is ready")[0]
	if m.Thread != status.TS || !slices.Equal(m.Pinged, []string{"U42"}) || m.Everyone || m.Unfurl {
		t.Errorf("result in thread %q, notified %v, everyone %v, unfurled %v", m.Thread, m.Pinged, m.Everyone, m.Unfurl)
	}
	for _, want := range []string{"Model: ", `"text":"mini"`, "/model.glb", "/jobs/" + job, "v1:vary:" + job, "v1:delete:" + job, `"confirm"`} {
		if !bytes.Contains(m.Blocks, []byte(want)) {
			t.Errorf("the result lacks %q: %s", want, m.Blocks)
		}
	}
	if bytes.Count(m.Blocks, []byte("slack_file")) != 2 {
		t.Errorf("pictures: %s", m.Blocks)
	}
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.Channel), "Ready:")) == 1 }) {
		t.Error("the status message still offers to cancel")
	}
}

func TestSubwordsButtonsForms(t *testing.T) {
	w := newWorld(t)
	w.start()
	for _, text := range []string{"help", "queue", "quota", "history", "jobs", "privacy", "forget-me", "--sed 3 mug", "admin pause"} {
		in := w.server.WaitAck(w.server.Command("U42", w.Channel, text), patience)
		if !bytes.Contains(in.Ack, []byte(`"ephemeral"`)) || !bytes.Contains(in.Ack, []byte("rich_text")) {
			t.Errorf("%q: ack %s; log:\n%s", text, in.Ack, w.Log)
		}
	}
	if jobs, _ := w.Q.List(w.Ctx, queue.Filter{}); len(jobs) != 0 {
		t.Fatalf("%d jobs of subwords", len(jobs))
	}
	job, status := w.dream("U42", "cancel culture statue")
	in := w.server.Click("U7", status, "v1:cancel:"+job)
	if !w.server.Wait(patience, func() bool { return len(w.server.Answered(in).Responses) == 1 }) || !bytes.Contains(w.server.Answered(in).Responses[0], []byte("Only the person")) {
		t.Errorf("a stranger's click: %s; log:\n%s", w.server.Answered(in).Responses, w.Log)
	}
	in = w.server.Click("U42", status, "v1:cancel:"+job)
	w.server.Wait(patience, func() bool { return len(w.server.Answered(in).Responses) == 1 })
	if j, _ := w.Q.Job(w.Ctx, job); j.Status != queue.Cancelled {
		t.Errorf("the job is %s; log:\n%s", j.Status, w.Log)
	}
	// An empty command opens a form; mistakes are shown in it.
	w.server.WaitAck(w.server.Command("U42", w.Channel, "  "), patience)
	if !w.server.Wait(patience, func() bool { return len(w.server.Views()) == 1 }) {
		t.Fatalf("no form; log:\n%s", w.Log)
	}
	value := func(v string) map[string]any {
		return map[string]any{"x": map[string]any{"type": "plain_text_input", "value": v}}
	}
	in = w.server.Submit("U42", "dream", w.Channel, map[string]map[string]any{"prompt": value("a vase"), "seed": value("x")})
	if a := w.server.WaitAck(in, patience); !bytes.Contains(a.Ack, []byte(`"errors"`)) || !bytes.Contains(a.Ack, []byte(`"seed"`)) {
		t.Errorf("a mistake in the form: %s", a.Ack)
	}
	in = w.server.Submit("U42", "dream", w.Channel, map[string]map[string]any{"prompt": value("a vase\nwith flowers"), "seed": value("5")})
	w.server.WaitAck(in, patience)
	if !w.server.Wait(patience, func() bool {
		jobs, _ := w.Q.List(w.Ctx, queue.Filter{User: "slack:U42", Status: []queue.Status{queue.Queued}})
		return len(jobs) == 1 && jobs[0].Prompt == "a vase with flowers" && *jobs[0].Seed == 5
	}) {
		t.Errorf("the form made no job; log:\n%s", w.Log)
	}
	file := w.server.AddFile("p.txt", []byte("a\nb\n"))
	in = w.server.Submit("U9", "ingest", w.Channel, map[string]map[string]any{"file": {"file": map[string]any{"type": "file_input", "files": []any{map[string]any{"id": file}}}}})
	w.server.WaitAck(in, patience)
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.Channel), "2 lines")) == 1 }) {
		t.Errorf("no ingest; log:\n%s", w.Log)
	}
}
