//go:build linux

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sela/stages/internal/onnx/grad"
	"sela/stages/internal/ort"
)

// profiledRuns are the steps that the shares of operators are taken from; of
// each node, the fastest counts.
const profiledRuns = 5

// operator is what one kind of node takes in one part of a step.
type operator struct {
	Part    string  `json:"part"` // forward, backward or update
	Name    string  `json:"name"`
	Nodes   int     `json:"nodes"`
	Seconds float64 `json:"seconds"`
}

// profile runs the step in a stepper of its own, with ONNX Runtime's profiler,
// on small positive numbers, and returns what its operators take, the slowest
// first.
func profile(ctx context.Context, rt *ort.Runtime, w workload, step *grad.Step, dir string) (_ []operator, err error) {
	path, prefix := filepath.Join(dir, "profiled.onnx"), filepath.Join(dir, "profile")
	if err := step.Model.Save(path); err != nil {
		return nil, err
	}
	defer os.Remove(path)
	spec := stepperSpec(step, w)
	spec.Profile = prefix
	s, err := rt.NewStepper(path, spec, options(w))
	if err != nil {
		return nil, err
	}
	err = profiled(ctx, s, step)
	// The profile is written when the session ends.
	if err := errors.Join(err, s.Close()); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(prefix + "*.json")
	if err != nil || len(files) != 1 {
		return nil, fmt.Errorf("ONNX Runtime left %d profiles", len(files))
	}
	return readProfile(files[0])
}

func profiled(ctx context.Context, s *ort.Stepper, step *grad.Step) error {
	feed, err := s.NewFeed()
	if err != nil {
		return err
	}
	for _, t := range feed.Tensors {
		fill(t.Float32())
	}
	for range profiledRuns {
		for i := range step.State {
			fill(s.State(i))
		}
		if err := s.Step(ctx, feed); err != nil {
			return err
		}
	}
	return nil
}

func fill(values []float32) {
	for i := range values {
		values[i] = float32(i%7+1) / 8
	}
}

// readProfile adds up the fastest run of every node of a profile of ONNX
// Runtime (the Trace Event format: microseconds).
func readProfile(path string) ([]operator, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var events []struct {
		Category string  `json:"cat"`
		Name     string  `json:"name"`
		Duration float64 `json:"dur"`
		Args     struct {
			Operator string `json:"op_name"`
		} `json:"args"`
	}
	if err := json.Unmarshal(raw, &events); err != nil {
		return nil, fmt.Errorf("profile of ONNX Runtime: %w", err)
	}
	type node struct {
		operator string
		best     float64
	}
	nodes := map[string]node{}
	for _, e := range events {
		name, ok := strings.CutSuffix(e.Name, "_kernel_time")
		if e.Category != "Node" || !ok {
			continue
		}
		n, seen := nodes[name]
		if !seen {
			n = node{e.Args.Operator, math.Inf(1)}
		}
		n.best = min(n.best, e.Duration/1e6)
		nodes[name] = n
	}
	sums := map[[2]string]operator{}
	for name, n := range nodes {
		key := [2]string{partOf(name), n.operator}
		o := sums[key]
		sums[key] = operator{key[0], key[1], o.Nodes + 1, o.Seconds + n.best}
	}
	var list []operator
	for _, o := range sums {
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b operator) int {
		return cmp.Or(cmp.Compare(b.Seconds, a.Seconds), cmp.Compare(a.Part+a.Name, b.Part+b.Name))
	})
	return list, nil
}

// partOf tells by a node's name what part of the step it belongs to.
func partOf(node string) string {
	switch {
	case strings.HasPrefix(node, "grad/"):
		return "backward"
	case strings.HasPrefix(node, "next/"):
		return "update"
	}
	return "forward"
}
