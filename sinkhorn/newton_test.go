package sinkhorn

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// wholeLists lists every entry of m.
func wholeLists(t testing.TB, m *memory, lambda float64) *Lists {
	margin := make([]float64, m.clusters)
	for k := range margin {
		margin[k] = 1e6
	}
	lists, _ := makeLists(t, m, lambda, make([]float64, m.clusters), margin, 1<<30, nil)
	return lists
}

// TestNewton solves on lists of all entries from starts near and far: the
// shares are those asked for, on the dense matrix too.
func TestNewton(t *testing.T) {
	ctx := context.Background()
	for i, c := range []struct {
		family         string
		rows, clusters int
		std, lambda    float64
		kind           string
	}{
		{"A", 2000, 2, 3, 25, "uniform"}, {"B", 3000, 40, 3, 25, "uniform"}, {"C", 3000, 40, 3, 25, "power law"},
		{"B", 2000, 30, 0.3, 25, "one large"}, {"A", 1500, 12, 3, 1, "power law"}, {"C", 2000, 60, 3, 10, "uniform"},
	} {
		m := family(c.family, uint64(i), c.rows, c.clusters, c.std)
		b := shares(rand.New(rand.NewPCG(uint64(i), 1)), c.kind, c.clusters)
		p := newListProblem(wholeLists(t, m, c.lambda), b, c.lambda, 2)
		r := rand.New(rand.NewPCG(uint64(i), 2))
		var first []float64
		for start, scale := range []float64{0, 3, 60} {
			if raceEnabled && start > 0 && i > 1 {
				continue // too slow under the race detector; runs without it
			}
			v := normals(r, c.clusters, scale)
			out, err := p.solve(ctx, v, newtonOptions{tol: 1e-9, steps: 300})
			if err != nil {
				t.Fatal(err)
			}
			want := evaluateDense(m, c.lambda, b, v)
			t.Logf("problem %d, start %d: %d steps, %d products, L1 %.2g", i, start, out.steps, out.products, out.l1)
			if out.l1 > 1e-9 || math.Abs(out.l1-want.l1) > 1e-12 || out.bound {
				t.Errorf("problem %d, start %d: L1 %g after %d steps, densely %g", i, start, out.l1, out.steps, want.l1)
			}
			if first == nil {
				first = slices.Clone(v)
			}
			if d := distance(v, first); d > 1e-3 {
				t.Errorf("problem %d, start %d: potentials differ by %g", i, start, d)
			}
		}
	}
}

// TestNewtonInBox keeps potentials in boxes that hold the solution and that
// don't: F never rises, and at the end what would still lower it lies outside.
func TestNewtonInBox(t *testing.T) {
	ctx := context.Background()
	m := family("B", 7, 4000, 50, 3)
	b := evenShares(50)
	p := newListProblem(wholeLists(t, m, 25), b, 25, 2)
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 3))
		low, high := make([]float64, 50), make([]float64, 50)
		for k := range low {
			low[k], high[k] = -20*r.Float64(), 20*r.Float64()
		}
		v := normals(r, 50, 30)
		start := slices.Clone(v)
		clamp(start, low, high)
		before, err := p.evaluate(ctx, start)
		if err != nil {
			t.Fatal(err)
		}
		f := before.f
		for steps := 1; steps <= 64; steps *= 4 {
			out, err := p.solve(ctx, v, newtonOptions{tol: 1e-10, low: low, high: high, steps: steps})
			if err != nil {
				t.Fatal(err)
			}
			if out.steps > steps {
				t.Errorf("%d steps of %d", out.steps, steps)
			}
			val, err := p.evaluate(ctx, v)
			if err != nil {
				t.Fatal(err)
			}
			if val.f > f+1e-12*math.Abs(f) {
				t.Errorf("F rose from %v to %v", f, val.f)
			}
			f = val.f
			inside, bound := 0.0, false
			for k := range v {
				g := val.mass[k] - b[k]
				if v[k] < low[k] || v[k] > high[k] {
					t.Fatalf("potential %d is %v, want in [%v, %v]", k, v[k], low[k], high[k])
				}
				if v[k] == low[k] && g > 0 || v[k] == high[k] && g < 0 {
					bound = true
				} else {
					inside += math.Abs(g)
				}
			}
			if steps == 64 && inside > 1e-10 {
				t.Errorf("seed %d: %g of the gradient points into the box", seed, inside)
			}
			if steps == 64 && out.bound != bound {
				t.Errorf("seed %d: bound %v, want %v", seed, out.bound, bound)
			}
		}
	}
}

// TestNewtonStarved starts where clusters get nothing at all, their masses
// down to exactly 0 on the lists.
func TestNewtonStarved(t *testing.T) {
	ctx := context.Background()
	m := family("C", 8, 3000, 40, 3)
	b := evenShares(40)
	p := newListProblem(wholeLists(t, m, 25), b, 25, 2)
	v := make([]float64, 40)
	for k := range 13 {
		v[3*k] = -150 * float64(k)
	}
	out, err := p.solve(ctx, v, newtonOptions{tol: 1e-9, steps: 400})
	t.Logf("%+v", out)
	if err != nil || out.l1 > 1e-9 {
		t.Errorf("%+v, %v", out, err)
	}
}

// TestNewtonWithoutCluster solves for shares of which some are 0: those
// potentials stay.
func TestNewtonWithoutCluster(t *testing.T) {
	m := lower(family("B", 9, 3000, 20, 3), float32(math.Inf(-1)), 4, 11)
	b := make([]float64, 20)
	for k := range b {
		if k != 4 && k != 11 {
			b[k] = 1.0 / 18
		}
	}
	p := newListProblem(wholeLists(t, m, 25), b, 25, 2)
	v := make([]float64, 20)
	v[11] = 5
	out, err := p.solve(context.Background(), v, newtonOptions{tol: 1e-9, steps: 100})
	if err != nil || out.l1 > 1e-9 || v[4] != 0 || v[11] != 5 {
		t.Errorf("%+v, %v: %v", out, err, v)
	}
}

// TestConjugateGradients checks the residual of the damped Newton equation
// over the free components, with products by differences of the gradient.
func TestConjugateGradients(t *testing.T) {
	ctx := context.Background()
	m := family("B", 10, 3000, 30, 3)
	b := shares(rand.New(rand.NewPCG(1, 1)), "power law", 30)
	p := newListProblem(wholeLists(t, m, 5), b, 5, 2)
	v := normals(rand.New(rand.NewPCG(2, 2)), 30, 3)
	val, err := p.evaluate(ctx, v)
	if err != nil {
		t.Fatal(err)
	}
	grad, free, step := make([]float64, 30), make([]bool, 30), make([]float64, 30)
	for k := range grad {
		grad[k], free[k] = val.mass[k]-b[k], k%4 != 0
	}
	const damping = 0.01
	products, err := newConjugate(30).solve(ctx, p, step, grad, val.diagonal, free, damping, 1e-8)
	if err != nil || products >= maxProducts {
		t.Fatal(products, err)
	}
	const h = 1e-5
	up, down := slices.Clone(v), slices.Clone(v)
	axpy(up, h, step)
	axpy(down, -h, step)
	plus, minus := evaluateDense(m, 5, b, up), evaluateDense(m, 5, b, down)
	for k := range step {
		if !free[k] {
			if step[k] != 0 {
				t.Errorf("component %d is held and moves by %g", k, step[k])
			}
			continue
		}
		if left := (plus.mass[k]-minus.mass[k])/(2*h) + damping*b[k]*step[k] + grad[k]; math.Abs(left) > 1e-6 {
			t.Errorf("residual %d is %g, gradient %g", k, left, grad[k])
		}
	}
}
