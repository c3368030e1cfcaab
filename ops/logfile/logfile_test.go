package logfile

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if name := os.Getenv("LOGFILE_CHILD"); name != "" {
		if err := writeLines(os.Getenv("LOGFILE_PATH"), name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestRedaction(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(Redact(slog.NewJSONHandler(&out, nil), Options{Secrets: []string{"hunter22", "ab"}, Prompts: true}))
	secrets := []string{
		"hunter22", "deadbeefcafe", "AKIAEXAMPLE", "xoxb-123456789012-abcdefgh", "xapp-1-A111-222-abcdef", "T000/B000/secretpart",
		"p4ssword", "a clay pot", "abcdefghijklmnopqrst1234", "tokentoken42", "hf_abcdefghijklmnopqrstuvwxyz",
	}
	signed := "https://s3/b/k?X-Amz-Credential=AKIAEXAMPLE%2Fx&X-Amz-Signature=deadbeefcafe&x=1"
	log.Info("got "+signed, "url", signed, "err", fmt.Errorf("get %q: %w", signed, errors.New("key hunter22 refused")))
	log.With("token", "xoxb-123456789012-abcdefgh").WithGroup("g").Warn("x", slog.Group("h", "t", "xapp-1-A111-222-abcdef"))
	log.Info("post to https://hooks.slack.com/services/T000/B000/secretpart", "discord", "https://discord.com/api/webhooks/123/abcdefghijklmnopqrst1234")
	log.Info("open", "queue", "redis://user:p4ssword@host:6379/0", "prompt", "a clay pot", "header", "Bearer tokentoken42", "list", []string{"hunter22"})
	log.Info("link https://x/r/JOB/model.glb?exp=123&sig=deadbeefcafe")
	log.Warn("pull", "err", errors.New("refused hf_abcdefghijklmnopqrstuvwxyz"))
	log.Info("about a lab", "count", 3, "job", "01ABC")
	for _, s := range secrets {
		if strings.Contains(out.String(), s) {
			t.Errorf("%q is in the log:\n%s", s, out.String())
		}
	}
	for _, s := range []string{`"msg":"about a lab"`, `"count":3`, `"job":"01ABC"`, "x=1", "host:6379/0", "exp=123"} {
		if !strings.Contains(out.String(), s) {
			t.Errorf("%q is not in the log:\n%s", s, out.String())
		}
	}
}

func TestRotationAndJob(t *testing.T) {
	path := filepath.Join(t.TempDir(), "logs", "dream.log")
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewJSONHandler(f, nil))
	filler := strings.Repeat("x", 1<<16)
	log.Info("first", "job", "01AAAAAAMINE")
	for range 330 { // over 20 MB
		log.Info(filler, "job", "01AAAAAOTHER")
	}
	log.Info("last", "job", "01AAAAAAMINE")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := Files(path)
	if err != nil || len(files) != 3 || files[len(files)-1] != path {
		t.Fatalf("%v %v", files, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() > 10<<20 {
		t.Fatalf("%v %v", info.Size(), err)
	}
	for _, place := range []string{path, filepath.Dir(path)} {
		var out bytes.Buffer
		found, err := Job(&out, []string{place, path}, "aamine")
		if n := found.Lines; err != nil || n != 2 || found.Trouble != nil || strings.Index(out.String(), "first") > strings.Index(out.String(), "last") || !strings.Contains(out.String(), "last") {
			t.Fatalf("%+v, %v:\n%s", found, err, out.String())
		}
	}
	none := filepath.Join(t.TempDir(), "none", "dream.log")
	if found, err := Job(io.Discard, []string{none}, "aamine"); found.Lines != 0 || err != nil || !slices.Equal(found.Missing, []string{none}) {
		t.Errorf("a log that is not there: %+v, %v", found, err)
	}
}

// Lines come from every folder in the order of time, from what is left of a
// damaged file, and from those that name the job otherwise than as their own.
func TestJobFromManyPlaces(t *testing.T) {
	const id, other = "01M8DJF1M3CTPJ88S04K0GGVF8", "01M8DJF1M3CTPJ88S04KXGGVF8"
	root := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	record := func(second int, rest string) string {
		return fmt.Sprintf(`{"time":"2026-01-01T00:00:%02dZ",%s}`+"\n", second, rest)
	}
	zip := func(text string) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write([]byte(text))
		_ = z.Close()
		return b.String()
	}
	whole := zip(record(1, `"n":1,"job":"`+id+`"`) + strings.Repeat(record(0, `"x":"`+rand.Text()+`"`), 10) + record(9, `"n":9,"job":"`+id+`"`))
	write("a/dream-2026-01-01T00-00-01.000.log.gz", whole[:len(whole)-4]) // its checksum is cut off
	write("b/empty.log.gz", "")
	write("b/host7/dream.log", record(3, `"n":3,"msg":"an outcome could not be sent yet","event":"`+id+`:7"`)+
		record(4, `"n":4,"job":"`+other+`"`)+record(5, `"n":5,"prompt":"VF8"`)+strings.TrimSpace(record(6, `"n":6,"job":"`+id+`"`)))
	write("b/host7/notes.txt", record(7, `"n":7,"job":"`+id+`"`))
	if err := os.Symlink(filepath.Join(root, "b"), filepath.Join(root, "c")); err != nil {
		t.Fatal(err)
	}
	single := write("d.log", record(2, `"n":2,"code":"no_progress","key":"`+id+`"`)+`{"time":"2026-01-01T00:00:08Z","job":"`+id)
	var out bytes.Buffer
	found, err := Job(&out, []string{single, root + "/a", root + "/b", root + "/c"}, strings.ToLower(id[18:]))
	var ns []int
	for l := range strings.Lines(out.String()) {
		var x struct{ N int }
		if err := json.Unmarshal([]byte(l), &x); err != nil {
			t.Errorf("%v: %q", err, l)
		}
		ns = append(ns, x.N)
	}
	if err != nil || !slices.Equal(ns, []int{1, 2, 3, 6, 9}) || found.Lines != 5 || found.Files != 4 || len(found.Trouble) != 2 {
		t.Errorf("%+v, %v: %v", found, err, ns)
	}
	out.Reset()
	if found, err := Job(&out, []string{root}, "GGVF8"); err != nil || out.Len() > 0 || !slices.Equal(found.Jobs, []string{id, other}) {
		t.Errorf("an ending of two jobs: %+v, %v, %s", found, err, &out)
	}
}

// Ten files stay, however much is written.
func TestTenFilesStay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dream.log")
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	line := append(bytes.Repeat([]byte("x"), 1<<20), '\n')
	for range 150 {
		if _, err := f.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var files []string
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) { // older ones are gzipped and removed beside the writing
		if files, err = Files(path); err != nil {
			t.Fatal(err)
		}
		if len(files) == 10 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d files: %v", len(files), files)
		}
	}
	if !strings.HasSuffix(files[0], ".gz") {
		t.Errorf("%s is not compressed", files[0])
	}
}

// writeLines is what a child process does: numbered records of 1 kB.
func writeLines(path, name string) error {
	f, err := Open(path)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewJSONHandler(f, nil))
	filler := strings.Repeat("x", 1000)
	for i := range linesOfChild {
		log.Info("line", "process", name, "n", i, "filler", filler)
	}
	return f.Close()
}

const linesOfChild = 25_000 // 28 MB: two rotations

// Three processes with one path at a time, and one after them: each line is
// there once and whole.
func TestProcessesShareAPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dream.log")
	write := func(names ...string) {
		var children []*exec.Cmd
		for _, name := range names {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "LOGFILE_CHILD="+name, "LOGFILE_PATH="+path)
			cmd.Stderr = os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			children = append(children, cmd)
		}
		for _, cmd := range children {
			if err := cmd.Wait(); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("a", "b", "c")
	write("d")
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "dream-worker.log"), []byte("another's\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := Files(path)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, ".gz") {
			z, err := gzip.NewReader(bytes.NewReader(raw))
			if err != nil {
				t.Fatal(err)
			}
			if raw, err = io.ReadAll(z); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		for text := range bytes.Lines(raw) {
			var l struct {
				Process string
				N       int
			}
			if err := json.Unmarshal(text, &l); err != nil || l.Process == "" {
				t.Fatalf("%s holds %.100q: %v", name, text, err)
			}
			seen[fmt.Sprint(l.Process, l.N)]++
		}
	}
	if len(seen) != 4*linesOfChild {
		t.Errorf("%d lines of %d in %v", len(seen), 4*linesOfChild, files)
	}
	for l, n := range seen {
		if n != 1 {
			t.Fatalf("line %s is there %d times", l, n)
		}
	}
}
