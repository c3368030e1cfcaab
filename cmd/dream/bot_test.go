package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dreamcad/bots/discord/discordtest"
	"dreamcad/bots/slack/slacktest"
	"dreamcad/internal/testout"
	"dreamcad/queue/queuetest"
	"dreamcad/storage/storagetest"
)

// launch starts one process of the service; its output is shown when the test fails.
func launch(t *testing.T, env []string, args ...string) (*exec.Cmd, *testout.Buffer) {
	t.Helper()
	out := &testout.Buffer{}
	cmd := exec.Command("dream", args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		stop := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		defer stop.Stop()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("dream %s:\n%s", strings.Join(args, " "), out)
		}
	})
	return cmd, out
}

// child is launch for those who do not read the output.
func child(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd, _ := launch(t, env, args...)
	return cmd
}

var glbLink = regexp.MustCompile(`http://[^" <>]+model\.glb[^" <>]*`)

// fetchGLB follows the first link to a GLB in the message and checks the file.
func fetchGLB(t *testing.T, message []byte) {
	t.Helper()
	text := strings.ReplaceAll(string(glbLink.Find(message)), `\u0026`, "&") // as JSON writes it
	if text == "" {
		t.Fatalf("no link to a GLB in %s", message)
	}
	resp, err := http.Get(text)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s %v", text, resp.Status, err)
	}
	if err := checkGLB(data); err != nil {
		t.Error(err)
	}
}

// The whole service as people run it: bot and worker as processes of their own,
// Redis, an S3 server, and the two platforms. /dream on each ends with a message
// whose link delivers the GLB.
func TestDreamInChat(t *testing.T) {
	if testing.Short() {
		t.Skip("makes two meshes")
	}
	redis := queuetest.StartRedis(t, "--appendonly", "yes")
	gateway := storagetest.StartGateway(t)
	d, s := discordtest.New(), slacktest.New()
	t.Cleanup(d.Close)
	t.Cleanup(s.Close)
	env := []string{
		"DREAM_DATA=" + t.TempDir(), "DREAM_QUEUE_URL=redis://" + redis.Addr,
		"DREAM_STORAGE_URL=s3://dreams?create=true&region=us-east-1&endpoint=" + gateway.Endpoint,
		"DREAM_STORAGE_ACCESS_KEY=" + gateway.AccessKey, "DREAM_STORAGE_SECRET_KEY=" + gateway.SecretKey,
		"DREAM_WEB_LISTEN=127.0.0.1:0", "DREAM_CHAT_EDIT_EVERY=200ms",
		"DREAM_DISCORD_TOKEN=" + d.Token, "DREAM_DISCORD_API_URL=" + d.URL(),
		"DREAM_DISCORD_GATEWAY_URL=" + strings.Replace(d.URL(), "http", "ws", 1) + "/gateway",
		"DREAM_SLACK_BOT_TOKEN=" + s.BotToken, "DREAM_SLACK_APP_TOKEN=" + s.AppToken, "DREAM_SLACK_API_URL=" + s.URL(),
	}
	child(t, env, "bot")
	child(t, env, "worker", "--device", "cpu")
	if !d.Wait(time.Minute, func() bool { return d.Connected() > 0 && s.Connected() > 0 }) {
		t.Fatal("the bot does not connect")
	}

	place := d.AddChannel("guild1").ID
	in := d.Command(discordtest.Person{ID: "42", Channel: place}, "dream", map[string]any{"prompt": "a ceramic coffee mug"})
	if _, _, m := d.WaitAnswer(in, time.Minute); m == nil || !strings.Contains(m.Content, "Queued") {
		t.Fatalf("Discord's answer: %+v", m)
	}
	room := s.AddChannel()
	if a := s.WaitAck(s.Command("U42", room, "a ceramic coffee mug"), time.Minute); !strings.Contains(string(a.Ack), "Queued") {
		t.Fatalf("Slack's answer: %s", a.Ack)
	}

	var result discordtest.Message
	if !d.Wait(6*time.Minute, func() bool {
		for _, m := range d.Messages(place) {
			if strings.Contains(m.Content, "is ready") || strings.Contains(m.Content, "failed") {
				result = m
				return true
			}
		}
		return false
	}) {
		t.Fatal("no result on Discord")
	}
	if len(result.Attachments) == 0 || len(result.Pinged) != 1 {
		t.Errorf("the result has %d pictures and notifies %v: %q", len(result.Attachments), result.Pinged, result.Content)
	}
	fetchGLB(t, append([]byte(result.Content), result.Components...))

	var reply slacktest.Message
	if !s.Wait(6*time.Minute, func() bool {
		for _, m := range s.Messages(room) {
			if strings.Contains(m.Text, "is ready") || strings.Contains(m.Text, "failed") {
				reply = m
				return true
			}
		}
		return false
	}) {
		t.Fatal("no result on Slack")
	}
	if reply.Thread == "" || !strings.Contains(string(reply.Blocks), "slack_file") {
		t.Errorf("the result in thread %q: %s", reply.Thread, reply.Blocks)
	}
	fetchGLB(t, reply.Blocks)
	if n := d.Overruns() + s.Overruns(); n > 0 {
		t.Errorf("%d requests went over a rate limit", n)
	}
}

// Without gateway and Socket Mode: both platforms send signed requests to
// chat.listen. There is no public address and the storage is a folder, so the
// result carries its files and no links.
func TestBotOverHTTP(t *testing.T) {
	if testing.Short() {
		t.Skip("makes views")
	}
	d, s := discordtest.New(), slacktest.New()
	t.Cleanup(d.Close)
	t.Cleanup(s.Close)
	listen := freeAddress(t)
	env := []string{
		"DREAM_DATA=" + t.TempDir(), "DREAM_WEB_LISTEN=127.0.0.1:0", "DREAM_CHAT_LISTEN=" + listen,
		"DREAM_DISCORD_TOKEN=" + d.Token, "DREAM_DISCORD_API_URL=" + d.URL(), "DREAM_DISCORD_PUBLIC_KEY=" + d.PublicKey(),
		"DREAM_SLACK_BOT_TOKEN=" + s.BotToken, "DREAM_SLACK_SIGNING_SECRET=" + s.Secret, "DREAM_SLACK_API_URL=" + s.URL(),
	}
	child(t, env, "bot")
	child(t, env, "worker", "--device", "cpu")
	ping := func() bool {
		status, _, err := d.SignedRequest("http://"+listen+"/discord", map[string]any{"type": 1}, time.Now(), true)
		return err == nil && status == http.StatusOK
	}
	if !d.Wait(time.Minute, ping) {
		t.Fatal("the bot does not listen")
	}
	place, room := d.AddChannel("guild1").ID, s.AddChannel()
	in, status, err := d.CommandHTTP("http://"+listen+"/discord", discordtest.Person{ID: "42", Channel: place}, "dream", map[string]any{"prompt": "a ceramic coffee mug", "kind": "views"})
	if _, _, m := d.Answer(in); err != nil || status != http.StatusOK || m == nil || !strings.Contains(m.Content, "Queued") {
		t.Fatalf("Discord's answer: %d %v %+v", status, err, m)
	}
	if a, status, err := s.CommandHTTP("http://"+listen+"/slack", "U42", room, "a ceramic coffee mug --kind views", time.Now(), true); err != nil || status != http.StatusOK || !strings.Contains(string(a.Ack), "Queued") {
		t.Fatalf("Slack's answer: %d %v %s", status, err, a.Ack)
	}
	if !d.Wait(3*time.Minute, func() bool {
		for _, m := range d.Messages(place) {
			if strings.Contains(m.Content, "is ready") {
				if len(m.Attachments) == 0 || strings.Contains(m.Content+string(m.Components), "http") {
					t.Errorf("%d files; %q %s", len(m.Attachments), m.Content, m.Components)
				}
				return true
			}
		}
		return false
	}) {
		t.Error("no result on Discord")
	}
	if !s.Wait(3*time.Minute, func() bool {
		for _, m := range s.Messages(room) {
			if strings.Contains(m.Text, "is ready") {
				return strings.Contains(string(m.Blocks), "slack_file")
			}
		}
		return false
	}) {
		t.Error("no result with pictures on Slack")
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestBotCheckAndManifest(t *testing.T) {
	d, s := discordtest.New(), slacktest.New()
	t.Cleanup(d.Close)
	t.Cleanup(s.Close)
	env := append(os.Environ(), "DREAM_DATA="+t.TempDir(),
		"DREAM_DISCORD_TOKEN="+d.Token, "DREAM_DISCORD_API_URL="+d.URL(), "DREAM_DISCORD_OPS_CHANNEL="+d.AddChannel("g").ID,
		"DREAM_SLACK_BOT_TOKEN="+s.BotToken, "DREAM_SLACK_APP_TOKEN="+s.AppToken, "DREAM_SLACK_API_URL="+s.URL(), "DREAM_SLACK_OPS_CHANNEL="+s.AddChannel())
	check := func() (string, error) {
		cmd := exec.Command("dream", "bot", "check")
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := check()
	if err != nil || strings.Contains(out, "FAIL") || !strings.Contains(out, "Discord accepts") || !strings.Contains(out, "Socket Mode opens") {
		t.Errorf("check: %v\n%s", err, out)
	}
	if !strings.Contains(out, "note links    Without web.public_url messages carry their files") {
		t.Errorf("nothing about links:\n%s", out)
	}
	whole := env
	for setting, want := range map[string]string{
		"DREAM_WEB_PUBLIC_URL=https://dream.example":                          "ok   links    Links lead to https://dream.example",
		"DREAM_WEB_PUBLIC_URL=http://localhost:7860":                          "note links    Links lead to http://localhost:7860 (web.public_url), which people elsewhere cannot open",
		"DREAM_STORAGE_URL=s3://dreams?endpoint=http://127.0.0.1:9000":        "note links    Links lead to http://127.0.0.1:9000 (the storage",
		"DREAM_STORAGE_URL=s3://dreams?endpoint=https://s3.example&region=eu": "ok   links    Links lead to https://s3.example",
	} {
		env = append(slices.Clip(whole), setting)
		if out, err := check(); err != nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v\n%s", setting, err, out)
		}
	}
	env = whole
	for _, token := range []string{d.Token, s.BotToken, s.AppToken} {
		if strings.Contains(out, token) {
			t.Errorf("the check shows a token:\n%s", out)
		}
	}
	d.Revoke()
	s.DropScope("files:read")
	out, err = check()
	if err == nil || !strings.Contains(out, "Discord refuses the bot token") || !strings.Contains(out, "scopes are missing: files:read") {
		t.Errorf("check of a dead token: %v\n%s", err, out)
	}
	manifest, err := exec.Command("dream", "bot", "manifest").Output()
	if err != nil {
		t.Fatal(err)
	}
	shipped, err := os.ReadFile("../../docs/deploy/slack-manifest.yaml")
	if err != nil || string(shipped) != string(manifest) {
		t.Errorf("docs/deploy/slack-manifest.yaml is not what dream bot manifest prints (%v):\n%s", err, manifest)
	}
}
