package builtin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/grad"
	"sela/stages/internal/ort"
	"sela/stages/internal/report"
)

// Measuring forms: after a run to warm up, each form takes turns with the
// others. The fastest run of each counts, for what disturbs a run makes it
// slower.
const (
	formRuns = 4
	// A form that once takes so many times the fastest is measured no further.
	formHopeless = 1.5
	// The default is left for a form that takes at most this share of its time:
	// smaller differences are within what measurements vary by.
	formGain = 0.93
)

// formChooser picks how each gradient of a step is computed, by measurement.
// What it picks depends on the machine and decides the last bits of what is
// trained, so that a training must go on with what it began with.
type formChooser struct {
	runtime *ort.Runtime
	options ort.Options // as the steps run
	cache   string      // folder of choices made before; "" keeps none
	scratch string      // of graphs that are loaded
	// time measures one run of a problem by each form; a test puts its own here.
	time func(ctx context.Context, p grad.Problem) ([]time.Duration, error)
}

func onlyCPU(providers []ort.Provider) bool {
	return !slices.ContainsFunc(providers, func(p ort.Provider) bool { return p.Name != ort.CPU })
}

// everywhere picks the default forms that providers other than the CPU's have,
// too: they have no MaxUnpool.
func everywhere(_ context.Context, problems []grad.Problem, _ func(int, grad.Problem)) (grad.Forms, error) {
	forms := grad.Forms{}
	for _, p := range problems {
		forms[p.Key] = p.Forms[slices.IndexFunc(p.Forms, func(form string) bool { return form != "unpool" })]
	}
	return forms, nil
}

// machine is what the speed of a form depends on, besides its problem.
type machine struct {
	Library   string   `json:"library"` // sha256 of ONNX Runtime
	Processor string   `json:"processor"`
	Threads   int      `json:"threads"`
	Providers []string `json:"providers,omitempty"`
}

// choices is the content of a cache file.
type choices struct {
	Machine machine    `json:"machine"`
	Forms   grad.Forms `json:"forms"`
}

// newFormChooser measures with the runtime and options that the steps will run
// with.
func newFormChooser(rt *ort.Runtime, options ort.Options, cache, scratch string) *formChooser {
	c := &formChooser{runtime: rt, options: options, cache: cache, scratch: scratch}
	c.time = c.measure
	return c
}

// choose returns a form for every problem. Those chosen before on this machine
// are not measured again; observe is called before one that is, and may be nil.
func (c *formChooser) choose(ctx context.Context, problems []grad.Problem, observe func(done int, p grad.Problem)) (grad.Forms, error) {
	known := choices{Machine: c.machine(), Forms: grad.Forms{}}
	path := c.path(known.Machine)
	if err := readChoices(path, &known); err != nil {
		return nil, err
	}
	chosen, measured := grad.Forms{}, 0
	for i, p := range problems {
		if !slices.Contains(p.Forms, known.Forms[p.Key]) {
			if observe != nil {
				observe(i, p)
			}
			times, err := c.time(ctx, p)
			if err != nil {
				return nil, fmt.Errorf("choose a form of %s: %w", p.Key, err)
			}
			known.Forms[p.Key] = p.Forms[fastest(times)]
			measured++
		}
		chosen[p.Key] = known.Forms[p.Key]
	}
	if measured == 0 || path == "" {
		return chosen, nil
	}
	return chosen, writeChoices(path, known)
}

// fastest returns the index of the form to take, the default being the first.
func fastest(times []time.Duration) int {
	best := 0
	for i, t := range times {
		if t < times[best] {
			best = i
		}
	}
	if float64(times[best]) > formGain*float64(times[0]) {
		return 0
	}
	return best
}

func (c *formChooser) machine() machine {
	m := machine{Library: c.runtime.Library().SHA256, Processor: report.Processor(), Threads: c.options.Threads}
	for _, p := range c.options.Providers {
		m.Providers = append(m.Providers, p.Name)
	}
	return m
}

// path is the cache file of a machine.
func (c *formChooser) path(m machine) string {
	if c.cache == "" {
		return ""
	}
	raw, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings and a number
	}
	sum := sha256.Sum256(raw)
	return filepath.Join(c.cache, "forms-"+hex.EncodeToString(sum[:6])+".json")
}

// readChoices reads a cache file. One that is damaged or of another machine
// counts as none: it is only a cache.
func readChoices(path string, into *choices) error {
	raw, err := os.ReadFile(path)
	if path == "" || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("choices of forms: %w", err)
	}
	var read choices
	if json.Unmarshal(raw, &read) != nil || !equalMachines(read.Machine, into.Machine) {
		return nil
	}
	for key, form := range read.Forms {
		into.Forms[key] = form
	}
	return nil
}

func equalMachines(a, b machine) bool {
	return a.Library == b.Library && a.Processor == b.Processor && a.Threads == b.Threads && slices.Equal(a.Providers, b.Providers)
}

func writeChoices(path string, c choices) error {
	raw, err := json.MarshalIndent(c, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("choices of forms: %w", err)
	}
	return replace(path, func(w io.Writer) error {
		_, err := w.Write(append(raw, '\n'))
		return err
	})
}

// contender is a form being measured.
type contender struct {
	stepper *ort.Stepper
	feed    *ort.Feed
	best    time.Duration
}

// run takes one run and says how long it took.
func (c *contender) run(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	err := c.stepper.Step(ctx, c.feed)
	return time.Since(start), err
}

// measure returns the fastest run of each form, the longest of durations for one
// that the providers cannot run.
func (c *formChooser) measure(ctx context.Context, p grad.Problem) (_ []time.Duration, err error) {
	list := make([]*contender, len(p.Forms))
	defer func() {
		for _, f := range list {
			if f != nil {
				err = errors.Join(err, f.stepper.Close())
			}
		}
	}()
	least, unable := time.Duration(math.MaxInt64), error(nil)
	for i, name := range p.Forms {
		f, err := c.load(p, name)
		if errors.Is(err, ort.ErrProvider) {
			unable = errors.Join(unable, fmt.Errorf("form %s: %w", name, err))
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("form %s: %w", name, err)
		}
		list[i] = f
		if _, err := f.run(ctx); err != nil {
			return nil, fmt.Errorf("form %s: %w", name, err)
		}
		f.best = math.MaxInt64
	}
	for round := range formRuns {
		for i, f := range list {
			if f == nil || round > 0 && float64(f.best) > formHopeless*float64(least) {
				continue
			}
			took, err := f.run(ctx)
			if err != nil {
				return nil, fmt.Errorf("form %s: %w", p.Forms[i], err)
			}
			f.best = min(f.best, took)
			least = min(least, took)
		}
	}
	if least == math.MaxInt64 {
		return nil, unable
	}
	times := make([]time.Duration, len(list))
	for i, f := range list {
		times[i] = math.MaxInt64
		if f != nil {
			times[i] = f.best
		}
	}
	return times, nil
}

// load makes a session of one form, fed with zeros.
func (c *formChooser) load(p grad.Problem, name string) (_ *contender, err error) {
	m, err := p.Model(name)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(c.scratch, "form.onnx")
	if err := m.Save(path); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.Remove(path)) }()
	spec := ort.StepperSpec{}
	for _, in := range p.Inputs {
		kind := ort.Float32
		if in.DType == onnx.Int64 {
			kind = ort.Int64
		}
		spec.Feeds = append(spec.Feeds, ort.TensorInfo{Name: in.Name, Type: kind, Dims: dimsOf(in.Shape)})
	}
	info, err := onnx.Inspect(m)
	if err != nil {
		return nil, err
	}
	for _, out := range info.Outputs {
		spec.Results = append(spec.Results, ort.TensorInfo{Name: out.Name, Type: ort.Float32, Dims: dimsOf(out.Shape)})
	}
	options := c.options
	options.Arena = true
	stepper, err := c.runtime.NewStepper(path, spec, options)
	if err != nil {
		return nil, err
	}
	feed, err := stepper.NewFeed()
	if err != nil {
		return nil, errors.Join(err, stepper.Close())
	}
	return &contender{stepper: stepper, feed: feed}, nil
}

func dimsOf(shape []onnx.Dim) []int64 {
	dims := make([]int64, len(shape))
	for i, d := range shape {
		dims[i] = d.Size
	}
	return dims
}

// ChooseForms picks the fastest form of every problem for steps that run with
// these options, by measurement. What was chosen before on the same machine is
// read from the folder cache and not measured again; "" keeps nothing. scratch
// is an existing folder of the caller's own.
func ChooseForms(ctx context.Context, rt *ort.Runtime, options ort.Options, problems []grad.Problem, cache, scratch string) (grad.Forms, error) {
	return newFormChooser(rt, options, cache, scratch).choose(ctx, problems, nil)
}
