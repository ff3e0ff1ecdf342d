package sinkhorn

import (
	"context"
	"math"

	"sela/sinkhorn/internal/kernel"
)

// newtonOptions bounds a solve on lists.
type newtonOptions struct {
	tol       float64   // L1 error of the shares that ends it
	low, high []float64 // [K] bounds on v, or nil
	steps     int       // at most so many steps
}

// listOutcome says how a solve on lists ended.
type listOutcome struct {
	l1       float64 // ‖c − b‖₁ on the lists
	steps    int
	products int  // Hessian-vector products
	bound    bool // some potential lies on a bound that it wants to cross
}

// Constants of the solve on lists.
const (
	starvedRatio = 0.1  // a share below this part of the wanted one calls for scaling steps before Newton's
	maxLift      = 10.0 // nats by which a scaling step moves a potential at most
	maxProducts  = 200  // of one Newton step
)

// solve improves v in place: alternating-scaling steps while a cluster is
// starved, for which Newton's model is useless, then truncated Newton steps
// with conjugate gradients, preconditioned by the Hessian's diagonal (Steihaug
// 1983; Nocedal and Wright, "Numerical Optimization", 2nd ed., section 7.1;
// damping as Levenberg–Marquardt's, section 10.3). Components on a bound are
// held there while the gradient pushes outward (projected Newton).
func (p *listProblem) solve(ctx context.Context, v []float64, o newtonOptions) (listOutcome, error) {
	var out listOutcome
	clamp(v, o.low, o.high)
	val, err := p.evaluate(ctx, v)
	if err != nil {
		return out, err
	}
	n := len(v)
	step, trial, grad := make([]float64, n), make([]float64, n), make([]float64, n)
	free := make([]bool, n)
	cg := newConjugate(n)
	damping, scaled := 1e-3, false
	for ; ; out.steps++ {
		out.l1, out.bound = p.gradient(grad, free, v, val, &o)
		freeL1 := 0.0
		starved := false
		for k, g := range grad {
			if free[k] {
				freeL1 += math.Abs(g)
				starved = starved || val.mass[k] < starvedRatio*p.marginals[k]
			}
		}
		if out.l1 <= o.tol || freeL1 <= o.tol/2 || out.steps >= o.steps {
			return out, nil
		}
		scaling := starved && !scaled
		if scaling {
			p.scalingStep(step, free, val)
		} else {
			used, err := cg.solve(ctx, p, step, grad, val.diagonal, free, damping, min(0.1, math.Sqrt(freeL1))*0.3)
			out.products += used
			if err != nil {
				return out, err
			}
		}
		next, whole, err := p.search(ctx, trial, v, step, val, &o)
		if err != nil {
			return out, err
		}
		if next == nil {
			if scaling {
				scaled = true // on a bound it may not lower F: let Newton try
			} else if damping *= 16; damping > 1e6 {
				return out, nil
			}
			if _, err := p.evaluate(ctx, v); err != nil { // the Hessian's point
				return out, err
			}
			continue
		}
		scaled = false
		if whole {
			damping = max(damping/8, 1e-9)
		} else {
			damping = min(damping*4, 1e3)
		}
		copy(v, trial)
		val = next
	}
}

// gradient fills grad = c − b and tells which components are free to move.
func (p *listProblem) gradient(grad []float64, free []bool, v []float64, val *listValue, o *newtonOptions) (l1 float64, bound bool) {
	for k := range grad {
		grad[k] = val.mass[k] - p.marginals[k]
		l1 += math.Abs(grad[k])
		free[k] = p.marginals[k] > 0 && (o.low == nil || !(v[k] <= o.low[k] && grad[k] > 0 || v[k] >= o.high[k] && grad[k] < 0))
		bound = bound || !free[k]
	}
	return l1, bound
}

// scalingStep is v += log b − log c, a step of alternating scaling.
func (p *listProblem) scalingStep(step []float64, free []bool, val *listValue) {
	for k := range step {
		step[k] = 0
		if free[k] {
			step[k] = max(-maxLift, min(maxLift, kernel.Log(p.marginals[k])-kernel.Log(val.mass[k])))
		}
	}
}

// search tries v + t·step for t = 1, ½, ¼, … and returns the value at the first
// point that lowers F enough, nil if none does. whole tells that it was t = 1.
func (p *listProblem) search(ctx context.Context, trial, v, step []float64, val *listValue, o *newtonOptions) (next *listValue, whole bool, err error) {
	const tries = 12
	for try := range tries {
		t := math.Ldexp(1, -try)
		slope := 0.0
		for k := range v {
			trial[k] = v[k] + float64(t*step[k])
		}
		clamp(trial, o.low, o.high)
		for k := range v {
			slope += float64((val.mass[k] - p.marginals[k]) * (trial[k] - v[k]))
		}
		next, err = p.evaluate(ctx, trial)
		if err != nil {
			return nil, false, err
		}
		// Near the minimum the decrease drowns in rounding: there the gradient
		// decides.
		noise := float64(1e-14 * (1 + math.Abs(val.f) + maxAbs(v))) // F is a difference of terms as large as v
		if next.f <= val.f+float64(1e-4*slope) || next.f <= val.f+noise && l1Error(next.mass, p.marginals) < l1Error(val.mass, p.marginals) {
			return next, try == 0, nil
		}
	}
	return nil, false, nil
}

func l1Error(mass, marginals []float64) (l1 float64) {
	for k := range mass {
		l1 += math.Abs(mass[k] - marginals[k])
	}
	return l1
}

func clamp(v, low, high []float64) {
	if low == nil {
		return
	}
	for k := range v {
		v[k] = min(max(v[k], low[k]), high[k])
	}
}

// conjugate holds the vectors of conjugate gradients.
type conjugate struct{ r, z, d, h []float64 }

func newConjugate(n int) *conjugate {
	return &conjugate{make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n)}
}

// solve sets step to an approximate solution of (∇²F + damping·diag(b))·step =
// −grad over the free components, and returns the products it took.
func (c *conjugate) solve(ctx context.Context, p *listProblem, step, grad, diagonal []float64, free []bool, damping, reduction float64) (products int, err error) {
	precondition := func() (rz float64) {
		for k, r := range c.r {
			c.z[k] = 0
			if free[k] {
				c.z[k] = r / (max(diagonal[k], 1e-6*p.marginals[k]) + float64(damping*p.marginals[k]))
			}
			rz += float64(r * c.z[k])
		}
		return rz
	}
	for k, g := range grad {
		step[k], c.r[k] = 0, 0
		if free[k] {
			c.r[k] = -g
		}
	}
	rz := precondition()
	start := rz
	copy(c.d, c.z)
	for products < maxProducts && rz > reduction*reduction*start && rz > 0 {
		if err := p.product(ctx, c.h, c.d); err != nil {
			return products, err
		}
		products++
		curvature := 0.0
		for k, d := range c.d {
			c.h[k] += float64(damping * p.marginals[k] * d)
			if !free[k] {
				c.h[k] = 0
			}
			curvature += float64(c.h[k] * d)
		}
		if !(curvature > 0) {
			break
		}
		alpha := rz / curvature
		for k := range step {
			step[k] += float64(alpha * c.d[k])
			c.r[k] -= float64(alpha * c.h[k])
		}
		next := precondition()
		beta := next / rz
		rz = next
		for k := range c.d {
			c.d[k] = c.z[k] + float64(beta*c.d[k])
		}
	}
	return products, nil
}
