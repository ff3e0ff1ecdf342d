package extract

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/internal/onnx"
	"sela/stages/internal/ort"
)

// Preflight is what the first batch showed.
type Preflight struct {
	Images   int             // usable images in the batch
	Rejected int             // candidates that were not
	Probe    ort.Determinism // whether the model gives the same bits in any batch
}

// sumTolerance is how far from 1 a row of probabilities may sum: float16
// outputs over thousands of clusters come within a percent.
const sumTolerance = 0.02

// Preflight runs the first usable images of the candidates through the model
// and checks that the outputs are what the job says, so that a wrong job fails
// in seconds. Errors are of class Config where the job or the model is wrong,
// Data where no candidate can be used.
func (c *Classifier) Preflight(ctx context.Context, images *bucket.Bucket, candidates []schemas.Image) (*Preflight, error) {
	slot, err := c.NewSlot(ctx)
	if err != nil {
		return nil, badModel(err)
	}
	defer slot.Close()
	p := &Preflight{}
	if err := c.fill(ctx, images, candidates, slot, p); err != nil {
		return nil, fmt.Errorf("first batch: %w", err)
	}
	err = c.checkRaw(ctx, slot, p.Images)
	if err == nil {
		err = c.session.Run(ctx, slot)
	}
	if err == nil {
		err = c.checkLogProbs(slot, p.Images)
	}
	if err == nil {
		p.Probe, err = c.session.CheckDeterminism(ctx, slot)
	}
	if err != nil {
		return nil, badModel(fmt.Errorf("first batch: %w", err))
	}
	return p, nil
}

// firstRequests are under way at once for the first batch, so that a distant
// store does not hold up the start image by image.
const firstRequests = 16

// fill decodes candidates into the slot until it is full.
func (c *Classifier) fill(ctx context.Context, images *bucket.Bucket, candidates []schemas.Image, slot *ort.Slot, p *Preflight) error {
	fetch, worker := newFetcher(maxSpan, c.pre.Spec().Limits.MaxBytes, 1), c.pre.NewWorker()
	c.blank(slot, 0, c.Batch)
	var first error
	type fetched struct {
		data []byte
		err  error
	}
	var got [firstRequests]fetched
	for rest := candidates; p.Images < c.Batch && len(rest) > 0; {
		n := min(len(got), len(rest), c.Batch-p.Images)
		var requests sync.WaitGroup
		for i, img := range rest[:n] {
			requests.Go(func() { got[i].data, got[i].err = fetch.one(ctx, images, img) })
		}
		requests.Wait()
		for i, img := range rest[:n] {
			err := got[i].err
			if err == nil {
				err = c.preprocess(worker, got[i].data, slot, p.Images)
			}
			switch {
			case err == nil:
				p.Images++
			case !errors.As(err, new(*reject)):
				return err
			default:
				p.Rejected++
				if first == nil {
					first = fmt.Errorf("%s: %w", place(img), err)
				}
			}
		}
		rest = rest[n:]
	}
	if p.Images == 0 && first == nil {
		return pipeline.BadData(errors.New("there are no images"))
	}
	if p.Images == 0 {
		return pipeline.BadData(fmt.Errorf("none of the first %d images can be used (mend them, or leave them out with images.glob or images.prefix); the first one: %w", len(candidates), first))
	}
	return nil
}

// checkRaw holds the model's own outputs against model.kind.
func (c *Classifier) checkRaw(ctx context.Context, filled *ort.Slot, images int) error {
	options := c.options
	options.Outputs = c.design.Outputs
	session, err := c.rt.NewSession(c.path(), options)
	if err != nil {
		return err
	}
	defer session.Close()
	slot, err := session.NewSlot(ctx, c.inputDims())
	if err != nil {
		return err
	}
	defer slot.Close()
	copy(slot.Inputs[0].Float32(), filled.Inputs[0].Float32())
	copy(slot.Inputs[0].Float16(), filled.Inputs[0].Float16())
	copy(slot.Inputs[0].Uint8(), filled.Inputs[0].Uint8())
	if err := session.Run(ctx, slot); err != nil {
		return err
	}
	for _, out := range slot.Outputs {
		width := int(out.Dims[len(out.Dims)-1])
		perImage := len(out.Float32()) / c.Batch
		if err := checkKind(c.design.Kind, out.Float32()[:images*perImage], width); err != nil {
			return fmt.Errorf("output %s: %w", out.Name, err)
		}
	}
	return nil
}

// checkKind tells whether rows of the given width are what kind says. Rows that
// are not numbers are left to the log-probabilities' check.
func checkKind(kind onnx.OutputKind, values []float32, width int) error {
	like := map[onnx.OutputKind]bool{onnx.Probabilities: true, onnx.LogProbabilities: true}
	rows := 0
	var sum, expSum float64
	for at := 0; at+width <= len(values); at += width {
		row := values[at : at+width]
		negative, s, e := false, 0.0, 0.0
		for _, x := range row {
			negative = negative || x < 0
			s += float64(x)
			e += math.Exp(float64(x))
		}
		if math.IsNaN(s) {
			continue
		}
		rows++
		sum, expSum = s, e
		if negative || math.Abs(s-1) > sumTolerance {
			like[onnx.Probabilities] = false
		}
		if !(math.Abs(e-1) <= sumTolerance) {
			like[onnx.LogProbabilities] = false
		}
	}
	if rows == 0 {
		return nil
	}
	switch {
	// One cluster alone has probability 1 and log-probability 0 at once.
	case kind == onnx.Logits && like[onnx.Probabilities] && width > 1:
		return errors.New("model.kind is logits, but its rows are positive and sum to 1: set model.kind to probabilities")
	case kind == onnx.Probabilities && !like[onnx.Probabilities]:
		return fmt.Errorf("model.kind is probabilities, but a row sums to %.4g: set model.kind to logits or log_probabilities", sum)
	case kind == onnx.LogProbabilities && !like[onnx.LogProbabilities]:
		return fmt.Errorf("model.kind is log_probabilities, but the exponentials of a row sum to %.4g: set model.kind to logits or probabilities", expSum)
	}
	return nil
}

// checkLogProbs makes sure that every head says something usable about at
// least one image, and the features too.
func (c *Classifier) checkLogProbs(slot *ort.Slot, images int) error {
	for h, head := range c.Heads {
		usable := 0
		for pos := range images {
			sum := 0.0
			for _, x := range slot.Outputs[h].Float32()[pos*head.Clusters : (pos+1)*head.Clusters] {
				sum += math.Exp(float64(x))
			}
			if math.Abs(sum-1) <= sumTolerance {
				usable++
			}
		}
		if usable == 0 {
			return fmt.Errorf("head %d (%s): no image of %d has probabilities that sum to 1: the model's outputs are NaN or infinite, or model.kind is wrong", h, head.Name, images)
		}
	}
	for pos := range images {
		bad := c.examine(slot, pos)
		if bad == nil {
			return nil
		}
		if pos == images-1 {
			return fmt.Errorf("no image of %d has usable outputs; the last one: %w", images, bad)
		}
	}
	return nil
}
