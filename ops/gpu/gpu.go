// Package gpu reads the sensors of NVIDIA cards through NVML.
//
// NVML is opened at run time; without a driver every reading is unknown and
// Cards says why. A sensor that cannot be read is unknown, never zero. Builds
// without cgo have a twin that knows nothing (nvml_plain.go).
package gpu

import (
	"encoding/json"
	"slices"
	"time"
)

// Value is a reading that may be unknown. As JSON it is a number or null.
type Value struct {
	V     float64
	Known bool
}

// Of makes a known value.
func Of(v float64) Value { return Value{V: v, Known: true} }

// MarshalJSON writes a number, or null for an unknown value.
func (v Value) MarshalJSON() ([]byte, error) {
	if !v.Known {
		return []byte("null"), nil
	}
	return json.Marshal(v.V)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (v *Value) UnmarshalJSON(text []byte) error {
	var p *float64
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	*v = Value{}
	if p != nil {
		*v = Of(*p)
	}
	return nil
}

// Sample is one look at one card.
type Sample struct {
	At    time.Time `json:"at"`
	Index int       `json:"index"`
	UUID  string    `json:"uuid"`
	Name  string    `json:"name"`
	// Capability is the compute capability, "9.0"; "" unknown.
	Capability string `json:"capability,omitempty"`

	Temperature    Value `json:"temperature"`     // °C
	SlowdownMargin Value `json:"slowdown_margin"` // °C left until the card slows itself down
	MemoryUsed     Value `json:"memory_used"`     // bytes
	MemoryTotal    Value `json:"memory_total"`    // bytes
	Utilisation    Value `json:"utilisation"`     // percent of time with a kernel running
	Power          Value `json:"power"`           // watts
	PowerLimit     Value `json:"power_limit"`     // watts
	ClockSM        Value `json:"clock_sm"`        // MHz
	ClockMemory    Value `json:"clock_memory"`    // MHz
	Fan            Value `json:"fan"`             // percent; unknown on cards without a fan
	ECCErrors      Value `json:"ecc_errors"`      // uncorrected, since the driver was loaded
	PCIeGen        Value `json:"pcie_gen"`
	PCIeWidth      Value `json:"pcie_width"` // lanes
	PCIeRead       Value `json:"pcie_read"`  // bytes per second, host to card; of every fifth look
	PCIeWrite      Value `json:"pcie_write"` // bytes per second, card to host; of every fifth look

	ThrottleKnown bool      `json:"throttle_known"`
	Throttle      []string  `json:"throttle,omitempty"` // reasons other than idle
	Processes     []Process `json:"processes,omitempty"`
	Xids          []uint64  `json:"xids,omitempty"` // errors reported since the last look
	// Lost says why the card cannot be read any more ("" while it can).
	Lost string `json:"lost,omitempty"`
}

// PowerCap is the reason that every card under full load has.
const PowerCap = "power cap"

// reasons why a card is held back, in the order of NVML's bits.
var reasons = []string{PowerCap, "hardware slowdown", "thermal (driver)", "thermal (hardware)", "power brake"}

// ThrottleReasons lists what [Sample].Throttle may hold.
func ThrottleReasons() []string { return slices.Clone(reasons) }

// Process is a program that holds memory of the card.
type Process struct {
	PID    int    `json:"pid"`
	Name   string `json:"name"` // "" when not to be learnt
	Memory Value  `json:"memory"`
}

// MemoryShare is used over total, 0 to 1.
func (s *Sample) MemoryShare() Value {
	if !s.MemoryUsed.Known || !s.MemoryTotal.Known || s.MemoryTotal.V == 0 {
		return Value{}
	}
	return Of(s.MemoryUsed.V / s.MemoryTotal.V)
}

// Driver describes the installed driver; empty strings are unknown.
type Driver struct {
	Version string `json:"version"`
	CUDA    string `json:"cuda"` // newest CUDA version that the driver serves
}
