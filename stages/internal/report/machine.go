package report

import (
	"os"
	"strings"
)

// Processor returns the name of the machine's processor, Memory its amount of
// memory; both are "unknown" where /proc does not say.
func Processor() string { return procLine("/proc/cpuinfo", "model name") }

// Memory is described with [Processor].
func Memory() string { return procLine("/proc/meminfo", "MemTotal") }

// Load returns the load averages of the last 1, 5 and 15 minutes: what else the
// machine was doing. It is empty where /proc does not say.
func Load() string {
	raw, _ := os.ReadFile("/proc/loadavg") // without it the report lacks a hint only
	all := strings.Fields(string(raw))
	return strings.Join(all[:min(3, len(all))], " ")
}

// procLine returns the value of the first line of a file with that key.
func procLine(path, key string) string {
	raw, _ := os.ReadFile(path) // likewise
	for line := range strings.Lines(string(raw)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
