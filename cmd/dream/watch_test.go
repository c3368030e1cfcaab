package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dreamcad/bots/discord/discordtest"
	"dreamcad/bots/slack/slacktest"
	"dreamcad/internal/testout"
	"dreamcad/ops/gpu/gputest"
	"dreamcad/queue"
	"dreamcad/queue/queuetest"
	"dreamcad/storage/storagetest"
)

// logged is one JSON line of a child's log.
type logged struct {
	Time    time.Time
	Msg     string
	Code    string
	Why     string
	Kind    string
	Address string
	GPU0    struct {
		Temperature any
		Power       any
	}
}

// spoken starts a process of the service and returns what gives its log so far.
func spoken(t *testing.T, env []string, args ...string) func() []logged {
	t.Helper()
	_, out := launch(t, env, args...)
	return func() []logged {
		var lines []logged
		for line := range strings.Lines(out.String()) {
			var l logged
			if json.Unmarshal([]byte(line), &l) == nil {
				lines = append(lines, l)
			}
		}
		return lines
	}
}

func find(lines []logged, msg, code string) *logged {
	i := slices.IndexFunc(lines, func(l logged) bool { return l.Msg == msg && l.Code == code })
	if i < 0 {
		return nil
	}
	return &lines[i]
}

// await polls until the condition holds.
func await(t *testing.T, what string, limit time.Duration, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v: not yet %s", limit, what)
		}
	}
}

// glb follows the first link to a GLB in a message.
func glb(t *testing.T, message []byte) []byte {
	t.Helper()
	url := strings.ReplaceAll(string(glbLink.Find(message)), `\u0026`, "&")
	resp, err := http.Get(url)
	if err != nil {
		t.Fatalf("GET %q of %s: %v", url, message, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s %v", url, resp.Status, err)
	}
	return data
}

// A card gets hot while a mesh is made: the operators of both platforms are told
// within five seconds, the worker slows down, the card cools, the alert is edited
// to its end, and the mesh is the same as without all that. The card is scripted;
// it warms while the worker computes and cools while it rests. It takes the governor
// three quarters of a minute to settle it, whatever the processor; for as long other
// people's views keep the worker busy between the steps of the mesh.
func TestHotCardDuringAMesh(t *testing.T) {
	if testing.Short() {
		t.Skip("makes two meshes")
	}
	card := gputest.Build(t, "model 56 156 30 78\n0 power 250\n0 threshold 120\n")
	redis := queuetest.StartRedis(t, "--appendonly", "yes")
	gateway := storagetest.StartGateway(t)
	d, s := discordtest.New(), slacktest.New()
	t.Cleanup(d.Close)
	t.Cleanup(s.Close)
	opsD, opsS := d.AddChannel("guild1").ID, s.AddChannel()
	env := []string{
		"DREAM_DATA=" + t.TempDir(), "DREAM_QUEUE_URL=redis://" + redis.Addr,
		"DREAM_STORAGE_URL=s3://dreams?create=true&region=us-east-1&endpoint=" + gateway.Endpoint,
		"DREAM_STORAGE_ACCESS_KEY=" + gateway.AccessKey, "DREAM_STORAGE_SECRET_KEY=" + gateway.SecretKey,
		"DREAM_WEB_LISTEN=127.0.0.1:0", "DREAM_CHAT_EDIT_EVERY=200ms",
		"DREAM_DISCORD_TOKEN=" + d.Token, "DREAM_DISCORD_API_URL=" + d.URL(), "DREAM_DISCORD_OPS_CHANNEL=" + opsD,
		"DREAM_SLACK_BOT_TOKEN=" + s.BotToken, "DREAM_SLACK_APP_TOKEN=" + s.AppToken, "DREAM_SLACK_API_URL=" + s.URL(), "DREAM_SLACK_OPS_CHANNEL=" + opsS,
	}
	child(t, env, "bot")
	lines := spoken(t, slices.Concat(env, card.Env(), []string{"GOMAXPROCS=1", "DREAM_WORKER_GUARD_GPUS=all", "DREAM_OPS_EVERY=250ms", "DREAM_OPS_METRICS_EVERY=1s", "DREAM_OPS_GPU_HOT=110", "DREAM_OPS_RULES=gpu_warm clear_hold=2s"}),
		"worker", "--device", "cpu")
	await(t, "connected", time.Minute, func() bool { return d.Connected() > 0 && s.Connected() > 0 })

	place := d.AddChannel("guild1").ID
	mesh := func(person string, meanwhile func()) []byte {
		d.Command(discordtest.Person{ID: person, Channel: place}, "dream", map[string]any{"prompt": "a ceramic coffee mug", "seed": 7})
		var result []byte
		await(t, "made", 6*time.Minute, func() bool {
			meanwhile()
			for _, m := range d.Messages(place) {
				if strings.Contains(m.Content, "failed") {
					t.Fatal(m.Content)
				}
				if strings.Contains(m.Content, "is ready") && slices.Contains(m.Pinged, person) {
					result = append([]byte(m.Content), m.Components...)
				}
			}
			return result != nil
		})
		return glb(t, result)
	}
	elsewhere, asked, looked := d.AddChannel("guild1").ID, 0, time.Now()
	hot := mesh("42", func() {
		if time.Since(looked) < 300*time.Millisecond {
			return
		}
		looked = time.Now()
		said, made := lines(), 0
		if find(said, "alert resolved", "gpu_warm") != nil {
			card.Play("0 temperature 40\n0 power 30\n") // the rest needs no governor
			return
		}
		for _, l := range said {
			if l.Msg == "job done" && l.Kind == "views" {
				made++
			}
		}
		if asked < made+2 && find(said, "alert firing", "gpu_warm") != nil {
			asked++
			d.Command(discordtest.Person{ID: "44", Channel: elsewhere}, "dream", map[string]any{"prompt": "a red chair", "kind": "views", "seed": asked})
		}
	})
	finished := time.Now()

	told := find(lines(), "alert firing", "gpu_warm")
	if told == nil {
		t.Fatal("the card did not get hot")
	}
	if find(lines(), "the card is warm: resting between steps", "") == nil {
		t.Error("the worker did not slow down")
	}
	const title = "A GPU is hot"
	var onDiscord discordtest.Message
	var onSlack slacktest.Message
	await(t, "resolved on both platforms", time.Minute, func() bool {
		i := slices.IndexFunc(d.Messages(opsD), func(m discordtest.Message) bool { return strings.Contains(m.Content, title) })
		j := slices.IndexFunc(s.Messages(opsS), func(m slacktest.Message) bool { return strings.Contains(m.Text, title) })
		if i < 0 || j < 0 {
			return false
		}
		onDiscord, onSlack = d.Messages(opsD)[i], s.Messages(opsS)[j]
		return strings.Contains(onDiscord.Content, "Resolved") && strings.Contains(onSlack.Text, "Resolved")
	})
	for platform, at := range map[string]time.Time{"Discord": onDiscord.Created, "Slack": onSlack.Created} {
		delay := at.Sub(told.Time)
		t.Logf("%s: the alert stood there %v after it fired", platform, delay.Round(time.Millisecond))
		if delay > 5*time.Second {
			t.Errorf("%s: after %v", platform, delay)
		}
	}
	if onDiscord.Edits == 0 || onSlack.Edits == 0 || onDiscord.Everyone || onSlack.Everyone || len(onDiscord.Pinged)+len(onSlack.Pinged) > 0 {
		t.Errorf("edits %d and %d; notified: %v %v", onDiscord.Edits, onSlack.Edits, onDiscord.Pinged, onSlack.Pinged)
	}
	// The metrics lines show how it went: over the limit, and down again while the job ran.
	ended := find(lines(), "alert resolved", "gpu_warm")
	if ended == nil || ended.Time.After(finished) {
		t.Fatalf("resolved %v, the mesh was there at %v", ended, finished)
	}
	var course []float64
	for _, l := range lines() {
		if c, ok := l.GPU0.Temperature.(float64); ok && l.Msg == "metrics" && l.Time.Before(ended.Time) {
			course = append(course, c)
		}
	}
	t.Logf("temperature each second: %v", course)
	var late float64 // mean of the five seconds before the end of the alert
	for _, c := range course[max(0, len(course)-5):] {
		late += c / 5
	}
	if len(course) < 10 || slices.Max(course) <= 83 || late >= 83 {
		t.Error("the card did not get over the limit and come back")
	}

	cool := mesh("43", func() {})
	if !bytes.Equal(hot, cool) {
		t.Errorf("the meshes differ: %d and %d bytes", len(hot), len(cool))
	}
	if err := checkGLB(hot); err != nil {
		t.Error(err)
	}
}

// The program against curves: what is at the limit, too short or unknown tells
// nothing; heat, a lost card and the driver's errors tell their begin and their
// end, also with a driver that lacks functions; beyond the hot limit no work is
// taken. Each act begins when all of the one before was told.
func TestScriptedCurves(t *testing.T) {
	acts := []struct {
		script string
		tells  []string
		says   string // the worker, by then
	}{
		{`
0 temperature 60
2 temperature 60
2 temperature 83
3 temperature 83
3 temperature 88
3.3 temperature 88
3.3 temperature 70
5 temperature 70
5 temperature none
6 xid 79
`, []string{"gpu_xid firing", "gpu_xid resolved"}, ""},
		{"0 temperature 86\n", []string{"gpu_warm firing"}, ""},
		{"0 temperature none\n", nil, ""},
		{"0 temperature 60\n", []string{"gpu_warm resolved"}, ""},
		{"0 temperature 60\n0 lost 1\n", []string{"gpu_lost firing"}, "taking no new work"},
		{"0 temperature 60\n", []string{"gpu_lost resolved"}, "taking work again"},
		{"0 temperature 93\n", []string{"gpu_hot firing", "gpu_warm firing"}, "taking no new work"},
		{"0 temperature 50\n", []string{"gpu_warm resolved", "gpu_hot resolved"}, "taking work again"},
	}
	hook := make(chan string, 100)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var a queue.Alert
		if err := json.NewDecoder(r.Body).Decode(&a); err == nil && strings.HasPrefix(a.Code, "gpu_") {
			hook <- a.Code + " " + string(a.State)
		}
	}))
	defer server.Close()
	card := gputest.Build(t, acts[0].script, "-DOLD_DRIVER")
	lines := spoken(t, slices.Concat(card.Env(), []string{"DREAM_DATA=" + t.TempDir(), "DREAM_WEB_LISTEN=127.0.0.1:0", "DREAM_OPS_WEBHOOK=" + server.URL,
		"DREAM_WORKER_GUARD_GPUS=0", "DREAM_OPS_EVERY=100ms", "DREAM_OPS_AGAIN=1ms",
		"DREAM_OPS_RULES=gpu_warm hold=700ms clear_hold=500ms,gpu_hot clear_hold=500ms,gpu_lost hold=300ms clear_hold=300ms,gpu_xid clear_hold=500ms"}),
		"up", "--device", "cpu")
	said := map[string]int{}
	for i, act := range acts {
		if i > 0 {
			card.Play(act.script)
		}
		for _, want := range act.tells {
			select {
			case got := <-hook:
				if got != want {
					t.Fatalf("act %d: %s instead of %s", i, got, want)
				}
			case <-time.After(time.Minute):
				t.Fatalf("act %d: no %s", i, want)
			}
		}
		if act.tells == nil {
			select {
			case got := <-hook:
				t.Fatalf("act %d: %s", i, got)
			case <-time.After(2 * time.Second):
			}
		}
		if act.says != "" {
			said[act.says]++
			await(t, fmt.Sprintf("%q of act %d", act.says, i), time.Minute, func() bool {
				n := 0
				for _, l := range lines() {
					if l.Msg == act.says {
						n++
					}
				}
				return n >= said[act.says]
			})
		}
	}
	if find(lines(), "the card is too hot: saving and waiting", "") == nil || find(lines(), "the card has cooled: going on", "") == nil {
		t.Error("the hold was not announced or not undone")
	}
}

// A one-shot command spares its card too: it waits while that is too hot, and goes on.
func TestOneShotSparesTheCard(t *testing.T) {
	card := gputest.Build(t, "0 temperature 95\n")
	var out testout.Buffer
	cmd := exec.Command("dream", "views", "a red chair", "--device", "cpu", "--steps", "2", "--quiet", "--out", filepath.Join(t.TempDir(), "chair"))
	cmd.Env = append(append(os.Environ(), card.Env()...), "DREAM_DATA="+t.TempDir(), "DREAM_WORKER_GUARD_GPUS=all", "DREAM_OPS_EVERY=100ms", "DREAM_OPS_METRICS_EVERY=1s")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	await(t, "said to wait", time.Minute, func() bool { return strings.Contains(out.String(), "the card is too hot") })
	select {
	case err := <-ended:
		t.Fatalf("it did not wait: %v\n%s", err, out.String())
	case <-time.After(3 * time.Second): // two steps take a fraction of it
	}
	if text := out.String(); !strings.Contains(text, `"msg":"metrics"`) || !strings.Contains(text, `"held":true`) || !strings.Contains(text, `"gpu0":{"temperature":95,`) {
		t.Errorf("the log does not show the figures:\n%s", text)
	}
	card.Play("0 temperature 50\n")
	select {
	case err := <-ended:
		if err != nil || !strings.Contains(out.String(), "the card has cooled") {
			t.Errorf("%v:\n%s", err, out.String())
		}
	case <-time.After(2 * time.Minute):
		t.Errorf("it does not go on:\n%s", out.String())
	}
}
