package cuda

import (
	"errors"
	"strings"
	"testing"
)

// TestOpenExplains checks that the caller learns in one sentence why there is no card, in every build.
func TestOpenExplains(t *testing.T) {
	d, err := Open(99, Options{CacheDir: t.TempDir()})
	if err == nil {
		_ = d.Close()
		t.Fatal("card 99 opened")
	}
	var u *Unavailable
	if !errors.As(err, &u) {
		t.Fatalf("%v is not an Unavailable", err)
	}
	if strings.ContainsAny(err.Error(), "\n") || !strings.Contains(err.Error(), "CUDA") && !strings.Contains(err.Error(), "no card cuda:99") {
		t.Errorf("the reason %q is not one sentence", err)
	}
	if Count() == 0 && Built && !strings.Contains(err.Error(), "no CUDA driver") && !strings.Contains(err.Error(), "no card") && !strings.Contains(err.Error(), "driver") {
		t.Errorf("the reason %q names no driver", err)
	}
}
