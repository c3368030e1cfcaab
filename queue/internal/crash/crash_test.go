package crash

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"dreamcad/queue"
)

func TestLines(t *testing.T) {
	a := queue.Crash{Worker: "host-gpu0/7/ABC", Exit: "SIGSEGV", Kind: queue.FailDied, Attempt: 2, At: time.UnixMilli(1764191637123).UTC()}
	b := queue.Crash{Worker: "w 2", Kind: queue.FailCrash, Attempt: 3, At: a.At}
	hostile := b
	hostile.Worker, hostile.Exit = "w\t2", "\n"+strings.Repeat("é", 99)
	s := "\nold worker\n" + Line(a) + Line(b) + Line(hostile)
	got := List(s)
	if len(got) != 4 || !reflect.DeepEqual(got[0], queue.Crash{Worker: "old worker"}) || got[1] != a || got[2] != b {
		t.Fatalf("%+v", got)
	}
	if h := got[3]; h.Worker != "w 2" || len(h.Exit) > MaxWord || !strings.HasPrefix(h.Exit, " éé") || h.Attempt != 3 {
		t.Errorf("%+v", h)
	}
	if n := Workers(s); n != 3 {
		t.Errorf("%d workers", n)
	}
}

func TestBound(t *testing.T) {
	f := queue.Failure{Exit: strings.Repeat("x", 500), Log: "first" + strings.Repeat("é", queue.MaxErrorText) + "last"}
	Bound(&f)
	if len(f.Exit) != MaxWord || len(f.Log) > queue.MaxErrorText || len(f.Log) < queue.MaxErrorText-2 || !strings.HasSuffix(f.Log, "élast") {
		t.Errorf("%d %d", len(f.Exit), len(f.Log))
	}
}
