package ort

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	binding "github.com/yalue/onnxruntime_go"
)

// Stepper runs a graph again and again whose outputs are its own next inputs,
// such as a step of training: state tensors come in pairs, a step reads one and
// writes the other, and then they change places. Nothing is copied between
// steps. A stepper belongs to one goroutine, its feeds to one each.
type Stepper struct {
	session *Session
	spec    StepperSpec
	state   [2][]*Tensor // by parity; state[0] is current
	results []*Tensor
	options *binding.RunOptions
	feeds   []*Feed
	closing sync.Once
}

// StepperSpec names every input and output of a stepper's graph. All dimensions
// are positive.
type StepperSpec struct {
	Feeds   []TensorInfo // inputs that the caller fills for each step: Float32, Uint8 or Int64
	State   []State
	Results []TensorInfo // outputs to be read after each step: Float32
	// Profile begins the name of a file into which ONNX Runtime writes, when the
	// stepper is closed, what each node took; empty for none.
	Profile string
}

// State is a float32 tensor that a step reads as the input In and writes as the
// output Out.
type State struct {
	In, Out string
	Dims    []int64
}

// Feed is what one step is given. While a step runs on one feed, others can be
// filled.
type Feed struct {
	Tensors []*Tensor // in the order of [StepperSpec.Feeds]
}

// NewStepper loads the graph at path. The Inputs and Outputs of opts are not
// used. All state is zero: see [Stepper.State]. The errors are [ErrModel] or
// [ErrProvider].
func (rt *Runtime) NewStepper(path string, spec StepperSpec, opts Options) (*Stepper, error) {
	if err := checkProviders(opts.Providers, opts.Precision); err != nil {
		return nil, err
	}
	if err := rt.hold(); err != nil {
		return nil, err
	}
	s := &Stepper{session: &Session{rt: rt, path: path, inputs: slices.Clone(spec.Feeds)}, spec: spec}
	opts.Inputs, opts.Outputs = nil, nil
	for _, f := range spec.Feeds {
		opts.Inputs = append(opts.Inputs, f.Name)
	}
	for _, r := range spec.Results {
		opts.Outputs = append(opts.Outputs, r.Name)
	}
	for _, t := range spec.State {
		opts.Inputs, opts.Outputs = append(opts.Inputs, t.In), append(opts.Outputs, t.Out)
	}
	if err := s.build(opts); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Stepper) build(opts Options) error {
	path := s.session.path
	for i := range s.state {
		for _, t := range s.spec.State {
			tensor, err := newTensor(TensorInfo{Name: t.In, Type: Float32}, t.Dims)
			if err != nil {
				return fmt.Errorf("load %w %s: state %s: %w", ErrModel, path, t.In, err)
			}
			s.state[i] = append(s.state[i], tensor)
		}
	}
	for _, r := range s.spec.Results {
		if r.Type != Float32 {
			return fmt.Errorf("load %w %s: result %s is not float32", ErrModel, path, r)
		}
		tensor, err := newTensor(r, r.Dims)
		if err != nil {
			return fmt.Errorf("load %w %s: result %s: %w", ErrModel, path, r, err)
		}
		s.results = append(s.results, tensor)
	}
	var err error
	if s.options, err = binding.NewRunOptions(); err != nil {
		return fmt.Errorf("load %w %s: %w", ErrModel, path, err)
	}
	return keepSignals(func() (err error) {
		s.session.dynamic, err = s.session.rt.createProgram(path, opts, s.configure)
		return err
	})
}

// configure has ONNX Runtime's threads spin while they wait for a moment: a step
// of many small nodes takes a tenth less, and the next one follows at once.
func (s *Stepper) configure(o *binding.SessionOptions) error {
	// A plan of all values' places would be made after the first step, and what
	// that step took kept beside it: up to 1.7 times the memory for 2 % of the time.
	err := errors.Join(o.SetMemPattern(false), o.AddSessionConfigEntry("session.intra_op.allow_spinning", "1"))
	if s.spec.Profile != "" {
		err = errors.Join(err, o.EnableProfiling(s.spec.Profile))
	}
	return err
}

// NewFeed makes the tensors of one feed, which live until the stepper is
// closed.
func (s *Stepper) NewFeed() (*Feed, error) {
	f := &Feed{}
	for _, info := range s.spec.Feeds {
		t, err := newTensor(info, info.Dims)
		if err == nil && t.value == nil {
			err = errors.New("its type cannot be fed")
		}
		if err != nil {
			for _, t := range f.Tensors {
				err = errors.Join(err, t.free())
			}
			return nil, fmt.Errorf("feed of %s: %s: %w", s.session.path, info, err)
		}
		f.Tensors = append(f.Tensors, t)
	}
	s.feeds = append(s.feeds, f)
	return f, nil
}

// State returns the current values of the i-th state tensor, to be read or
// written between steps. The slice is valid until the next step.
func (s *Stepper) State(i int) []float32 { return s.state[0][i].f32 }

// Result returns the values of the i-th result, valid until the next step.
func (s *Stepper) Result(i int) []float32 { return s.results[i].f32 }

// Step runs the graph once. After an error, that of a cancelled ctx included,
// the state is what it was before the step. Errors are those of [Session.Run].
func (s *Stepper) Step(ctx context.Context, f *Feed) error {
	in := make([]binding.Value, 0, len(f.Tensors)+len(s.spec.State))
	out := make([]binding.Value, 0, len(s.results)+len(s.spec.State))
	for _, t := range f.Tensors {
		in = append(in, t.value)
	}
	for _, t := range s.results {
		out = append(out, t.value)
	}
	for i := range s.spec.State {
		in, out = append(in, s.state[0][i].value), append(out, s.state[1][i].value)
	}
	if err := s.session.run(ctx, in, out, s.options); err != nil {
		return err
	}
	s.state[0], s.state[1] = s.state[1], s.state[0]
	return nil
}

// Close frees the session, the state and the feeds. No step may be under way.
// Closing twice does nothing.
func (s *Stepper) Close() (err error) {
	s.closing.Do(func() {
		var errs []error
		if s.session.dynamic != nil {
			errs = append(errs, s.session.Close())
		} else {
			s.session.rt.release()
		}
		tensors := slices.Concat(s.state[0], s.state[1], s.results)
		for _, f := range s.feeds {
			tensors = append(tensors, f.Tensors...)
		}
		for _, t := range tensors {
			errs = append(errs, t.free())
		}
		if s.options != nil {
			errs = append(errs, s.options.Destroy())
		}
		err = errors.Join(errs...)
	})
	return err
}
