package doctor

import (
	"fmt"
	"strings"
	"time"

	"dreamcad/inference/device"
)

// known are the figures of cards as their makers give them: memory in GB/s and
// dense fp16 products with fp32 sums in TFLOP/s; 0 where we know none. Names are
// the driver's without "NVIDIA" and "GeForce"; laptop cards have others.
var known = map[string]struct{ bandwidth, product float64 }{
	"RTX 3060": {360, 0}, "RTX 3060 Ti": {448, 0}, "RTX 3070": {448, 0}, "RTX 3070 Ti": {608, 0}, "RTX 3080": {760, 59.5}, "RTX 3080 Ti": {912, 68},
	"RTX 3090": {936, 71}, "RTX 3090 Ti": {1008, 80},
	"RTX 4060": {272, 0}, "RTX 4060 Ti": {288, 0}, "RTX 4070": {504, 0}, "RTX 4070 SUPER": {504, 0}, "RTX 4070 Ti": {504, 0}, "RTX 4070 Ti SUPER": {672, 0},
	"RTX 4080": {717, 97.5}, "RTX 4080 SUPER": {736, 104}, "RTX 4090": {1008, 165},
	"RTX 5070": {672, 0}, "RTX 5070 Ti": {896, 0}, "RTX 5080": {960, 113}, "RTX 5090": {1792, 210},
	"RTX A4000": {448, 0}, "RTX A5000": {768, 0}, "RTX A6000": {768, 155}, "RTX 6000 Ada Generation": {960, 364},
	"A10": {600, 125}, "A40": {696, 150}, "L4": {300, 121}, "L40": {864, 181}, "L40S": {864, 362},
	"A100-PCIE-40GB": {1555, 312}, "A100-SXM4-40GB": {1555, 312}, "A100 80GB PCIe": {1935, 312}, "A100-SXM4-80GB": {2039, 312},
	"H100 PCIe": {2000, 756}, "H100 80GB HBM3": {3350, 989}, "H100 NVL": {3900, 835}, "H200": {4800, 989},
}

// expected finds a card's figures.
func expected(name string) (bandwidth, product float64) {
	k := known[strings.TrimPrefix(strings.TrimPrefix(name, "NVIDIA "), "GeForce ")]
	return k.bandwidth, k.product
}

// measureAll opens the processor and each card, one after the other.
func measureAll(d *Deps) []Result {
	var out []Result
	if d.Processor.Open != nil {
		out = append(out, measured(d.Processor, d.Quick, processorSpeed)...)
	}
	for _, c := range d.Cards {
		out = append(out, measured(c, d.Quick, cardSpeed)...)
	}
	if len(d.Cards) == 0 && d.CardsError != nil {
		out = append(out, Result{Code: "speed", Title: "Speed of a card", Verdict: Unknown, Text: fmt.Sprintf("None was measured: %v.", d.CardsError)})
	}
	return out
}

func measured(d Device, quick bool, measure func(string, device.Device) []Result) []Result {
	title := "Speed of " + d.Name
	if quick {
		return []Result{{Code: "speed", Title: title, Verdict: Unknown, Text: "It was not measured (--quick)."}}
	}
	dev, err := d.Open()
	if err != nil {
		return []Result{{Code: "speed", Title: title, Verdict: Fail, Text: fmt.Sprintf("It cannot be used: %v.", err), Do: "Use --device cpu until this is mended."}}
	}
	defer dev.Close()
	return measure(d.Name, dev)
}

// processorSpeed multiplies matrices on the processor.
func processorSpeed(name string, dev device.Device) []Result {
	r := Result{Code: "speed", Title: "Speed of " + name, Verdict: Pass}
	flops, err := device.MeasureProduct(dev, 768, 200*time.Millisecond)
	if err != nil {
		r.Verdict, r.Text, r.Do = Fail, fmt.Sprintf("The test failed: %v.", err), "Do not trust results of this machine."
		return []Result{r}
	}
	i := dev.Info()
	r.Text = fmt.Sprintf("%.0f GFLOP/s in fp32 matrix products on %d threads (%s kernels).", flops/1e9, i.Threads, i.Features)
	return []Result{r}
}

// Bytes of the memory test, and of each half of the copy test at most.
const (
	testMemory = 20e9
	testCopy   = 1 << 30
)

// cardSpeed takes the card's memory, copies within it and multiplies matrices.
func cardSpeed(name string, dev device.Device) []Result {
	m, ok := dev.(device.MemoryTester)
	if !ok {
		return []Result{{Code: "speed", Title: "Speed of " + name, Verdict: Unknown, Text: "This device offers no tests."}}
	}
	i := dev.Info()
	bandwidth, product := expected(i.Name)
	out := []Result{allocation(name, m)}
	copied := Result{Code: "bandwidth", Title: "Memory speed of " + name}
	if free, _, err := m.Memory(); err != nil {
		copied.Verdict, copied.Text = Unknown, fmt.Sprintf("Free memory could not be read: %v.", err)
	} else if rate, err := m.TestCopy(min(testCopy, free/4)); err != nil {
		copied.Verdict, copied.Text, copied.Do = Fail, fmt.Sprintf("Copying failed: %v.", err), "See who uses the card (nvidia-smi) and look for Xid lines in dmesg."
	} else {
		copied = judge(copied, i.Name, "copies within its memory", rate/1e9, "GB/s", bandwidth, 0.7)
	}
	multiplied := Result{Code: "product", Title: "Matrix products of " + name}
	if rate, err := device.MeasureProduct(dev, 8192, 300*time.Millisecond); err != nil {
		multiplied.Verdict, multiplied.Text, multiplied.Do = Fail, fmt.Sprintf("The test failed: %v.", err), "See who uses the card (nvidia-smi) and look for Xid lines in dmesg."
	} else {
		multiplied = judge(multiplied, i.Name, "fp16 products of 8192×8192", rate/1e12, "TFLOP/s", product, 0.3)
	}
	return append(out, copied, multiplied)
}

// allocation takes 20 GB or nine tenths of what is free.
func allocation(name string, m device.MemoryTester) Result {
	r := Result{Code: "allocation", Title: "Memory of " + name, Verdict: Pass}
	free, total, err := m.Memory()
	if err != nil {
		r.Verdict, r.Text = Unknown, fmt.Sprintf("Free memory could not be read: %v.", err)
		return r
	}
	bytes := min(int64(testMemory), free/10*9)
	if err := m.TestMemory(bytes); err != nil {
		r.Verdict, r.Text, r.Do = Fail, fmt.Sprintf("%.1f GB were asked for, of %.1f GB free: %v.", float64(bytes)/1e9, float64(free)/1e9, err), "See who uses the card (nvidia-smi); memory that reads wrongly means a broken card."
		return r
	}
	r.Text = fmt.Sprintf("%.1f GB could be taken, written and read back; %.1f of %.1f GB were free.", float64(bytes)/1e9, float64(free)/1e9, float64(total)/1e9)
	if free < total/2 {
		r.Verdict, r.Do = Warn, "Other programs hold more than half of the card: nvidia-smi shows which."
	}
	return r
}

// judge compares a figure with what such a card can do; least is the share of
// it that a healthy, idle card reaches at the least.
func judge(r Result, card, what string, got float64, unit string, peak, least float64) Result {
	r.Verdict = Pass
	r.Text = fmt.Sprintf("%.0f %s for %s; no figure is known for a %s to compare with.", got, unit, what, card)
	if peak == 0 {
		return r
	}
	r.Text = fmt.Sprintf("%.0f %s for %s, %.0f %% of the %.0f that a %s has on paper.", got, unit, what, 100*got/peak, peak, card)
	if got < least*peak {
		r.Verdict = Warn
		r.Do = fmt.Sprintf("A healthy, idle card reaches %.0f %%: see who else uses it, its temperature, its power limit and its clocks (nvidia-smi -q).", 100*least)
	}
	return r
}
