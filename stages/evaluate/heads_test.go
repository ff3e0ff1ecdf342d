package evaluate

import (
	"math"
	"testing"
)

func TestScoreHead(t *testing.T) {
	truth := make([]int32, 3000)
	renamed, finer := make([]int32, 3000), make([]int32, 3000)
	for i := range truth {
		truth[i] = int32(i % 3)
		renamed[i] = (truth[i] + 1) % 3
		finer[i] = truth[i]*2 + int32(i/3%2)
	}
	s, err := ScoreHead(renamed, truth, 3, 3)
	if err != nil {
		t.Fatal(err)
	}
	if s.NMI != 1 || s.Accuracy == nil || *s.Accuracy != 1 {
		t.Errorf("renamed classes: NMI %v, accuracy %v", s.NMI, s.Accuracy)
	}
	if !(s.Chance.NMI > 0 && s.Chance.NMI < 0.01) || !(s.Chance.Purity > 1./3 && s.Chance.Purity < 0.4) {
		t.Errorf("by chance: %+v", s.Chance)
	}
	// The best matching is not the one that takes the largest cell first.
	labels := []int32{0, 0, 0, 1, 1, 2}
	classes := []int32{0, 1, 1, 1, 1, 2}
	if s, err = ScoreHead(labels, classes, 3, 3); err != nil || math.Abs(*s.Accuracy-4./6) > 1e-15 {
		t.Errorf("accuracy %v, %v, want 4/6", *s.Accuracy, err)
	}
	if s, err = ScoreHead(finer, truth, 6, 3); err != nil || s.Accuracy != nil || s.Purity != 1 {
		t.Errorf("more clusters than classes: accuracy %v, purity %v, %v", s.Accuracy, s.Purity, err)
	}
	if _, err := ScoreHead(finer, truth[1:], 6, 3); err == nil {
		t.Error("labels and truth of other lengths are scored")
	}
}
