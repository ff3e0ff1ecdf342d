//go:build linux

package main

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"

	"sela/stages/internal/onnx/grad"
	"sela/stages/internal/ort"
	"sela/stages/train/builtin"
)

// ours is the trainer's step on random images.
type ours struct {
	step    *grad.Step
	stepper *ort.Stepper
	feed    *ort.Feed
	options ort.Options
}

func options(w workload) ort.Options { return ort.Options{Threads: w.Threads, Arena: true} }

func newOurs(ctx context.Context, rt *ort.Runtime, w workload, dir string) (*ours, error) {
	o := &ours{options: options(w)}
	var err error
	if o.step, err = w.step(nil); err != nil {
		return nil, err
	}
	if w.Forms == "measured" {
		forms, err := builtin.ChooseForms(ctx, rt, o.options, o.step.Problems, "", dir)
		if err != nil {
			return nil, err
		}
		if o.step, err = w.step(forms); err != nil {
			return nil, err
		}
	}
	path := filepath.Join(dir, "step.onnx")
	if err := o.step.Model.Save(path); err != nil {
		return nil, err
	}
	defer os.Remove(path)
	if o.stepper, err = rt.NewStepper(path, stepperSpec(o.step, w), o.options); err != nil {
		return nil, err
	}
	if o.feed, err = o.stepper.NewFeed(); err != nil {
		return nil, err
	}
	for i, state := range o.step.State {
		copy(o.stepper.State(i), state.Initial)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i, t := range o.feed.Tensors {
		for j := range t.Float32() {
			switch i {
			case 0:
				t.Float32()[j] = float32(r.NormFloat64())
			case 3:
				t.Float32()[j] = rate
			default: // the weights of the images
				t.Float32()[j] = 1
			}
		}
		for j := range t.Int64() {
			t.Int64()[j] = int64(r.IntN(w.Clusters))
		}
	}
	return o, nil
}

// stepperSpec is how a step is fed.
func stepperSpec(step *grad.Step, w workload) ort.StepperSpec {
	heads, batch, size := int64(w.Heads), int64(w.Batch), int64(w.Size)
	spec := ort.StepperSpec{Feeds: []ort.TensorInfo{
		{Name: step.Images, Type: ort.Float32, Dims: []int64{batch, 3, size, size}},
		{Name: step.Labels, Type: ort.Int64, Dims: []int64{heads, batch}},
		{Name: step.Weights, Type: ort.Float32, Dims: []int64{heads, batch}},
		{Name: step.LearningRate, Type: ort.Float32, Dims: []int64{1}},
	}}
	for _, state := range step.State {
		spec.State = append(spec.State, ort.State{In: state.In, Out: state.Out, Dims: state.Dims})
	}
	for _, name := range []string{step.Losses, step.Correct} {
		spec.Results = append(spec.Results, ort.TensorInfo{Name: name, Type: ort.Float32, Dims: []int64{heads}})
	}
	return spec
}

// parameters is their number.
func (o *ours) parameters() int64 {
	sum := int64(0)
	for _, s := range o.step.State {
		if n := int64(1); s.Kind == grad.Parameter {
			for _, d := range s.Dims {
				n *= d
			}
			sum += n
		}
	}
	return sum
}

// loss is the mean of the heads' in the last step.
func (o *ours) loss() float64 {
	sum := 0.0
	for _, l := range o.stepper.Result(0) {
		sum += float64(l)
	}
	return sum / float64(len(o.stepper.Result(0)))
}
