package builtin

import (
	"cmp"
	"math"
	"slices"
)

// addTargets adds the binary cross-entropy of sigmoids, averaged over the
// classes, and the share of the classes whose logit has the target's sign.
func (s *sums) addTargets(logits, targets, weights []float32) {
	k := len(targets) / len(weights)
	for i, w := range weights {
		if w == 0 {
			continue
		}
		loss, right := 0.0, 0
		for j, y := range targets[i*k : (i+1)*k] {
			x := float64(logits[i*k+j])
			loss += max(x, 0) - x*float64(y) + math.Log1p(math.Exp(-math.Abs(x)))
			if (x > 0) == (y > 0.5) {
				right++
			}
		}
		s.Loss[0] += float64(w) * loss / float64(k)
		s.Correct[0] += float64(w) * float64(right) / float64(k)
	}
}

// ranking holds the logits of all images by class, with whether the image is of
// the class.
type ranking [][]ranked

type ranked struct {
	logit float32
	is    bool
}

func newRanking(classes int) ranking { return make(ranking, classes) }

func (r ranking) add(logits, targets, weights []float32) {
	for i, w := range weights {
		for j := range r {
			if at := i*len(r) + j; w > 0 {
				r[j] = append(r[j], ranked{logits[at], targets[at] > 0.5})
			}
		}
	}
}

// meanAP is the mean over the classes of the average precision: with images in
// order of their logits, the sum over the distinct logits of the precision there
// times the growth of the recall, without interpolation. Classes of which there
// is no image count for nothing; without any other it is 0.
func (r ranking) meanAP() float64 {
	sum, classes := 0.0, 0
	for _, list := range r {
		slices.SortFunc(list, func(a, b ranked) int { return cmp.Compare(b.logit, a.logit) })
		positives, before, area := 0, 0, 0.0
		for i, x := range list {
			if x.is {
				positives++
			}
			if i+1 == len(list) || list[i+1].logit != x.logit { // equal logits come together
				area += float64(positives-before) * float64(positives) / float64(i+1)
				before = positives
			}
		}
		if positives > 0 {
			sum += area / float64(positives)
			classes++
		}
	}
	if classes == 0 {
		return 0
	}
	return sum / float64(classes)
}
