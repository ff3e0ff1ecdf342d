package grad

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxpb"
)

// Gradients are checked by central differences in float32, the type that all of
// ONNX Runtime's kernels have: for L = Σ r·f(x), with r random, along a random
// direction u, the slope Σ ∂L/∂x·u must be
//
//	(8·(L(x+εu) − L(x−εu)) − (L(x+2εu) − L(x−2εu))) / 12ε,
//
// whose error is of order ε⁴. L is summed in float64, so that what is left is
// the kernels' rounding, about 1e-7/ε of the terms' size; with ε = 1/32 the two
// errors stay below the tolerance of 2e-3 of the slope's root mean square. Where
// a function has kinks, inputs are drawn further than 2ε from them.
const (
	epsilon   = 1. / 32
	tolerance = 2e-3
)

// operand is an input of a tested node.
type operand struct {
	dims  []int64
	draw  func(r *rand.Rand) float64 // nil: standard normal
	fixed []float64                  // constant contents instead; float32 unless ints
	ints  []int64                    // constant int64 contents
	bools bool                       // a random constant of bools
	still bool                       // not differentiated, though an input
	apart bool                       // no two elements closer than 1/4
}

func normal(dims ...int64) operand { return operand{dims: dims} }

func within(low, high float64, dims ...int64) operand {
	return operand{dims: dims, draw: func(r *rand.Rand) float64 { return low + (high-low)*r.Float64() }}
}

// away draws normal values at least 1/10 away from each of the points.
func away(points []float64, dims ...int64) operand {
	return operand{dims: dims, draw: func(r *rand.Rand) float64 {
		for {
			x := 1.5 * r.NormFloat64()
			if !slices.ContainsFunc(points, func(p float64) bool { return math.Abs(x-p) < 0.1 }) {
				return x
			}
		}
	}}
}

func list(values ...int64) operand {
	return operand{dims: []int64{int64(len(values))}, ints: append([]int64{}, values...)}
}

// graph is one node with the operands as its inputs.
type graph struct {
	op      string
	opset   int64
	in      []operand
	attrs   []onnx.Attr
	outputs int     // 0 means 1
	mask    float64 // of a Dropout: what its mask is filled with
}

func (g graph) String() string {
	s := fmt.Sprintf("%s-%d", g.op, g.opset)
	for _, o := range g.in {
		s += fmt.Sprint(" ", o.dims)
		if o.ints != nil {
			s += fmt.Sprint("=", o.ints)
		}
	}
	for _, a := range g.attrs {
		s += " " + a.GetName() + "="
		switch a.GetType() {
		case onnxpb.AttributeProto_INTS:
			s += fmt.Sprint(a.Ints)
		case onnxpb.AttributeProto_INT:
			s += fmt.Sprint(a.GetI())
		case onnxpb.AttributeProto_FLOAT:
			s += fmt.Sprint(a.GetF())
		default:
			s += string(a.GetS())
		}
	}
	return s
}

// trial is one graph in one form, in a model that holds many.
type trial struct {
	graph
	forms Forms
	in    []*value
	x     []string // names of the inputs that are differentiated
	y     []string // names of the outputs; r + name is the weights' input
}

// trials is a model of trials and what it is fed.
type trials struct {
	*tape
	list  []*trial
	feeds map[string][]float32
}

// draw adds an input of random values.
func (ts *trials) draw(name string, dims []int64, values func() float64) *value {
	flat := max(elements(dims), 1)
	v := ts.input(name, onnx.Float32, flat)
	list := make([]float32, flat)
	for i := range list {
		list[i] = float32(values())
	}
	ts.feeds[name] = list
	return ts.reshape(v, dims)
}

// result makes v an output, as a vector.
func (ts *trials) result(name string, v *value) {
	flat := []int64{elements(v.dims)}
	ts.b.Node("Identity", name, []string{ts.use(ts.reshape(v, flat))})
	ts.b.Output(onnx.Value{Name: name, DType: onnx.Float32, Shape: shape(flat)})
}

// add adds g's outputs y_i of its inputs x_i, and the gradients of Σ r_i·y_i.
// It returns the problems that came up.
func (ts *trials) add(g graph, seed uint64, forms Forms) (problems []Problem, err error) {
	defer catch(&err)
	r := rand.New(rand.NewPCG(seed, 5))
	tr := &trial{graph: g, forms: forms}
	id := len(ts.list)
	ts.list = append(ts.list, tr)
	ts.forms, ts.problems, ts.masks, ts.scope = forms, nil, nil, fmt.Sprint("trial", id)
	n := &node{p: &onnxpb.NodeProto{OpType: &g.op, Attribute: g.attrs}, opset: g.opset, read: map[string]bool{}, model: ts.b.Model()}
	n.frozen = func(string) bool { return false }
	n.raw = func(i int) string { return fmt.Sprint("statistic", id, i) }
	n.p.Output = make([]string, max(g.outputs, 1))
	n.in = make([]*value, len(g.in))
	for i, o := range g.in {
		n.in[i] = ts.operand(fmt.Sprintf("x%d.%d", id, i), o, r)
		if v := n.in[i]; v != nil && !v.known() {
			// A value of its own, since the test's reshape is not on the record.
			v.needs = !o.still
		}
	}
	tr.in = n.in
	ys := operators[g.op].translate(ts.tape, n)
	if name := n.unread(); name != "" {
		fail("attribute %s was not read", name)
	}
	for _, m := range ts.masks {
		ts.feeds[m.Input] = slices.Repeat([]float32{float32(g.mask)}, int(elements(m.Dims)))
	}
	for i, y := range ys {
		name := fmt.Sprintf("y%d.%d", id, i)
		tr.y = append(tr.y, name)
		ts.result(name, y)
		y.grads = append(y.grads, ts.draw("r"+name, y.dims, r.NormFloat64))
	}
	ts.backward()
	for i, x := range n.in {
		if x == nil || !x.needs {
			continue
		}
		name := fmt.Sprintf("x%d.%d", id, i)
		tr.x = append(tr.x, name)
		dx := ts.gradient(x)
		if dx == nil {
			dx = ts.zeros(x.dims)
		}
		ts.result("d"+name, dx)
	}
	return ts.problems, nil
}

func (ts *trials) operand(name string, o operand, r *rand.Rand) *value {
	switch {
	case o.dims == nil:
		return nil
	case o.ints != nil:
		data := make([]float64, len(o.ints))
		for i, x := range o.ints {
			data[i] = float64(x)
		}
		return known(onnx.Int64, o.dims, data)
	case o.bools:
		return build(onnx.Bool, o.dims, func([]int64) float64 { return float64(r.IntN(2)) })
	case o.fixed != nil:
		return known(onnx.Float32, o.dims, slices.Clone(o.fixed))
	case o.apart:
		order := r.Perm(int(elements(o.dims)))
		return ts.draw(name, o.dims, func() float64 {
			x := float64(order[0]) / 4
			order = order[1:]
			return x
		})
	case o.draw == nil:
		return ts.draw(name, o.dims, r.NormFloat64)
	}
	return ts.draw(name, o.dims, func() float64 { return o.draw(r) })
}

// check compares all gradients with central differences: each trial's inputs
// are moved in turn, those of all trials at once.
func (ts *trials) check(t *testing.T) {
	t.Helper()
	sweep(ts.b.Model().Proto.Graph)
	run := newRunner(t, ts.b.Model(), 1)
	defer run.close()
	feeds := map[string]any{}
	for name, list := range ts.feeds {
		feeds[name] = list
	}
	got := run.run(feeds)
	r := rand.New(rand.NewPCG(1, 1))
	most := 0
	for _, tr := range ts.list {
		most = max(most, len(tr.x))
	}
	for which := range most {
		for range 3 {
			along := map[string][]float32{}
			for _, tr := range ts.list {
				if which < len(tr.x) {
					u := make([]float32, len(ts.feeds[tr.x[which]]))
					for i := range u {
						u[i] = float32(2*r.IntN(2) - 1)
					}
					along[tr.x[which]] = u
				}
			}
			at := func(step float64) map[string][]float32 {
				for name, u := range along {
					moved := slices.Clone(ts.feeds[name])
					for i := range moved {
						moved[i] += float32(step) * u[i]
					}
					feeds[name] = moved
				}
				defer func() {
					for name := range along {
						feeds[name] = ts.feeds[name]
					}
				}()
				return run.run(feeds)
			}
			points := []map[string][]float32{at(epsilon), at(-epsilon), at(2 * epsilon), at(-2 * epsilon)}
			for _, tr := range ts.list {
				if which < len(tr.x) {
					tr.compare(t, ts, tr.x[which], got["d"+tr.x[which]], along[tr.x[which]], points)
				}
			}
		}
	}
}

func (tr *trial) compare(t *testing.T, ts *trials, name string, dx, u []float32, points []map[string][]float32) {
	t.Helper()
	loss := func(y map[string][]float32) float64 {
		sum := 0.
		for _, out := range tr.y {
			for i, r := range ts.feeds["r"+out] {
				sum += float64(r) * float64(y[out][i])
			}
		}
		return sum
	}
	slope, size := 0., 1e-3
	for j := range u {
		slope += float64(dx[j]) * float64(u[j])
		size += float64(dx[j]) * float64(dx[j])
	}
	want := (8*(loss(points[0])-loss(points[1])) - (loss(points[2]) - loss(points[3]))) / (12 * epsilon)
	if d := math.Abs(slope - want); !(d <= tolerance*math.Sqrt(size)) {
		t.Errorf("%v %v: %s: slope %g by the gradient, %g by differences, %g apart with a norm of %g", tr.graph, tr.forms, name, slope, want, d, math.Sqrt(size))
	}
}
