//go:build cuda

package cuda

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"gorgonia.org/cu"

	"dreamcad/inference/device"
	"dreamcad/inference/models"
	"dreamcad/inference/text"
)

// TestFullNoticesEveryWeight sets each weight of every block to zero on the card, one after the other, and demands
// that the comparison with PyTorch fails: what the comparison passes is then known to depend on all of them.
func TestFullNoticesEveryWeight(t *testing.T) {
	p := openPeer(t)
	for _, network := range []struct {
		name string
		open func(card *Card) (device.Exec, []device.Buffer)
		want []string // results of the reference, as the buffers
	}{
		{"context", func(card *Card) (device.Exec, []device.Buffer) {
			e, err := text.New(card, checkpointFile{p.source}, models.TextPrefix, p.bundle.Text, 2)
			if err != nil {
				t.Fatal(err)
			}
			tok, err := p.bundle.OpenTokenizer()
			if err != nil {
				t.Fatal(err)
			}
			none, _ := tok.Context("")
			ids, _ := tok.Context("an astronaut riding a horse, 3d asset")
			if err := e.Encode(none, ids); err != nil {
				t.Fatal(err)
			}
			return e.Exec(), []device.Buffer{e.Context()}
		}, []string{"context"}},
		{"eps", func(card *Card) (device.Exec, []device.Buffer) {
			_, e, b := p.unetExec(t, card, 8, p.get(t, "x"), p.get(t, "context"), p.get(t, "camera"))
			return e, []device.Buffer{b}
		}, []string{"eps"}},
		{"image", func(card *Card) (device.Exec, []device.Buffer) {
			e, b := p.decodeExec(t, card)
			return e, []device.Buffer{b}
		}, []string{"image"}},
		{"gradient", func(card *Card) (device.Exec, []device.Buffer) {
			_, e, moments, gradient := p.gradientExec(t, card)
			return e, []device.Buffer{moments, gradient}
		}, []string{"moments", "gradient"}},
	} {
		t.Run(network.name, func(t *testing.T) {
			card := openCard(t, Options{}).(*Card)
			exec, results := network.open(card)
			var wants, gots [][]float32
			for _, name := range network.want {
				v := p.get(t, name)
				wants, gots = append(wants, v), append(gots, make([]float32, len(v)))
			}
			// measure is the largest error of a result in limits.
			measure := func() float64 {
				if err := exec.Run(); err != nil {
					t.Fatal(err)
				}
				worst := 0.0
				for i, b := range results {
					if err := b.Read(gots[i]); err != nil {
						t.Fatal(err)
					}
					worst = max(worst, distance(gots[i], wants[i])/(1.5*p.FP16[network.want[i]]))
				}
				return worst
			}
			if d := measure(); !(d <= 1) {
				t.Fatalf("off by %.3g limits with every weight in place", d)
			}
			type effect struct {
				name string
				d    float64
			}
			var effects []effect
			type matrix struct {
				name string
				weight
			}
			var all []matrix
			for key, w := range card.weights.have {
				if len(key.param.Shape) >= 2 { // the bias before a norm, for one, hardly matters
					all = append(all, matrix{key.param.Name, w})
				}
			}
			for key, f := range card.weights.folds {
				all = append(all, matrix{key.weight.Name, f.weight})
			}
			for _, w := range all {
				kept := make([]byte, w.bytes)
				err := card.do(func() error {
					if err := cu.MemcpyDtoH(unsafe.Pointer(&kept[0]), cu.DevicePtr(w.ptr), w.bytes); err != nil {
						return err
					}
					return cu.MemsetD8(cu.DevicePtr(w.ptr), 0, w.bytes)
				})
				if err != nil {
					t.Fatal(err)
				}
				effects = append(effects, effect{w.name, measure()})
				if err := card.do(func() error { return cu.MemcpyHtoD(cu.DevicePtr(w.ptr), unsafe.Pointer(&kept[0]), w.bytes) }); err != nil {
					t.Fatal(err)
				}
			}
			slices.SortFunc(effects, func(a, b effect) int { return cmp.Compare(a.d, b.d) })
			for _, e := range effects {
				// Random queries and keys give nearly even attention, which is also what no queries give.
				if !(e.d > 1) && !strings.Contains(e.name, "attn2.to_q") {
					t.Errorf("without %s the result is off by %.3g limits only", e.name, e.d)
				}
			}
			fmt.Printf("%s: %d weights, the least effect of one is %.2g limits (%s)\n", network.name, len(effects), effects[0].d, effects[0].name)
			if d := measure(); !(d <= 1) {
				t.Errorf("off by %.3g limits with every weight back in place", d)
			}
		})
	}
}
