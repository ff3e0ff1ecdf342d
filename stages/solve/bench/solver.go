//go:build linux

package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sela/sinkhorn"
	"sela/stages/solve"
)

// problem is a dataset opened as the solve stage opens it.
type problem struct {
	source *solve.Source
	sample *sinkhorn.Sample // nil without one
	opened step             // the opening, with the reading of the sample
	close  func()
}

// Memory of a solve, in bytes: for the parts of the sample and for the lists,
// as the solve stage divides its 1 GiB.
const (
	sampleMemory = 768 << 20
	listMemory   = 256 << 20
)

// openProblem opens d. Of its sample the solver gets two disjoint parts of 20
// to 30 rows per cluster.
func openProblem(ctx context.Context, d *dataset) (_ *problem, err error) {
	start := now()
	run, shards, closeRun, err := d.open(ctx)
	if err != nil {
		return nil, err
	}
	p := &problem{close: closeRun}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.source, err = solve.OpenSource(run, shards, 0, 0); err != nil {
		return nil, err
	}
	p.close = func() { p.source.Close(); closeRun() }
	sample, err := solve.OpenSample(ctx, run, shards, 0, sampleMemory)
	if err == nil {
		p.close = func() { sample.Close(); p.source.Close(); closeRun() }
		p.sample, err = sampleParts(ctx, sample, d.Clusters)
	}
	if errors.Is(err, solve.ErrNoSample) {
		err = nil
	}
	p.opened = now().since(openStep, start)
	return p, err
}

func sampleParts(ctx context.Context, sample *solve.Sample, clusters int) (*sinkhorn.Sample, error) {
	parts := 2
	if sample.Rows() >= 50*int64(clusters) {
		parts = 3
	}
	first, err := sample.Part(ctx, 0, parts)
	if err != nil {
		return nil, err
	}
	second, err := sample.Part(ctx, 1, parts)
	if err != nil {
		return nil, err
	}
	return &sinkhorn.Sample{Solve: first, Judge: second}, nil
}

// request is a solve to be measured.
type request struct {
	Dataset  dataset `json:"dataset"`
	Method   string  `json:"method"`
	Workers  int     `json:"workers"`
	Cap      float64 `json:"cap"`      // seconds after which it is given up; 0 is never
	Repeat   int     `json:"repeat"`   // solves, one after the other; only the first pays for checking the shards
	Start    string  `json:"start"`    // file with potentials of an earlier round, as Keep writes it
	Sampled  bool    `json:"sampled"`  // give it the sample
	Keep     string  `json:"keep"`     // where to put the potentials found
	Balanced bool    `json:"balanced"` // then label rows such that clusters hold equally many
}

// step is a part of a solve and the time it took.
type step struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu_seconds"` // of this process
}

// moment is a reading of the clocks.
type moment struct {
	wall time.Time
	cpu  time.Duration // of this process so far
}

func now() moment {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // fails for bad arguments only
	return moment{time.Now(), time.Duration(u.Utime.Nano() + u.Stime.Nano())}
}

// since is what has passed between a moment and m.
func (m moment) since(name string, from moment) step {
	return step{name, m.wall.Sub(from.wall).Seconds(), (m.cpu - from.cpu).Seconds()}
}

// outcome is what a solve came to.
type outcome struct {
	Seconds     float64               `json:"seconds"` // sample and lists included
	CPU         float64               `json:"cpu_seconds"`
	Passes      int                   `json:"passes"`
	Steps       []step                `json:"steps"`
	L1          float64               `json:"l1"` // of the last pass, or as certified
	Capped      bool                  `json:"capped"`
	OwnRule     int                   `json:"own_rule"`    // pass at which the reference's rule held, 0 if it did not
	OwnRuleL1   float64               `json:"own_rule_l1"` // then
	PeakRSS     int64                 `json:"peak_rss"`    // bytes, of the process when the solve ended
	Certificate *sinkhorn.Certificate `json:"certificate,omitempty"`
	Balanced    *balanced             `json:"balanced,omitempty"`
	v           []float64
}

// balanced is what exactly balanced labels cost beyond the solve.
type balanced struct {
	Step     step    `json:"step"`
	Passes   int     `json:"passes"`
	Moved    int64   `json:"moved"` // rows that have another label than by the potentials alone
	Gap      float64 `json:"gap"`   // to the dual bound, nats of log p
	Smallest int64   `json:"smallest"`
	Largest  int64   `json:"largest"`
	PeakRSS  int64   `json:"peak_rss"`
}

// clocked is an evaluator that notes when its passes begin and end.
type clocked struct {
	*sinkhorn.CPU
	mu    sync.Mutex
	spans [][2]moment
}

func (c *clocked) Pass(ctx context.Context, req sinkhorn.Request) (*sinkhorn.PassResult, error) {
	start := now()
	r, err := c.CPU.Pass(ctx, req)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spans = append(c.spans, [2]moment{start, now()})
	return r, err
}

// watch follows a solve and ends it when the shares are right: MethodSinkhorn
// itself has another rule.
type watch struct {
	method string
	stop   context.CancelFunc
	last   sinkhorn.Progress
	own    sinkhorn.Progress // when the reference's rule first held
	met    bool
}

func (w *watch) Record(p sinkhorn.Progress) {
	w.last = p
	if w.method != string(sinkhorn.MethodSinkhorn) {
		return
	}
	if w.own.Passes == 0 && p.Checked && p.Change <= sinkhorn.DefaultChange {
		w.own = p
	}
	if p.Iterations > 0 && p.MarginalL1 <= sinkhorn.DefaultTol {
		w.met = true
		w.stop()
	}
}

// run solves, and reports even a solve that was cut short by its cap.
func (r *request) run(ctx context.Context) (*outcome, error) {
	p, err := openProblem(ctx, &r.Dataset)
	if err != nil {
		return nil, err
	}
	defer p.close()
	return r.solve(ctx, p)
}

// solve is run on what is open already. Its time includes that of the opening.
func (r *request) solve(ctx context.Context, p *problem) (*outcome, error) {
	start := now()
	spill, err := os.CreateTemp(r.Dataset.Dir, "lists-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(spill.Name())
	defer spill.Close()
	o := sinkhorn.Options{Method: sinkhorn.Method(r.Method), Workers: r.Workers, Memory: listMemory, Spill: spill}
	if o.Method == sinkhorn.MethodSinkhorn {
		o.Tol = 1e-300 // the watch has the say
	} else {
		if r.Sampled {
			o.Sample = p.sample
		}
		if r.Start != "" {
			if o.Start, err = readPotentials(r.Start); err != nil {
				return nil, err
			}
		}
	}
	cctx, stop := context.WithCancel(ctx)
	if r.Cap > 0 {
		cctx, stop = context.WithTimeout(ctx, time.Duration(r.Cap*float64(time.Second)))
	}
	defer stop()
	w := &watch{method: r.Method, stop: stop}
	o.Recorder = w
	ev := &clocked{CPU: sinkhorn.NewCPU(p.source, r.Workers)}
	res, err := sinkhorn.Solve(cctx, ev, o)
	end := now()
	if err != nil && (cctx.Err() == nil || ctx.Err() != nil) {
		return nil, err
	}
	if w.met {
		// The pass that was cancelled, if any, is not counted.
		ev.spans = ev.spans[:w.last.Passes]
		end = ev.spans[w.last.Passes-1][1]
	}
	out := &outcome{Passes: w.last.Passes, L1: w.last.MarginalL1, Capped: err != nil && !w.met,
		OwnRule: w.own.Passes, OwnRuleL1: w.own.MarginalL1, Steps: steps(p.opened, start, ev.spans, end)}
	for _, s := range out.Steps {
		out.Seconds += s.Seconds
		out.CPU += s.CPU
	}
	if res != nil {
		out.Certificate, out.v = &res.Certificate, res.V
		out.L1, out.Passes = res.Certificate.MarginalL1+2*res.Certificate.DroppedBound, res.Passes
		if r.Keep != "" {
			if err := writePotentials(r.Keep, res.V); err != nil {
				return nil, err
			}
		}
	}
	if out.PeakRSS, err = peakRSS(); err != nil || !r.Balanced || res == nil {
		return out, err
	}
	out.Balanced, err = balance(ctx, ev.CPU, res.V, o)
	return out, err
}

// balance finds exactly balanced labels, from potentials of a solve with the
// same options.
func balance(ctx context.Context, ev *sinkhorn.CPU, v []float64, o sinkhorn.Options) (*balanced, error) {
	start := now()
	b, _, passes, err := sinkhorn.Exact(ctx, ev, v, o)
	if err != nil {
		return nil, err
	}
	out := &balanced{Step: now().since("balance", start), Passes: passes, Moved: b.Moved, Gap: b.Gap / o.WithDefaults().Lambda,
		Smallest: slices.Min(b.Counts), Largest: slices.Max(b.Counts)}
	out.PeakRSS, err = peakRSS()
	return out, err
}

// Names of the steps of a solve.
const (
	openStep    = "open, read sample"
	sampleStep  = "solve sample"
	firstStep   = "first pass"
	furtherStep = "further passes"
	listsStep   = "lists"
)

// steps names what lay before, between and after the passes.
func steps(opened step, start moment, spans [][2]moment, end moment) []step {
	further, between := step{Name: furtherStep}, step{Name: listsStep}
	opened.Name = openStep
	all := []step{opened}
	at := start
	for i, s := range spans {
		if i == 0 {
			all = append(all, s[0].since(sampleStep, start), s[1].since(firstStep, s[0]))
		} else {
			between.add(s[0].since("", at))
			further.add(s[1].since("", s[0]))
		}
		at = s[1]
	}
	between.add(end.since("", at))
	return append(all, further, between)
}

func (s *step) add(t step) {
	s.Seconds += t.Seconds
	s.CPU += t.CPU
}
