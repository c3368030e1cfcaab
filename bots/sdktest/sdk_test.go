// Package sdktest holds no code: its test lets the platforms' own SDKs work against
// the test servers, so that these are not only what we believe of the platforms.
package sdktest

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dreamcad/bots/discord/discordtest"
	"dreamcad/bots/slack/slacktest"
)

const patience = time.Minute

var install sync.Once

// node runs a script of this folder until the test ends, once it says "ready".
func node(t *testing.T, script string, args ...string) (stderr *bytes.Buffer) {
	t.Helper()
	install.Do(func() {
		if _, err := os.Stat("node_modules"); err == nil {
			return
		}
		out, err := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts").CombinedOutput()
		if err != nil {
			t.Fatalf("install the SDKs (npm ci): %v\n%s", err, out)
		}
	})
	cmd := exec.Command("node", append([]string{script}, args...)...)
	stderr = &bytes.Buffer{}
	cmd.Stderr = stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready, ended := make(chan bool, 1), make(chan struct{})
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if strings.TrimSpace(lines.Text()) == "ready" {
				ready <- true
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", script, stderr)
		}
	})
	select {
	case <-ready:
	case <-ended:
		t.Fatalf("%s ended", script)
	case <-time.After(patience):
		t.Fatalf("%s is not ready", script)
	}
	return stderr
}

func TestDiscordJS(t *testing.T) {
	s := discordtest.New()
	t.Cleanup(s.Close)
	node(t, "discord.js", s.URL(), s.Token)
	if len(s.Commands()) != 1 {
		t.Errorf("%d commands", len(s.Commands()))
	}
	channel := s.AddChannel("1000000000000000001").ID
	in := s.Command(discordtest.Person{ID: "1000000000000000042", Channel: channel}, "dream", map[string]any{"prompt": "a ceramic coffee mug"})
	if !s.Wait(patience, func() bool { return len(s.Messages(channel)) == 2 }) {
		t.Fatalf("messages: %+v", s.Messages(channel))
	}
	_, _, answer := s.Answer(in)
	if answer == nil || answer.Content != "Running: a ceramic coffee mug" {
		t.Errorf("the answer is %+v", answer)
	}
	m := s.Messages(channel)[1]
	if !slices.Equal(m.Pinged, []string{"1000000000000000042"}) || m.Everyone || len(m.Attachments) != 1 || m.Reference != answer.ID {
		t.Errorf("the result is %+v", m)
	}
}

func TestSlackBolt(t *testing.T) {
	s := slacktest.New()
	t.Cleanup(s.Close)
	node(t, "slack.js", s.URL(), s.BotToken, s.AppToken)
	if !s.Wait(patience, func() bool { return s.Connected() == 1 }) {
		t.Fatal("no socket")
	}
	channel := s.AddChannel()
	in := s.Command("U42", channel, "a ceramic coffee mug")
	if a := s.WaitAck(in, patience); !bytes.Contains(a.Ack, []byte("Queued: a ceramic coffee mug")) {
		t.Errorf("ack %s", a.Ack)
	}
	if !s.Wait(patience, func() bool { return len(s.Answered(in).Responses) == 1 }) {
		t.Fatalf("messages %+v", s.Messages(channel))
	}
	list := s.Messages(channel)
	if len(list) != 2 || list[0].Text != "Finished" || list[1].Thread != list[0].TS || !slices.Equal(list[1].Pinged, []string{"U42"}) {
		t.Fatalf("messages %+v", list)
	}
	click := s.Click("U42", list[1], "v1:vary:1")
	if !s.Wait(patience, func() bool { return len(s.Answered(click).Responses) == 1 }) {
		t.Error("the button is not answered")
	}
}
