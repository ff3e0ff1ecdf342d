//go:build linux

// Command bench measures the trainer's step next to PyTorch's on the CPU, in one
// run: same network, batch, loss and SGD, same number of threads. It prints
// Markdown tables, and progress on standard error.
//
//	make bench-train                        everything
//	make bench-train ARGS='-only resnet-s'  one network
//	make bench-train ARGS=-quick            few steps, small networks: not for quoting
//
// Each candidate is a process of its own, and they take turns at every few
// steps on random images in memory: no data is loaded. Time is told by the clock
// and by the processor, the latter for machines that do something else as well.
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

	"sela/stages/internal/report"
)

// config is what the flags say.
type config struct {
	only    string
	json    string
	quick   bool
	threads int
	rounds  int
	steps   int
	library string
	forms   string
	python  string
	scripts string
}

// bench is one run of the program.
type bench struct {
	config
	scratch string // removed at the end
	tables  []*report.Table
	figures []report.Figure
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{}
	serving := flag.Bool("serve", false, "answer requests on standard input (used by the program itself)")
	flag.StringVar(&b.only, "only", strings.Join(names(), ","), "networks, separated by commas")
	flag.StringVar(&b.json, "json", "", "also write the tables to this file, as JSON")
	flag.BoolVar(&b.quick, "quick", false, "one small batch: whether it works, not how fast it is")
	flag.IntVar(&b.threads, "threads", min(2, runtime.NumCPU()), "threads of every candidate")
	flag.IntVar(&b.rounds, "rounds", 5, "rounds of every measurement")
	flag.IntVar(&b.steps, "steps", 10, "steps in turn")
	flag.StringVar(&b.library, "onnxruntime", ".build/lib", "ONNX Runtime, or its folder")
	flag.StringVar(&b.forms, "forms", "measured", "how gradients are computed: measured or default")
	flag.StringVar(&b.python, "python", ".build/train-venv/bin/python", "Python with the packages of -scripts/requirements.txt")
	flag.StringVar(&b.scripts, "scripts", "stages/train/builtin/bench/tests", "folder of peers.py")
	flag.Parse()
	err := error(nil)
	switch {
	case flag.NArg() > 0:
		err = fmt.Errorf("arguments %q are not flags", flag.Args())
	case *serving:
		err = serve(ctx, b.library, os.Stdin, os.Stdout)
	default:
		err = b.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures the chosen networks. One that fails does not keep the others from
// being reported.
func (b *bench) run(ctx context.Context) (err error) {
	if b.quick {
		b.rounds, b.steps = 1, 1
	}
	chosen := strings.Split(b.only, ",")
	for _, name := range chosen {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("-only: there is no network %q: these are %s", name, strings.Join(names(), ", "))
		}
	}
	switch {
	case min(b.rounds, b.steps, b.threads) < 1:
		return fmt.Errorf("-rounds is %d, -steps %d and -threads %d, want positive numbers", b.rounds, b.steps, b.threads)
	case b.forms != "measured" && b.forms != "default":
		return fmt.Errorf("-forms is %q, want measured or default", b.forms)
	}
	if b.scratch, err = os.MkdirTemp("", "bench-train-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.scratch)) }()
	if err := b.header(); err != nil {
		return err
	}
	var failed []error
	for _, w := range workloads {
		if !slices.Contains(chosen, w.Network) || ctx.Err() != nil {
			continue
		}
		if b.quick {
			w = w.small()
		}
		w.Threads, w.Forms = b.threads, b.forms
		say("network %s (load %s)", w.Network, report.Load())
		if err := b.measure(ctx, w); err != nil {
			failed = append(failed, fmt.Errorf("network %s: %w", w.Network, err))
			say("%v", failed[len(failed)-1])
		}
	}
	if len(b.figures) > 0 {
		failed = append(failed, b.report(report.Summary(b.figures)))
	}
	return errors.Join(append(failed, b.save())...)
}

// report prints a table and keeps it.
func (b *bench) report(t *report.Table) error {
	b.tables = append(b.tables, t)
	return t.Markdown(os.Stdout)
}

// header says what was measured on what.
func (b *bench) header() error {
	title := "Training"
	if b.quick {
		title = "Training, SMALL: these figures say whether it works, not how fast it is"
	}
	t := &report.Table{Title: title, Columns: []string{"", ""}}
	t.Add("command", strings.Join(os.Args, " "))
	t.Add("time", time.Now().UTC().Format(time.DateTime)+" UTC")
	t.Add("Go", runtime.Version()+" "+runtime.GOOS+"/"+runtime.GOARCH)
	t.Add("processor", fmt.Sprintf("%s, %d of them, %d threads used", report.Processor(), runtime.NumCPU(), b.threads))
	t.Add("memory", report.Memory())
	t.Add("load before", report.Load())
	t.Note("A step is forward, loss, gradients and update. images/s is of the fastest step; the ratio to PyTorch is the median of the rounds' own ratios of fastest steps, with the smallest and largest.")
	t.Note("images per CPU second: images of a step by the processor time of all threads in it.")
	t.Note("GFLOP/s counts convolutions and products, a multiplication and an addition as two: forward, the gradient of every weight and of every input but the images.")
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

// peers is the script of the PyTorch candidates.
func (b *bench) peers() string { return filepath.Join(b.scripts, "peers.py") }

// say prints progress.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format(time.TimeOnly)+" "+format+"\n", args...)
}
