package bots

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dreamcad/bots/limits"
	"dreamcad/bots/parse"
	"dreamcad/queue"
	"dreamcad/queue/sqliteq"
	"dreamcad/storage"
	"dreamcad/storage/dir"
)

type bundle struct {
	q     *sqliteq.Queue
	store storage.Store
	s     *Service
}

// fixture is a service over a real queue and a real store.
func fixture(t *testing.T, c Config) bundle {
	t.Helper()
	ctx := context.Background()
	config := queue.DefaultConfig()
	if c.Patience == 0 { // however slow the disk
		c.Patience, config.SubmitBudget = time.Minute, time.Minute
	}
	q, err := sqliteq.Open(ctx, filepath.Join(t.TempDir(), "queue.db"), config, sqliteq.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	store, err := dir.Open(dir.Config{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(c, q, store, lineCounter{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return bundle{q, store, s}
}

// lineCounter is the ingest of these tests: it counts the lines that it may take.
type lineCounter struct{}

func (lineCounter) Ingest(_ context.Context, name string, file io.Reader, _ queue.Requester, _ queue.Origin, check func(string) error) (string, error) {
	text, err := io.ReadAll(file)
	n := 0
	for line := range strings.Lines(string(text)) {
		if check(strings.TrimSpace(line)) == nil {
			n++
		}
	}
	return fmt.Sprintf("%s: %d lines", name, n), err
}

func from(user string) Command {
	return Command{From: queue.Requester{Platform: "discord", ID: user}, Origin: queue.Origin{Platform: "discord", Channel: "c1"}, Space: "discord:g1"}
}

func (b bundle) say(t *testing.T, user, line string) Reply {
	t.Helper()
	r := b.s.Line(context.Background(), line, from(user))
	if strings.TrimSpace(r.Text) == "" {
		t.Fatalf("%q got an empty answer", line)
	}
	return r
}

// finish leases the next job and completes it.
func (b bundle) finish(t *testing.T) queue.Job {
	t.Helper()
	ctx := context.Background()
	l, err := b.q.Lease(ctx, queue.Capabilities{Worker: "w", Name: "w", Models: []string{"mini"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.q.Complete(ctx, l.Ref(), queue.Result{Winner: l.ID, Files: []queue.File{{Role: "mesh-glb", Name: "model.glb", Bytes: 3}}}); err != nil {
		t.Fatal(err)
	}
	return l.Job
}

func TestDream(t *testing.T) {
	b := fixture(t, Config{})
	r := b.say(t, "1", "/dream a ceramic coffee mug --seed 7")
	if r.Refused || r.Job == "" || len(r.Buttons) != 1 {
		t.Fatalf("reply %+v", r)
	}
	text := PlainText.Encode(r.Text)
	for _, want := range []string{"a ceramic coffee mug", "seed 7", parse.Short(r.Job), "next in line", "3D mesh"} {
		if !strings.Contains(text, want) {
			t.Errorf("the ack lacks %q: %q", want, text)
		}
	}
	job, err := b.q.Job(context.Background(), r.Job)
	if err != nil || job.Prompt != "a ceramic coffee mug" || *job.Seed != 7 || job.Kind != queue.Mesh || job.Origin.Channel != "c1" {
		t.Fatalf("job %+v, %v", job, err)
	}
	german := from("1")
	german.Locale = "de"
	if r := b.s.Line(context.Background(), "/dream", german); !strings.HasPrefix(r.Text, "Bitte beschreibe") {
		t.Errorf("German complaint: %q", r.Text)
	}
}

// The same key is the same job, however often and from however many sides it comes.
func TestSameKey(t *testing.T) {
	b := fixture(t, Config{Limits: limits.Config{UserDay: 1}})
	c := from("1")
	c.Key = "interaction-1"
	ids := make([]string, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() { ids[i] = b.s.Line(context.Background(), "/dream a mug", c).Job })
	}
	wg.Wait()
	for _, id := range ids {
		if id == "" || id != ids[0] {
			t.Fatalf("jobs %v", ids)
		}
	}
	if jobs, _ := b.q.List(context.Background(), queue.Filter{}); len(jobs) != 1 {
		t.Errorf("%d jobs", len(jobs))
	}
}

func TestLimitsAndRefund(t *testing.T) {
	b := fixture(t, Config{Limits: limits.Config{UserDay: 2, SpaceDay: 3}})
	first := b.say(t, "1", "/dream a mug")
	b.say(t, "1", "/dream a cup")
	r := b.say(t, "1", "/dream a jug")
	if !r.Refused || !strings.Contains(r.Text, "Your 2 jobs of today") {
		t.Fatalf("third job: %+v", r)
	}
	if r := b.say(t, "1", "/quota"); !strings.Contains(r.Text, "2 of 2") {
		t.Errorf("quota: %q", r.Text)
	}
	// Cancelled before its start: the cost comes back.
	if r := b.say(t, "1", "/jobs cancel "+parse.Short(first.Job)); r.Refused {
		t.Fatalf("cancel: %q", r.Text)
	}
	if r := b.say(t, "1", "/dream a jug"); r.Refused {
		t.Errorf("after the refund: %q", r.Text)
	}
	b.say(t, "2", "/dream a vase")
	if r := b.say(t, "3", "/dream a bowl"); !r.Refused || !strings.Contains(r.Text, "for this server") {
		t.Errorf("the server's limit: %+v", r)
	}
}

// The limits on jobs that wait or run hold for a user, a server and in all, from
// however many sides jobs come at once, and are given back when jobs end.
func TestLiveLimits(t *testing.T) {
	b := fixture(t, Config{Limits: limits.Config{UserLive: 2, SpaceLive: 3, TotalLive: 4}})
	var all sync.WaitGroup
	var taken, refused atomic.Int64
	for i := range 12 {
		all.Go(func() {
			r := b.s.Line(context.Background(), fmt.Sprintf("/dream mug %d", i), from("1"))
			if !r.Refused {
				taken.Add(1)
			} else if strings.Contains(r.Text, "You have 2 jobs waiting or running") {
				refused.Add(1)
			}
		})
	}
	all.Wait()
	if taken.Load() != 2 || refused.Load() != 10 {
		t.Fatalf("%d taken, %d refused", taken.Load(), refused.Load())
	}
	if r := b.say(t, "2", "/dream a cup"); r.Refused {
		t.Fatal(r.Text)
	}
	if r := b.say(t, "3", "/dream a cup"); !r.Refused || !strings.Contains(r.Text, "This server has 3 jobs") {
		t.Errorf("the server's limit: %q", r.Text)
	}
	elsewhere := from("4")
	elsewhere.Space = "discord:g2"
	if r := b.s.Line(context.Background(), "/dream a vase", elsewhere); r.Refused {
		t.Fatal(r.Text)
	}
	elsewhere.From.ID = "5"
	if r := b.s.Line(context.Background(), "/dream a jug", elsewhere); !r.Refused || !strings.Contains(r.Text, "This service has 4 jobs") {
		t.Errorf("the limit in all: %q", r.Text)
	}
	b.finish(t)
	if r := b.s.Line(context.Background(), "/dream a jug", elsewhere); r.Refused {
		t.Errorf("after a job ended: %q", r.Text)
	}
}

func TestCooldown(t *testing.T) {
	b := fixture(t, Config{Limits: limits.Config{Cooldown: time.Minute}})
	b.say(t, "1", "/dream a mug")
	if r := b.say(t, "1", "/dream a cup"); !r.Refused || !strings.Contains(r.Text, "wait") {
		t.Errorf("second job: %+v", r)
	}
	if r := b.say(t, "2", "/dream a cup"); r.Refused {
		t.Errorf("another user: %q", r.Text)
	}
}

func TestOwners(t *testing.T) {
	b := fixture(t, Config{Limits: limits.Config{Admins: []string{"discord:9"}}})
	mine := b.say(t, "1", "/dream a mug").Job
	secret := b.say(t, "1", "/dream a hidden mug --private").Job
	for _, line := range []string{"/jobs cancel " + mine, "/jobs show " + secret, "/jobs cancel " + secret} {
		if r := b.say(t, "2", line); !r.Refused {
			t.Errorf("a stranger may %q: %q", line, r.Text)
		}
	}
	stranger := from("2")
	for _, v := range []parse.Verb{parse.Cancel, parse.Delete} {
		stranger.Command = parse.Command{Verb: v, Job: mine}
		if r := b.s.Execute(context.Background(), stranger); !r.Refused {
			t.Errorf("a stranger may %s", v)
		}
	}
	for _, v := range []parse.Verb{parse.Vary, parse.Retry, parse.Refine} {
		stranger.Command = parse.Command{Verb: v, Job: secret}
		if r := b.s.Execute(context.Background(), stranger); !r.Refused {
			t.Errorf("a stranger may %s a private job", v)
		}
	}
	stranger.Command = parse.Command{Verb: parse.Vary, Job: mine}
	r := b.s.Execute(context.Background(), stranger)
	job, err := b.q.Job(context.Background(), r.Job)
	if err != nil || job.Parent != mine || job.Requester.ID != "2" || job.Prompt != "a mug" {
		t.Errorf("vary: %+v, %v", job, err)
	}
	if r := b.say(t, "9", "/jobs cancel "+mine); r.Refused {
		t.Errorf("an administrator may not cancel: %q", r.Text)
	}
}

func TestRefine(t *testing.T) {
	b := fixture(t, Config{})
	views := b.say(t, "1", "/dream a mug --kind views --seed 5").Job
	c := from("1")
	c.Command = parse.Command{Verb: parse.Refine, Job: views}
	mesh, err := b.q.Job(context.Background(), b.s.Execute(context.Background(), c).Job)
	if err != nil || mesh.Kind != queue.Mesh || *mesh.Seed != 5 {
		t.Fatalf("refined views: %+v, %v", mesh, err)
	}
	c.Job = mesh.ID
	if r := b.s.Execute(context.Background(), c); !r.Refused {
		t.Errorf("a draft was refined where there is nothing better: %+v", r)
	}
	if r := b.say(t, "1", "/dream a mug --quality high"); !r.Refused || !strings.Contains(r.Text, "draft") {
		t.Errorf("quality that is not offered: %q", r.Text)
	}
}

func TestAdmin(t *testing.T) {
	b := fixture(t, Config{Limits: limits.Config{Admins: []string{"discord:9", "role:boss"}, UserDay: 5}})
	for _, line := range []string{"/admin pause", "/admin status", "/admin block 1", "/admin quota 1 7"} {
		if r := b.say(t, "1", line); !r.Refused {
			t.Errorf("anybody may %q", line)
		}
	}
	if r := b.say(t, "9", "/admin pause"); r.Refused {
		t.Fatal(r.Text)
	}
	if r := b.say(t, "1", "/dream a mug"); !strings.Contains(r.Text, "paused") {
		t.Errorf("the ack does not say that the queue is paused: %q", r.Text)
	}
	boss := from("5")
	boss.Roles = []string{"boss"}
	if r := b.s.Line(context.Background(), "/admin resume", boss); r.Refused {
		t.Errorf("the role: %q", r.Text)
	}
	b.say(t, "9", "/admin block <@1>")
	if r := b.say(t, "1", "/dream a mug"); !r.Refused {
		t.Error("a blocked user may go on")
	}
	b.say(t, "9", "/admin unblock discord:1")
	b.say(t, "9", "/admin quota 1 2")
	if r := b.say(t, "1", "/dream a mug"); r.Refused {
		t.Errorf("after unblocking: %q", r.Text)
	}
	if r := b.say(t, "1", "/dream a mug"); !r.Refused {
		t.Error("the own limit of two does not hold")
	}
	if r := b.say(t, "9", "/admin quota 1"); !strings.Contains(PlainText.Encode(r.Text), "discord:1 is 2 jobs") {
		t.Errorf("quota: %q", r.Text)
	}
}

func TestForget(t *testing.T) {
	ctx := context.Background()
	b := fixture(t, Config{})
	b.say(t, "1", "/dream a mug")
	job := b.finish(t)
	other := b.say(t, "2", "/dream a cup").Job
	if err := b.store.Create(ctx, storage.ResultKey(job.ID), []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if r := b.say(t, "1", "/forget-me"); len(r.Buttons) != 1 {
		t.Fatalf("it does not ask: %+v", r)
	}
	c := from("1")
	if err := ParseButton(ButtonID(parse.ForgetMe, "yes"), &c); err != nil {
		t.Fatal(err)
	}
	if r := b.s.Execute(ctx, c); r.Refused || !strings.Contains(r.Text, "1 job with its files") {
		t.Fatalf("forget: %+v", r)
	}
	if _, err := b.q.Job(ctx, job.ID); queue.CodeOf(err) != queue.CodeNotFound {
		t.Errorf("the job is still there: %v", err)
	}
	if _, err := b.store.Stat(ctx, storage.ResultKey(job.ID)); err == nil {
		t.Error("the files are still there")
	}
	if _, err := b.q.Job(ctx, other); err != nil {
		t.Errorf("another user's job is gone: %v", err)
	}
}

func TestDelete(t *testing.T) {
	ctx := context.Background()
	b := fixture(t, Config{})
	b.say(t, "1", "/dream a mug")
	job := b.finish(t)
	if err := b.store.Create(ctx, storage.ResultKey(job.ID), []byte("{}")); err != nil {
		t.Fatal(err)
	}
	c := from("1")
	c.Command = parse.Command{Verb: parse.Delete, Job: job.ID}
	if r := b.s.Execute(ctx, c); r.Refused {
		t.Fatal(r.Text)
	}
	if revoked, err := storage.Revoked(ctx, b.store, job.ID); err != nil || !revoked {
		t.Errorf("links still work: %v, %v", revoked, err)
	}
	if _, err := b.store.Stat(ctx, storage.ResultKey(job.ID)); err == nil {
		t.Error("the files are still there")
	}
}

func TestLists(t *testing.T) {
	b := fixture(t, Config{})
	for i := range 10 {
		b.say(t, "1", fmt.Sprintf("/dream mug %d", i))
		b.finish(t)
	}
	live := b.say(t, "1", "/dream the last mug").Job
	if r := b.say(t, "1", "/jobs list"); len(r.Jobs) != 1 || r.Jobs[0] != live {
		t.Errorf("list: %+v", r)
	}
	if r := b.say(t, "1", "/history"); len(r.Jobs) != pageLength || len(r.Buttons) != 1 {
		t.Errorf("history: %d jobs, %d buttons", len(r.Jobs), len(r.Buttons))
	}
	if r := b.say(t, "1", "/history 2"); len(r.Jobs) != 2 || len(r.Buttons) != 0 {
		t.Errorf("history 2: %d jobs, %d buttons", len(r.Jobs), len(r.Buttons))
	}
	if r := b.say(t, "2", "/history"); len(r.Jobs) != 0 {
		t.Errorf("another's history: %+v", r)
	}
	for _, line := range []string{"/queue", "/help", "/privacy", "/quota"} {
		if r := b.say(t, "1", line); r.Refused || !r.Private || strings.Contains(r.Text, "%!") {
			t.Errorf("%s: %+v", line, r)
		}
	}
}

// A model that is not offered is refused in a sentence that names those that are,
// and who asks for one that no worker has is told what the job waits for.
func TestModels(t *testing.T) {
	b := fixture(t, Config{Models: []string{"mini", "large"}})
	if r := b.say(t, "1", "/dream a mug --model nosuch"); !r.Refused || !strings.Contains(r.Text, "mini, large") {
		t.Errorf("%+v", r)
	}
	if r := b.say(t, "1", "/dream a mug --model large"); r.Refused || !strings.Contains(r.Text, "a worker with the model") {
		t.Errorf("%+v", r)
	}
}

func TestIngest(t *testing.T) {
	list := filepath.Join(t.TempDir(), "words")
	if err := os.WriteFile(list, []byte("bomb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := fixture(t, Config{Limits: limits.Config{Ingest: []string{"discord:1"}, BlockFile: list}, MaxIngest: 100})
	c := from("1")
	c.Command = parse.Command{Verb: parse.Ingest}
	c.File = &Attachment{Name: "p.txt", Size: 8, Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader("a\nb\nc\na B0MB\n")), nil
	}}
	if r := b.s.Execute(context.Background(), c); r.Refused || !strings.Contains(r.Text, "3 lines") {
		t.Errorf("ingest: %+v", r)
	}
	big := c
	big.File = &Attachment{Name: "p.txt", Size: 101}
	if r := b.s.Execute(context.Background(), big); !r.Refused {
		t.Error("a file that is too large was taken")
	}
	c.From.ID = "2"
	if r := b.s.Execute(context.Background(), c); !r.Refused {
		t.Error("anybody may send files")
	}
}

// A queue that does not answer is told as such, in time.
func TestSlowQueue(t *testing.T) {
	b := fixture(t, Config{Patience: 200 * time.Millisecond})
	b.s.jobs = &stuck{b.q}
	began := time.Now()
	r := b.say(t, "1", "/dream a mug")
	if !r.Refused || !strings.Contains(r.Text, "not accepted") || time.Since(began) > 30*time.Second {
		t.Errorf("after %v: %+v", time.Since(began), r)
	}
}

type stuck struct{ Jobs }

func (s *stuck) Get(ctx context.Context, _ string) (queue.Record, error) {
	<-ctx.Done()
	return queue.Record{}, queue.Unavailable("read a record", ctx.Err())
}
