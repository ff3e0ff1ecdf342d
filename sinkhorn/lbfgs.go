package sinkhorn

import "math"

// lbfgs minimises a smooth convex function by limited-memory BFGS (Nocedal and
// Wright, "Numerical Optimization", 2nd ed., algorithms 7.4 and 7.5, initial
// Hessian (7.20) times a diagonal) with a line search for the strong Wolfe conditions
// (algorithms 3.5 and 3.6). It is driven from outside: next gives the point to
// evaluate, tell takes what was found there.
type lbfgs struct {
	memory  int
	inverse []float64 // of the Hessian's diagonal, as guessed, up to a factor
	x, g    []float64 // the iterate and its gradient
	f       float64
	s, y    [][]float64 // the last steps and gradient changes, oldest first

	// The line search along d.
	d         []float64
	slope     float64 // gᵀd
	t         float64 // step to be evaluated
	low, high lineBound
	bracketed bool
	tries     int
	trial     []float64
	started   bool
	best      lineBound // lowest point of this search that decreases F enough
}

// lineBound is a point of a line search.
type lineBound struct {
	t, f, slope float64
	g           []float64
}

// Constants of the Wolfe conditions, as Nocedal and Wright advise for
// quasi-Newton methods, and of the search.
const (
	wolfeDecrease  = 1e-4
	wolfeCurvature = 0.9
	maxLineTries   = 20
)

// newLBFGS starts at x. diagonal is, up to a factor, what the Hessian's diagonal
// is thought to be; a component where it is 0 does not move.
func newLBFGS(x, diagonal []float64, memory int) *lbfgs {
	inverse := make([]float64, len(x))
	for k, h := range diagonal {
		if h > 0 {
			inverse[k] = 1 / h
		}
	}
	return &lbfgs{memory: memory, inverse: inverse, x: append([]float64(nil), x...), trial: append([]float64(nil), x...)}
}

// next returns the point to evaluate. It belongs to l.
func (l *lbfgs) next() []float64 { return l.trial }

// tell takes F and its gradient at next, and moves on. It returns false when
// no step lowers F any more.
func (l *lbfgs) tell(f float64, g []float64) bool {
	g = append([]float64(nil), g...)
	if !l.started {
		l.started, l.f, l.g = true, f, g
		return l.direction()
	}
	return l.searchTell(lineBound{l.t, f, dot(g, l.d), g})
}

// accept makes the point p of the search the iterate.
func (l *lbfgs) accept(p lineBound) bool {
	s, y := make([]float64, len(l.x)), make([]float64, len(l.x))
	for k := range s {
		s[k] = float64(p.t * l.d[k])
		y[k] = p.g[k] - l.g[k]
		l.x[k] += s[k]
	}
	l.f, l.g = p.f, p.g
	if sy := dot(s, y); sy > 1e-14*math.Sqrt(dot(s, s)*dot(y, y)) {
		if len(l.s) == l.memory {
			l.s, l.y = l.s[1:], l.y[1:]
		}
		l.s, l.y = append(l.s, s), append(l.y, y)
	}
	return l.direction()
}

// direction starts a search along −H·g.
func (l *lbfgs) direction() bool {
	n := len(l.s)
	d := append([]float64(nil), l.g...)
	alpha := make([]float64, n)
	for i := n - 1; i >= 0; i-- {
		alpha[i] = dot(l.s[i], d) / dot(l.s[i], l.y[i])
		axpy(d, -alpha[i], l.y[i])
	}
	for k := range d {
		d[k] = float64(d[k] * l.inverse[k])
	}
	scale := 0.0
	if n > 0 {
		y, weighted := l.y[n-1], 0.0
		for k := range y {
			weighted += float64(float64(y[k]*y[k]) * l.inverse[k])
		}
		scale = dot(l.s[n-1], y) / weighted
	} else if norm := maxAbs(d); norm > 0 {
		scale = 1 / norm // a first step of one nat
	}
	for k := range d {
		d[k] = float64(d[k] * scale)
	}
	for i := range n {
		axpy(d, alpha[i]-dot(l.y[i], d)/dot(l.s[i], l.y[i]), l.s[i])
	}
	for k := range d {
		d[k] = -d[k]
	}
	l.d, l.slope = d, dot(d, l.g)
	if !(l.slope < 0) {
		if n == 0 {
			return false
		}
		l.s, l.y = nil, nil // not a descent direction: begin again
		return l.direction()
	}
	l.low = lineBound{0, l.f, l.slope, l.g}
	l.best = lineBound{}
	l.bracketed, l.tries = false, 0
	return l.try(1)
}

// try sets the step to evaluate.
func (l *lbfgs) try(t float64) bool {
	l.t = t
	for k := range l.trial {
		l.trial[k] = l.x[k] + float64(t*l.d[k])
	}
	return true
}

// searchTell continues the line search with the point p.
func (l *lbfgs) searchTell(p lineBound) bool {
	l.tries++
	// Near the minimum the decrease drowns in the rounding of F; there the
	// slope alone decides (Hager and Zhang 2005, the approximate condition).
	noise := float64(1e-13 * (math.Abs(l.f) + maxAbs(l.x))) // F is a difference of terms as large as x
	decreased := p.f <= l.f+float64(wolfeDecrease*p.t*l.slope) || p.f <= l.f+noise && math.Abs(p.slope) <= wolfeCurvature*-l.slope
	if decreased && math.Abs(p.slope) <= wolfeCurvature*-l.slope {
		return l.accept(p)
	}
	if decreased && (l.best.g == nil || p.f < l.best.f) {
		l.best = p
	}
	if l.tries >= maxLineTries {
		if l.best.g != nil {
			return l.accept(l.best)
		}
		if len(l.s) == 0 {
			return false
		}
		l.s, l.y = nil, nil
		return l.direction()
	}
	// F is convex along d: where it has not decreased enough, or rises, the
	// minimum lies before p; where it still falls, behind.
	if !decreased || p.slope >= 0 {
		l.high, l.bracketed = p, true
	} else {
		l.low = p
	}
	if !l.bracketed {
		return l.try(4 * p.t)
	}
	return l.try(interpolate(l.low, l.high))
}

// interpolate returns a step between two points, a before b: the minimum of the cubic
// through their values and slopes (Nocedal and Wright (3.59)), kept away from
// both ends.
func interpolate(a, b lineBound) float64 {
	d1 := a.slope + b.slope - 3*(a.f-b.f)/(a.t-b.t)
	d2 := math.Sqrt(max(0, float64(d1*d1)-float64(a.slope*b.slope))) // a.t < b.t
	t := b.t - (b.t-a.t)*(b.slope+d2-d1)/(b.slope-a.slope+2*d2)
	inner := float64(0.1 * (b.t - a.t))
	if !(t > a.t+inner) {
		return a.t + inner
	}
	return min(t, b.t-inner)
}

func dot(a, b []float64) (sum float64) {
	for k, x := range a {
		sum += float64(x * b[k])
	}
	return sum
}

// axpy adds a·x to y.
func axpy(y []float64, a float64, x []float64) {
	for k := range y {
		y[k] += float64(a * x[k])
	}
}

func maxAbs(x []float64) (m float64) {
	for _, v := range x {
		m = max(m, math.Abs(v))
	}
	return m
}
