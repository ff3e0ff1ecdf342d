package builtin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"sela/pipeline"
	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/grad"
	"sela/stages/internal/ort"
)

// start builds and loads everything and goes on from the checkpoint, if there is
// one, or from that of the part before.
func (t *trainer) start(ctx context.Context) error {
	path := filepath.Join(t.dir, CheckpointFile)
	begun, err := peek(path, t.identity)
	if err != nil {
		return err
	}
	forms, err := t.formsOf(begun)
	if err != nil {
		return err
	}
	if err := t.shape(ctx, begun != nil || t.after != "", forms); err != nil {
		return err
	}
	if err := t.estimate.fits(t.spec.Batch, t.memory); err != nil {
		return err
	}
	if err := os.MkdirAll(t.dir, 0o755); err != nil {
		return pipeline.BadConfig(err)
	}
	if err := tidy(t.dir); err != nil {
		return err
	}
	if t.source, err = t.open(t.step.Masks); err != nil {
		return err
	}
	if t.source.Steps() < 1 {
		return pipeline.BadData(errors.New("there is no image to train on"))
	}
	t.schedule, t.end = newSchedule(&t.spec, t.source.Steps()), endOf(&t.spec, t.source.Steps())
	if err := t.load(); err != nil {
		return err
	}
	t.header = header{Identity: t.identity, Sums: newSums(t.outputs()), States: statesOf(t.step), Forms: t.forms}
	t.last = time.Now()
	if begun == nil {
		return t.begin()
	}
	before, err := restore(path, beginAnew, t.header, t.state())
	if err != nil {
		return err
	}
	t.header = *before
	if before.Step > t.source.Steps() || t.position() > t.end {
		return fmt.Errorf("checkpoint %s: %w: %s", path, damaged(fmt.Errorf("it is of epoch %d, step %d", before.Epoch, before.Step)), beginAnew)
	}
	t.notice("training goes on from a checkpoint", "epoch", before.Epoch+1, "step", before.Step)
	return nil
}

// shape makes the step's graph, with the given forms if the training has begun,
// and checks the network against the labels.
func (t *trainer) shape(ctx context.Context, begun bool, forms grad.Forms) error {
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
	if err := t.differentiate(forms); err != nil {
		return err
	}
	if !begun && t.choose == nil {
		// Another version may have other defaults, and this training goes on with
		// these.
		for _, p := range t.step.Problems {
			if t.forms == nil {
				t.forms = grad.Forms{}
			}
			t.forms[p.Key] = p.Forms[0]
		}
	}
	if !begun && t.choose != nil && len(t.step.Problems) > 0 {
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
	matched := make([]bool, len(t.spec.Frozen))
	o.Frozen = func(name string) (frozen bool) {
		for i, pattern := range t.spec.Frozen {
			if ok, _ := path.Match(pattern, name); ok { // patterns were checked
				matched[i], frozen = true, true
			}
		}
		return frozen
	}
	var err error
	if t.step, err = grad.NewStep(t.shaped, o); err != nil {
		if errors.Is(err, grad.ErrUnreached) {
			err = fmt.Errorf("%w; name it in train.builtin.frozen", err)
		}
		return pipeline.BadConfig(err)
	}
	if i := slices.Index(matched, false); i >= 0 {
		return pipeline.BadConfig(fmt.Errorf("train.builtin.frozen: the network trains nothing named %q (its tensors' names are those of its file's initialisers)", t.spec.Frozen[i]))
	}
	return nil
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

// explain says what batch would fit where memory gave out.
func (t *trainer) explain(err error) error {
	if exhausted(err) {
		return t.estimate.ranOut(t.spec.Batch, t.memory, err)
	}
	if errors.Is(err, ort.ErrModel) || errors.Is(err, ort.ErrProvider) {
		return pipeline.BadConfig(err)
	}
	return err
}
