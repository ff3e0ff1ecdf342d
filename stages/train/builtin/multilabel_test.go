package builtin

import (
	"context"
	"math"
	"testing"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxtest"
)

func TestMeanAP(t *testing.T) {
	for name, c := range map[string]struct {
		logits, targets []float32 // by image, of one class
		want            float64
	}{
		"all right":     {[]float32{3, 2, 1, 0}, []float32{1, 1, 0, 0}, 1},
		"all wrong":     {[]float32{3, 2, 1, 0}, []float32{0, 0, 1, 1}, (1./3 + 2./4) / 2},
		"mixed":         {[]float32{4, 3, 2, 1}, []float32{1, 0, 1, 0}, (1 + 2./3) / 2},
		"all equal":     {[]float32{1, 1, 1, 1}, []float32{1, 0, 0, 0}, 0.25},
		"none of class": {[]float32{1, 2}, []float32{0, 0}, 0},
	} {
		r := newRanking(1)
		weights := make([]float32, len(c.logits)+1)
		for i := range c.logits {
			weights[i] = 1
		}
		r.add(append(c.logits, 99), append(c.targets, 1), weights) // the last is padding
		if got := r.meanAP(); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%s: %g, want %g", name, got, c.want)
		}
	}
}

func TestAddTargets(t *testing.T) {
	s := newSums(1)
	s.addTargets([]float32{0, 2, -1000, 5}, []float32{1, 0, 0, 1}, []float32{1, 0})
	if want := (math.Log(2) + math.Log(1+math.Exp(2))) / 2; math.Abs(s.Loss[0]-want) > 1e-12 || s.Correct[0] != 0 {
		t.Errorf("%+v, want a loss of %g", s, want)
	}
	s.addTargets([]float32{0, 2, -1000, 5}, []float32{1, 0, 0, 1}, []float32{0, 1})
	if s.Correct[0] != 1 {
		t.Errorf("%+v", s)
	}
}

// targeted turns the clusters of a made source into classes: those of the first
// head, of which each image has one, and whether it is of the second's cluster 0.
type targeted struct{ *made }

const targetClasses = 4

// fill makes targets of labels.
func (s *targeted) fill(targets []float32, labels []int64) {
	clear(targets)
	for i := range testBatch {
		targets[i*targetClasses+int(labels[i])] = 1
		if labels[testBatch+i] == 0 {
			targets[i*targetClasses+3] = 1
		}
	}
}

// relay has load fill a slot of labels for each slot of targets.
func (s *targeted) relay(ctx context.Context, free <-chan *Slot, ready chan<- *Slot, load func(ctx context.Context, free <-chan *Slot, ready chan<- *Slot) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, out, ended := make(chan *Slot), make(chan *Slot, 1), make(chan error, 1)
	go func() { ended <- load(ctx, in, out) }()
	for {
		slot, err := take(ctx, free)
		if err != nil {
			cancel()
			<-ended
			return err
		}
		inner := &Slot{Images: slot.Images, Weights: slot.Weights, Rows: slot.Rows, Masks: slot.Masks, Labels: make([]int64, 2*testBatch)}
		select {
		case in <- inner:
		case err := <-ended:
			return err
		}
		<-out
		s.fill(slot.Targets, inner.Labels)
		ready <- slot
	}
}

func (s *targeted) Run(ctx context.Context, epoch, from int, free <-chan *Slot, ready chan<- *Slot) error {
	return s.relay(ctx, free, ready, func(ctx context.Context, free <-chan *Slot, ready chan<- *Slot) error {
		return s.made.Run(ctx, epoch, from, free, ready)
	})
}

func (s *targeted) HeldOut(ctx context.Context, free <-chan *Slot, ready chan<- *Slot) error {
	return s.relay(ctx, free, ready, s.made.HeldOut)
}

func TestLearnsClasses(t *testing.T) {
	m, _ := onnxtest.Classifier{Size: testSide, Hidden: 12, Clusters: []int{targetClasses}, Seed: 1}.Build()
	tr := newTrainer(t, m, &targeted{newMade()}, t.TempDir())
	tr.heads, tr.clusters, tr.classes, tr.spec.Epochs, tr.spec.Rate = []string{"head_0"}, []int{targetClasses}, targetClasses, 12, 0.2
	r := must(t, tr)
	first, last := tr.header.Metrics[0].HeldOut, r.Last.HeldOut
	if last.MeanAP < 0.8 || last.MeanAP <= first.MeanAP || last.Loss >= first.Loss {
		t.Errorf("held out: from %+v to %+v", first, last)
	}
	if _, err := onnx.Load(r.Model); err != nil {
		t.Error(err)
	}
}
