//go:build cgo && linux

package gpu

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// Sensors reads the cards of this host. Its methods are safe for concurrent use.
type Sensors struct {
	mu     sync.Mutex
	lib    nvml.Interface
	cards  []card
	driver Driver
	events nvml.EventSet // nil: Xids cannot be watched
}

// symbols are the functions of the installed library, by name. An older driver
// lacks some, and calling one that is not there ends the process.
type symbols map[string]bool

// wanted lists the functions below without which a reading is merely unknown.
var wanted = []string{
	"nvmlSystemGetDriverVersion", "nvmlSystemGetCudaDriverVersion", "nvmlEventSetCreate", "nvmlEventSetWait", "nvmlEventSetFree",
	"nvmlDeviceRegisterEvents", "nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlDeviceGetCudaComputeCapability", "nvmlDeviceGetTemperature", "nvmlDeviceGetMarginTemperature",
	"nvmlDeviceGetTemperatureThreshold", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetPowerUsage",
	"nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetClockInfo", "nvmlDeviceGetFanSpeed", "nvmlDeviceGetTotalEccErrors",
	"nvmlDeviceGetCurrPcieLinkGeneration", "nvmlDeviceGetCurrPcieLinkWidth", "nvmlDeviceGetPcieThroughput",
	"nvmlDeviceGetCurrentClocksThrottleReasons", "nvmlDeviceGetComputeRunningProcesses",
}

func lookUp(lib nvml.Interface) symbols {
	there := symbols{}
	for _, name := range wanted {
		there[name] = lib.Extensions().LookupSymbol(name) == nil
	}
	return there
}

// pcieEvery is how many looks share one reading of the PCIe rates: the driver
// measures each for 20 ms, which costs thirty times as much processor time as all
// other sensors together.
const pcieEvery = 5

type card struct {
	reads               int
	pcieRead, pcieWrite Value
	there               symbols
	device              nvml.Device
	index               int
	uuid                string
	name                string
	level               string // compute capability
}

// ErrNoDriver means that no NVIDIA driver (or no card) is here.
var ErrNoDriver = errors.New("no NVIDIA driver was found")

// Open initialises NVML. ErrNoDriver is the ordinary answer of a host without cards.
func Open() (*Sensors, error) { return open(nvml.New()) }

func open(lib nvml.Interface) (*Sensors, error) {
	if ret := lib.Init(); ret != nvml.SUCCESS {
		if ret == nvml.ERROR_LIBRARY_NOT_FOUND || ret == nvml.ERROR_DRIVER_NOT_LOADED {
			return nil, ErrNoDriver
		}
		return nil, fmt.Errorf("initialise NVML: %s", text(ret))
	}
	s := &Sensors{lib: lib}
	there := lookUp(lib)
	if there["nvmlSystemGetDriverVersion"] {
		if v, ret := lib.SystemGetDriverVersion(); ret == nvml.SUCCESS {
			s.driver.Version = v
		}
	}
	if there["nvmlSystemGetCudaDriverVersion"] {
		if v, ret := lib.SystemGetCudaDriverVersion(); ret == nvml.SUCCESS {
			s.driver.CUDA = fmt.Sprintf("%d.%d", v/1000, v%1000/10)
		}
	}
	n, ret := lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		_ = lib.Shutdown()
		return nil, fmt.Errorf("count the cards: %s", text(ret))
	}
	if there["nvmlEventSetCreate"] && there["nvmlEventSetWait"] && there["nvmlEventSetFree"] && there["nvmlDeviceRegisterEvents"] {
		if set, ret := lib.EventSetCreate(); ret == nvml.SUCCESS {
			s.events = set
		}
	}
	for i := range n {
		device, ret := lib.DeviceGetHandleByIndex(i)
		if ret != nvml.SUCCESS {
			s.cards = append(s.cards, card{index: i, name: text(ret)})
			continue
		}
		c := card{there: there, device: device, index: i}
		if there["nvmlDeviceGetUUID"] {
			c.uuid, _ = device.GetUUID()
		}
		if there["nvmlDeviceGetName"] {
			c.name, _ = device.GetName()
		}
		if there["nvmlDeviceGetCudaComputeCapability"] {
			if major, minor, ret := device.GetCudaComputeCapability(); ret == nvml.SUCCESS {
				c.level = fmt.Sprintf("%d.%d", major, minor)
			}
		}
		if s.events != nil {
			_ = device.RegisterEvents(nvml.EventTypeXidCriticalError, s.events) // unsupported on some cards: Xids stay unseen
		}
		s.cards = append(s.cards, c)
	}
	return s, nil
}

// text is NVML's own words for a result.
func text(ret nvml.Return) string { return nvml.ErrorString(ret) }

// Driver describes the driver.
func (s *Sensors) Driver() Driver { return s.driver }

// Read looks at every card once. Unreadable sensors are unknown; a card that fell
// off the bus has Lost set.
func (s *Sensors) Read() []Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	xids := s.xids()
	out := make([]Sample, 0, len(s.cards))
	for i := range s.cards {
		c := &s.cards[i]
		sample := c.read()
		sample.Xids = xids[i]
		out = append(out, sample)
	}
	return out
}

// xids drains the error events that arrived since the last look, by card. It asks
// the cards nothing: one that reports 79 (off the bus) may not answer any more.
func (s *Sensors) xids() map[int][]uint64 {
	if s.events == nil {
		return nil
	}
	out := map[int][]uint64{}
	for range 100 {
		data, ret := s.events.Wait(0)
		if ret != nvml.SUCCESS {
			return out
		}
		if i := slices.IndexFunc(s.cards, func(c card) bool { return c.device != nil && c.device == data.Device }); i >= 0 {
			out[i] = append(out[i], data.EventData)
		}
	}
	return out
}

// Close ends the use of NVML.
func (s *Sensors) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.events != nil {
		_ = s.events.Free()
	}
	if ret := s.lib.Shutdown(); ret != nvml.SUCCESS {
		return fmt.Errorf("close NVML: %s", text(ret))
	}
	return nil
}

// reading asks the card by the function of that name; a missing function or a
// refusal is an unknown value.
func reading[T int | uint32 | uint64 | int32](c *card, name string, ask func() (T, nvml.Return)) Value {
	if !c.there[name] {
		return Value{}
	}
	v, ret := ask()
	if ret != nvml.SUCCESS {
		return Value{}
	}
	return Of(float64(v))
}

func (v Value) times(f float64) Value { v.V *= f; return v }

func (c *card) read() Sample {
	s := Sample{At: time.Now(), Index: c.index, UUID: c.uuid, Name: c.name, Capability: c.level}
	d := c.device
	if d == nil {
		s.Lost = c.name
		return s
	}
	s.Temperature = reading(c, "nvmlDeviceGetTemperature", func() (uint32, nvml.Return) {
		t, ret := d.GetTemperature(nvml.TEMPERATURE_GPU)
		if ret == nvml.ERROR_GPU_IS_LOST || ret == nvml.ERROR_RESET_REQUIRED {
			s.Lost = text(ret)
		}
		return t, ret
	})
	if s.Lost != "" {
		return s
	}
	s.SlowdownMargin = c.margin(s.Temperature)
	if c.there["nvmlDeviceGetMemoryInfo"] {
		if m, ret := d.GetMemoryInfo(); ret == nvml.SUCCESS {
			s.MemoryUsed, s.MemoryTotal = Of(float64(m.Used)), Of(float64(m.Total))
		}
	}
	if c.there["nvmlDeviceGetUtilizationRates"] {
		if u, ret := d.GetUtilizationRates(); ret == nvml.SUCCESS {
			s.Utilisation = Of(float64(u.Gpu))
		}
	}
	s.Power = reading(c, "nvmlDeviceGetPowerUsage", d.GetPowerUsage).times(1e-3)
	s.PowerLimit = reading(c, "nvmlDeviceGetEnforcedPowerLimit", d.GetEnforcedPowerLimit).times(1e-3)
	s.ClockSM = reading(c, "nvmlDeviceGetClockInfo", func() (uint32, nvml.Return) { return d.GetClockInfo(nvml.CLOCK_SM) })
	s.ClockMemory = reading(c, "nvmlDeviceGetClockInfo", func() (uint32, nvml.Return) { return d.GetClockInfo(nvml.CLOCK_MEM) })
	s.Fan = reading(c, "nvmlDeviceGetFanSpeed", d.GetFanSpeed)
	s.ECCErrors = reading(c, "nvmlDeviceGetTotalEccErrors", func() (uint64, nvml.Return) {
		return d.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.VOLATILE_ECC)
	})
	s.PCIeGen = reading(c, "nvmlDeviceGetCurrPcieLinkGeneration", d.GetCurrPcieLinkGeneration)
	s.PCIeWidth = reading(c, "nvmlDeviceGetCurrPcieLinkWidth", d.GetCurrPcieLinkWidth)
	if c.reads%pcieEvery == 0 {
		c.pcieRead = reading(c, "nvmlDeviceGetPcieThroughput", func() (uint32, nvml.Return) { return d.GetPcieThroughput(nvml.PCIE_UTIL_RX_BYTES) }).times(1024)
		c.pcieWrite = reading(c, "nvmlDeviceGetPcieThroughput", func() (uint32, nvml.Return) { return d.GetPcieThroughput(nvml.PCIE_UTIL_TX_BYTES) }).times(1024)
	}
	c.reads++
	s.PCIeRead, s.PCIeWrite = c.pcieRead, c.pcieWrite
	if c.there["nvmlDeviceGetCurrentClocksThrottleReasons"] {
		if reasons, ret := d.GetCurrentClocksThrottleReasons(); ret == nvml.SUCCESS {
			s.ThrottleKnown, s.Throttle = true, throttleReasons(reasons)
		}
	}
	if c.there["nvmlDeviceGetComputeRunningProcesses"] {
		if processes, ret := d.GetComputeRunningProcesses(); ret == nvml.SUCCESS {
			for _, p := range processes {
				s.Processes = append(s.Processes, process(&p))
			}
		}
	}
	return s
}

// process describes a program; in containers the driver may not know its memory.
func process(p *nvml.ProcessInfo) Process {
	out := Process{PID: int(p.Pid), Name: processName(int(p.Pid))}
	if p.UsedGpuMemory != ^uint64(0) {
		out.Memory = Of(float64(p.UsedGpuMemory))
	}
	return out
}

// margin is the distance to the card's own slowdown: newer cards report it,
// older ones report the threshold.
func (c *card) margin(temperature Value) Value {
	m := reading(c, "nvmlDeviceGetMarginTemperature", func() (int32, nvml.Return) {
		m, ret := c.device.GetMarginTemperature()
		return m.MarginTemperature, ret
	})
	if m.Known {
		return m
	}
	limit := reading(c, "nvmlDeviceGetTemperatureThreshold", func() (uint32, nvml.Return) {
		return c.device.GetTemperatureThreshold(nvml.TEMPERATURE_THRESHOLD_SLOWDOWN)
	})
	if !limit.Known || limit.V == 0 || !temperature.Known {
		return Value{}
	}
	return Of(limit.V - temperature.V)
}

// throttleReasons names the bits that mean a card is held back; idle and
// settings by the user are none.
func throttleReasons(bits uint64) []string {
	var out []string
	for i, bit := range []uint64{
		nvml.ClocksThrottleReasonSwPowerCap, nvml.ClocksThrottleReasonHwSlowdown, nvml.ClocksThrottleReasonSwThermalSlowdown,
		nvml.ClocksThrottleReasonHwThermalSlowdown, nvml.ClocksThrottleReasonHwPowerBrakeSlowdown,
	} {
		if bits&bit != 0 {
			out = append(out, reasons[i])
		}
	}
	return out
}
