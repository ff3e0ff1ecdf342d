//go:build linux

// Command bench measures the solver on matrices that it makes itself: the
// bandwidth of a pass, passes and seconds by method, a head of ImageNet's size,
// other solvers on the same matrix, and growth with the number of rows and of
// clusters. It prints Markdown tables, and progress on standard error.
//
//	make bench-solver                    everything: 90 minutes, 30 GB of disk
//	make bench-solver ROUNDS=dir         also the files of tests/rounds.py there
//	make bench-solver ARGS='-only pass'  one section
//	make bench-solver ARGS=-quick        small sizes, two minutes: not for quoting
//
// Ratios are within one run on one machine. Matrices are written as a run's
// shards and read by the solve stage's own source, which checks each shard's
// sha256 when it opens it. It runs on Linux, whose page cache it controls.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"sela/sinkhorn"
	"sela/stages/internal/report"
)

// config is what the flags say.
type config struct {
	only     string
	dir      string
	json     string
	quick    bool
	scale    float64
	workers  int
	repeat   int
	cap      time.Duration
	families string
	clusters int
	rounds   string
	python   string
	scripts  string
}

// bench is one run of the program.
type bench struct {
	config
	scratch string // removed at the end
	tables  []*report.Table
	figures []report.Figure
}

// section is one of the figures to report.
type section struct {
	name string
	run  func(*bench, context.Context) error
}

var sections = []section{
	{"pass", (*bench).pass}, {"methods", (*bench).methods}, {"rounds", (*bench).realRounds},
	{"imagenet", (*bench).imagenet}, {"peers", (*bench).peers}, {"growth", (*bench).growth},
}

func names() (all []string) {
	for _, s := range sections {
		all = append(all, s.name)
	}
	return all
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{}
	request := flag.String(childFlag, "", "perform one request, given as JSON (used by the program itself)")
	flag.StringVar(&b.only, "only", strings.Join(names(), ","), "sections, separated by commas")
	flag.StringVar(&b.dir, "dir", os.TempDir(), "folder for the generated shards, which are removed at the end")
	flag.StringVar(&b.json, "json", "", "also write the tables to this file, as JSON")
	flag.BoolVar(&b.quick, "quick", false, "small sizes: whether it works, not how fast it is")
	flag.Float64Var(&b.scale, "scale", 1, "times this the rows of every section but rounds: for a look at less than the whole")
	flag.IntVar(&b.workers, "workers", runtime.NumCPU(), "workers of every measurement")
	flag.IntVar(&b.repeat, "repeat", 3, "measurements of which the best counts")
	flag.DurationVar(&b.cap, "cap", time.Minute, "longest solve by a slow method")
	flag.StringVar(&b.families, "families", "A,B,C,flat", "families of section methods, separated by commas")
	flag.IntVar(&b.clusters, "clusters", 0, "of section methods, only the size with so many clusters; 0 is all")
	flag.StringVar(&b.rounds, "rounds", "", "folder with rounds-<k>-K<clusters>.npy of a network in training")
	flag.StringVar(&b.python, "python", ".build/solver-venv/bin/python", "Python with the packages of -scripts/requirements.txt")
	flag.StringVar(&b.scripts, "scripts", "stages/solve/bench/tests", "folder of peers.py")
	flag.Parse()
	err := error(nil)
	switch {
	case flag.NArg() > 0:
		err = fmt.Errorf("arguments %q are not flags", flag.Args())
	case *request != "":
		err = child(ctx, *request)
	default:
		err = b.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures the chosen sections. One that fails does not keep the others
// from being reported.
func (b *bench) run(ctx context.Context) (err error) {
	if !(b.scale > 0 && b.scale <= 1) {
		return fmt.Errorf("-scale is %v, want a number above 0, at most 1", b.scale)
	}
	if b.quick {
		b.cap, b.repeat = min(b.cap, 5*time.Second), min(b.repeat, 2)
	}
	chosen := strings.Split(b.only, ",")
	for _, name := range chosen {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("-only: there is no section %q: these are %s", name, strings.Join(names(), ", "))
		}
	}
	if b.scratch, err = os.MkdirTemp(b.dir, "bench-solver-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.scratch)) }()
	if err := b.header(); err != nil {
		return err
	}
	var failed []error
	for _, s := range sections {
		if !slices.Contains(chosen, s.name) {
			continue
		}
		say("section %s (load %s)", s.name, report.Load())
		start := time.Now()
		if err := s.run(b, ctx); err != nil {
			failed = append(failed, fmt.Errorf("section %s: %w", s.name, err))
			say("%v", failed[len(failed)-1])
		}
		say("section %s took %s (load %s)", s.name, time.Since(start).Round(time.Second), report.Load())
		if ctx.Err() != nil {
			break
		}
	}
	if len(b.figures) > 0 {
		failed = append(failed, b.report(report.Summary(b.figures)))
	}
	return errors.Join(append(failed, b.save())...)
}

// rows returns a section's number of rows at the scale asked for.
func (b *bench) rows(n int64) int64 { return max(1, int64(float64(n)*b.scale)) }

// full tells whether sizes are those that figures of speed are wanted for.
func (b *bench) full() bool { return !b.quick && b.scale == 1 }

// report prints a table and keeps it.
func (b *bench) report(t *report.Table) error {
	b.tables = append(b.tables, t)
	return t.Markdown(os.Stdout)
}

// header says what was measured on what.
func (b *bench) header() error {
	title := "Solver"
	if !b.full() {
		title = "Solver, NOT AT FULL SIZE: these figures say whether it works, not how fast it is"
	}
	t := &report.Table{Title: title, Columns: []string{"", ""}}
	t.Add("command", strings.Join(os.Args, " "))
	t.Add("time", time.Now().UTC().Format(time.DateTime)+" UTC")
	t.Add("Go", runtime.Version()+" "+runtime.GOOS+"/"+runtime.GOARCH)
	t.Add("processor", fmt.Sprintf("%s, %d cores", report.Processor(), runtime.NumCPU()))
	t.Add("kernels", sinkhorn.Kernels())
	t.Add("workers", b.workers)
	t.Add("memory", report.Memory())
	t.Add("load before", report.Load())
	t.Note("GB are 10⁹ bytes, seconds are wall seconds. Where a measurement was repeated the best of %d counts.", b.repeat)
	return b.report(t)
}

// save writes the tables as JSON.
func (b *bench) save() error {
	if b.json == "" {
		return nil
	}
	raw, err := json.MarshalIndent(struct {
		Tables  []*report.Table `json:"tables"`
		Figures []report.Figure `json:"figures"`
	}{b.tables, b.figures}, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(b.json, append(raw, '\n'), 0o666)
}

// make writes a family as shards below a folder of its own.
func (b *bench) make(ctx context.Context, name string, rows int64, clusters int, forms ...string) ([]*dataset, error) {
	f, err := newFamily(name, rows, clusters, 1)
	if err != nil {
		return nil, err
	}
	return b.write(ctx, fmt.Sprintf("%s-%dx%d", name, rows, clusters), f, forms...)
}

func (b *bench) write(ctx context.Context, name string, m matrix, forms ...string) ([]*dataset, error) {
	dir := filepath.Join(b.scratch, name)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	return generate(ctx, dir, m, b.workers, forms...)
}

// remove deletes datasets as soon as they are done with.
func remove(sets []*dataset) error {
	var all []error
	for _, d := range sets {
		all = append(all, d.remove())
	}
	return errors.Join(all...)
}
