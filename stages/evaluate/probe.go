package evaluate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
)

// Penalties are the L2 that a probe chooses from, the largest first.
var Penalties = []float64{1e-2, 1e-3, 1e-4, 1e-5}

// At most heldOutRows of the training rows, and one in heldOutShare, choose the
// penalty.
const (
	heldOutRows  = 5000
	heldOutShare = 10
)

// Probe is how well a linear classifier does on features.
type Probe struct {
	Accuracy    float64   `json:"accuracy"` // on the test rows, fitted to all training rows
	L2          float64   `json:"l2"`       // the penalty chosen
	HeldOut     []float64 `json:"held_out"` // accuracy on the held-out rows, by [Penalties]
	HeldOutRows int       `json:"held_out_rows"`
	Evaluations int       `json:"evaluations"` // of objective and gradient, over all fits
	Converged   bool      `json:"converged"`   // all fits ended before their iterations did
}

// Probe fits multinomial logistic regression to the training rows, whose columns
// it standardises in place, and the test rows with them. Labels are in [0,
// classes). The penalty is ½·L2·‖W‖² beside the mean loss, the bias is free. L2
// is the one of [Penalties] with the best accuracy on a tenth of the training
// rows, at most 5,000, which are drawn by a fixed seed and left out of these
// fits, of equal ones the largest; each fit starts where the one before ended.
// Then all training rows are fitted with it, and the last iterate classifies the
// test rows. It takes Train and test as they are: no augmentation, no other
// choice. The result is the same for any number of processors. It tells done of
// fits that are finished, of len(Penalties)+1.
func (e *Engine) Probe(ctx context.Context, train *Matrix, trainLabels []int32, test *Matrix, testLabels []int32, classes int, done func()) (_ *Probe, err error) {
	out := heldOut(train.Rows)
	if len(out) == 0 || test.Rows == 0 || train.Dim != test.Dim {
		return nil, fmt.Errorf("linear probe: %d×%d training and %d×%d test features: want at least %d and 1 rows of equal widths", train.Rows, train.Dim, test.Rows, test.Dim, heldOutShare)
	}
	Standardise(train, test)
	l, err := e.newLogistic(ctx, train, trainLabels, classes)
	if err != nil {
		return nil, fmt.Errorf("linear probe: %w", err)
	}
	defer func() { err = errors.Join(err, l.close()) }()
	probe := &Probe{HeldOutRows: len(out), Converged: true}
	p := make([]float64, l.params())
	best, start := -1, p
	for i, l2 := range Penalties {
		l.use(func(row int) bool { _, held := slices.BinarySearch(out, row); return !held })
		if err := probe.fit(ctx, l, p, l2, done); err != nil {
			return nil, err
		}
		predicted, err := l.predict(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("linear probe: %w", err)
		}
		right := 0
		for _, row := range out {
			if predicted[row] == trainLabels[row] {
				right++
			}
		}
		probe.HeldOut = append(probe.HeldOut, float64(right)/float64(len(out)))
		if best < 0 || probe.HeldOut[i] > probe.HeldOut[best] {
			best, start = i, slices.Clone(p)
		}
	}
	probe.L2 = Penalties[best]
	l.use(func(int) bool { return true })
	if err := probe.fit(ctx, l, start, probe.L2, done); err != nil {
		return nil, err
	}
	predicted, err := l.of(test).predict(ctx, start)
	if err != nil {
		return nil, fmt.Errorf("linear probe: %w", err)
	}
	probe.Accuracy = Accuracy(predicted, testLabels)
	return probe, nil
}

func (p *Probe) fit(ctx context.Context, l *logistic, at []float64, l2 float64, done func()) error {
	n, converged, err := l.fit(ctx, at, l2)
	if err != nil {
		return fmt.Errorf("linear probe: L2 %g: %w", l2, err)
	}
	p.Evaluations += n
	p.Converged = p.Converged && converged
	if done != nil {
		done()
	}
	return nil
}

// of is the regression on other rows, to predict them with the same slots.
func (l *logistic) of(m *Matrix) *logistic {
	other := *l
	other.features, other.labels, other.weights = m, make([]int32, m.Rows), make([]float32, m.Rows)
	return &other
}

// heldOut draws the rows that choose the penalty, in ascending order.
func heldOut(rows int) []int {
	out := rand.New(rand.NewPCG(1, 0)).Perm(rows)[:min(heldOutRows, rows/heldOutShare)]
	slices.Sort(out)
	return out
}
