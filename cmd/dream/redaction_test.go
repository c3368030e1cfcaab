package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"dreamcad/bots/discord/discordtest"
	"dreamcad/bots/slack/slacktest"
	"dreamcad/internal/testout"
	"dreamcad/ops/logfile"
	"dreamcad/queue/queuetest"
	"dreamcad/storage/storagetest"
)

// signedQuery finds what makes a link work.
var signedQuery = regexp.MustCompile(`(?:X-Amz-Signature|X-Amz-Credential|sig)=([^&\s"<>)\\]+)`)

// A whole run of the service at log level debug, in which Redis dies for a while
// and platforms refuse tokens, leaves none of the secrets, no signed link and no
// prompt in anything that bot, worker, doctor and dream logs write.
func TestNoSecretInAnyLog(t *testing.T) {
	if testing.Short() {
		t.Skip("makes views")
	}
	const password, webhook, linkSecret, webToken, prompt, negative = "r3dis/p4ssword", "hook-secret-path", "0123456789abcdef0123456789abcdef", "console-password", "a quokka shaped lantern", "xylophones"
	redis := queuetest.StartRedis(t, "--appendonly", "yes", "--requirepass", password)
	gateway := storagetest.StartGateway(t)
	d, s := discordtest.New(), slacktest.New()
	t.Cleanup(d.Close)
	t.Cleanup(s.Close)
	logs := filepath.Join(t.TempDir(), "dream.log")
	env := []string{
		"DREAM_DATA=" + t.TempDir(), "DREAM_QUEUE_URL=redis://:" + strings.ReplaceAll(password, "/", "%2F") + "@" + redis.Addr,
		"DREAM_STORAGE_URL=s3://dreams?create=true&region=us-east-1&endpoint=" + gateway.Endpoint,
		"DREAM_STORAGE_ACCESS_KEY=" + gateway.AccessKey, "DREAM_STORAGE_SECRET_KEY=" + gateway.SecretKey, "DREAM_STORAGE_LINK_KEYS=k1:" + linkSecret,
		"DREAM_WEB_LISTEN=127.0.0.1:0", "DREAM_WEB_TOKEN=" + webToken, "DREAM_CHAT_EDIT_EVERY=200ms",
		"DREAM_DISCORD_TOKEN=" + d.Token, "DREAM_DISCORD_API_URL=" + d.URL(), "DREAM_DISCORD_OPS_CHANNEL=" + d.AddChannel("guild1").ID,
		"DREAM_SLACK_BOT_TOKEN=" + s.BotToken, "DREAM_SLACK_APP_TOKEN=" + s.AppToken, "DREAM_SLACK_API_URL=" + s.URL(),
		"DREAM_OPS_WEBHOOK=http://127.0.0.1:1/" + webhook, "DREAM_OPS_RULES=memory fire=0.001 clear=0.0005 hold=0s",
		"DREAM_LOG_LEVEL=debug", "DREAM_LOG_FILE=" + logs, "DREAM_LOG_HIDE_PROMPTS=true",
	}
	bot, worker := child(t, env, "bot"), child(t, env, "worker", "--device", "cpu")
	if !d.Wait(time.Minute, func() bool { return d.Connected() > 0 && s.Connected() > 0 }) {
		t.Fatal("the bot does not connect")
	}
	place, room := d.AddChannel("guild1").ID, s.AddChannel()
	d.Command(discordtest.Person{ID: "42", Channel: place}, "dream", map[string]any{"prompt": prompt, "negative": negative, "kind": "views"})
	s.Command("U42", room, prompt+" --kind views --negative "+negative)
	var messages bytes.Buffer
	job := ""
	if !d.Wait(4*time.Minute, func() bool {
		ready := 0
		messages.Reset()
		for _, m := range d.Messages(place) {
			messages.WriteString(m.Content + string(m.Components))
			if strings.Contains(m.Content, "ready") {
				ready |= 1
			}
		}
		for _, m := range s.Messages(room) {
			messages.WriteString(m.Text + string(m.Blocks))
			if strings.Contains(m.Text, "ready") {
				ready |= 2
			}
		}
		return ready == 3
	}) {
		t.Fatalf("no results: %s", &messages)
	}
	if m := regexp.MustCompile(`jobs?/([0-9A-Z]{26})`).FindSubmatch(messages.Bytes()); m != nil {
		job = string(m[1])
	} else {
		t.Fatalf("the messages name no job: %s", &messages)
	}
	redis.Kill()
	time.Sleep(3 * time.Second)
	if err := redis.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	d.Revoke()
	s.DropScope("files:read")
	var written bytes.Buffer
	for _, args := range [][]string{{"doctor", "--quick"}, {"config", "show"}, {"bot", "check"}, {"logs", job}} {
		cmd := exec.Command("dream", args...)
		cmd.Env = append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		written.Write(out)
		if args[0] == "logs" && (err != nil || bytes.Count(out, []byte("\n")) < 2) {
			t.Errorf("dream logs %s: %v\n%s", job, err, out)
		}
	}
	for _, c := range []*exec.Cmd{bot, worker} {
		_ = c.Process.Signal(syscall.SIGTERM)
		_ = c.Wait()
		written.WriteString(c.Stdout.(*testout.Buffer).String())
	}
	files, err := logfile.Files(logs)
	if err != nil || len(files) < 2 {
		t.Fatalf("two processes leave the files %v, %v", files, err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err == nil && strings.HasSuffix(name, ".gz") {
			var z *gzip.Reader
			if z, err = gzip.NewReader(bytes.NewReader(text)); err == nil {
				text, err = io.ReadAll(z)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		written.Write(text)
	}
	text := written.String()
	for _, must := range []string{`"level":"DEBUG"`, "alert firing", "connection refused", "worker starts"} { // the run was what it is meant to be
		if !strings.Contains(text, must) {
			t.Errorf("the logs lack %q", must)
		}
	}
	secrets := map[string]string{"Discord's token": d.Token, "Slack's bot token": s.BotToken, "Slack's app token": s.AppToken, "Redis's password": password,
		"Redis's password in a URL": strings.ReplaceAll(password, "/", "%2F"), "S3's secret key": gateway.SecretKey, "the link key": linkSecret, "the console's token": webToken,
		"the webhook": webhook, "the prompt": prompt, "the negative prompt": negative}
	signed := signedQuery.FindAllStringSubmatch(strings.ReplaceAll(messages.String(), `\u0026`, "&"), -1)
	if len(signed) == 0 {
		t.Logf("the messages hold no signed link: %s", &messages)
	}
	for _, m := range signed {
		if strings.Contains(m[0], "Signature") || strings.HasPrefix(m[0], "sig=") {
			secrets["the signature of a link"] = m[1]
		}
	}
	for what, secret := range secrets {
		if at := strings.Index(text, secret); at >= 0 {
			t.Errorf("%s is in the logs: …%s…", what, text[max(0, at-200):min(len(text), at+len(secret)+100)])
		}
	}
	for _, m := range signedQuery.FindAllString(text, -1) {
		if !strings.Contains(m, "redacted") {
			t.Errorf("a signed link is in the logs: %s", m)
		}
	}
}
