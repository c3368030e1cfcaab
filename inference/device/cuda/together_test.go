//go:build cuda

package cuda

import (
	"errors"
	"fmt"
	"math"
	"os"
	osexec "os/exec"
	"slices"
	"testing"
	"time"

	"gorgonia.org/cu"

	"dreamcad/inference"
	"dreamcad/inference/device"
	"dreamcad/inference/models"
)

// bundles are the small model and, when DREAM_BUNDLE names the folder of one, a big one.
func bundles(t *testing.T) []*models.Bundle {
	b, err := models.OpenDir("../../models/mini")
	if err != nil {
		t.Fatal(err)
	}
	all := []*models.Bundle{b}
	if dir := os.Getenv("DREAM_BUNDLE"); dir != "" {
		if b, err = models.OpenDir(dir); err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// TestTogether compares jobs that step together with the same jobs alone (at least 40 dB), prints the time of a step for
// each number of jobs, and the device memory in use beside what the model says that it needs.
func TestTogether(t *testing.T) {
	for _, b := range bundles(t) {
		t.Run(b.Name, func(t *testing.T) {
			card := openCard(t, Options{}).(*Card)
			m, err := inference.Open(b, card)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			before, err := card.FreeMemory()
			if err != nil {
				t.Fatal(err)
			}
			prompts := []string{"a ceramic coffee mug", "a red chair", "a green car", "a wooden table", "a lamp", "a robot", "a castle", "a boat"}
			request := func(i int) inference.Request {
				return inference.Request{Prompt: prompts[i], Seed: int64(i), Steps: 20 - i%3, Guidance: 3 + float64(i)}
			}
			for _, n := range []int{1, 2, 4, 8} {
				jobs := make([]*inference.Views, n)
				for i := range jobs {
					if jobs[i], err = m.NewViews(request(i)); err != nil {
						t.Fatal(err)
					}
				}
				var times []float64
				for turn := 0; ; turn++ {
					var runs []*inference.Denoising
					done := true
					for i, v := range jobs {
						done = done && v.Done()
						if d := v.Denoising(); d != nil && turn > i/2 { // two join at a time
							runs = append(runs, d)
						}
					}
					if done {
						break
					}
					begin := time.Now()
					if err := m.Ahead(runs); err != nil {
						t.Fatal(err)
					}
					if err := card.do(card.synchronize); err != nil {
						t.Fatal(err)
					}
					if len(runs) == n {
						times = append(times, time.Since(begin).Seconds()*1e3)
					}
					for i, v := range jobs {
						if turn >= i/2 {
							if err := v.Step(t.Context()); err != nil {
								t.Fatal(err)
							}
						}
					}
				}
				slices.Sort(times)
				free, err := card.FreeMemory()
				if err != nil {
					t.Fatal(err)
				}
				need, err := m.Footprint(n)
				if err != nil {
					t.Fatal(err)
				}
				fmt.Printf("%-13s %d jobs: a step %.2f ms, %.2f ms a job; memory %.2f GiB, said %.2f\n", b.Name, n, times[len(times)/2], times[len(times)/2]/float64(n),
					float64(before-free)/(1<<30), float64(need)/(1<<30))
				if before-free > need {
					t.Errorf("%d jobs take %d bytes, more than the %d that the model says", n, before-free, need)
				}
				if n != 4 {
					continue
				}
				for i, v := range jobs {
					alone, err := m.Views(t.Context(), request(i), nil)
					if err != nil {
						t.Fatal(err)
					}
					var sum, count float64
					for k, im := range v.Result().Images {
						for p, x := range im.Pix {
							d := float64(x - alone.Images[k].Pix[p])
							sum += d * d
							count++
						}
					}
					psnr := -10 * math.Log10(sum/count)
					fmt.Printf("%-13s job %d beside three others: %.1f dB to the same job alone\n", b.Name, i, psnr)
					if !(psnr >= 40) {
						t.Errorf("job %d: %.1f dB", i, psnr)
					}
				}
			}
		})
	}
}

// TestLostContext lets a kernel write to an address that does not exist: the device says that it is lost, at once and
// ever after, and it can be closed. No context can be made in that process any more (seen with driver 580), so the fault
// happens in a child; the card serves this process as before.
func TestLostContext(t *testing.T) {
	if os.Getenv("DREAM_TEST_FAULT") == "" {
		openCard(t, Options{})
		child := osexec.Command(os.Args[0], "-test.run=^TestLostContext$", "-test.v")
		child.Env = append(os.Environ(), "DREAM_TEST_FAULT=1")
		if out, err := child.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		card, err := Open(0, Options{CacheDir: t.TempDir()})
		if err != nil {
			t.Fatalf("the card serves no new context: %v", err)
		}
		_ = card.Close()
		return
	}
	card := openCard(t, Options{}).(*Card)
	b, err := card.NewBuffer(device.Shape{N: 1, H: 1, W: 1, C: 64}, device.Full)
	if err != nil {
		t.Fatal(err)
	}
	err = card.do(func() error {
		l := launcher{card: card}
		l.elementwise(kElementwise, spread(64), &ElementwiseParams{In32: 256, Out: 1 << 40, Rows: 64, Inrows: 64, C: 1, Ldi: 1, Ldo: 1})
		return l.err
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.Read(make([]float32, 64)); !errors.Is(err, device.ErrLost) {
			t.Fatalf("reading after the fault gave %v", err)
		}
	}
}

// TestNoMemory demands a sentence with sizes when the card is full.
func TestNoMemory(t *testing.T) {
	card := openCard(t, Options{}).(*Card)
	free, err := card.FreeMemory()
	if err != nil {
		t.Fatal(err)
	}
	_, err = card.NewBuffer(device.Shape{N: 1, H: 1, W: int(free/4/1024) + 1, C: 1024}, device.Full)
	var memory *device.MemoryError
	if !errors.As(err, &memory) || memory.Need <= free/2 || memory.Total <= 0 || memory.UUID == "" {
		t.Fatalf("error %v", err)
	}
	fmt.Println(err, memory.UUID)
	if _, err := card.FreeMemory(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestTooOldDrivers(t *testing.T) {
	for version, old := range map[int]bool{11040: true, 11080: true, 12000: false, 13000: false, -1: true} {
		if got := tooOld(version); (got != nil) != old {
			t.Errorf("driver of CUDA %d: %v", version, got)
		}
	}
	if got := tooOld(11040).Error(); got != "the CUDA driver is too old: it serves CUDA 11.4, and 12.0 (driver 525 or newer) is needed" {
		t.Error(got)
	}
	for code, lost := range map[error]bool{cu.IllegalAddress: true, fmt.Errorf("x: %w", cu.LaunchFailed): true, cu.OutOfMemory: false, errors.New("x"): false} {
		if got := sticky(resultCode(code)); got != lost {
			t.Errorf("%v: lost %v", code, got)
		}
	}
}
