package storagetest

import (
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"dreamcad/internal/testout"
)

// Gateway is a running S3 server (versitygw over a folder) on a loopback port.
type Gateway struct {
	Endpoint  string // http://127.0.0.1:port
	AccessKey string
	SecretKey string
	Dir       string // its buckets are folders here
}

// StartGateway starts a server that ends with the test. It needs the versitygw
// program: in $VERSITYGW, in PATH, or in .cache/bin where "make tools" puts it.
// With $MINIO it starts that MinIO server instead; its buckets are no plain folders.
func StartGateway(t testing.TB) *Gateway {
	t.Helper()
	bin, err := findGateway()
	if err != nil {
		t.Fatal(err)
	}
	g := &Gateway{AccessKey: "test" + rand.Text()[:8], SecretKey: rand.Text(), Dir: t.TempDir()}
	// The program cannot choose a port itself; another process may take ours first.
	for range 5 {
		if err = g.start(t, bin); err == nil {
			return g
		}
	}
	t.Fatalf("starting the S3 server: %v", err)
	return nil
}

func (g *Gateway) start(t testing.TB, bin string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr := l.Addr().String()
	l.Close()
	var out testout.Buffer
	buckets, sidecar := filepath.Join(g.Dir, "buckets"), filepath.Join(g.Dir, "sidecar")
	for _, d := range []string{buckets, sidecar} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	cmd := exec.Command(bin, "--port", addr, "--quiet", "--keep-alive", "posix", "--sidecar", sidecar, buckets)
	if os.Getenv("MINIO") != "" {
		cmd = exec.Command(bin, "server", "--quiet", "--address", addr, buckets)
	}
	cmd.Dir = g.Dir
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+g.AccessKey, "ROOT_SECRET_KEY="+g.SecretKey,
		"MINIO_ROOT_USER="+g.AccessKey, "MINIO_ROOT_PASSWORD="+g.SecretKey)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	deadline := time.After(30 * time.Second)
	for {
		if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			c.Close()
			break
		}
		select {
		case err := <-ended:
			return fmt.Errorf("it ended (%v): %s", err, out.String())
		case <-deadline:
			_ = cmd.Process.Kill()
			<-ended
			return fmt.Errorf("it does not listen: %s", out.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	g.Endpoint = "http://" + addr
	return nil
}

func findGateway() (string, error) {
	if p := os.Getenv("MINIO"); p != "" {
		return p, nil
	}
	if p := os.Getenv("VERSITYGW"); p != "" {
		return p, nil
	}
	if p, err := exec.LookPath("versitygw"); err == nil {
		return p, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
			continue
		}
		p := filepath.Join(dir, ".cache", "bin", "versitygw")
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("the S3 server for tests is missing: run make tools, or set VERSITYGW to a versitygw program")
}
