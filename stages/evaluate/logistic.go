package evaluate

import (
	"context"
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/optimize"

	"sela/stages/internal/onnx"
	"sela/stages/internal/ort"
)

// logistic is multinomial logistic regression on rows of features: W [D, C] and
// b [C] that minimise
//
//	1/n Σ_i −log softmax(x_i·W + b)[y_i] + ½·L2·‖W‖²
//
// over the rows with weight 1. Products are float32 in ONNX Runtime, sums over
// blocks float64 in an order that does not depend on the number of processors.
type logistic struct {
	features *Matrix
	labels   []int32
	weights  []float32 // 1 for rows that are fitted, 0 for others
	classes  int
	count    float64 // rows that are fitted

	session *ort.Session
	slots   []*ort.Slot // one for each worker
	block   int         // rows of a slot
	sums    [][]float64 // of each share: the gradient and, last, the loss
}

// Inputs and outputs of the graph, in order.
const (
	inRows = iota
	inWeight
	inBias
	inLabels
	inCounted
)
const (
	outLogits = iota
	outLoss
	outGradient
	outBias
)

// logisticGraph computes logits, losses and gradients of a block.
func logisticGraph(dim, classes int) *onnx.Model {
	b := onnx.NewBuilder("logistic")
	k := onnx.Dim{Size: int64(classes)}
	rows, dims := onnx.Dim{Name: "N"}, onnx.Dim{Size: int64(dim)}
	in := func(name string, t onnx.DType, shape ...onnx.Dim) string {
		return b.Input(onnx.Value{Name: name, DType: t, Shape: shape})
	}
	x, w, bias := in("x", onnx.Float32, rows, dims), in("w", onnx.Float32, dims, k), in("bias", onnx.Float32, k)
	y, counted := in("y", onnx.Float32, rows), in("counted", onnx.Float32, rows)

	column, row := b.Const("column", onnx.NewInts([]int64{1}, 1)), b.Const("row", onnx.NewInts([]int64{0}, 1))
	logits := b.Node("Gemm", "logits", []string{x, w, bias})
	logp := b.Node("LogSoftmax", "logp", []string{logits}, onnx.Int("axis", 1))
	values := b.Const("values", onnx.NewTensor([]float32{0, 1}, 2))
	truth := b.Node("OneHot", "truth", []string{b.Node("Cast", "", []string{y}, onnx.Int("to", int64(onnx.Int64))), b.Const("classes", onnx.NewInts([]int64{int64(classes)}, 1)), values}, onnx.Int("axis", -1))
	gained := b.Node("ReduceSum", "gained", []string{b.Node("Mul", "", []string{truth, logp}), column}, onnx.Int("keepdims", 0))
	loss := b.Node("Neg", "loss", []string{b.Node("Mul", "", []string{gained, counted})})
	rest := b.Node("Sub", "rest", []string{b.Node("Exp", "", []string{logp}), truth})
	rest = b.Node("Mul", "", []string{rest, b.Node("Unsqueeze", "", []string{counted, column})})
	gradient := b.Node("Gemm", "gradient", []string{x, rest}, onnx.Int("transA", 1))
	shift := b.Node("ReduceSum", "shift", []string{rest, row}, onnx.Int("keepdims", 0))
	b.Output(onnx.Value{Name: logits, DType: onnx.Float32, Shape: []onnx.Dim{rows, k}})
	b.Output(onnx.Value{Name: loss, DType: onnx.Float32, Shape: []onnx.Dim{rows}})
	b.Output(onnx.Value{Name: gradient, DType: onnx.Float32, Shape: []onnx.Dim{dims, k}})
	b.Output(onnx.Value{Name: shift, DType: onnx.Float32, Shape: []onnx.Dim{k}})
	return b.Model()
}

// newLogistic makes a regression on features whose classes are labels, all in
// [0, classes). Nothing is counted yet: see [logistic.use].
func (e *Engine) newLogistic(ctx context.Context, features *Matrix, labels []int32, classes int) (*logistic, error) {
	l := &logistic{features: features, labels: labels, classes: classes, block: blockRows(features.Dim), weights: make([]float32, features.Rows)}
	var err error
	if l.session, err = e.load(logisticGraph(features.Dim, classes), "logistic"); err != nil {
		return nil, err
	}
	n, d, k := int64(l.block), int64(features.Dim), int64(classes)
	if l.slots, err = slots(ctx, l.session, min(workers(), shares), []int64{n, d}, []int64{d, k}, []int64{k}, []int64{n}, []int64{n}); err != nil {
		return nil, errors.Join(err, l.close())
	}
	for range min(shares, l.blocks()) {
		l.sums = append(l.sums, make([]float64, l.params()+1))
	}
	return l, nil
}

func (l *logistic) close() error { return errors.Join(closeSlots(l.slots), l.session.Close()) }

func (l *logistic) params() int { return (l.features.Dim + 1) * l.classes }

func (l *logistic) blocks() int { return (l.features.Rows + l.block - 1) / l.block }

// use counts the rows for which use is true.
func (l *logistic) use(use func(row int) bool) {
	l.count = 0
	for i := range l.weights {
		l.weights[i] = 0
		if use(i) {
			l.weights[i] = 1
			l.count++
		}
	}
}

// evaluate computes the objective at p, W then b, and its gradient.
func (l *logistic) evaluate(ctx context.Context, p []float64, l2 float64, gradient []float64) (float64, error) {
	l.load(p)
	err := share(ctx, l.blocks(), func(ctx context.Context, worker, part, from, to int) error {
		slot, sum := l.slots[worker], l.sums[part]
		clear(sum)
		for block := from; block < to; block++ {
			rows, err := l.run(ctx, slot, block)
			if err != nil {
				return err
			}
			for i, g := range slot.Outputs[outGradient].Float32() {
				sum[i] += float64(g)
			}
			at := l.features.Dim * l.classes
			for i, g := range slot.Outputs[outBias].Float32() {
				sum[at+i] += float64(g)
			}
			for _, loss := range slot.Outputs[outLoss].Float32()[:rows] {
				sum[l.params()] += float64(loss)
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	clear(gradient)
	loss := 0.0
	for _, sum := range l.sums {
		for i := range gradient {
			gradient[i] += sum[i]
		}
		loss += sum[l.params()]
	}
	penalty := 0.0
	for i := range gradient {
		gradient[i] /= l.count
		if i < l.features.Dim*l.classes {
			gradient[i] += l2 * p[i]
			penalty += p[i] * p[i]
		}
	}
	return loss/l.count + l2/2*penalty, nil
}

// load gives every worker the parameters.
func (l *logistic) load(p []float64) {
	w, b := l.slots[0].Inputs[inWeight].Float32(), l.slots[0].Inputs[inBias].Float32()
	for i := range w {
		w[i] = float32(p[i])
	}
	for i := range b {
		b[i] = float32(p[len(w)+i])
	}
	for _, slot := range l.slots[1:] {
		copy(slot.Inputs[inWeight].Float32(), w)
		copy(slot.Inputs[inBias].Float32(), b)
	}
}

// run computes a block of rows, of which there are fewer at the end; what is
// left of the slot then counts nothing.
func (l *logistic) run(ctx context.Context, slot *ort.Slot, block int) (rows int, err error) {
	from := block * l.block
	rows = min(l.block, l.features.Rows-from)
	copy(slot.Inputs[inRows].Float32(), l.features.Data[from*l.features.Dim:(from+rows)*l.features.Dim])
	for i, y := range l.labels[from : from+rows] {
		slot.Inputs[inLabels].Float32()[i] = float32(y)
	}
	counted := slot.Inputs[inCounted].Float32()
	copy(counted, l.weights[from:from+rows])
	clear(counted[rows:])
	return rows, l.session.Run(ctx, slot)
}

// predict returns the class of each row with the largest logit at p, of equal
// ones the lowest.
func (l *logistic) predict(ctx context.Context, p []float64) ([]int32, error) {
	l.load(p)
	all := make([]int32, l.features.Rows)
	err := share(ctx, l.blocks(), func(ctx context.Context, worker, _, from, to int) error {
		for block := from; block < to; block++ {
			rows, err := l.run(ctx, l.slots[worker], block)
			if err != nil {
				return err
			}
			logits := l.slots[worker].Outputs[outLogits].Float32()
			for i := range rows {
				all[block*l.block+i] = argmax(logits[i*l.classes : (i+1)*l.classes])
			}
		}
		return nil
	})
	return all, err
}

func argmax(v []float32) int32 {
	best := 0
	for i, x := range v {
		if x > v[best] {
			best = i
		}
	}
	return int32(best)
}

// Where a fit ends: at a gradient of which no element is larger, or where the
// objective has hardly moved for some iterations, which is as far as float32
// products lead, or after so many.
const (
	gradientEnd   = 1e-4
	objectiveEnd  = 1e-7
	objectiveWait = 10
	maxIterations = 1000
)

// fit improves p, in place, until it is at the minimum, by L-BFGS (D. C. Liu and
// J. Nocedal, "On the limited memory BFGS method for large scale optimization",
// Mathematical Programming 45, 1989). The iterate is the last one. It returns
// the number of evaluations, and whether an end other than maxIterations was
// reached.
func (l *logistic) fit(ctx context.Context, p []float64, l2 float64) (evaluations int, converged bool, err error) {
	at, value, gradient := make([]float64, len(p)), math.NaN(), make([]float64, len(p))
	var failed error
	look := func(x []float64) {
		if evaluations > 0 && equal(at, x) {
			return
		}
		copy(at, x)
		evaluations++
		if value, failed = l.evaluate(ctx, x, l2, gradient); failed != nil {
			value = math.NaN()
		}
	}
	result, err := optimize.Minimize(optimize.Problem{
		Func:   func(x []float64) float64 { look(x); return value },
		Grad:   func(to, x []float64) { look(x); copy(to, gradient) },
		Status: func() (optimize.Status, error) { return statusOf(failed), failed },
	}, p, &optimize.Settings{GradientThreshold: gradientEnd, MajorIterations: maxIterations,
		Converger: &optimize.FunctionConverge{Absolute: objectiveEnd, Iterations: objectiveWait}}, &optimize.LBFGS{})
	if failed != nil {
		return evaluations, false, failed
	}
	if result == nil {
		return evaluations, false, fmt.Errorf("logistic regression: %w", err)
	}
	// A line search that finds nothing better has come as far as the precision
	// of the objective leads: the iterate stands.
	copy(p, result.X)
	return evaluations, result.Status != optimize.IterationLimit, nil
}

func statusOf(err error) optimize.Status {
	if err != nil {
		return optimize.Failure
	}
	return optimize.NotTerminated
}

func equal(a, b []float64) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
