//go:build cuda

package cuda

import (
	"fmt"
	"slices"
	"testing"

	"dreamcad/inference/device/cuda/driver"
)

type program = exec

// profile prints where the time of a program goes, by kind and shape of its operations: each alone, as a graph of
// 100, and in its place, as what a graph of the program up to it takes more than one that ends before it.
func profile(t *testing.T, e *exec) {
	type entry struct {
		name      string
		us, place float64
		count     int
	}
	table := map[string]*entry{}
	var last float64
	err := e.card.do(func() error {
		l := e.lowering(modeLaunch)
		timed := func(runs int, queue func() error) (float64, error) {
			if err := driver.Capture(e.card.raw()); err != nil {
				return 0, err
			}
			if err := queue(); err != nil {
				return 0, err
			}
			graph, err := driver.Finish(e.card.raw())
			if err != nil {
				return 0, err
			}
			defer func() { _ = graph.Destroy() }()
			times := make([]float64, runs)
			for i := range times {
				if err := graph.Launch(e.card.raw()); err != nil {
					return 0, err
				}
				if err := e.card.synchronize(); err != nil {
					return 0, err
				}
				_ = e.card.tuner.start.Record(e.card.stream)
				if err := graph.Launch(e.card.raw()); err != nil {
					return 0, err
				}
				_ = e.card.tuner.stop.Record(e.card.stream)
				if err := e.card.synchronize(); err != nil {
					return 0, err
				}
				ms, err := e.card.tuner.start.Elapsed(e.card.tuner.stop)
				if err != nil {
					return 0, err
				}
				times[i] = ms * 1e3
			}
			slices.Sort(times)
			return times[runs/2], nil
		}
		for i := 0; i < len(e.program.Ops); {
			o := e.program.Ops[i]
			reads, writes := o.Operands()
			key := fmt.Sprintf("%T %v -> %v", o, reads[0].Shape, writes[0].Shape)
			if norm, behind := l.folds(i); norm != nil {
				key = fmt.Sprintf("LayerNorm and %T %v -> %v %v", behind, norm.In.Shape, behind.Out.Shape, behind.Act)
			}
			if table[key] == nil {
				us, err := timed(1, func() error {
					for range 100 {
						if _, err := l.next(i); err != nil {
							return err
						}
					}
					return l.err
				})
				if err != nil {
					return err
				}
				table[key] = &entry{name: key, us: us / 100}
			}
			n := 0
			us, err := timed(5, func() error {
				for j := 0; j <= i; j += n {
					var err error
					if n, err = l.next(j); err != nil {
						return err
					}
				}
				return l.err
			})
			if err != nil {
				return err
			}
			table[key].count++
			table[key].place += us - last
			last = us
			i += n
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []*entry
	total := 0.0
	for _, x := range table {
		all = append(all, x)
		total += x.us * float64(x.count)
	}
	slices.SortFunc(all, func(a, b *entry) int { return int(b.place*100) - int(a.place*100) })
	for _, x := range all {
		fmt.Printf("%8.0f us = %2d x %6.1f  in place %8.0f = %2d x %6.1f  %s\n", x.us*float64(x.count), x.count, x.us, x.place, x.count, x.place/float64(x.count), x.name)
	}
	fmt.Printf("%8.0f us in all alone, %.0f in place, %d operations\n", total, last, len(e.program.Ops))
}
