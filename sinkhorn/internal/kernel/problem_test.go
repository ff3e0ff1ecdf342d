package kernel

import (
	"math"
	"math/rand/v2"
)

// problem is a block's input.
type problem struct {
	lambda  float64
	v       []float64
	margin  []float64
	rows    int
	x       []float32
	sparing bool // ask for sums only
}

// kinds fill a problem's x, v and λ.
var kinds = []struct {
	name string
	fill func(r *rand.Rand, p *problem)
}{
	{"flat", func(r *rand.Rand, p *problem) { p.normal(r, 0.3, 25, 1) }},
	{"flatter", func(r *rand.Rand, p *problem) { p.normal(r, 1e-3, 1, 1e-3) }},
	{"peaked", func(r *rand.Rand, p *problem) { p.normal(r, 3, 25, 30) }},
	{"sharp", func(r *rand.Rand, p *problem) { p.normal(r, 40, 100, 5000) }},
	{"equal", func(r *rand.Rand, p *problem) { p.normal(r, 0, 25, 0) }},
	{"ties", func(r *rand.Rand, p *problem) {
		p.normal(r, 1, 25, 0)
		for i := range p.x {
			p.x[i] = float32(math.Round(float64(p.x[i])))
		}
	}},
	{"cutoff", func(r *rand.Rand, p *problem) { // every distance near −Cutoff or 0
		p.normal(r, 0, 1, 0)
		for i := range p.x {
			p.x[i] = -Cutoff * float32(r.IntN(2))
			switch r.IntN(4) {
			case 0:
				p.x[i] = math.Nextafter32(p.x[i], 1)
			case 1:
				p.x[i] = math.Nextafter32(p.x[i], -100)
			}
		}
	}},
	{"minus infinity", func(r *rand.Rand, p *problem) {
		p.normal(r, 3, 10, 1)
		for i := range p.x {
			if i%len(p.v) != (i*7)/len(p.v)%len(p.v) && r.IntN(3) > 0 {
				p.x[i] = -inf32
			}
		}
	}},
	{"denormal", func(r *rand.Rand, p *problem) {
		p.normal(r, 0, 1, 1e-310)
		for i := range p.x {
			p.x[i] = math.Float32frombits(r.Uint32N(1<<23) | r.Uint32N(2)<<31)
		}
	}},
	{"zeros", func(r *rand.Rand, p *problem) {
		p.normal(r, 0, 10, 0)
		for i := range p.x {
			p.x[i] = math.Float32frombits(r.Uint32N(2) << 31)
		}
		for k := range p.v {
			p.v[k] = math.Copysign(0, float64(r.IntN(2))-0.5)
		}
	}},
	{"large x", func(r *rand.Rand, p *problem) { p.normal(r, 1e37, 25, 1) }},
	{"mixed sizes", func(r *rand.Rand, p *problem) {
		p.normal(r, 1, 25, 1)
		for i := range p.x {
			p.x[i] *= float32(math.Pow(10, float64(r.IntN(50)-25)))
		}
	}},
	{"large v", func(r *rand.Rand, p *problem) { p.normal(r, 1, 25, 1e5) }},
	{"v that cancels", func(r *rand.Rand, p *problem) { // scores far smaller than λx and v
		p.normal(r, 1, 25, 1e6)
		for i := range p.x {
			p.x[i] -= float32(p.v[i%len(p.v)] / p.lambda)
		}
	}},
	{"huge v", func(r *rand.Rand, p *problem) { p.normal(r, 1, 25, 1e300) }},
	{"v of minus infinity", func(r *rand.Rand, p *problem) { p.normal(r, 1, 25, 1); p.v[r.IntN(len(p.v))] = math.Inf(-1) }},
	{"tiny λ", func(r *rand.Rand, p *problem) { p.normal(r, 1, 1e-30, 1) }},
	{"huge λ", func(r *rand.Rand, p *problem) { p.normal(r, 1, 1e300, 1) }},
	{"λ that overflows", func(r *rand.Rand, p *problem) { p.normal(r, 1e10, 1e300, 1) }},
}

// normal fills p with normal numbers of the given spreads.
func (p *problem) normal(r *rand.Rand, x, lambda, v float64) {
	p.lambda = lambda
	for i := range p.x {
		p.x[i] = float32(x * r.NormFloat64())
	}
	for k := range p.v {
		p.v[k] = v * r.NormFloat64()
	}
}

// newProblem returns a problem of a kind with margins of every size.
func newProblem(r *rand.Rand, kind, rows, clusters int) *problem {
	p := &problem{v: make([]float64, clusters), margin: make([]float64, clusters), rows: rows, x: make([]float32, rows*clusters)}
	kinds[kind].fill(r, p)
	for k := range p.margin {
		p.margin[k] = []float64{1, 20, Cutoff, 300}[r.IntN(4)] * r.Float64()
	}
	return p
}

func lengths() []int {
	var n []int
	for k := 1; k <= 70; k++ {
		n = append(n, k)
	}
	return append(n, 127, 128, 129, 191, 192, 193, 300, 1000, 3000, 3001)
}
