package grad

import (
	"sela/stages/internal/onnx"
)

// Loss is what is minimised.
type Loss string

// The losses.
const (
	// CrossEntropy is that of a softmax over each head's logits with the label.
	CrossEntropy Loss = "cross-entropy"
	// Binary is that of a sigmoid of each logit of one head with its target in
	// [0, 1], averaged over the classes.
	Binary Loss = "binary"
)

// add adds the losses [T] and the counts [T] and puts the gradient of the
// losses' mean into the heads'. For a head a row counts by its share of the
// head's weights [T, B]; a head all of whose weights are 0 has a loss of 0 and
// no gradient.
func (l Loss) add(t *tape, heads []*value, weights *value) (labels, losses, correct *value) {
	t.scope = "loss"
	batch := weights.dims[1]
	total := t.reduce("ReduceSum", weights, []int64{1}, true)
	share := t.div(weights, t.binary("Max", total, t.scalar(1)))
	if l == Binary {
		labels = t.input("labels", onnx.Float32, heads[0].dims...)
		losses, correct = t.binaryLoss(heads[0], labels, weights, share)
		return labels, losses, correct
	}
	labels = t.input("labels", onnx.Int64, int64(len(heads)), batch)
	var lossParts, correctParts []*value
	for from := 0; from < len(heads); {
		to := from + 1
		for to < len(heads) && heads[to].dims[1] == heads[from].dims[1] {
			to++
		}
		rows := func(v *value) *value { return t.slice(v, 0, int64(from), int64(to), 1) }
		loss, right := t.crossEntropy(heads[from:to], rows(labels), rows(weights), rows(share), len(heads))
		lossParts, correctParts = append(lossParts, loss), append(correctParts, right)
		from = to
	}
	return labels, t.concat(0, lossParts...), t.concat(0, correctParts...)
}

// crossEntropy handles G heads of equal K in one: logits are [G·B, K], labels,
// weights and share [G, B].
func (t *tape) crossEntropy(heads []*value, labels, weights, share *value, all int) (losses, correct *value) {
	g, batch, k := int64(len(heads)), weights.dims[1], heads[0].dims[1]
	logits := t.concat(0, heads...)
	flat := t.reshape(labels, []int64{g * batch})
	logp := t.emit("LogSoftmax", onnx.Float32, logits.dims, []*value{logits}, onnx.Int("axis", 1))
	depth, ends := known(onnx.Int64, nil, []float64{float64(k)}), known(onnx.Float32, []int64{2}, []float64{0, 1})
	hot := t.emit("OneHot", onnx.Float32, logits.dims, []*value{flat, depth, ends}, onnx.Int("axis", 1))
	perRow := func(v *value) *value { return t.reshape(v, []int64{g, batch}) }

	loss := perRow(t.neg(t.reduce("ReduceSum", t.mul(hot, logp), []int64{1}, false)))
	losses = t.reduce("ReduceSum", t.mul(loss, share), []int64{1}, false)
	best := t.emit("ArgMax", onnx.Int64, []int64{g * batch}, []*value{logits}, onnx.Int("axis", 1), onnx.Int("keepdims", 0))
	correct = t.reduce("ReduceSum", t.mul(perRow(t.mask("Equal", best, flat)), weights), []int64{1}, false)

	each := t.reshape(t.scale(share, 1/float64(all)), []int64{g * batch, 1})
	slope := t.mul(t.sub(t.unary("Exp", logp), hot), each)
	sizes := make([]int64, g)
	for i := range sizes {
		sizes[i] = batch
	}
	for i, part := range t.split(slope, 0, sizes) {
		heads[i].grads = append(heads[i].grads, part)
	}
	return losses, correct
}

// binaryLoss is max(x, 0) − x·y + log(1 + exp(−|x|)), which cannot overflow;
// its slope is sigmoid(x) − y.
func (t *tape) binaryLoss(x, y, weights, share *value) (losses, correct *value) {
	k, batch := float64(x.dims[1]), x.dims[0]
	share, weights = t.reshape(share, []int64{batch}), t.reshape(weights, []int64{batch})
	soft := t.unary("Log", t.add(t.unary("Exp", t.neg(t.unary("Abs", x))), t.scalar(1)))
	cell := t.add(t.sub(t.unary("Relu", x), t.mul(x, y)), soft)
	row := func(v *value) *value { return t.reduce("ReduceMean", v, []int64{1}, false) }
	sum := func(v *value) *value { return t.reduce("ReduceSum", v, []int64{0}, true) }
	losses = sum(t.mul(row(cell), share))
	agree := t.binary("Equal", t.binary("Greater", x, t.scalar(0)), t.binary("Greater", y, t.scalar(0.5)))
	correct = sum(t.mul(row(t.cast(agree, onnx.Float32)), weights))
	slope := t.sub(t.unary("Sigmoid", x), y)
	x.grads = append(x.grads, t.mul(slope, t.reshape(t.scale(share, 1/k), []int64{batch, 1})))
	return losses, correct
}
