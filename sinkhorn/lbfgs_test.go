package sinkhorn

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func ones(n int) []float64 {
	x := make([]float64, n)
	for k := range x {
		x[k] = 1
	}
	return x
}

// descent runs l on f until |∇f| ≤ tol or evaluations are spent, and returns
// what was told.
func descent(l *lbfgs, f func(x []float64) (float64, []float64), tol float64, evaluations int) (told []journal, done bool) {
	for range evaluations {
		value, g := f(l.next())
		told = append(told, journal{value, g})
		if maxAbs(g) <= tol {
			return told, true
		}
		if !l.tell(value, g) {
			return told, false
		}
	}
	return told, false
}

// quadratic returns ½(x−a)ᵀQ(x−a) with random axes and eigenvalues from 1 to
// condition.
func quadratic(r *rand.Rand, n int, condition float64) func(x []float64) (float64, []float64) {
	a := normals(r, n, 10)
	var axes [][]float64
	for len(axes) < n { // Gram–Schmidt
		u := normals(r, n, 1)
		for _, w := range axes {
			axpy(u, -dot(u, w), w)
		}
		length := math.Sqrt(dot(u, u))
		for k := range u {
			u[k] /= length
		}
		axes = append(axes, u)
	}
	return func(x []float64) (f float64, g []float64) {
		d := slices.Clone(x)
		axpy(d, -1, a)
		g = make([]float64, n)
		for i, u := range axes {
			e := math.Pow(condition, float64(i)/float64(max(n-1, 1)))
			f += 0.5 * e * dot(u, d) * dot(u, d)
			axpy(g, e*dot(u, d), u)
		}
		return f, g
	}
}

func TestLBFGSOnQuadratics(t *testing.T) {
	for _, n := range []int{1, 2, 5, 19, 60} {
		for _, condition := range []float64{1, 100, 3000} {
			r := rand.New(rand.NewPCG(uint64(n), 1))
			f := quadratic(r, n, condition)
			told, done := descent(newLBFGS(normals(r, n, 100), ones(n), lbfgsMemory), f, 1e-6, 1500)
			t.Logf("%d dimensions, condition %g: %d evaluations", n, condition, len(told))
			if !done {
				t.Errorf("%d dimensions, condition %g: gradient %g after %d evaluations", n, condition, maxAbs(told[len(told)-1].Mass), len(told))
			}
		}
	}
}

// TestLineSearch minimises convex functions of one variable on which searches
// get stuck: kinks, flat tails, slopes of every size.
func TestLineSearch(t *testing.T) {
	sigmoid := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	softplus := func(x float64) float64 { return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }
	for _, c := range []struct {
		name string
		f    func(x float64) (f, slope float64)
		tol  float64
	}{
		{"kink", func(x float64) (float64, float64) { h := math.Hypot(x, 1e-4); return h, x / h }, 1e-3},
		{"steep kink", func(x float64) (float64, float64) { h := math.Hypot(x, 1e-3); return 1e6 * h, 1e6 * x / h }, 1},
		{"quartic", func(x float64) (float64, float64) { return math.Pow(x-3, 4), 4 * math.Pow(x-3, 3) }, 1e-6},
		{"flat tails", func(x float64) (float64, float64) { return softplus(x) - 1e-6*x, sigmoid(x) - 1e-6 }, 1e-8},
		{"lopsided", func(x float64) (float64, float64) { return softplus(50*x) - x, 50*sigmoid(50*x) - 1 }, 1e-6},
		{"exponential", func(x float64) (float64, float64) { x = min(x, 700); return math.Exp(x) - 1e3*x, math.Exp(x) - 1e3 }, 1e-3},
		{"huber", func(x float64) (float64, float64) {
			if d := x - 1e4; math.Abs(d) > 1 {
				return math.Abs(d) - 0.5, math.Copysign(1, d)
			}
			return 0.5 * (x - 1e4) * (x - 1e4), x - 1e4
		}, 1e-6},
		{"offset", func(x float64) (float64, float64) { return 1e8 + 0.5*x*x, x }, 1e-3}, // F drowns in rounding
	} {
		for _, start := range []float64{-500, -1, 0.3, 40, 200} {
			l := newLBFGS([]float64{start}, ones(1), lbfgsMemory)
			told, done := descent(l, func(x []float64) (float64, []float64) {
				f, slope := c.f(x[0])
				return f, []float64{slope}
			}, c.tol, 300)
			if !done {
				t.Errorf("%s from %v: slope %g at %v after %d evaluations", c.name, start, told[len(told)-1].Mass[0], l.x[0], len(told))
			}
		}
	}
}

// TestWolfe checks every accepted point of a descent for the strong Wolfe
// conditions.
func TestWolfe(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	f := quadratic(r, 30, 1e4)
	l := newLBFGS(normals(r, 30, 50), ones(30), 5)
	steps := 0
	for range 200 {
		x, fx, g, d, slope := slices.Clone(l.x), l.f, l.g, l.d, l.slope
		value, gradient := f(l.next())
		if maxAbs(gradient) < 1e-6 {
			break
		}
		if !l.tell(value, gradient) {
			t.Fatal("gave up")
		}
		if g == nil || slices.Equal(x, l.x) {
			continue
		}
		steps++
		along := 0.0 // the step taken
		for k := range x {
			if d[k] != 0 {
				along = max(along, (l.x[k]-x[k])/d[k])
			}
		}
		if l.f > fx+wolfeDecrease*along*slope*(1-1e-9) || math.Abs(dot(l.g, d)) > -wolfeCurvature*slope*(1+1e-9) {
			t.Errorf("step %d of %g: F from %v to %v, slope from %v to %v", steps, along, fx, l.f, slope, dot(l.g, d))
		}
	}
	if steps < 10 {
		t.Errorf("%d steps", steps)
	}
}

// TestLBFGSAtMinimum tells a gradient of zero, and a function that falls for
// ever.
func TestLBFGSAtMinimum(t *testing.T) {
	if newLBFGS([]float64{1, 2}, ones(2), 5).tell(7, []float64{0, 0}) {
		t.Error("there is a step from the minimum")
	}
	l := newLBFGS([]float64{0}, ones(1), 5)
	for range 100 {
		if !l.tell(-l.next()[0], []float64{-1}) {
			return
		}
	}
	if x := l.next()[0]; !(x > 1e6) || math.IsInf(x, 0) {
		t.Errorf("after 100 steps down a slope: %v", x)
	}
}

// TestReplay feeds what was told to a fresh minimiser: it asks for the same
// points, bit for bit.
func TestReplay(t *testing.T) {
	for seed := range uint64(5) {
		r := rand.New(rand.NewPCG(seed, 9))
		f, x0 := quadratic(r, 20, 1e4), normals(r, 20, 30)
		first := newLBFGS(x0, ones(20), 7)
		var points [][]float64
		told, _ := descent(first, func(x []float64) (float64, []float64) {
			points = append(points, slices.Clone(x))
			return f(x)
		}, 1e-9, 120)
		again := newLBFGS(x0, ones(20), 7)
		for i, j := range told {
			if fmt.Sprint(again.next()) != fmt.Sprint(points[i]) {
				t.Fatalf("point %d differs", i)
			}
			again.tell(j.F, j.Mass)
		}
	}
}
