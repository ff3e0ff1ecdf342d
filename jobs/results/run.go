package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// measured is one row of one seed in the making.
type measured struct {
	*settings
	row     *row
	seed    int
	dir     string // of its networks, runs and job
	job     job
	figures []figure
	code    string // version of sela
}

// measure trains and evaluates a row, unless its figures are there.
func (s *settings) measure(ctx context.Context, r *row, seed int) error {
	have, err := s.figuresOf(r.name)
	if err != nil {
		return err
	}
	for _, f := range have {
		if f.seed == seed {
			fmt.Fprintf(os.Stderr, "%s, seed %d: its figures are in %s\n", r.name, seed, s.file(r.name))
			return nil
		}
	}
	m, err := s.prepare(ctx, r, seed)
	if err != nil {
		return err
	}
	switch {
	case r.labels != "":
		err = m.transfer(ctx)
	case r.method != "":
		err = m.loop(ctx)
	default:
		err = m.baseline(ctx)
	}
	if err != nil {
		return err
	}
	return s.keep(r.name, seed, m.figures, m.code)
}

// prepare makes the row's folder with its job and untrained network.
func (s *settings) prepare(ctx context.Context, r *row, seed int) (*measured, error) {
	data, err := filepath.Abs(s.data)
	if err != nil {
		return nil, err
	}
	m := &measured{settings: s, row: r, seed: seed, dir: filepath.Join(s.work, fmt.Sprintf("%s-%d", r.name, seed))}
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return nil, err
	}
	all, err := pictures(data)
	if err != nil {
		return nil, err
	}
	only := ""
	if r.variant != "" {
		kept, counts := choose(all, shares[r.variant])
		fmt.Fprintf(os.Stderr, "%s: %d of %d images, by class %v\n", r.variant, len(kept), len(all), counts)
		all, only = kept, "only.csv"
		if err := writeList(filepath.Join(m.dir, only), kept); err != nil {
			return nil, err
		}
	}
	m.job = jobOf(r, int64(len(all)), s.budget, s.epochs, seed)
	m.job.Data, m.job.Only, m.job.Providers = data, only, s.providers
	version, err := exec.CommandContext(ctx, s.sela, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --version: %w (build it with: make build)", s.sela, err)
	}
	m.code = string(bytes.TrimSpace(bytes.TrimPrefix(version, []byte("sela version "))))
	if m.job.Method == "" {
		m.job.Method = "lists" // the job of what trains nothing, or elsewhere
	}
	whole := m.job
	whole.Only = ""
	for name, j := range map[string]job{"job.yaml": m.job, "evaluate.yaml": whole} {
		text, err := j.yaml()
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(m.path(name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	if _, err := os.Stat(m.path("model.onnx")); err == nil {
		return m, nil
	}
	network := *r
	network.heads, network.clusters = cmp.Or(r.heads, 10), cmp.Or(r.clusters, 128)
	args := append([]string{"model", "new", "--out", m.path("model.onnx"), "--calibrate", data, "--glob", "cifar10-train-*.tar"}, networkFlags(&network, seed)...)
	return m, m.command(ctx, nil, args...)
}

func (m *measured) path(name string) string { return filepath.Join(m.dir, name) }

// loop trains by rounds of labels and measures the network and the last labels.
func (m *measured) loop(ctx context.Context) error {
	var end struct {
		Run   string `json:"run"`
		Model string `json:"model"`
		Rows  []struct {
			Epoch    float64            `json:"epoch"`
			Images   int64              `json:"images"`
			Churn    *float64           `json:"churn"`
			Previous *float64           `json:"nmi_previous"`
			Seconds  map[string]float64 `json:"seconds"`
		} `json:"rows"`
	}
	if err := m.command(ctx, &end, "loop", m.path("job.yaml"), "--rounds", fmt.Sprint(m.job.Rounds), "--loop-id", m.loopID()); err != nil {
		return err
	}
	seconds := map[string]float64{}
	for i, r := range end.Rows {
		for stage, s := range r.Seconds {
			seconds[stage] += s
		}
		if i > 0 && r.Churn != nil {
			m.add(int(r.Epoch), "churn", *r.Churn, nil)
		}
		if i > 0 && r.Previous != nil {
			m.add(int(r.Epoch), "nmi_previous", *r.Previous, nil)
		}
	}
	total, epochs := 0.0, m.job.Rounds*m.job.Epochs
	for _, stage := range []string{"train", "extract", "solve", "label"} {
		m.add(epochs, stage+"_seconds", seconds[stage], nil)
		total += seconds[stage]
	}
	m.add(epochs, "minutes", total/60, nil)
	return m.inspect(ctx, epochs, end.Model, "--labels", end.Run)
}

// loopID is part of the runs' names, and so of what other rows train on.
func (m *measured) loopID() string { return fmt.Sprintf("%s-%d", m.row.name, m.seed) }

// transfer trains a fresh network on the final labels of another row.
func (m *measured) transfer(ctx context.Context) error {
	labels, err := m.labels()
	if err != nil {
		return err
	}
	epochs := m.job.Rounds
	first := epochs
	if m.row.each {
		first = 1
	}
	for until := first; until <= epochs; until++ {
		out := m.path(fmt.Sprintf("epoch-%02d", until))
		spec := m.job
		spec.Epochs = epochs
		args := append([]string{"train", "--labels", labels, "--arch", cmp.Or(m.row.arch, "resnet-s"), "--out", out, "--local", m.path("local")}, spec.trainingFlags()...)
		if m.providers != "" {
			args = append(args, "--providers", m.providers)
		}
		if m.row.rotation {
			args = append(args, "--rotation-head")
		}
		if m.row.each {
			args = append(args, "--until", fmt.Sprint(until))
		}
		if m.row.each && until > first {
			args = append(args, "--after", filepath.Join(m.path(fmt.Sprintf("epoch-%02d", until-1)), "checkpoint.sela"))
		}
		start := time.Now()
		if err := m.command(ctx, nil, args...); err != nil {
			return err
		}
		if took := time.Since(start); !m.row.each { // of a resumed training only its end
			m.add(until, "minutes", took.Minutes(), nil)
		}
		network := filepath.Join(out, "model.onnx")
		if until == epochs {
			return m.inspect(ctx, until, network)
		}
		if err := m.evaluate(ctx, until, "", "--model", "network="+network); err != nil {
			return err
		}
	}
	return nil
}

// labels is the folder of the last labels of the row that this one builds on.
func (m *measured) labels() (string, error) {
	base := fmt.Sprintf("%s-%d", m.row.labels, m.seed)
	found, err := filepath.Glob(filepath.Join(m.work, base, "labels", "runs", base+"-r*"))
	if err != nil {
		return "", err
	}
	have, err := m.figuresOf(m.row.labels)
	if err != nil {
		return "", err
	}
	done := false
	for _, f := range have {
		done = done || f.seed == m.seed
	}
	if !done || len(found) == 0 {
		return "", fmt.Errorf("row %s must be measured before, with this seed and in this --work folder", m.row.labels)
	}
	return found[len(found)-1], nil // Glob sorts, and rounds have three digits
}

// baseline measures what needs no training.
func (m *measured) baseline(ctx context.Context) error {
	if m.row.heads == 0 {
		return m.evaluate(ctx, 0, "", "--baselines", "pixels", "--probe")
	}
	return m.inspect(ctx, 0, m.path("model.onnx"))
}

// inspect measures a network by all that there is: its features, and the quarters
// of an inner layer, which keeps more of where things are.
func (m *measured) inspect(ctx context.Context, epoch int, network string, args ...string) error {
	if err := m.evaluate(ctx, epoch, "", append(args, "--model", "network="+network, "--probe")...); err != nil {
		return err
	}
	return m.evaluate(ctx, epoch, "_conv3", "--model", "network="+network, "--features", "conv3", "--pool", "2")
}

// evaluate adds the measures of one network to the row's figures, those of its
// features with a suffix.
func (m *measured) evaluate(ctx context.Context, epoch int, suffix string, args ...string) error {
	var end struct {
		Evaluation struct {
			Rows []struct {
				Network, Source, Measure string
				Value                    float64
				Chance                   *float64
				K                        int
			}
		}
	}
	args = append([]string{"evaluate", m.path("evaluate.yaml"), "--test-glob", "cifar10-test-*.tar", "--test", m.job.Data}, args...)
	if err := m.command(ctx, &end, args...); err != nil {
		return err
	}
	wanted := "network"
	if m.row.method == "" && m.row.labels == "" && m.row.heads == 0 {
		wanted = "pixels"
	}
	type sum struct{ value, chance, n float64 }
	heads := map[string]*sum{}
	for _, r := range end.Evaluation.Rows {
		switch r.Measure {
		case "knn":
			if r.Network == wanted || r.Source == wanted {
				m.add(epoch, fmt.Sprintf("knn_%d%s", r.K, suffix), r.Value, nil)
			}
		case "linear":
			if r.Network == wanted || r.Source == wanted {
				m.add(epoch, "linear"+suffix, r.Value, nil)
			}
		default: // of one head
			h := heads[r.Measure]
			if h == nil {
				h = &sum{}
				heads[r.Measure] = h
			}
			h.value, h.n = h.value+r.Value, h.n+1
			if r.Chance != nil {
				h.chance += *r.Chance
			}
		}
	}
	for _, name := range []string{"nmi", "ami", "ari", "purity", "accuracy"} {
		if h := heads[name]; h != nil {
			var chance *float64
			if h.chance > 0 {
				c := h.chance / h.n
				chance = &c
			}
			m.add(epoch, name, h.value/h.n, chance)
		}
	}
	return nil
}

func (m *measured) add(epoch int, measure string, value float64, chance *float64) {
	m.figures = append(m.figures, figure{seed: m.seed, epoch: epoch, measure: measure, value: value, chance: chance})
}

// command runs sela and reads the result from its last line.
func (m *measured) command(ctx context.Context, result any, args ...string) error {
	fmt.Fprintf(os.Stderr, "+ sela %q\n", args)
	cmd := exec.CommandContext(ctx, m.sela, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		os.Stderr.Write(out.Bytes())
		return fmt.Errorf("sela %s: %w", args[0], errors.Join(err, errFailed))
	}
	lines := bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n"))
	last := lines[len(lines)-1]
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(last, result); err != nil {
		return fmt.Errorf("sela %s: its last line is no result: %w", args[0], err)
	}
	return nil
}
