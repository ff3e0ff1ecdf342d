package grad

import (
	"errors"
	"fmt"
	"math"
)

// SGD is stochastic gradient descent with the semantics of PyTorch's: with the
// gradient g, plus the weight decay times w,
//
//	v ← Momentum·v + g
//	w ← w − rate·v, or rate·(g + Momentum·v) with Nesterov
type SGD struct {
	Momentum    float64
	Nesterov    bool
	WeightDecay float64
	// DecayAll applies weight decay to biases and normalisation's parameters as
	// well. These are known by their use: the bias of a Conv or Gemm, what
	// BatchNormalization and LayerNormalization read, and vectors that are added
	// or multiplied element by element.
	DecayAll bool
	// ClipNorm, if above 0, is the most the norm of all gradients together may be;
	// they are scaled down to it, as by PyTorch's clip_grad_norm_, before decay is
	// added.
	ClipNorm float64
}

func (o SGD) check() error {
	for _, x := range []float64{o.Momentum, o.WeightDecay, o.ClipNorm} {
		if !(x >= 0) || math.IsInf(x, 0) {
			return fmt.Errorf("momentum %g, weight decay %g, norm %g: want finite numbers, 0 or more", o.Momentum, o.WeightDecay, o.ClipNorm)
		}
	}
	if o.Nesterov && o.Momentum == 0 {
		return errors.New("Nesterov needs a momentum")
	}
	return nil
}

// update adds the next value of every parameter and its momentum.
func (t *tape) update(o SGD, parameters []parameter, rate *value) {
	rate = t.reshape(rate, nil)
	grads := make([]*value, len(parameters))
	for i, p := range parameters {
		if grads[i] = t.gradient(p.value); grads[i] == nil {
			fail("initialiser %q: %w: %w", p.name, ErrUnsupported, ErrUnreached)
		}
	}
	var clip *value
	if o.ClipNorm > 0 {
		clip = t.clipping(o.ClipNorm, grads)
	}
	var momenta []State
	for i, p := range parameters {
		t.scope = "next/" + p.name
		g, w := grads[i], p.value
		if clip != nil {
			g = t.mul(g, clip)
		}
		if o.WeightDecay > 0 && (p.decay || o.DecayAll) {
			g = t.add(g, t.scale(w, o.WeightDecay))
		}
		if o.Momentum > 0 {
			v := t.input(p.name+".momentum", g.dtype, g.dims...)
			next := t.add(t.scale(v, o.Momentum), g)
			momenta = append(momenta, State{Kind: Momentum, Name: p.name, In: v.name, Out: t.output(next), Dims: g.dims})
			if o.Nesterov {
				g = t.add(g, t.scale(next, o.Momentum))
			} else {
				g = next
			}
		}
		next := t.sub(w, t.mul(g, rate))
		t.state = append(t.state, State{Kind: Parameter, Name: p.name, In: w.name, Out: t.output(next), Dims: w.dims})
	}
	t.state = append(t.state, momenta...)
}

// clipping is what the gradients must be multiplied by.
func (t *tape) clipping(most float64, grads []*value) *value {
	t.scope = "clip"
	var sum *value
	for _, g := range grads {
		var all []int64
		for i := range g.dims {
			all = append(all, int64(i))
		}
		square := t.reshape(t.reduce("ReduceSumSquare", g, all, false), nil)
		if elements(g.dims) == 1 {
			one := t.reshape(g, nil)
			square = t.mul(one, one)
		}
		if sum == nil {
			sum = square
		} else {
			sum = t.add(sum, square)
		}
	}
	norm := t.add(t.unary("Sqrt", sum), t.scalar(1e-6))
	return t.binary("Min", t.div(t.scalar(most), norm), t.scalar(1))
}
