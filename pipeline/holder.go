package pipeline

import (
	"fmt"
	"os"
	"strings"
)

// Holder identifies a process, so that another on the same machine can tell
// whether it still lives.
type Holder struct {
	Host string `json:"host"`
	// System tells apart boots of machines and, on one machine, containers that
	// number their processes independently; empty where the system has no such
	// names.
	System  string `json:"system"`
	PID     int    `json:"pid"`
	Started string `json:"started"` // when the process started, as the system counts it
}

// Self returns the holder that this process is.
func Self() Holder {
	host, _ := os.Hostname() // an unnamed host cannot be recognised, which is safe
	return Holder{Host: host, System: systemName(), PID: os.Getpid(), Started: processStart(os.Getpid())}
}

// systemName joins the kernel's boot id and the name of the process namespace.
func systemName() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	space, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(boot)) + " " + space
}

// processStart reads the start time of a process, in clock ticks since boot, or
// "" where no such process runs or there is no /proc.
func processStart(pid int) string {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The name, in parentheses, may hold spaces. After it come the state, which
	// is Z or X for a process that has ended but was not waited for, and, 20th,
	// the start time (proc(5)).
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return ""
	}
	return fields[19]
}

// dead tells whether the holder is known to have ended: a process of this
// machine, as self sees it, that is not there any more.
func (h Holder) dead(self Holder) bool {
	return h.Host != "" && h.Host == self.Host && h.System != "" && h.System == self.System &&
		self.Started != "" && processStart(h.PID) != h.Started
}
