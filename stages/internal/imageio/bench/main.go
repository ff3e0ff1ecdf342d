//go:build linux

// Command bench measures imageio on one core next to Pillow and other ways of
// turning image files into tensors, and how far each is from Pillow's pixels:
// whole and by step, on ImageNet's photographs, CIFAR-10 and large photographs,
// the resize with every filter, and each step next to what bounds it. It prints
// Markdown tables, and progress on standard error.
//
//	make bench-images                     everything
//	make bench-images ARGS='-only cifar'  one section
//	make bench-images ARGS=-quick         few images and no peer but Pillow: not for quoting
//
// Every candidate is a process of its own with one thread, all of them on the
// same core, and they take turns at every few dozen images. Files are in memory
// when the clock runs, which is that of the core's time, so that whatever else
// the machine does counts against nobody.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"sela/stages/internal/imageio"
	"sela/stages/internal/report"
)

// config is what the flags say.
type config struct {
	only    string
	data    string
	json    string
	quick   bool
	images  int
	rounds  int
	core    int
	also    builds
	python  string
	simd    string
	scripts string
}

// builds are other builds of this program, by name: name=path, repeated.
type builds []struct{ name, path string }

func (b *builds) String() string { return "" }

func (b *builds) Set(s string) error {
	name, path, ok := strings.Cut(s, "=")
	if !ok || name == "" || path == "" {
		return fmt.Errorf("want name=path")
	}
	*b = append(*b, struct{ name, path string }{name, path})
	return nil
}

// bench is one run of the program.
type bench struct {
	config
	scratch    string // removed at the end
	candidates []*candidate
	order      imageio.Order // of the Pillow that is the reference
	tables     []*report.Table
	figures    []report.Figure
}

// section is one of the figures to report.
type section struct {
	name string
	run  func(*bench, context.Context) error
}

var sections = []section{
	{"imagenet", (*bench).imagenet}, {"cifar", (*bench).cifar}, {"large", (*bench).large}, {"filters", (*bench).filters},
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
	serving := flag.String(serveFlag, "", "answer requests on standard input, decoding as this says (used by the program itself)")
	flag.StringVar(&b.only, "only", strings.Join(names(), ","), "sections, separated by commas")
	flag.StringVar(&b.data, "data", "", "folder of real images (default: shared/data in a folder above)")
	flag.StringVar(&b.json, "json", "", "also write the tables to this file, as JSON")
	flag.BoolVar(&b.quick, "quick", false, "few images and rounds, no peer but Pillow: whether it works, not how fast it is")
	flag.IntVar(&b.images, "images", 500, "photographs")
	flag.IntVar(&b.rounds, "rounds", 9, "rounds of every measurement")
	flag.IntVar(&b.core, "core", -1, "number of the core that all share (default: the last one allowed)")
	flag.Var(&b.also, "also", "name=path of another build of this program, may be repeated")
	flag.StringVar(&b.python, "python", ".build/images-venv/bin/python", "Python with the packages of -scripts/requirements.txt")
	flag.StringVar(&b.simd, "simd", ".build/images-simd", "folder with Pillow-SIMD for that Python")
	flag.StringVar(&b.scripts, "scripts", "stages/internal/imageio/bench/tests", "folder of peers.py")
	flag.Parse()
	err := error(nil)
	switch {
	case flag.NArg() > 0:
		err = fmt.Errorf("arguments %q are not flags", flag.Args())
	case *serving != "":
		err = serve(imageio.Decode(*serving), os.Stdin, os.Stdout)
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
	if b.quick {
		b.images, b.rounds = min(b.images, 24), min(b.rounds, 2)
	}
	if b.images < 1 || b.rounds < 1 {
		return fmt.Errorf("-images is %d and -rounds %d, want positive numbers", b.images, b.rounds)
	}
	chosen := strings.Split(b.only, ",")
	for _, name := range chosen {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("-only: there is no section %q: these are %s", name, strings.Join(names(), ", "))
		}
	}
	if b.scratch, err = os.MkdirTemp("", "bench-images-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.scratch)) }()
	if b.data == "" {
		b.data = sharedData()
	}
	if b.core, err = pinnable(b.core); err != nil {
		return err
	}
	missing, err := b.start(ctx)
	defer func() { err = errors.Join(err, b.stop()) }()
	if err != nil {
		return err
	}
	if err := b.header(missing); err != nil {
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
		say("section %s took %s", s.name, time.Since(start).Round(time.Second))
		if ctx.Err() != nil {
			break
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
func (b *bench) header(missing []string) error {
	title := "Images"
	if b.quick {
		title = "Images, FEW OF THEM: these figures say whether it works, not how fast it is"
	}
	t := &report.Table{Title: title, Columns: []string{"", ""}}
	t.Add("command", strings.Join(os.Args, " "))
	t.Add("time", time.Now().UTC().Format(time.DateTime)+" UTC")
	t.Add("Go", runtime.Version()+" "+runtime.GOOS+"/"+runtime.GOARCH)
	t.Add("processor", fmt.Sprintf("%s, core %d of %d", report.Processor(), b.core, runtime.NumCPU()))
	t.Add("memory", report.Memory())
	t.Add("load before", report.Load())
	for _, c := range b.candidates {
		t.Add(c.name, c.packages)
	}
	for _, m := range missing {
		t.Note("Not measured: %s.", m)
	}
	t.Note("Images/s are per second of the core's time, best and median of %d rounds. The ratio to Pillow is the median of the rounds' own ratios, with the smallest and largest.", b.rounds)
	t.Note("max, mean and equal: difference from Pillow's uint8 pixels after resize and crop in levels, and the share of equal bytes.")
	t.Note("Steps are timed in passes of their own. Ours: resize and crop after each decoding; normalise from a picture of one pixel that the crop pads; decode is the whole less both.")
	t.Note("Allocated: Go's memory, in the last round.")
	t.Note("KB, MB and GB are 10³, 10⁶ and 10⁹ bytes. The reference scales in the order that imageio calls %s.", b.order)
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

// say prints progress.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format(time.TimeOnly)+" "+format+"\n", args...)
}
