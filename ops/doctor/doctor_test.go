package doctor

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dreamcad/inference/device"
	"dreamcad/inference/device/cpu"
	"dreamcad/inference/models"
	"dreamcad/ops/gpu"
	"dreamcad/ops/host"
	"dreamcad/queue"
	"dreamcad/queue/queuetest"
	"dreamcad/queue/redisq"
	"dreamcad/queue/sqliteq"
	"dreamcad/storage"
	"dreamcad/storage/s3"
	"dreamcad/storage/storagetest"
)

func TestVerdicts(t *testing.T) {
	known := func(used, total float64) host.Share {
		return host.Share{Used: uint64(used), Total: uint64(total), Known: true}
	}
	x := &Directory{Path: "/x", Holds: "things", Needs: 20e9}
	fields := func(more ...string) map[string]string {
		f := map[string]string{"Id": "dream-worker.service", "ActiveState": "active", "Type": "notify", "LimitNOFILE": "65536", "MemoryMax": "infinity", "WatchdogUSec": "1min"}
		for i := 0; i < len(more); i += 2 {
			f[more[i]] = more[i+1]
		}
		return f
	}
	for name, x := range map[string]struct {
		got  Result
		want Verdict
	}{
		"memory unknown":     {memory(host.Share{}), Unknown},
		"16 GB":              {memory(known(1e9, 16e9)), Warn},
		"64 GB":              {memory(known(1e9, 64e9)), Pass},
		"old processor":      {processor(t.Context(), nil), Warn},
		"processor":          {processor(t.Context(), []string{"avx2", "fma"}), Pass},
		"disk unknown":       {disk(x, host.Share{}), Unknown},
		"disk full":          {disk(x, known(99.5e9, 100e9)), Fail},
		"disk short":         {disk(x, known(90e9, 100e9)), Warn},
		"disk below 50 GB":   {disk(x, known(60e9, 100e9)), Warn},
		"disk free":          {disk(x, known(10e9, 100e9)), Pass},
		"no driver":          {driver(gpu.Driver{}), Unknown},
		"old driver":         {driver(gpu.Driver{Version: "470.82.01"}), Fail},
		"driver":             {driver(gpu.Driver{Version: "550.54.15", CUDA: "12.4"}), Pass},
		"lost card":          {card(&gpu.Sample{Lost: "GPU is lost"}), Fail},
		"old card":           {card(&gpu.Sample{Capability: "7.5"}), Fail},
		"ecc":                {card(&gpu.Sample{ECCErrors: gpu.Of(1)}), Fail},
		"hot card":           {card(&gpu.Sample{SlowdownMargin: gpu.Of(3)}), Warn},
		"card":               {card(&gpu.Sample{Temperature: gpu.Of(40), Capability: "9.0"}), Pass},
		"files":              {openFiles(65536, nil), Pass},
		"few files":          {openFiles(1024, nil), Warn},
		"files unknown":      {openFiles(0, errors.New("no")), Unknown},
		"no memory limit":    {memoryLimit(0, nil), Pass},
		"low memory limit":   {memoryLimit(1<<30, nil), Warn},
		"limit unknown":      {memoryLimit(0, errors.New("no")), Unknown},
		"unit":               {unit(fields()), Pass},
		"unit, watchdog off": {unit(fields("WatchdogUSec", "0")), Warn},
		"unit, simple":       {unit(fields("Type", "simple")), Warn},
		"unit, few files":    {unit(fields("LimitNOFILE", "1024")), Warn},
		"unit, low memory":   {unit(fields("MemoryMax", "536870912")), Warn},
		"unit, failed":       {unit(fields("ActiveState", "failed")), Fail},
		"fast card":          {judge(Result{}, "NVIDIA H100 80GB HBM3", "x", 2900, "GB/s", 3350, 0.7), Pass},
		"slow card":          {judge(Result{}, "NVIDIA H100 80GB HBM3", "x", 900, "GB/s", 3350, 0.7), Warn},
		"unknown card":       {judge(Result{}, "NVIDIA X", "x", 900, "GB/s", 0, 0.7), Pass},
		"chat unknown":       {chat(nil)[0], Unknown},
		"chat refused":       {chat([]Finding{{Platform: "slack", Text: "no"}})[0], Fail},
	} {
		if x.got.Verdict != x.want || x.got.Text == "" || (x.want == Fail || x.want == Warn) && x.got.Do == "" {
			t.Errorf("%s: %+v, want %s with advice", name, x.got, x.want)
		}
	}
	if s := card(&gpu.Sample{Name: "X"}).Text; !strings.Contains(s, "unknown °C") || !strings.Contains(s, "capability unknown") {
		t.Errorf("a sensor that cannot be read shows as %q", s)
	}
	if b, _ := expected("NVIDIA GeForce RTX 4090"); b != 1008 {
		t.Errorf("a 4090 copies %g GB/s", b)
	}
	if b, _ := expected("NVIDIA GeForce RTX 4090 Laptop GPU"); b != 0 {
		t.Errorf("a laptop's 4090 is another card, %g GB/s", b)
	}
}

func find(t *testing.T, rs []Result, title string) Result {
	t.Helper()
	for _, r := range rs {
		if r.Title == title {
			return r
		}
	}
	t.Fatalf("no check %q in %v", title, rs)
	return Result{}
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	q, err := sqliteq.Open(t.Context(), filepath.Join(dir, "queue.db"), queue.DefaultConfig(), sqliteq.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	rs := Run(t.Context(), Deps{Directories: []Directory{{Path: dir}}, Queue: q, StoreError: errors.New("no such host"),
		Processor: Device{Name: "the processor", Open: func() (device.Device, error) { return cpu.New(cpu.Options{}) }},
		Cards:     []Device{{Name: "cuda:0", Open: func() (device.Device, error) { return nil, errors.New("gone") }}}})
	for title, want := range map[string]Verdict{"Storage": Fail, "Speed of cuda:0": Fail, "Speed of the processor": Pass, "Models": Unknown, "Chat": Unknown, "Queue: queue file": Pass} {
		if r := find(t, rs, title); r.Verdict != want {
			t.Errorf("%+v, want %s", r, want)
		}
	}
	if s := find(t, rs, "Speed of the processor").Text; !strings.Contains(s, "GFLOP/s") {
		t.Error(s)
	}
	if Worst(rs) != Fail {
		t.Error("the worst is not a failure")
	}
	var out bytes.Buffer
	if err := Print(&out, rs, false); err != nil || strings.Contains(out.String(), "\x1b") || !strings.Contains(out.String(), "no such host") {
		t.Errorf("%v:\n%s", err, out.String())
	}
	out.Reset()
	if err := Print(&out, rs, true); err != nil || !strings.Contains(out.String(), colours[Fail]+"fail") {
		t.Errorf("%v: no colour in\n%s", err, out.String())
	}
	out.Reset()
	if err := Markdown(&out, []Result{{Title: "a|b", Verdict: Fail, Text: "c\nd"}}, "h", "v", time.Now()); err != nil || !strings.Contains(out.String(), `| **fail** | a\|b | c d |`) {
		t.Errorf("%v:\n%s", err, out.String())
	}
}

func TestFoldersAndSecrets(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	check := func(path string, fix bool) Result {
		return directory(t.Context(), &Directory{Path: path, Holds: "things"}, fix)[0]
	}
	if r := check(file, false); r.Verdict != Fail {
		t.Errorf("a file in place of a folder: %+v", r)
	}
	if r := check(filepath.Join(file, "below"), false); r.Verdict != Fail {
		t.Errorf("a folder below a file: %+v", r)
	}
	absent := filepath.Join(dir, "a", "b")
	if r := check(absent, false); r.Verdict != Pass || !strings.Contains(r.Text, "does not exist yet") {
		t.Errorf("an absent folder: %+v", r)
	}
	if _, err := os.Stat(absent); err == nil {
		t.Error("it was made without --fix")
	}
	if r := check(absent, true); r.Verdict != Pass || !strings.Contains(r.Text, "has been made") {
		t.Errorf("mended: %+v", r)
	}
	if r := secrets([]string{file, filepath.Join(dir, "none")}, false); len(r) != 1 || r[0].Verdict != Warn {
		t.Errorf("a secret for everybody: %+v", r)
	}
	if r := secrets([]string{file}, true); r[0].Verdict != Pass {
		t.Errorf("mended: %+v", r)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

// Real servers with real faults.
func TestServers(t *testing.T) {
	r := queuetest.StartRedis(t, "--appendonly", "no")
	o, err := redisq.ParseURL("redis://" + r.Addr)
	if err != nil {
		t.Fatal(err)
	}
	q, err := redisq.Open(t.Context(), queue.DefaultConfig(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	d := Deps{Queue: q, QueueClock: q.Time}
	if x := find(t, queueChecks(t.Context(), &d), "Queue: no append-only file"); x.Verdict != Warn {
		t.Errorf("Redis without its log: %+v", x)
	}
	if x := clocks(t.Context(), &d); len(x) != 1 || x[0].Verdict != Pass {
		t.Errorf("Redis's clock: %+v", x)
	}
	r.Kill()
	if x := queueChecks(t.Context(), &d); x[0].Verdict != Fail {
		t.Errorf("no Redis: %+v", x)
	}
	if x := clocks(t.Context(), &d); x[0].Verdict != Unknown {
		t.Errorf("the clock of no Redis: %+v", x)
	}

	gateway := storagetest.StartGateway(t)
	behind, err := url.Parse(gateway.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	late := time.Duration(0) // of the clock of the server
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", behind.Host, p.In.Host
		},
		ModifyResponse: func(resp *http.Response) error {
			if at, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
				resp.Header.Set("Last-Modified", at.Add(-late).Format(http.TimeFormat))
			}
			return nil
		},
	}
	front := httptest.NewServer(proxy)
	defer front.Close()
	cfg, err := s3.ParseURL("s3://doctor?create=true&region=us-east-1&endpoint=" + front.URL)
	if err != nil {
		t.Fatal(err)
	}
	cfg.AccessKey, cfg.SecretKey = gateway.AccessKey, gateway.SecretKey
	st, err := s3.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	d = Deps{Store: st}
	if x := store(t.Context(), &d); x.Verdict != Pass {
		t.Errorf("S3: %+v", x)
	}
	for by, want := range map[time.Duration]Verdict{0: Pass, 10 * time.Second: Warn, 5 * time.Minute: Fail, -5 * time.Minute: Fail} {
		late = by
		if x := clocks(t.Context(), &d); len(x) != 1 || x[0].Verdict != want {
			t.Errorf("S3's clock %v late: %+v, want %s", by, x, want)
		}
	}
	if x := store(t.Context(), &Deps{Store: lax{st}}); x.Verdict != Warn {
		t.Errorf("S3 without conditional PUT: %+v", x)
	}
}

// lax is a store that lets a second writer through.
type lax struct{ storage.Store }

func (s lax) Check(ctx context.Context) (storage.Features, error) {
	cond, err := storage.Probe(ctx, s)
	return storage.Features{Backend: "lax", Conditional: cond}, err
}

func (s lax) Create(ctx context.Context, key string, data []byte) error {
	return s.Put(ctx, key, bytes.NewReader(data), int64(len(data)))
}

func TestListen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	done := make(chan struct{})
	go func() { // another program, which hangs up on everybody
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	if r := listen(t.Context(), Listen{"web.listen", address}); r.Verdict != Fail {
		t.Errorf("a taken port: %+v", r)
	}
	_ = l.Close()
	<-done
	if r := listen(t.Context(), Listen{"web.listen", address}); r.Verdict != Pass {
		t.Errorf("a free port: %+v", r)
	}
	own := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) }))
	defer own.Close()
	if r := listen(t.Context(), Listen{"web.listen", own.Listener.Addr().String()}); r.Verdict != Pass {
		t.Errorf("our own port: %+v", r)
	}
	if r := listen(t.Context(), Listen{"web.listen", "nowhere.invalid:80"}); r.Verdict != Fail {
		t.Errorf("an impossible address: %+v", r)
	}
}

func TestModels(t *testing.T) {
	dir := t.TempDir()
	s := &models.Store{Dir: dir}
	for _, r := range modelChecks(t.Context(), s, false, true) {
		if r.Verdict != Warn || !strings.Contains(r.Do, "dream models pull") {
			t.Errorf("a card without its model: %+v", r)
		}
	}
	if err := os.CopyFS(filepath.Join(dir, "mini"), os.DirFS("../../inference/models/mini")); err != nil {
		t.Fatal(err)
	}
	if r := find(t, modelChecks(t.Context(), s, false, false), "Model mini"); r.Verdict != Pass {
		t.Errorf("a sound model: %+v", r)
	}
	weights, err := filepath.Glob(filepath.Join(dir, "mini", "*.safetensors"))
	if err != nil || len(weights) != 1 {
		t.Fatal(weights, err)
	}
	text, err := os.ReadFile(weights[0])
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := os.WriteFile(weights[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := find(t, modelChecks(t.Context(), s, false, false), "Model mini"); r.Verdict != Fail {
		t.Errorf("a model with one wrong bit: %+v", r)
	}
	if r := find(t, modelChecks(t.Context(), s, true, false), "Model mini"); r.Verdict != Unknown {
		t.Errorf("a model whose digests were left out: %+v", r)
	}
}

// tester is the memory of a card in a test.
type tester struct {
	free, total int64
	err         error
}

func (m *tester) Memory() (int64, int64, error) { return m.free, m.total, nil }

func (m *tester) TestMemory(bytes int64) error {
	if bytes > m.free*9/10 {
		return errors.New("more than nine tenths were asked for")
	}
	return m.err
}

func (m *tester) TestCopy(int64) (float64, error) { return 1e12, m.err }

func TestAllocation(t *testing.T) {
	for name, x := range map[string]struct {
		m    tester
		want Verdict
	}{
		"empty":  {tester{free: 23e9, total: 24e9}, Pass},
		"in use": {tester{free: 2e9, total: 24e9}, Warn},
		"broken": {tester{free: 23e9, total: 24e9, err: errors.New("holds 0")}, Fail},
	} {
		if r := allocation("cuda:0", &x.m); r.Verdict != x.want {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestBusAndLibraries(t *testing.T) {
	bus := t.TempDir()
	for name, class := range map[string]string{"0000:01:00.0": "0x030000", "0000:01:00.1": "0x040300"} { // the card and its sound
		dir := filepath.Join(bus, name)
		if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "vendor"), []byte("0x10de\n"), 0o600), os.WriteFile(filepath.Join(dir, "class"), []byte(class+"\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if got := nvidiaDevices(bus); len(got) != 1 || got[0] != "0000:01:00.0" {
		t.Errorf("%v", got)
	}
	dir := t.TempDir()
	if r := libraries([]string{dir}); r.Verdict != Pass || !strings.Contains(r.Text, "Found: none") {
		t.Errorf("%+v", r)
	}
	touch := func(name string) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	touch("libnvidia-ml.so.1")
	if r := libraries([]string{dir}); r.Verdict != Warn || !strings.Contains(r.Text, "not used") {
		t.Errorf("%+v", r)
	}
	touch("libcuda.so.1")
	touch("libcudnn.so.9")
	if r := libraries([]string{dir}); r.Verdict != Pass || !strings.Contains(r.Text, "libcudnn.so.9 (cuDNN)") {
		t.Errorf("%+v", r)
	}
}

func TestLimits(t *testing.T) {
	mount := t.TempDir()
	inner := filepath.Join(mount, "system.slice", "dream.service")
	if err := errors.Join(os.MkdirAll(inner, 0o700), os.WriteFile(filepath.Join(inner, "memory.max"), []byte("max\n"), 0o600),
		os.WriteFile(filepath.Join(mount, "system.slice", "memory.max"), []byte("1073741824\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if n, err := cgroupMemory(mount, "0::/system.slice/dream.service\n"); n != 1<<30 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	if _, err := cgroupMemory(mount, "4:memory:/x\n"); err == nil {
		t.Error("version 1 is read as if it were 2")
	}

	bin := t.TempDir()
	script := "#!/bin/sh\nprintf 'Id=dream-bot.service\\nActiveState=active\\nType=simple\\nLimitNOFILE=1024\\nMemoryMax=infinity\\nWatchdogUSec=0\\n\\nId=dream-worker.service\\nActiveState=active\\nType=notify\\nLimitNOFILE=65536\\nMemoryMax=infinity\\nWatchdogUSec=1min\\n'\n"
	if err := os.WriteFile(filepath.Join(bin, "systemctl"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	rs := units(t.Context())
	if bot := find(t, rs, "Unit dream-bot.service"); bot.Verdict != Warn || !strings.Contains(bot.Do, "Type=notify") || !strings.Contains(bot.Do, "LimitNOFILE") {
		t.Errorf("%+v", bot)
	}
	if w := find(t, rs, "Unit dream-worker.service"); w.Verdict != Pass {
		t.Errorf("%+v", w)
	}
	t.Setenv("PATH", t.TempDir())
	if rs := units(t.Context()); rs[0].Verdict != Unknown {
		t.Errorf("without systemd: %+v", rs)
	}
}
