//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// childFlag makes this program perform one request, given as JSON, and print
// its outcomes: peak memory is that of a process.
const childFlag = "child"

// inChild performs the request in a process of its own, as often as it says.
func (r request) inChild(ctx context.Context) ([]outcome, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-"+childFlag, string(raw))
	var stdout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("solve %s in a process of its own: %w", r.Dataset.Dir, err)
	}
	var all []outcome
	if err := json.Unmarshal(stdout.Bytes(), &all); err != nil || len(all) != max(r.Repeat, 1) {
		return nil, fmt.Errorf("solve %s in a process of its own: it printed %q (%w)", r.Dataset.Dir, stdout.String(), err)
	}
	return all, nil
}

// child is the other end.
func child(ctx context.Context, raw string) error {
	var r request
	if err := json.Unmarshal([]byte(raw), &r); err != nil {
		return err
	}
	p, err := openProblem(ctx, &r.Dataset)
	if err != nil {
		return err
	}
	defer p.close()
	var all []outcome
	for range max(r.Repeat, 1) {
		out, err := r.solve(ctx, p)
		if err != nil {
			return err
		}
		all = append(all, *out)
		p.opened = step{}
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}

// peakRSS returns the largest resident memory of this process so far.
func peakRSS() (int64, error) {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/self/status has no VmHWM")
}

// Potentials are passed between processes as JSON.

func writePotentials(path string, v []float64) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, raw, 0o666)
}

func readPotentials(path string) (v []float64, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return v, json.Unmarshal(raw, &v)
}
