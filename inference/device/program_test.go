package device

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// held is a tiny checkpoint.
type held map[string][]int

func (h held) Shape(name string) ([]int, bool) { s, ok := h[name]; return s, ok }

func (h held) Float32(name string, offset int, dst []float32) error {
	for i := range dst {
		dst[i] = float32(offset + i)
	}
	return nil
}

func TestPlanKeepsLivingValuesApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := NewProgram("random")
		live := []Tensor{p.New(1, 1, rapid.IntRange(1, 40).Draw(t, "width"), 3)}
		p.Add(&Elementwise{In: live[0], Out: live[0]})
		for range rapid.IntRange(1, 30).Draw(t, "operations") {
			in := live[rapid.IntRange(0, len(live)-1).Draw(t, "input")]
			out := p.Like(in, in.C)
			p.Add(&Elementwise{In: in, Out: out, Act: SiLU})
			live = append(live, out)
		}
		if p.Err() != nil {
			t.Fatal(p.Err())
		}
		offsets, total := Plan(p, 16, 5)
		first, last := map[ValueID]int{}, map[ValueID]int{}
		for k, o := range p.Ops {
			r, w := o.Operands()
			for _, x := range append(r, w...) {
				if _, ok := first[x.Value]; !ok {
					first[x.Value] = k
				}
				last[x.Value] = k
			}
		}
		for a, fa := range first {
			end := offsets[a] + p.Values[a].Shape.Len() + 5
			if offsets[a] < 0 || offsets[a]%16 != 0 || end > total {
				t.Fatalf("value %d lies at %d of %d", a, offsets[a], total)
			}
			for b, fb := range first {
				if a != b && fa <= last[b] && fb <= last[a] && offsets[b] >= offsets[a] && offsets[b] < end {
					t.Fatalf("values %d and %d overlap", a, b)
				}
			}
		}
	})
}

func TestRecordingErrorsAreKept(t *testing.T) {
	w := held{"w": {8, 4, 3, 3}}
	l := NewLoader(w, "")
	k := l.Param("w", 8, 4, 3, 3)
	if l.Err() != nil {
		t.Fatal(l.Err())
	}
	for name, record := range map[string]func(p *Program){
		"wrong size": func(p *Program) {
			p.Add(&Conv{In: p.New(1, 8, 8, 4), Out: p.New(1, 7, 8, 8), Weight: k, Stride: 1, Top: 1, Left: 1, Bottom: 1, Right: 1})
		},
		"wrong channels": func(p *Program) {
			p.Add(&Conv{In: p.New(1, 8, 8, 5), Out: p.New(1, 8, 8, 8), Weight: k, Stride: 1, Top: 1, Left: 1, Bottom: 1, Right: 1})
		},
		"outside the value": func(p *Program) {
			x := p.New(1, 2, 2, 4)
			p.Add(&Elementwise{In: x.Channels(2, 4), Out: p.New(1, 2, 2, 4)})
		},
	} {
		p := NewProgram(name)
		record(p)
		if p.Err() == nil || !strings.Contains(p.Err().Error(), name) {
			t.Errorf("%s: error %v", name, p.Err())
		}
	}
	p := NewProgram("good")
	p.Add(&Conv{In: p.New(1, 8, 8, 4), Out: p.New(1, 8, 8, 8), Weight: k, Stride: 1, Top: 1, Left: 1, Bottom: 1, Right: 1})
	if p.Err() != nil {
		t.Fatal(p.Err())
	}
}

func TestLoaderNamesWhatIsWrong(t *testing.T) {
	l := NewLoader(held{"a.w": {2, 3, 1, 1}, "a.b": {2}}, "a.")
	s := l.Stack("both", l.Param("w", 2, 3), l.Param("w", 2, 3))
	if first, again := l.Param("w", 2, 3), l.Param("w", 2, 3); first != again {
		t.Fatal("the same weight gave two params, which a device would convert twice")
	}
	if l.Err() != nil || s.Len() != 12 || s.Load(make([]float32, 12)) != nil {
		t.Fatalf("stacking failed: %v %v", l.Err(), s)
	}
	l.In("x.").Param("y", 1)
	l.Param("b", 3)
	if err := l.Err(); err == nil || err.Error() != `the weights hold no tensor "a.x.y"` {
		t.Fatalf("error %v", err)
	}
}
