package grad

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"sela/stages/internal/onnx"
)

// lossCase is a loss of random logits, labels or targets, and weights by head.
type lossCase struct {
	loss     Loss
	clusters []int64
	weights  [][]float64 // by head
	logits   [][]float64
	labels   [][]float64 // by head: B labels, or of Binary B·K targets
}

// value computes in float64 what is minimised, the losses by head, and the
// weighted number of right rows.
func (c *lossCase) value() (mean float64, losses, correct []float64) {
	for h, k := range c.clusters {
		total, sum, right := 0., 0., 0.
		for i, w := range c.weights[h] {
			row := c.logits[h][int64(i)*k : int64(i+1)*k]
			loss, hit := c.row(row, h, i)
			total, sum, right = total+w, sum+w*loss, right+w*hit
		}
		losses, correct = append(losses, sum/max(total, 1)), append(correct, right)
		mean += losses[h] / float64(len(c.clusters))
	}
	return mean, losses, correct
}

func (c *lossCase) row(x []float64, h, i int) (loss, hit float64) {
	if c.loss == Binary {
		for j, y := range c.labels[h][i*len(x) : (i+1)*len(x)] {
			loss += (math.Log1p(math.Exp(x[j])) - x[j]*y) / float64(len(x))
			hit += truth((x[j] > 0) == (y > 0.5)) / float64(len(x))
		}
		return loss, hit
	}
	sum, best := 0., 0
	for j := range x {
		sum += math.Exp(x[j])
		if x[j] > x[best] {
			best = j
		}
	}
	label := int(c.labels[h][i])
	return math.Log(sum) - x[label], truth(best == label)
}

// Losses, counts and slopes are those of float64, the slopes by central
// differences, whatever rows each head learns from: none at all are a loss and
// slopes of 0.
func TestLosses(t *testing.T) {
	const batch = 6
	random := rand.New(rand.NewPCG(3, 4))
	for name, c := range map[string]*lossCase{
		"heads of one size":     {loss: CrossEntropy, clusters: []int64{4, 4, 4}, weights: [][]float64{{1, 0, 1, 1, 0, 1}, {0, 0, 0, 1, 0, 0}, {1, 1, 1, 1, 1, 1}}},
		"heads of other sizes":  {loss: CrossEntropy, clusters: []int64{3, 3, 5, 4}, weights: [][]float64{{1, 0, 0, 0, 0, 1}, {1, 0, 0, 0, 0, 1}, {1, 1, 0, 1, 1, 1}, {0, 0, 0, 0, 1, 1}}},
		"a head without rows":   {loss: CrossEntropy, clusters: []int64{3, 4}, weights: [][]float64{{0, 0, 0, 0, 0, 0}, {1, 1, 0, 1, 1, 1}}},
		"classes":               {loss: Binary, clusters: []int64{5}, weights: [][]float64{{1, 1, 0, 1, 0, 1}}},
		"classes, without rows": {loss: Binary, clusters: []int64{5}, weights: [][]float64{{0, 0, 0, 0, 0, 0}}},
	} {
		t.Run(name, func(t *testing.T) {
			tp := newTape("loss")
			feeds := map[string]any{"weights": floats32(slices.Concat(c.weights...))}
			var heads []*value
			for _, k := range c.clusters {
				logits, labels := make([]float64, batch*k), []float64{}
				for i := range logits {
					logits[i] = float64(float32(2 * random.NormFloat64()))
				}
				for range batch {
					if c.loss == Binary {
						for range k {
							labels = append(labels, float64(random.IntN(2)))
						}
					} else {
						labels = append(labels, float64(random.Int64N(k)))
					}
				}
				c.logits, c.labels = append(c.logits, logits), append(c.labels, labels)
				name := "head" + string(rune('0'+len(heads)))
				heads = append(heads, tp.input(name, onnx.Float32, batch, k))
				heads[len(heads)-1].needs = true
				feeds[name] = floats32(logits)
			}
			labels, losses, correct := c.loss.add(tp, heads, tp.input("weights", onnx.Float32, int64(len(heads)), batch))
			if all := slices.Concat(c.labels...); c.loss == Binary {
				feeds[labels.name] = floats32(all)
			} else {
				ints := make([]int64, len(all))
				for i, x := range all {
					ints[i] = int64(x)
				}
				feeds[labels.name] = ints
			}
			var slopes []string
			for _, h := range heads {
				slopes = append(slopes, tp.output(tp.gradient(h)))
			}
			lossName, correctName := tp.output(losses), tp.output(correct)
			got := newRunner(t, tp.b.Model(), 1).run(feeds)

			_, wantLosses, wantCorrect := c.value()
			for h := range heads {
				if l := float64(got[lossName][h]); math.Abs(l-wantLosses[h]) > 1e-5 {
					t.Errorf("head %d: loss %g, want %g", h, l, wantLosses[h])
				}
				if n := float64(got[correctName][h]); math.Abs(n-wantCorrect[h]) > 1e-5 {
					t.Errorf("head %d: %g right, want %g", h, n, wantCorrect[h])
				}
				for i, x := range c.logits[h] {
					at := func(x float64) float64 {
						c.logits[h][i] = x
						mean, _, _ := c.value()
						return mean
					}
					want := (at(x+1e-4) - at(x-1e-4)) / 2e-4
					at(x)
					if g := float64(got[slopes[h]][i]); math.Abs(g-want) > 1e-6 {
						t.Errorf("head %d, logit %d: slope %g, by differences %g", h, i, g, want)
					}
				}
			}
		})
	}
}

func floats32(list []float64) []float32 {
	out := make([]float32, len(list))
	for i, x := range list {
		out[i] = float32(x)
	}
	return out
}
