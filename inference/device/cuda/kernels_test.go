package cuda

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestKernelsAreCurrent fails when a kernel source changed and `make kernels` was not run: no compiler is needed to see it.
func TestKernelsAreCurrent(t *testing.T) {
	var sources []string
	for _, pattern := range []string{"kernels/*.cu", "kernels/*.cuh"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, found...)
	}
	if len(sources) < 6 {
		if os.Getenv("DREAM_CARRIED_TEST") != "" {
			t.Skip("a carried test binary has no sources beside it")
		}
		t.Fatalf("found only %v", sources)
	}
	slices.Sort(sources)
	h := sha256.New()
	for _, path := range sources {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		h.Write([]byte(filepath.Base(path) + "\x00"))
		h.Write(b)
		h.Write([]byte{0})
	}
	generated, err := os.ReadFile("kernels_gen.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(generated), hex.EncodeToString(h.Sum(nil))) {
		t.Error("the CUDA kernels have changed since they were compiled: run make kernels")
	}
	for _, target := range []string{"sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120", "compute_80"} {
		if info, err := os.Stat("kernels/bin/" + target + ".bin.gz"); err != nil || info.Size() < 10_000 {
			t.Errorf("image for %s: %v", target, err)
		}
	}
}
