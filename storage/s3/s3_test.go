package s3_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"dreamcad/storage"
	"dreamcad/storage/s3"
	"dreamcad/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config(g *storagetest.Gateway) s3.Config {
	path := true
	return s3.Config{Bucket: "results", Endpoint: g.Endpoint, AccessKey: g.AccessKey, SecretKey: g.SecretKey, PathStyle: &path, Create: true}
}

func open(t testing.TB, cfg s3.Config) *s3.Store {
	t.Helper()
	s, err := s3.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	g := storagetest.StartGateway(t)
	if _, err := open(t, config(g)).Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	var n atomic.Int32
	storagetest.Run(t, func(t *testing.T) storage.Store {
		cfg := config(g)
		cfg.Prefix = fmt.Sprintf("suite/%d", n.Add(1))
		return open(t, cfg)
	}, storagetest.Options{Racers: 1000, Big: 40 << 20})
}

func TestBucketSentences(t *testing.T) {
	g := storagetest.StartGateway(t)
	cfg := config(g)
	cfg.Create = false
	if _, err := open(t, cfg).Check(t.Context()); err == nil || !strings.Contains(err.Error(), `there is no bucket "results"`) {
		t.Errorf("missing bucket: %v", err)
	}
	cfg.Create = true
	if _, err := open(t, cfg).Check(t.Context()); err != nil {
		t.Errorf("making the bucket: %v", err)
	}
	stranger := cfg
	stranger.AccessKey = "nobody" // to a stranger the server says that there is no bucket
	if _, err := open(t, stranger).Check(t.Context()); err == nil || !strings.Contains(err.Error(), "may not use the bucket") {
		t.Errorf("unknown key: %v", err)
	}
	cfg.SecretKey = "wrong"
	if _, err := open(t, cfg).Check(t.Context()); err == nil || !strings.Contains(err.Error(), "may not use the bucket") {
		t.Errorf("wrong secret: %v", err)
	}
	cfg.Endpoint, cfg.Retries = "http://127.0.0.1:1", 1
	if _, err := open(t, cfg).Check(t.Context()); err == nil || !storage.Temporary(err) || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("no server: %v", err)
	}
}
