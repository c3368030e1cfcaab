package main

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"dreamcad/bots/discord/discordtest"
	"dreamcad/ops/doctor"
	"dreamcad/ops/gpu/gputest"
	"dreamcad/queue/queuetest"
)

// runDoctor runs the program under a shell prefix and returns its results by title.
func runDoctor(t *testing.T, env []string, prefix string, args ...string) (map[string]doctor.Result, error) {
	t.Helper()
	cmd := exec.Command("sh", "-c", prefix+`exec dream doctor --json "$@"`, "sh")
	cmd.Args = append(cmd.Args, args...)
	cmd.Env = append(os.Environ(), env...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, runErr := cmd.Output()
	var rs []doctor.Result
	if err := json.Unmarshal(out, &rs); err != nil {
		t.Fatalf("%v %v: %s\n%s", err, runErr, out, errs.String())
	}
	found := map[string]doctor.Result{}
	for _, r := range rs {
		found[r.Title] = r
	}
	return found, runErr
}

// Everything that can be broken for real on any machine is broken at once: the
// doctor names each.
func TestDoctorFindsFaults(t *testing.T) {
	redis := queuetest.StartRedis(t, "--appendonly", "no")
	chat := discordtest.New()
	t.Cleanup(chat.Close)
	chat.Revoke()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	go func() {
		for {
			c, err := taken.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	data := t.TempDir()
	broken := filepath.Join(data, "models", "broken")
	token := filepath.Join(data, "token")
	file := filepath.Join(data, "file")
	for path, text := range map[string]string{filepath.Join(broken, "model.json"): "{", token: chat.Token, file: ""} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{
		"DREAM_DATA=" + data, "DREAM_QUEUE_URL=redis://" + redis.Addr, "DREAM_STORAGE_URL=file://" + file + "/results",
		"DREAM_DISCORD_TOKEN_FILE=" + token, "DREAM_DISCORD_API_URL=" + chat.URL(), "DREAM_WEB_LISTEN=" + taken.Addr().String(),
	}
	found, err := runDoctor(t, env, "ulimit -n 512; ", "--quick")
	if err == nil {
		t.Error("the exit code says that all is well")
	}
	for title, want := range map[string]doctor.Verdict{
		"Queue: no append-only file": doctor.Warn, "Clock of the queue": doctor.Pass, "Storage": doctor.Fail, "Model broken": doctor.Fail, "Chat: discord": doctor.Fail,
		"web.listen " + taken.Addr().String(): doctor.Fail, "Secrets in " + token: doctor.Warn, "Open files": doctor.Warn,
		"Folder " + file + "/results (results)": doctor.Fail, "Speed of the processor": doctor.Unknown, "Processor": found["Processor"].Verdict,
	} {
		if r, ok := found[title]; !ok || r.Verdict != want {
			t.Errorf("%s: %+v, want %s", title, r, want)
		}
	}
}

// What keeps a Redis from being used is named, and what the server lets be known
// of its durability is judged.
func TestDoctorAsksRedis(t *testing.T) {
	say := func(set func(c *redis.Client) error, args ...string) map[string]doctor.Result {
		t.Helper()
		server := queuetest.StartRedis(t, args...)
		if err := set(server.Client()); err != nil {
			t.Fatal(err)
		}
		found, _ := runDoctor(t, []string{"DREAM_DATA=" + t.TempDir(), "DREAM_WEB_LISTEN=127.0.0.1:0", "DREAM_QUEUE_URL=redis://" + server.Addr}, "", "--quick")
		return found
	}
	set := func(name, value string) func(*redis.Client) error {
		return func(c *redis.Client) error { return c.ConfigSet(t.Context(), name, value).Err() }
	}
	for want, found := range map[string]map[string]doctor.Result{
		"wants a password, which queue.url does not name": say(set("requirepass", "hunter2hunter2")),
		"is a replica and takes no writes":                say(func(c *redis.Client) error { return c.ReplicaOf(t.Context(), "127.0.0.1", "1").Err() }),
		"command not allowed when used memory":            say(set("maxmemory", "1kb")),
	} {
		if r := found["Queue"]; r.Verdict != doctor.Fail || !strings.Contains(r.Text, want) || strings.Contains(r.Text, "does not answer") || strings.Contains(r.Text, "..") {
			t.Errorf("%s: %+v", want, r)
		}
	}
	good := say(set("appendfsync", "always"), "--appendonly", "yes", "--maxmemory-policy", "noeviction")
	mute := say(func(*redis.Client) error { return nil }, "--appendonly", "no", "--maxmemory-policy", "allkeys-lru", "--rename-command", "CONFIG", "")
	for title, want := range map[string]doctor.Verdict{"appendonly": doctor.Pass, "appendfsync": doctor.Pass, "maxmemory-policy": doctor.Pass} {
		if r := good["Queue: "+title]; r.Verdict != want {
			t.Errorf("%s: %+v", title, r)
		}
	}
	for title, want := range map[string]doctor.Verdict{"no append-only file": doctor.Warn, "appendfsync": doctor.Unknown, "Redis may evict jobs": doctor.Warn} {
		if r := mute["Queue: "+title]; r.Verdict != want {
			t.Errorf("without CONFIG: %s: %+v", title, r)
		}
	}
}

// Looking makes nothing: what root looked at would be root's. Mending says what
// it made, and the second time there is nothing to make.
func TestDoctorMakesNothing(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	env := []string{"DREAM_DATA=" + data, "DREAM_WEB_LISTEN=7860", "DREAM_WEB_TOKEN=hunter2hunter2"}
	found, _ := runDoctor(t, env, "", "--quick")
	for title, want := range map[string]string{"Queue": data + "/queue.db is made at first use", "Storage": data + "/results is made at first use"} {
		if r := found[title]; r.Verdict != doctor.Unknown || !strings.Contains(r.Text, want) {
			t.Errorf("%s: %+v", title, r)
		}
	}
	if _, err := os.Stat(data); !os.IsNotExist(err) {
		t.Errorf("the doctor made the data folder: %v", err)
	}
	if r := found["web.listen 7860"]; r.Verdict != doctor.Fail || !strings.Contains(r.Do, "HOST:PORT") {
		t.Errorf("%+v", r)
	}
	title := "Folder " + data + " (results, queue and work in progress)"
	for i, want := range []string{"It was missing and has been made, for ", "It can be written."} {
		if found, _ := runDoctor(t, env, "", "--quick", "--fix"); !strings.HasPrefix(found[title].Text, want) {
			t.Errorf("mending, time %d: %+v", i+1, found[title])
		}
	}
}

// A full disk is a real one of 12 MB.
func TestDoctorOnAFullDisk(t *testing.T) {
	disk := t.TempDir()
	mount := `mount -t tmpfs -o size=12m tmpfs "$DISK" && head -c 8M /dev/zero > "$DISK/filler" && `
	if out, err := exec.Command("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "DISK="+disk+"; "+mount+"true").CombinedOutput(); err != nil {
		t.Skipf("this system lets nobody mount a disk: %v %s", err, out)
	}
	cmd := exec.Command("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount+"exec dream doctor --quick --json")
	cmd.Env = append(os.Environ(), "DISK="+disk, "DREAM_DATA="+disk, "DREAM_WEB_LISTEN=127.0.0.1:0")
	out, err := cmd.Output()
	var rs []doctor.Result
	if e := json.Unmarshal(out, &rs); e != nil || err == nil {
		t.Fatalf("%v %v: %s", e, err, out)
	}
	for _, r := range rs {
		if r.Title == "Disk of "+disk {
			if r.Verdict != doctor.Fail {
				t.Errorf("%+v", r)
			}
			return
		}
	}
	t.Errorf("no word about the disk: %s", out)
}

// What --fix mends is whole afterwards; the report holds every check; nothing
// that is configured secret shows.
func TestDoctorFixesAndReports(t *testing.T) {
	data := t.TempDir()
	config, report := filepath.Join(data, "dream.yaml"), filepath.Join(data, "doctor.md")
	if err := os.WriteFile(config, []byte("data: "+data+"\nweb:\n  listen: 127.0.0.1:0\n  token: hunter2hunter2\nmodels:\n  dir: "+data+"/here/models\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	env := []string{"DREAM_CONFIG=" + config}
	title := "Folder " + data + "/here/models (models)"
	before, _ := runDoctor(t, env, "", "--quick")
	if !strings.Contains(before[title].Text, "does not exist yet") || before["Secrets in "+config].Verdict != doctor.Warn {
		t.Errorf("before: %+v\n%+v", before[title], before["Secrets in "+config])
	}
	after, _ := runDoctor(t, env, "", "--fix", "--report", report)
	if !strings.Contains(after[title].Text, "has been made") || after["Secrets in "+config].Verdict != doctor.Pass || after["Model mini"].Verdict != doctor.Pass {
		t.Errorf("after: %+v\n%+v\n%+v", after[title], after["Secrets in "+config], after["Model mini"])
	}
	if s := after["Speed of the processor"]; s.Verdict != doctor.Pass || !strings.Contains(s.Text, "GFLOP/s") {
		t.Errorf("%+v", s)
	}
	if info, err := os.Stat(config); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v %v", info, err)
	}
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n| "); n != len(after)+1 {
		t.Errorf("the report has %d lines for %d checks:\n%s", n, len(after), text)
	}
	if strings.Contains(string(text), "hunter2") {
		t.Errorf("the report shows a secret:\n%s", text)
	}
}

// The unchanged program looks at cards of a scripted driver: a sound one above
// 300 W, a hot one, one that was lost.
func TestDoctorLooksAtCards(t *testing.T) {
	library := gputest.Build(t, `0 temperature 40
0 memory_used 1e9
0 memory_total 80e9
0 power_limit 700
0 margin 45
card 1
0 temperature 88
0 margin 3
card 2
0 lost 1
`)
	found, err := runDoctor(t, append(library.Env(), "DREAM_DATA="+t.TempDir(), "DREAM_WEB_LISTEN=127.0.0.1:0"), "", "--quick")
	if err == nil {
		t.Error("a lost card is no failure")
	}
	for title, want := range map[string]struct {
		verdict doctor.Verdict
		text    string
	}{
		"GPU 0": {doctor.Pass, "compute capability 9.0"}, "GPU 1": {doctor.Warn, "88 °C"}, "GPU 2": {doctor.Fail, "cannot be reached"},
		"CUDA libraries": {doctor.Warn, "not used"},
	} {
		if r := found[title]; r.Verdict != want.verdict || !strings.Contains(r.Text, want.text) {
			t.Errorf("%s: %+v", title, r)
		}
	}
	if !strings.Contains(found["GPU 0"].Do, "power supply") {
		t.Errorf("no word about the power supply: %+v", found["GPU 0"])
	}
	if r := found["NVIDIA driver"]; r.Verdict == "" || !strings.Contains(r.Text, "470") || !strings.Contains(r.Text, "525") {
		t.Errorf("%+v", r)
	}
}
