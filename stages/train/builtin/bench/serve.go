//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sela/stages/internal/ort"
)

// request is one line of a candidate's standard input, answer one of its output:
// those of peers.py.
type request struct {
	Do string `json:"do"` // open, steps, operators or memory
	workload
	Count int `json:"count,omitempty"` // of steps
}

type answer struct {
	Error      string     `json:"error,omitempty"`
	Package    string     `json:"package,omitempty"`
	Threads    int        `json:"threads,omitempty"`
	Parameters int64      `json:"parameters,omitempty"`
	Operations float64    `json:"operations,omitempty"` // of a step
	Wall       []float64  `json:"wall,omitempty"`       // seconds of each step
	CPU        []float64  `json:"cpu,omitempty"`        // likewise, of all threads
	Loss       float64    `json:"loss,omitempty"`       // of the last step
	Operators  []operator `json:"operators,omitempty"`
	Peak       float64    `json:"peak,omitempty"` // bytes resident at most, so far
}

// serve answers requests until standard input ends.
func serve(ctx context.Context, library string, in io.Reader, out io.Writer) (err error) {
	lib, err := ort.Find(library, nil)
	if err != nil {
		return err
	}
	rt, err := ort.Open(lib)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-train-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := &server{runtime: rt, dir: dir}
	requests, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var r request
		switch err := requests.Decode(&r); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		a, err := s.answer(ctx, r)
		if err != nil {
			a = &answer{Error: err.Error()}
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
}

// server is our candidate.
type server struct {
	runtime *ort.Runtime
	dir     string
	ours    *ours
}

func (s *server) answer(ctx context.Context, r request) (*answer, error) {
	if r.Do != "open" && s.ours == nil {
		return nil, fmt.Errorf("%q before open", r.Do)
	}
	switch r.Do {
	case "open":
		ops, err := operations(s.runtime, r.workload, s.dir)
		if err != nil {
			return nil, err
		}
		if s.ours, err = newOurs(ctx, s.runtime, r.workload, s.dir); err != nil {
			return nil, err
		}
		return &answer{Package: "ONNX Runtime " + s.runtime.Library().Version, Threads: s.ours.options.Threads,
			Parameters: s.ours.parameters(), Operations: ops}, nil
	case "steps":
		a := &answer{}
		for range r.Count {
			cpu, err := processorTime()
			if err != nil {
				return nil, err
			}
			start := time.Now()
			if err := s.ours.stepper.Step(ctx, s.ours.feed); err != nil {
				return nil, err
			}
			a.Wall = append(a.Wall, time.Since(start).Seconds())
			after, err := processorTime()
			if err != nil {
				return nil, err
			}
			a.CPU = append(a.CPU, after-cpu)
		}
		a.Loss = s.ours.loss()
		return a, nil
	case "operators":
		list, err := profile(ctx, s.runtime, r.workload, s.ours.step, s.dir)
		return &answer{Operators: list}, err
	case "memory":
		peak, err := peakMemory()
		return &answer{Peak: peak}, err
	}
	return nil, fmt.Errorf("no request %q", r.Do)
}

// processorTime is what all threads of this process have used, in seconds.
func processorTime() (float64, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("processor time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds(), nil
}

// peakMemory is the most that was resident of this process, in bytes.
func peakMemory() (float64, error) {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(raw))
	i := slices.Index(fields, "VmHWM:")
	if i < 0 || i+1 >= len(fields) {
		return 0, errors.New("/proc/self/status does not say VmHWM")
	}
	kib, err := strconv.ParseFloat(fields[i+1], 64)
	return kib * 1024, err
}
