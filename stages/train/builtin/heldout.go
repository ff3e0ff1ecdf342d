package builtin

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"

	"sela/pipeline"
	"sela/stages/internal/onnx"
	"sela/stages/internal/ort"
)

// heldOutSlots are the batches of held-out images in turn: one is computed on
// while the other is filled.
const heldOutSlots = 2

// evaluator measures inference models of one shape on the held-out images.
type evaluator struct {
	runtime *ort.Runtime
	options ort.Options // inputs and outputs are the network's
	dir     string
	dims    []int64 // of the input
	heads   []string
	// classes is the number of classes of multi-label targets, 0 for labels of
	// clusters.
	classes int
}

// open loads m and makes its slots.
func (e *evaluator) open(ctx context.Context, m *onnx.Model) (_ *ort.Session, slots []*ort.Slot, err error) {
	path := filepath.Join(e.dir, "evaluated.onnx")
	if err := m.SaveWithData(path); err != nil {
		return nil, nil, err
	}
	s, err := e.runtime.NewSession(path, e.options)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll(s, slots))
		}
	}()
	for range heldOutSlots {
		slot, err := s.NewSlot(ctx, e.dims)
		if err != nil {
			return nil, nil, err
		}
		slots = append(slots, slot)
	}
	return s, slots, nil
}

func closeAll(s *ort.Session, slots []*ort.Slot) error {
	var errs []error
	for _, slot := range slots {
		errs = append(errs, slot.Close())
	}
	return errors.Join(append(errs, s.Close())...)
}

// clusters returns the number of outputs of each head, as ONNX Runtime has it.
func (e *evaluator) clusters(ctx context.Context, m *onnx.Model) ([]int, error) {
	s, slots, err := e.open(ctx, m)
	if err != nil {
		return nil, pipeline.BadConfig(fmt.Errorf("the network to train: %w", err))
	}
	var k []int
	for _, out := range slots[0].Outputs {
		if len(out.Dims) != 2 || out.Type != ort.Float32 {
			err = pipeline.BadConfig(fmt.Errorf("the network to train: output %s is %s %v; heads must be float32 [N, K]", out.Name, out.Type, out.Dims))
			break
		}
		k = append(k, int(out.Dims[1]))
	}
	return k, errors.Join(err, closeAll(s, slots))
}

// scores runs m, in evaluation mode, over all that load sends. It returns nil
// where that is nothing.
func (e *evaluator) scores(ctx context.Context, m *onnx.Model, load func(ctx context.Context, free <-chan *Slot, ready chan<- *Slot) error) (_ *Scores, err error) {
	s, slots, err := e.open(ctx, m)
	if err != nil {
		return nil, fmt.Errorf("held-out images: %w", err)
	}
	defer func() { err = errors.Join(err, closeAll(s, slots)) }()
	of := map[*Slot]*ort.Slot{}
	batch := int(e.dims[0])
	var filled []*Slot
	for _, slot := range slots {
		f := &Slot{Images: slot.Inputs[0].Float32(), Weights: make([]float32, batch), Rows: make([]int64, batch)}
		if e.classes > 0 {
			f.Targets = make([]float32, batch*e.classes)
		} else {
			f.Labels = make([]int64, len(e.heads)*batch)
		}
		of[f] = slot
		filled = append(filled, f)
	}
	total, ranked := newSums(len(e.heads)), newRanking(e.classes)
	feeding := feed(ctx, filled, load)
	defer feeding.stop()
	for {
		f, err := feeding.next()
		if err != nil {
			return nil, fmt.Errorf("held-out images: %w", err)
		}
		if f == nil {
			break
		}
		slot := of[f]
		if err := s.Run(ctx, slot); err != nil {
			return nil, fmt.Errorf("held-out images: %w", err)
		}
		for h, out := range slot.Outputs {
			if e.classes > 0 {
				total.addTargets(out.Float32(), f.Targets, f.Weights)
				ranked.add(out.Float32(), f.Targets, f.Weights)
			} else {
				total.addLogits(h, out.Float32(), f.Labels[h*batch:(h+1)*batch], f.Weights)
			}
		}
		rows := sum(f.Weights)
		total.Rows += rows
		for h := range total.Weight {
			total.Weight[h] += rows
		}
		feeding.free <- f
	}
	if total.Rows == 0 {
		return nil, nil
	}
	scores := total.scores(len(e.heads))
	scores.MeanAP = ranked.meanAP()
	return &scores, nil
}

// addLogits adds the cross-entropy and the right rows of a head's logits [B, K].
func (s *sums) addLogits(h int, logits []float32, labels []int64, weights []float32) {
	k := len(logits) / len(labels)
	for i, w := range weights {
		if w == 0 {
			continue
		}
		row, best := logits[i*k:(i+1)*k], 0
		for j, x := range row {
			if x > row[best] {
				best = j
			}
		}
		sum, top := 0.0, float64(row[best])
		for _, x := range row {
			sum += math.Exp(float64(x) - top)
		}
		s.Loss[h] += float64(w) * (math.Log(sum) + top - float64(row[labels[i]]))
		if int64(best) == labels[i] {
			s.Correct[h] += float64(w)
		}
	}
}
