//go:build cgo && linux

package gpu

import (
	"errors"
	"strings"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh100"
	mockserver "github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
)

// library is a mocked NVML that has every function, with the given cards.
func library(devices ...nvml.Device) *mock.Interface {
	return &mock.Interface{
		InitFunc:     func() nvml.Return { return nvml.SUCCESS },
		ShutdownFunc: func() nvml.Return { return nvml.SUCCESS },
		ExtensionsFunc: func() nvml.ExtendedInterface {
			return &mock.ExtendedInterface{LookupSymbolFunc: func(string) error { return nil }}
		},
		SystemGetDriverVersionFunc:     func() (string, nvml.Return) { return "550.1", nvml.SUCCESS },
		SystemGetCudaDriverVersionFunc: func() (int, nvml.Return) { return 12040, nvml.SUCCESS },
		DeviceGetCountFunc:             func() (int, nvml.Return) { return len(devices), nvml.SUCCESS },
		DeviceGetHandleByIndexFunc: func(i int) (nvml.Device, nvml.Return) {
			if devices[i] == nil {
				return nil, nvml.ERROR_GPU_IS_LOST
			}
			return devices[i], nvml.SUCCESS
		},
		EventSetCreateFunc: func() (nvml.EventSet, nvml.Return) { return nil, nvml.ERROR_NOT_SUPPORTED },
	}
}

func TestOpenTellsWhy(t *testing.T) {
	for ret, want := range map[nvml.Return]string{
		nvml.ERROR_LIBRARY_NOT_FOUND:       ErrNoDriver.Error(),
		nvml.ERROR_DRIVER_NOT_LOADED:       ErrNoDriver.Error(),
		nvml.ERROR_LIB_RM_VERSION_MISMATCH: "initialise NVML: ",
		nvml.ERROR_INSUFFICIENT_POWER:      "initialise NVML: ",
		nvml.ERROR_OPERATING_SYSTEM:        "initialise NVML: ",
	} {
		lib := library()
		lib.InitFunc = func() nvml.Return { return ret }
		_, err := open(lib)
		if err == nil || !strings.HasPrefix(err.Error(), want) || errors.Is(err, ErrNoDriver) != (want == ErrNoDriver.Error()) {
			t.Errorf("%v: %v", ret, err)
		}
	}
	lib := library()
	lib.DeviceGetCountFunc = func() (int, nvml.Return) { return 0, nvml.ERROR_UNKNOWN }
	if _, err := open(lib); err == nil || len(lib.ShutdownCalls()) != 1 {
		t.Errorf("cards that cannot be counted: %v, shut down %d times", err, len(lib.ShutdownCalls()))
	}
}

// The mocked H100 knows its names; what the mock does not answer stays unknown.
func TestMockedServer(t *testing.T) {
	server := dgxh100.New()
	lib := library()
	lib.DeviceGetCountFunc, lib.DeviceGetHandleByIndexFunc = server.DeviceGetCountFunc, server.DeviceGetHandleByIndexFunc
	const refused = nvml.ERROR_NOT_SUPPORTED
	n, _ := server.DeviceGetCount()
	for i := range n {
		h, _ := server.DeviceGetHandleByIndex(i)
		d := h.(*mockserver.Device)
		d.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { return uint32(40 + i), nvml.SUCCESS }
		d.GetMarginTemperatureFunc = func() (nvml.MarginTemperature, nvml.Return) {
			return nvml.MarginTemperature{MarginTemperature: int32(-i)}, nvml.SUCCESS
		}
		d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{}, refused }
		d.GetPowerUsageFunc = func() (uint32, nvml.Return) { return 123456, nvml.SUCCESS }
		d.GetEnforcedPowerLimitFunc = func() (uint32, nvml.Return) { return 0, refused }
		d.GetClockInfoFunc = func(nvml.ClockType) (uint32, nvml.Return) { return 0, refused }
		d.GetFanSpeedFunc = func() (uint32, nvml.Return) { return 0, refused }
		d.GetTotalEccErrorsFunc = func(nvml.MemoryErrorType, nvml.EccCounterType) (uint64, nvml.Return) { return 0, nvml.SUCCESS }
		d.GetCurrPcieLinkGenerationFunc = func() (int, nvml.Return) { return 5, nvml.SUCCESS }
		d.GetCurrPcieLinkWidthFunc = func() (int, nvml.Return) { return 16, nvml.SUCCESS }
		d.GetPcieThroughputFunc = func(nvml.PcieUtilCounter) (uint32, nvml.Return) { return 0, refused }
		d.GetCurrentClocksThrottleReasonsFunc = func() (uint64, nvml.Return) {
			return nvml.ClocksThrottleReasonGpuIdle | nvml.ClocksThrottleReasonSwPowerCap | nvml.ClocksThrottleReasonHwPowerBrakeSlowdown, nvml.SUCCESS
		}
		d.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { return nil, refused }
	}
	s, err := open(lib)
	if err != nil {
		t.Fatal(err)
	}
	if s.Driver() != (Driver{Version: "550.1", CUDA: "12.4"}) {
		t.Errorf("driver %+v", s.Driver())
	}
	all := s.Read()
	if len(all) != n || n != 8 {
		t.Fatalf("%d of %d cards", len(all), n)
	}
	c := all[3]
	if c.Temperature != Of(43) || c.SlowdownMargin != Of(-3) || c.Power != Of(123.456) || c.ECCErrors != Of(0) || c.PCIeWidth != Of(16) ||
		!strings.Contains(c.Name, "H100") || c.UUID == "" || c.UUID == all[4].UUID {
		t.Errorf("%+v", c)
	}
	if c.Utilisation.Known || c.PowerLimit.Known || c.ClockSM.Known || c.Fan.Known || c.PCIeRead.Known || len(c.Processes) > 0 {
		t.Errorf("refused sensors are known: %+v", c)
	}
	if got := strings.Join(c.Throttle, ", "); got != "power cap, power brake" {
		t.Errorf("throttled: %s", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestCardWithoutHandleIsLost(t *testing.T) {
	s, err := open(library(nil))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Read(); len(got) != 1 || got[0].Lost == "" || got[0].Temperature.Known {
		t.Errorf("%+v", got)
	}
}
