package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dreamcad/bots/discord/discordtest"
	"dreamcad/ops/gpu"
	"dreamcad/ops/gpu/gputest"
	"dreamcad/queue"
)

// lostWorkers is a webhook that passes on what it hears of lost workers, with its address.
func lostWorkers(t *testing.T) (<-chan queue.Alert, string) {
	hook := make(chan queue.Alert, 100)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var a queue.Alert
		if json.NewDecoder(r.Body).Decode(&a) == nil && a.Code == "worker_lost" {
			hook <- a
		}
	}))
	t.Cleanup(server.Close)
	return hook, server.URL
}

// A worker that is killed is missed by the others, and its return ends that; one
// that is stopped in order is not. Meanwhile dream monitor, the console and
// Prometheus show its scripted card.
func TestLostWorkerAndMonitor(t *testing.T) {
	hook, address := lostWorkers(t)
	data := t.TempDir()
	env := []string{"DREAM_DATA=" + data, "DREAM_WEB_LISTEN=127.0.0.1:0", "DREAM_OPS_SERVERS_EVERY=500ms", "DREAM_OPS_WORKER_LOST=4s", "DREAM_OPS_AGAIN=1ms"}
	bot := spoken(t, append(env, "DREAM_OPS_WEBHOOK="+address, "DREAM_METRICS_LISTEN=127.0.0.1:0"), "bot")
	card := gputest.Build(t, "0 temperature 71\n0 power 200\n")
	start := func() *exec.Cmd {
		return child(t, append(append(env, card.Env()...), "DREAM_WORKER_GUARD_GPUS=all"), "worker", "--device", "cpu", "--name", "w1")
	}
	see := func(args ...string) string {
		cmd := exec.Command("dream", append([]string{"monitor"}, args...)...)
		cmd.Env = append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("dream monitor %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	there := func() bool { return strings.Contains(see("--once"), "w1 (worker on ") }

	worker := start()
	await(t, "seen", time.Minute, there)
	var fleet []struct {
		Cards []gpu.Sample
		Local struct {
			Servers map[string]struct {
				Latency float64 `json:"latency_seconds"`
			}
		}
	}
	await(t, "both told", time.Minute, func() bool {
		fleet = nil
		if err := json.Unmarshal([]byte(see("--json")), &fleet); err != nil {
			t.Fatal(err)
		}
		return len(fleet) == 2
	})
	if len(fleet[1].Cards) != 1 || fleet[1].Cards[0].Temperature != gpu.Of(71) {
		t.Errorf("%+v", fleet)
	}
	if d := fleet[1].Local.Servers["queue"].Latency; d <= 0 || d > 60 {
		t.Errorf("the queue answered in %v s", d)
	}
	if text := see("--once"); !strings.Contains(text, "71 °C (margin unknown)") || !strings.Contains(text, "200/unknown W") {
		t.Errorf("dream monitor shows\n%s", text)
	}
	plot := filepath.Join(t.TempDir(), "day.svg")
	await(t, "drawn", 30*time.Second, func() bool {
		cmd := exec.Command("dream", "monitor", "--svg", plot)
		cmd.Env = append(os.Environ(), env...)
		if cmd.Run() != nil {
			return false
		}
		svg, err := os.ReadFile(plot)
		return err == nil && strings.Contains(string(svg), "w1: gpu0 temperature °C")
	})
	metrics := ""
	await(t, "metrics served", time.Minute, func() bool {
		if l := find(bot(), "metrics are served", ""); l != nil {
			metrics = l.Address
		}
		return metrics != ""
	})
	get := func(path string) (int, string) {
		resp, err := http.Get("http://" + metrics + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	await(t, "told to Prometheus", 30*time.Second, func() bool {
		code, text := get("/metrics")
		return code == http.StatusOK && strings.Contains(text, `dream_worker_silence_seconds{worker="w1"} `) && strings.Contains(text, `dream_server_up{server="storage"} 1`)
	})
	if code, text := get("/readyz"); code != http.StatusOK {
		t.Errorf("/readyz of the bot: %d %s", code, text)
	}

	expect := func(state queue.AlertState) queue.Alert {
		t.Helper()
		select {
		case a := <-hook:
			if a.Key != "w1" || a.State != state {
				t.Fatalf("%+v, want %s", a, state)
			}
			return a
		case <-time.After(time.Minute):
			t.Fatalf("the worker is not told to be %s", state)
		}
		return queue.Alert{}
	}
	_ = worker.Process.Kill()
	_ = worker.Wait()
	expect(queue.Firing)
	worker = start()
	expect(queue.Resolved)
	forget := func(name string) string {
		cmd := exec.Command("dream", "ops", "forget", name)
		cmd.Env = append(os.Environ(), env...)
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	if out := forget("w1"); !strings.Contains(out, "w1 gave a sign of life") {
		t.Errorf("a worker at work was forgotten: %s", out)
	}
	if out := forget("w2"); !strings.Contains(out, `nothing is called "w2"; known are bot of `) || !strings.Contains(out, ", w1") {
		t.Errorf("a worker that is not there: %s", out)
	}
	_ = worker.Process.Kill()
	_ = worker.Wait()
	expect(queue.Firing)
	await(t, "forgotten", time.Minute, func() bool { return strings.Contains(forget("w1"), "w1 is no longer expected") })
	if a := expect(queue.Resolved); !strings.HasSuffix(a.Text, "and is no longer expected.") {
		t.Errorf("its end says %q", a.Text)
	}
	worker = start()
	await(t, "back", time.Minute, there)
	_ = worker.Process.Signal(os.Interrupt)
	if err := worker.Wait(); err != nil {
		t.Errorf("an interrupted worker ended with %v", err)
	}
	if there() {
		t.Error("a worker that said goodbye is still there")
	}
	see("--svg", plot)
	if svg, err := os.ReadFile(plot); err != nil || !strings.Contains(string(svg), "w1: gpu0 temperature °C") {
		t.Errorf("the history of a worker that said goodbye is not drawn: %v", err)
	}
	select {
	case a := <-hook:
		t.Errorf("after an orderly end: %+v", a)
	case <-time.After(6 * time.Second):
	}
}

// A lost worker that nobody forgets is given up after ops.worker_gone. A chat
// platform that no bot serves any more can be forgotten.
func TestGivenUpAndRetired(t *testing.T) {
	hook, address := lostWorkers(t)
	d := discordtest.New()
	defer d.Close()
	env := []string{"DREAM_DATA=" + t.TempDir(), "DREAM_WEB_LISTEN=127.0.0.1:0", "DREAM_OPS_SERVERS_EVERY=300ms", "DREAM_OPS_WORKER_LOST=1s", "DREAM_OPS_WORKER_GONE=10s"} // longer than another takes to judge, should the worker have judged
	discord := []string{"DREAM_DISCORD_TOKEN=" + d.Token, "DREAM_DISCORD_API_URL=" + d.URL(), "DREAM_OPS_WEBHOOK=" + address}
	dream := func(args ...string) string {
		cmd := exec.Command("dream", args...)
		cmd.Env = append(os.Environ(), env...)
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	worker := child(t, env, "worker", "--device", "cpu", "--name", "w1")
	bot := child(t, append(env, discord...), "bot")
	await(t, "both seen", time.Minute, func() bool {
		text := dream("monitor", "--once")
		return strings.Contains(text, "w1 (worker on ") && strings.Contains(text, "bot of ")
	})
	await(t, "served", time.Minute, func() bool { return strings.Contains(dream("ops", "forget", "discord"), "a bot served discord") })
	_ = worker.Process.Kill()
	_ = worker.Wait()
	for _, state := range []queue.AlertState{queue.Firing, queue.Resolved} {
		select {
		case a := <-hook:
			if a.State != state || state == queue.Resolved && !strings.Contains(a.Text, "is no longer expected") {
				t.Fatalf("%+v, want %s", a, state)
			}
		case <-time.After(time.Minute):
			t.Fatalf("the lost worker is not told to be %s", state)
		}
	}
	_ = bot.Process.Signal(os.Interrupt)
	if err := bot.Wait(); err != nil {
		t.Error(err)
	}
	const known = "discord has "
	if text := dream("queue", "stats"); !strings.Contains(text, known) {
		t.Errorf("before: %s", text)
	}
	await(t, "forgotten", time.Minute, func() bool { return strings.Contains(dream("ops", "forget", "discord"), "Nothing is kept for discord") })
	if text := dream("queue", "stats"); strings.Contains(text, known) {
		t.Errorf("after: %s", text)
	}
	if text := dream("ops", "forget", "discord"); !strings.Contains(text, "no worker or chat platform is known") {
		t.Errorf("again: %s", text)
	}
}
