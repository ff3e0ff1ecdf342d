package builtin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sela/pipeline"
	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/grad"
	"sela/stages/internal/ort"
)

// start builds and loads everything and restores the checkpoint, if there is
// one.
func (t *trainer) start(ctx context.Context) error {
	path := filepath.Join(t.dir, CheckpointFile)
	begun, err := peek(path, t.identity)
	if err != nil {
		return err
	}
	if err := t.shape(ctx, begun); err != nil {
		return err
	}
	if err := t.estimate.fits(t.spec.Batch, t.memory); err != nil {
		return err
	}
	if err := os.MkdirAll(t.dir, 0o755); err != nil {
		return pipeline.BadConfig(err)
	}
	if t.source, err = t.open(t.step.Masks); err != nil {
		return err
	}
	if t.source.Steps() < 1 {
		return pipeline.BadData(errors.New("there is no image to train on"))
	}
	t.schedule = newSchedule(&t.spec, t.source.Steps())
	if err := t.load(); err != nil {
		return err
	}
	t.header = header{Identity: t.identity, Sums: newSums(t.outputs()), States: statesOf(t.step), Forms: t.forms}
	t.last = time.Now()
	before, err := restore(path, t.header, t.state())
	if err != nil {
		return err
	}
	if before == nil {
		return nil
	}
	if before.Epoch > t.spec.Epochs || before.Step > t.source.Steps() {
		return fmt.Errorf("checkpoint %s: %w", path, damaged(fmt.Errorf("it is of epoch %d, step %d", before.Epoch, before.Step)))
	}
	t.header = *before
	t.notice("training goes on from a checkpoint", "epoch", before.Epoch+1, "step", before.Step)
	return nil
}

// shape makes the step's graph, with the forms of the checkpoint if it has
// begun, and checks the network against the labels.
func (t *trainer) shape(ctx context.Context, begun *header) error {
	in, err := t.inputDims()
	if err != nil {
		return err
	}
	t.evaluator = evaluator{runtime: t.runtime, options: t.options, dir: t.scratch, dims: in, heads: t.heads, classes: t.classes}
	t.evaluator.options.Inputs, t.evaluator.options.Outputs = []string{t.input}, t.heads
	have, err := t.evaluator.clusters(ctx, t.model)
	if err != nil {
		return err
	}
	if !slices.Equal(have, t.clusters) {
		return pipeline.BadConfig(fmt.Errorf("the network has heads of %s, the labels are of %s: give a network with these heads, or replace its heads (sela train --replace-heads)", describe(have), describe(t.clusters)))
	}
	var forms grad.Forms
	if begun != nil {
		forms = begun.Forms
	}
	if err := t.differentiate(forms); err != nil {
		return err
	}
	if begun == nil && t.choose == nil {
		// Another version may have other defaults, and this training goes on with
		// these.
		for _, p := range t.step.Problems {
			if t.forms == nil {
				t.forms = grad.Forms{}
			}
			t.forms[p.Key] = p.Forms[0]
		}
	}
	if begun == nil && t.choose != nil && len(t.step.Problems) > 0 {
		forms, err := t.choose(ctx, t.step.Problems, func(done int, _ grad.Problem) {
			if done == 0 {
				t.notice("measuring the forms of the gradients", "gradients", len(t.step.Problems))
			}
		})
		if err != nil {
			return t.explain(err)
		}
		if err := t.differentiate(forms); err != nil {
			return err
		}
	}
	size, err := sizes(t.runtime, t.step, t.scratch)
	if err != nil {
		return err
	}
	t.estimate = estimate(t.step, size)
	return nil
}

// differentiate makes the step's graph.
func (t *trainer) differentiate(forms grad.Forms) error {
	t.shaped, t.forms = t.model.Clone(), forms
	o := grad.Options{Input: t.input, Heads: slices.Clone(t.heads), Batch: t.spec.Batch, Loss: grad.CrossEntropy, SGD: sgd(&t.spec), Forms: forms}
	if t.spec.RotationHead {
		if err := addRotationHead(t.shaped, t.spec.Seed); err != nil {
			return err
		}
		o.Heads = append(o.Heads, rotationHead)
	}
	if t.classes > 0 {
		o.Loss = grad.Binary
	}
	var err error
	t.step, err = grad.NewStep(t.shaped, o)
	return pipeline.BadConfig(err)
}

// outputs is the number of heads that are trained.
func (t *trainer) outputs() int {
	if t.spec.RotationHead {
		return len(t.heads) + 1
	}
	return len(t.heads)
}

// inputDims are those of a batch.
func (t *trainer) inputDims() ([]int64, error) {
	for _, in := range t.model.Inputs() {
		if in.Name != t.input {
			continue
		}
		if in.DType != onnx.Float32 {
			return nil, pipeline.BadConfig(fmt.Errorf("the network's input %s is not float32: train the network that takes normalised images", in))
		}
		if n := in.Shape[0].Size; n != 0 && n != int64(t.spec.Batch) {
			return nil, pipeline.BadConfig(fmt.Errorf("the network's input %s has a fixed batch: set train.builtin.batch to %d", in, n))
		}
		dims := []int64{int64(t.spec.Batch)}
		for _, d := range in.Shape[1:] {
			dims = append(dims, d.Size)
		}
		return dims, nil
	}
	return nil, pipeline.BadConfig(fmt.Errorf("the network has no input %q", t.input))
}

// describe writes numbers of clusters: "10 × 128", or each.
func describe(clusters []int) string {
	if len(clusters) == 0 {
		return "nothing"
	}
	for _, k := range clusters {
		if k != clusters[0] {
			return fmt.Sprint(clusters)
		}
	}
	return fmt.Sprintf("%d × %d clusters", len(clusters), clusters[0])
}

// load makes the stepper and its feeds and puts the initial values in.
func (t *trainer) load() error {
	path := filepath.Join(t.scratch, "step.onnx")
	if err := t.step.Model.Save(path); err != nil {
		return err
	}
	spec := ort.StepperSpec{}
	batch, heads := int64(t.spec.Batch), int64(t.outputs())
	labels := ort.TensorInfo{Name: t.step.Labels, Type: ort.Int64, Dims: []int64{heads, batch}}
	if t.classes > 0 {
		labels.Type, labels.Dims = ort.Float32, []int64{batch, int64(t.classes)}
	}
	spec.Feeds = []ort.TensorInfo{{Name: t.step.Images, Type: ort.Float32, Dims: t.evaluator.dims}, labels,
		{Name: t.step.Weights, Type: ort.Float32, Dims: []int64{batch}}, {Name: t.step.LearningRate, Type: ort.Float32, Dims: []int64{1}}}
	for _, m := range t.step.Masks {
		spec.Feeds = append(spec.Feeds, ort.TensorInfo{Name: m.Input, Type: ort.Float32, Dims: m.Dims})
	}
	for _, s := range t.step.State {
		spec.State = append(spec.State, ort.State{In: s.In, Out: s.Out, Dims: s.Dims})
	}
	for _, name := range []string{t.step.Losses, t.step.Correct} {
		spec.Results = append(spec.Results, ort.TensorInfo{Name: name, Type: ort.Float32, Dims: []int64{heads}})
	}
	var err error
	if t.stepper, err = t.runtime.NewStepper(path, spec, t.options); err != nil {
		return t.explain(err)
	}
	t.feeds = map[*Slot]*ort.Feed{}
	for range feedsInTurn {
		f, err := t.stepper.NewFeed()
		if err != nil {
			return t.explain(err)
		}
		s := &Slot{Images: f.Tensors[0].Float32(), Weights: f.Tensors[2].Float32(), Rows: make([]int64, batch)}
		if t.classes > 0 {
			s.Targets = f.Tensors[1].Float32()
		} else {
			s.Labels = f.Tensors[1].Int64()
		}
		for i := range t.step.Masks {
			s.Masks = append(s.Masks, f.Tensors[4+i].Float32())
		}
		t.feeds[s] = f
		t.slots = append(t.slots, s)
	}
	for i, s := range t.step.State {
		copy(t.stepper.State(i), s.Initial)
	}
	return nil
}

// explain says what batch would fit where memory gave out.
func (t *trainer) explain(err error) error {
	if exhausted(err) {
		return t.estimate.tooLarge(t.spec.Batch, t.memory, fmt.Errorf("needs more memory than there is (about %s): %w", mebibytes(t.estimate.total()), err))
	}
	if errors.Is(err, ort.ErrModel) || errors.Is(err, ort.ErrProvider) {
		return pipeline.BadConfig(err)
	}
	return err
}
