package sinkhorn

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// family returns rows of one of the families on which methods are compared:
// "A" independent normal logits; "B" logits of rank 32 with a column bias of
// 1.5; "C" Zipf(0.7) distributed true classes, whose logits are raised; std is
// the logits' standard deviation.
func family(name string, seed uint64, rows, clusters int, std float64) *memory {
	r := rand.New(rand.NewPCG(seed, 99))
	const rank = 32
	bias, w := make([]float64, clusters), make([]float32, clusters*rank)
	cumulative := make([]float64, clusters)
	total := 0.0
	for k := range bias {
		bias[k] = 1.5 * r.NormFloat64()
		total += math.Pow(float64(k+1), -0.7)
		cumulative[k] = total
	}
	for i := range w {
		w[i] = float32(r.NormFloat64() * std / math.Sqrt(rank))
	}
	perm := r.Perm(clusters)
	m := &memory{x: make([]float32, rows*clusters), clusters: clusters}
	z := make([]float32, rank)
	logits := make([]float64, clusters)
	for i := range rows {
		switch name {
		case "A":
			for k := range logits {
				logits[k] = std * r.NormFloat64()
			}
		case "B":
			for j := range z {
				z[j] = float32(r.NormFloat64())
			}
			for k := range logits {
				sum := float32(0)
				for j, zj := range z {
					sum += zj * w[k*rank+j]
				}
				logits[k] = float64(sum) + bias[k]
			}
		case "C":
			u, class := r.Float64()*total, 0
			for cumulative[class] < u {
				class++
			}
			for k := range logits {
				logits[k] = std * r.NormFloat64()
			}
			logits[perm[class]] += 3 * std
		}
		top, sum := math.Inf(-1), 0.0
		for _, l := range logits {
			top = max(top, l)
		}
		for _, l := range logits {
			sum += math.Exp(l - top)
		}
		for k, l := range logits {
			m.x[i*clusters+k] = float32(l - top - math.Log(sum))
		}
	}
	return m
}

// split returns the two parts of a sample of m with about the given number of
// rows each.
func split(m *memory, rows int) *Sample {
	r := rand.New(rand.NewPCG(5, 5))
	parts := [2]*memory{{clusters: m.clusters}, {clusters: m.clusters}}
	for i := range m.len() {
		if u := r.IntN(m.len()); u < 2*rows {
			p := parts[u%2]
			p.rows = append(p.rows, int64(i))
			p.x = append(p.x, m.x[i*m.clusters:(i+1)*m.clusters]...)
		}
	}
	return &Sample{parts[0], parts[1]}
}

// TestPasses counts full passes to an L1 error of 1e-6: where rows are peaked
// at most 3 from a sample and 2 from the potentials that were found before,
// where they are flat at most 20.
func TestPasses(t *testing.T) {
	for _, c := range []struct {
		name           string
		rows, clusters int
		std, lambda    float64
		way            phase
		cold           int // passes allowed without a sample
	}{
		{"A", 20000, 300, 3, 25, phaseLists, 3},
		{"B", 30000, 300, 3, 25, phaseLists, 16},
		{"C", 30000, 300, 3, 25, phaseLists, 16},
		{"B", 20000, 300, 0.3, 25, phaseLBFGS, 24},
		{"B", 20000, 300, 3, 5, phaseLBFGS, 24},
		{"C", 12000, 128, 3, 25, phaseLists, 16},
		{"A", 12000, 10, 3, 25, phaseLBFGS, 24},
	} {
		t.Run(fmt.Sprintf("%s/%dx%d/std%v/lambda%v", c.name, c.rows, c.clusters, c.std, c.lambda), func(t *testing.T) {
			if raceEnabled && c.clusters == 300 {
				t.Skip("too slow under the race detector; runs without it")
			}
			m := family(c.name, 1, c.rows, c.clusters, c.std)
			o := Options{Lambda: c.lambda, Sample: split(m, 20*c.clusters), Workers: 2}
			check := func(name string, o Options, allowed int) *Result {
				res := solve(t, m, o)
				verify(t, m, o, res)
				p := res.Certificate
				t.Logf("%s: %d passes by %s, %s, %d over the sample, %d Newton steps, L1 %.2g, dropped at most %.2g", name, p.Passes, p.Way, p.Proof, p.SamplePasses, p.ListSteps, p.MarginalL1, p.DroppedBound)
				if res.Status != Converged || res.Passes > allowed {
					t.Errorf("%s: %v after %d passes, want at most %d", name, res.Status, res.Passes, allowed)
				}
				return res
			}
			allowed := 3
			if c.way == phaseLBFGS {
				allowed = 20
			}
			res := check("from a sample", o, allowed)
			if way := res.Certificate.Way; (way == phaseLists) != (c.way == phaseLists) {
				t.Errorf("solved by %s, want %s", way, c.way)
			}
			check("again", Options{Lambda: c.lambda, Start: res.V, Workers: 2}, 2)
			check("cold", Options{Lambda: c.lambda, Workers: 2}, c.cold)
			m = noisy(m, 0.3)
			o.Start, o.Sample = res.V, split(m, 20*c.clusters)
			check("the next round", o, allowed)
		})
	}
}

// noisy returns m after a training round: logits moved by noise.
func noisy(m *memory, std float64) *memory {
	r := rand.New(rand.NewPCG(6, 6))
	out := &memory{x: make([]float32, len(m.x)), clusters: m.clusters}
	for i := 0; i < len(m.x); i += m.clusters {
		row, sum := out.x[i:i+m.clusters], 0.0
		for k := range row {
			row[k] = m.x[i+k] + float32(std*r.NormFloat64())
			sum += math.Exp(float64(row[k]))
		}
		for k := range row {
			row[k] -= float32(math.Log(sum))
		}
	}
	return out
}

// TestMethodsAgree solves the same problems by lists, L-BFGS and scaling, from
// nothing, a sample and starts good and bad: the same potentials up to a constant,
// and the same labels except of rows whose best two scores are as close.
func TestMethodsAgree(t *testing.T) {
	families := []struct {
		name string
		std  float64
	}{{"A", 3}, {"B", 3}, {"C", 3}, {"B", 0.3}}
	kinds := []string{"uniform", "power law", "one large"}
	n := 0
	for _, clusters := range []int{2, 3, 10, 128, 300} {
		for _, lambda := range []float64{1, 5, 10, 25, 50} {
			for _, f := range families {
				n++
				kind := kinds[n%3]
				rows := max(1500, 24*clusters)
				switch { // a part of the large ones, which together see every λ, family and kind
				case clusters == 128 && n%3 != int(lambda)%3, clusters == 300 && n%7 != 0, clusters >= 128 && (raceEnabled || testing.Short()), raceEnabled && n%3 != 0:
					continue
				}
				t.Run(fmt.Sprintf("%s/std%v/K%d/lambda%v/%s", f.name, f.std, clusters, lambda, kind), func(t *testing.T) {
					m := family(f.name, uint64(n), rows, clusters, f.std)
					agree(t, m, Options{Lambda: lambda, Tol: 1e-8, Workers: 2, Marginals: shares(rand.New(rand.NewPCG(uint64(n), 4)), kind, clusters)})
				})
			}
		}
	}
}

func agree(t *testing.T, m *memory, o Options) {
	oracle := o
	oracle.Method = MethodLBFGS
	want := solve(t, m, oracle)
	labels := verify(t, m, oracle, want).labels
	if want.Status != Converged {
		t.Fatalf("L-BFGS: %v by %s after %d passes", want.Status, want.Certificate.Way, want.Passes)
	}
	scaling := o
	scaling.Method, scaling.Tol, scaling.MaxIterations = MethodSinkhorn, 1e-5, 1200
	if raceEnabled || m.clusters >= 128 {
		scaling.MaxIterations = 300
	}
	near, reversed, huge := make([]float64, m.clusters), make([]float64, m.clusters), make([]float64, m.clusters)
	for k, v := range want.V {
		near[k], reversed[k], huge[k] = v+0.5*float64(k%3), -3*v, 1e4*float64(k%7)
	}
	starts := map[string]func(*Options){
		"lists":               func(o *Options) {},
		"lists, sample":       func(o *Options) { o.Sample = split(m, 5*m.clusters) },
		"lists, near":         func(o *Options) { o.Start = near },
		"lists, reversed":     func(o *Options) { o.Start = reversed },
		"lists, huge":         func(o *Options) { o.Start = huge },
		"lists, huge, sample": func(o *Options) { o.Start, o.Sample = huge, split(m, 8*m.clusters) },
		"lbfgs, reversed":     func(o *Options) { o.Method, o.Start = MethodLBFGS, reversed },
		"sinkhorn":            func(o *Options) { *o = scaling },
	}
	passes := make(map[string]int)
	for name, change := range starts {
		at := o
		change(&at)
		res := solve(t, m, at)
		passes[name] = res.Passes
		got := verify(t, m, at, res).labels
		if res.Status != Converged {
			if at.Method != MethodSinkhorn {
				t.Errorf("%s: %v by %s after %d passes, L1 %g", name, res.Status, res.Certificate.Way, res.Passes, res.Certificate.MarginalL1)
			}
			continue
		}
		d := distance(res.V, want.V)
		if d > 1e-4 {
			t.Errorf("%s: potentials differ by %g", name, d)
		}
		for i, label := range got {
			if label == labels[i] {
				continue
			}
			x := m.x[i*m.clusters:]
			if gap := o.Lambda*float64(x[labels[i]]-x[label]) + want.V[labels[i]] - want.V[label]; gap > 4*d+1e-9 {
				t.Errorf("%s: row %d has label %d, want %d, which is %g nats better", name, i, label, labels[i], gap)
			}
		}
	}
	t.Logf("lbfgs %d passes, %v", want.Passes, passes)
}
