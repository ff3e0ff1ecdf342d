package evaluate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"sela/pipeline"
	"sela/schemas"
	"sela/stages/internal/ort"
)

// Config is what is to be measured.
type Config struct {
	Runtime  *ort.Runtime
	Networks []*Network
	Labels   *Labelling // of a published run, or nil
	// Train is the bank of neighbours and what linear classifiers are fitted to,
	// Test what is classified.
	Train, Test Split
	Classes     []string // of both splits
	Pool        int      // features of a map [C, H, W] are its means over Pool×Pool windows; 1: global average
	Probe       bool     // fit linear classifiers, also to features that have neighbours
	Memory      int64    // of this machine, in bytes; 0: not known
	Dir         string   // scratch
	Observer    pipeline.Observer
}

// Labelling is the labels of a run.
type Labelling struct {
	Run      string
	Clusters []int     // of each head
	Labels   [][]int32 // of each head, in [0, Clusters)
	Truth    []int32   // classes of the same images, in [0, Classes)
	Classes  int
}

// Report is what was measured.
type Report struct {
	Rows    []schemas.Evaluation `json:"rows"`
	Train   Counted              `json:"train"`
	Test    Counted              `json:"test"`
	Classes []string             `json:"classes"`
	Seconds map[string]float64   `json:"seconds"`          // by stage
	Linear  map[string]*Probe    `json:"linear,omitempty"` // by network and tensor
}

// Counted is a split after it was read.
type Counted struct {
	Images  int      `json:"images"`   // that were used
	LeftOut int      `json:"left_out"` // that could not be
	Why     []string `json:"why,omitempty"`
}

// Votes are the settings of the nearest-neighbour classifier: that of Wu et al.
// 2018 for small images and one that looks further.
var Votes = []struct {
	K     int
	Sigma float64
}{{10, 0.1}, {50, 0.5}}

// Run measures everything. What is wrong with tensors, sizes or models is an
// error of class Config before any image is read. The figures are the same for
// any number of processors. Memory is that of the features of one pass, at most
// seven tenths of c.Memory, and of the network's batches.
func Run(ctx context.Context, c *Config) (*Report, error) {
	r := &run{Config: c, report: &Report{Classes: c.Classes, Seconds: map[string]float64{}, Linear: map[string]*Probe{}}}
	var err error
	if r.engine, err = NewEngine(c.Runtime, c.Dir); err != nil {
		return nil, err
	}
	err = r.all(ctx)
	if err = errors.Join(err, r.engine.Close()); err != nil {
		return nil, err
	}
	return r.report, nil
}

type run struct {
	*Config
	engine *Engine
	report *Report
}

func (r *run) all(ctx context.Context) error {
	type planned struct {
		network *Network
		passes  [][]*source
	}
	var plan []planned
	for _, n := range r.Networks {
		sources := r.sources(n)
		if err := r.measureShapes(ctx, n, sources); err != nil {
			return err
		}
		passes, err := r.passes(n, sources)
		if err != nil {
			return err
		}
		plan = append(plan, planned{n, passes})
	}
	if r.Labels != nil {
		for h, labels := range r.Labels.Labels {
			if err := r.clusters(r.Labels.Run, "train", h, r.Labels.Clusters[h], labels, r.Labels.Truth, r.Labels.Classes); err != nil {
				return err
			}
		}
	}
	for _, p := range plan {
		for i, group := range p.passes {
			if err := r.measure(ctx, p.network, group, i == 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// measure does one pass over the images and all that is done with its features.
func (r *run) measure(ctx context.Context, n *Network, group []*source, first bool) error {
	train, test, err := r.pass(ctx, n, group, first && n.Heads)
	if err != nil {
		return err
	}
	if first {
		r.report.Train, r.report.Test = train.counted(), test.counted()
		for i, k := range []*kept{train, test} {
			if k.count > 0 {
				r.notice("images were left out", slog.String("of", []string{"train", "test"}[i]), slog.Int("images", k.count), slog.Any("first", k.bad))
			}
		}
	}
	for h, clusters := range test.heads {
		if err := r.clusters(n.Name, "test", h, test.sizes[h], clusters, test.labels, len(r.Classes)); err != nil {
			return err
		}
	}
	for _, s := range group {
		if s.pixels {
			Standardise(s.train, s.test)
		}
		if s.nearest {
			if err := r.nearest(ctx, n, s, train.labels, test.labels); err != nil {
				return fmt.Errorf("%s: %s: %w", n.Name, s.name, err)
			}
		}
		if s.probe {
			if err := r.probe(ctx, n, s, train.labels, test.labels); err != nil {
				return fmt.Errorf("%s: %s: %w", n.Name, s.name, err)
			}
		}
		s.train, s.test = nil, nil
	}
	return nil
}

func (k *kept) counted() Counted {
	return Counted{Images: len(k.labels), LeftOut: k.count, Why: k.bad}
}

func (r *run) nearest(ctx context.Context, n *Network, s *source, bank, truth []int32) error {
	most := 0
	for _, v := range Votes {
		most = max(most, v.K)
	}
	return r.stage(n.Name+" "+s.name+" kNN", int64(s.test.Rows), func(stage string) error {
		found, err := r.engine.Nearest(ctx, s.train, s.test, most, r.advance(stage))
		if err != nil {
			return err
		}
		for _, v := range Votes {
			row := r.row(n, s)
			row.Measure, row.K, row.Sigma = "knn", ptr(int32(v.K)), ptr(v.Sigma)
			row.Value = Accuracy(found.Vote(bank, len(r.Classes), v.K, v.Sigma), truth)
			r.report.Rows = append(r.report.Rows, row)
		}
		return nil
	})
}

func (r *run) probe(ctx context.Context, n *Network, s *source, labels, truth []int32) error {
	return r.stage(n.Name+" "+s.name+" linear", int64(len(Penalties)+1), func(stage string) error {
		p, err := r.engine.Probe(ctx, s.train, labels, s.test, truth, len(r.Classes), func() { r.advance(stage)(1) })
		if err != nil {
			return err
		}
		row := r.row(n, s)
		row.Measure, row.Value, row.L2 = "linear", p.Accuracy, ptr(p.L2)
		r.report.Rows = append(r.report.Rows, row)
		r.report.Linear[n.Name+" "+s.name] = p
		if !p.Converged {
			r.notice("a linear classifier was not at its minimum after all iterations", slog.String("of", n.Name+" "+s.name), slog.Int("iterations", maxIterations))
		}
		return nil
	})
}

func (r *run) row(n *Network, s *source) schemas.Evaluation {
	return schemas.Evaluation{Network: n.Name, Source: s.name, Split: "test", Images: int64(s.test.Rows), Dim: ptr(int32(s.dim()))}
}

// clusters scores a head.
func (r *run) clusters(of, split string, head, clusters int, labels, truth []int32, classes int) error {
	scores, err := ScoreHead(labels, truth, clusters, classes)
	if err != nil {
		return fmt.Errorf("%s: head %d: %w", of, head, err)
	}
	row := schemas.Evaluation{Network: of, Source: fmt.Sprintf("head %d", head), Split: split, Images: int64(len(labels)), Clusters: ptr(int32(clusters))}
	add := func(measure string, value float64, chance *float64) {
		row.Measure, row.Value, row.Chance = measure, value, chance
		r.report.Rows = append(r.report.Rows, row)
	}
	add("nmi", scores.NMI, &scores.Chance.NMI)
	add("ami", scores.AMI, nil)
	add("ari", scores.ARI, nil)
	add("purity", scores.Purity, &scores.Chance.Purity)
	if scores.Accuracy != nil {
		add("accuracy", *scores.Accuracy, nil)
	}
	return nil
}

// stage does something of so many steps, and says so and how long it took.
func (r *run) stage(name string, total int64, do func(stage string) error) error {
	begin := time.Now()
	r.Observer.Observe(pipeline.Event{Kind: pipeline.StageStarted, Stage: name, Total: total, Tasks: 1})
	if err := do(name); err != nil {
		return err
	}
	elapsed := time.Since(begin)
	r.report.Seconds[name] = elapsed.Seconds()
	r.Observer.Observe(pipeline.Event{Kind: pipeline.StageDone, Stage: name, Rows: total, Tasks: 1, Elapsed: elapsed})
	return nil
}

// advance tells of steps of a stage that are done.
func (r *run) advance(stage string) func(steps int) {
	return func(steps int) {
		r.Observer.Observe(pipeline.Event{Kind: pipeline.RowsDone, Stage: stage, Rows: int64(steps)})
	}
}

func (r *run) notice(message string, attrs ...slog.Attr) {
	r.Observer.Observe(pipeline.Event{Kind: pipeline.Notice, Task: message, Attrs: attrs})
}

func ptr[T any](v T) *T { return &v }
