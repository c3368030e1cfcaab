package gpu

import (
	"fmt"
	"os"
	"strings"
)

// processName is the command name of a process, or "" when it cannot be learnt.
func processName(pid int) string {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}
