package builtin

import (
	"context"
	"fmt"
	"path/filepath"

	"sela/pipeline"
	"sela/stages/internal/ort"
)

// On a device a run of the graph takes several steps, since ONNX Runtime brings
// the state to it at the beginning of a run, and back at its end. Their images
// together take up to stackBytes, for one feed, and a run has so many steps at
// most: a stop waits for its end.
const (
	stackBytes = 64 << 20
	mostInRun  = 64
)

// place is where a slot's memory is: the step of a feed's stack.
type place struct {
	feed *ort.Feed
	step int
}

// stepsInRun is the number of steps of a run of the graph.
func (t *trainer) stepsInRun() int {
	if t.inRun > 0 {
		return t.inRun
	}
	if len(t.options.Providers) == 0 || t.options.Providers[0].Name == ort.CPU {
		return 1
	}
	fit := stackBytes / (4 * elements(t.evaluator.dims))
	return int(max(min(fit, mostInRun, int64(t.source.Steps())), 1))
}

// load makes the stepper and its feeds and puts the initial values in.
func (t *trainer) load() error {
	t.inRun = t.stepsInRun()
	graph := t.step.Model
	if t.inRun > 1 {
		var err error
		if t.loop, err = t.step.Loop(t.inRun); err != nil {
			return err
		}
		graph = t.loop.Model
	}
	path := filepath.Join(t.scratch, "step.onnx")
	if err := graph.Save(path); err != nil {
		return err
	}
	var err error
	if t.stepper, err = t.runtime.NewStepper(path, t.stepperSpec(), t.options); err != nil {
		return t.explain(err)
	}
	t.places = map[*Slot]place{}
	for range feedsInTurn {
		f, err := t.stepper.NewFeed()
		if err != nil {
			return t.explain(err)
		}
		for i := range t.inRun {
			s := &Slot{Images: part(f.Tensors[0].Float32(), i, t.inRun), Weights: make([]float32, t.spec.Batch), Rows: make([]int64, t.spec.Batch)}
			if t.classes > 0 {
				s.Targets = part(f.Tensors[1].Float32(), i, t.inRun)
			} else {
				s.Labels = part(f.Tensors[1].Int64(), i, t.inRun)
			}
			for m := range t.step.Masks {
				s.Masks = append(s.Masks, part(f.Tensors[4+m].Float32(), i, t.inRun))
			}
			t.places[s] = place{f, i}
			t.slots = append(t.slots, s)
		}
	}
	for i, s := range t.step.State {
		copy(t.stepper.State(i), s.Initial)
	}
	return nil
}

// stepperSpec lists the feeds in this order: images, labels, weights, learning
// rate, masks, and a loop's first step and number of steps.
func (t *trainer) stepperSpec() ort.StepperSpec {
	batch, heads := int64(t.spec.Batch), int64(t.outputs())
	labels := ort.TensorInfo{Name: t.step.Labels, Type: ort.Int64, Dims: []int64{heads, batch}}
	if t.classes > 0 {
		labels.Type, labels.Dims = ort.Float32, []int64{batch, int64(t.classes)}
	}
	spec := ort.StepperSpec{Feeds: []ort.TensorInfo{{Name: t.step.Images, Type: ort.Float32, Dims: t.evaluator.dims}, labels,
		{Name: t.step.Weights, Type: ort.Float32, Dims: []int64{heads, batch}}, {Name: t.step.LearningRate, Type: ort.Float32, Dims: []int64{1}}}}
	for _, m := range t.step.Masks {
		spec.Feeds = append(spec.Feeds, ort.TensorInfo{Name: m.Input, Type: ort.Float32, Dims: m.Dims})
	}
	for _, s := range t.step.State {
		spec.State = append(spec.State, ort.State{In: s.In, Out: s.Out, Dims: s.Dims})
	}
	for _, name := range []string{t.step.Losses, t.step.Correct} {
		spec.Results = append(spec.Results, ort.TensorInfo{Name: name, Type: ort.Float32, Dims: []int64{heads}})
	}
	if t.loop == nil {
		return spec
	}
	for _, list := range [][]ort.TensorInfo{spec.Feeds, spec.Results} {
		for i := range list {
			list[i].Dims = append([]int64{int64(t.loop.Steps)}, list[i].Dims...)
		}
	}
	for _, name := range []string{t.loop.First, t.loop.Count} {
		spec.Feeds = append(spec.Feeds, ort.TensorInfo{Name: name, Type: ort.Int64, Dims: []int64{1}})
	}
	return spec
}

// part is the i-th of n equal parts of a list.
func part[T any](list []T, i, n int) []T {
	size := len(list) / n
	return list[i*size : (i+1)*size]
}

// take takes the steps of slots that lie side by side. A batch without any image
// takes none: it would still move the parameters by their momenta.
func (t *trainer) take(ctx context.Context, slots []*Slot) error {
	for len(slots) > 0 {
		n := 0
		for n < len(slots) && sum(slots[n].Weights) > 0 {
			n++
		}
		if n == 0 {
			t.header.Step++
			slots = slots[1:]
			continue
		}
		if err := t.together(ctx, slots[:n]); err != nil {
			return err
		}
		slots = slots[n:]
	}
	return nil
}

// together takes the steps of slots in one run of the graph.
func (t *trainer) together(ctx context.Context, slots []*Slot) error {
	first, h := t.places[slots[0]], &t.header
	weights, rates := make([][]float64, len(slots)), make([]float64, len(slots))
	for i, s := range slots {
		at := first.step + i
		weights[i] = t.weigh(part(first.feed.Tensors[2].Float32(), at, t.inRun), s)
		rates[i] = t.schedule.rate(t.position() + int64(i))
		first.feed.Tensors[3].Float32()[at] = float32(rates[i])
	}
	if t.loop != nil {
		last := first.feed.Tensors[4+len(t.step.Masks):]
		last[0].Int64()[0], last[1].Int64()[0] = int64(first.step), int64(len(slots))
	}
	if err := t.stepper.Step(ctx, first.feed); err != nil {
		return t.explain(err)
	}
	for i, s := range slots {
		losses, correct := part(t.stepper.Result(0), first.step+i, t.inRun), part(t.stepper.Result(1), first.step+i, t.inRun)
		if bad := notFinite(losses); bad >= 0 {
			return pipeline.BadConfig(fmt.Errorf("the loss of %s is %v at step %d of epoch %d, learning rate %g: lower train.builtin.rate, or set warmup or clip; %s",
				headName(bad, len(t.heads)), losses[bad], h.Step+1, h.Epoch+1, rates[i], t.kept()))
		}
		rows := sum(s.Weights)
		h.Step++
		h.Sums.add(rows, weights[i], losses, correct)
		t.rows += int64(rows)
		t.observe(pipeline.Event{Kind: pipeline.RowsDone, Stage: progressStage, Rows: int64(rows)})
	}
	return nil
}

// weigh fills in what rows each head learns from, [T, B], and returns their
// number by head. With a rotation head, which learns from all, the others learn
// from images that were not turned, as in the SeLa reference's
// retrain_with_rotnet.py. That turns each image of a batch in all four ways; here
// each image is turned in one of them, evenly drawn, so that a batch of 4·B is
// worth one of B there, and computes as much.
func (t *trainer) weigh(weights []float32, slot *Slot) []float64 {
	b := len(slot.Weights)
	number := make([]float64, t.outputs())
	for h := range number {
		row := weights[h*b : (h+1)*b]
		copy(row, slot.Weights)
		if h < len(t.heads) && t.spec.RotationHead {
			for i, turns := range slot.Labels[len(t.heads)*b:] {
				if turns != 0 {
					row[i] = 0
				}
			}
		}
		number[h] = sum(row)
	}
	return number
}

func sum(weights []float32) (total float64) {
	for _, w := range weights {
		total += float64(w)
	}
	return total
}
