package builtin

import (
	"context"
	"math"
	"testing"
)

// mislabelled gives turned images, which have no say in what the labelled heads
// learn, other labels.
type mislabelled struct{ *made }

func (m *mislabelled) Run(ctx context.Context, epoch, from int, free <-chan *Slot, ready chan<- *Slot) error {
	filled := make(chan *Slot, cap(ready))
	done := make(chan error, 1)
	go func() {
		done <- m.made.Run(ctx, epoch, from, free, filled)
		close(filled)
	}()
	for s := range filled {
		for i, turns := range s.Labels[len(testClusters)*testBatch:] {
			if turns != 0 {
				for h := range testClusters {
					s.Labels[h*testBatch+i] = (s.Labels[h*testBatch+i] + 1) % 3
				}
			}
		}
		ready <- s
	}
	return <-done
}

func TestTurnedImagesTeachNoLabels(t *testing.T) {
	trained := func(s source) (string, Metrics) {
		tr := newTrainer(t, network(1), s, t.TempDir())
		tr.spec.RotationHead, tr.spec.Epochs = true, 2
		r := must(t, tr)
		return contents(t, r.Model), r.Last
	}
	turning := newMade()
	turning.rotations = true
	want, last := trained(turning)
	got, _ := trained(&mislabelled{turning})
	if got != want {
		t.Error("the labels of turned images change what is learned")
	}
	if untold, _ := trained(newMade()); untold == want {
		t.Error("with no image turned it learns the same")
	}
	// About a quarter of the images counts for the labelled heads, and what they
	// score is a mean over these.
	for h, s := range last.Train.Heads {
		if !(s.Loss > 0.01 && s.Loss < 3 && s.Accuracy > 0.1 && s.Accuracy <= 1) {
			t.Errorf("head %d: %+v", h, s)
		}
	}
}

func TestWeigh(t *testing.T) {
	tr := &trainer{heads: []string{"a", "b"}}
	slot := &Slot{Weights: []float32{1, 1, 0, 1}, Labels: []int64{7, 7, 7, 7, 8, 8, 8, 8, 0, 3, 0, 0}}
	tr.spec.RotationHead = true
	weights := make([]float32, 12)
	if n := tr.weigh(weights, slot); n[0] != 2 || n[1] != 2 || n[2] != 3 {
		t.Errorf("%v rows by head", n)
	}
	for i, want := range []float32{1, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1} {
		if weights[i] != want {
			t.Errorf("weights %v", weights)
			break
		}
	}
	tr.spec.RotationHead = false
	slot.Labels = slot.Labels[:8]
	if n := tr.weigh(weights[:8], slot); n[0] != 3 || n[1] != 3 || weights[1] != 1 || weights[2] != 0 {
		t.Errorf("%v rows by head without a rotation head, weights %v", n, weights)
	}
}

// Means are over the rows that a head learned from; a head without any has none.
func TestSums(t *testing.T) {
	s := newSums(3)
	s.add(4, []float64{1, 0, 4}, []float32{2, 0, 1}, []float32{1, 0, 3})
	s.add(4, []float64{3, 0, 4}, []float32{1, 0, 2}, []float32{0, 0, 2})
	got := s.scores(2)
	for h, want := range []Score{{5. / 4, 1. / 4}, {}, {12. / 8, 5. / 8}} {
		if g := got.Heads[h]; math.Abs(g.Loss-want.Loss) > 1e-12 || math.Abs(g.Accuracy-want.Accuracy) > 1e-12 {
			t.Errorf("head %d: %+v, want %+v", h, g, want)
		}
	}
	if s.Rows != 8 || got.Loss != 5./8 || got.Accuracy != 1./8 {
		t.Errorf("%g rows, in all %+v", s.Rows, got.Score)
	}
}
