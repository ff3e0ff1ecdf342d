package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

var (
	inf32 = float32(math.Inf(1))
	nan32 = float32(math.NaN())
)

// use makes tw the implementation in use for the rest of a test.
func use(t testing.TB, tw twin) {
	before := active
	active = tw
	t.Cleanup(func() { active = before })
}

// outcome is everything BlockLists wrote.
type outcome struct {
	bad           int
	rows          Rows
	mass, dropped []float64
	end, cluster  []int32
	x             []float32
}

// solve evaluates p with the implementation in use. A list that had entries
// must keep them.
func (p *problem) solve() outcome {
	clusters := len(p.v)
	o := outcome{
		rows: Rows{Max: make([]float64, p.rows), Sum: make([]float64, p.rows)},
		mass: make([]float64, clusters), dropped: make([]float64, clusters),
	}
	params, scratch := NewParams(p.lambda, p.v), NewScratch(clusters)
	if p.sparing {
		o.bad = params.Block(scratch, &o.rows, o.mass, p.x)
		return o
	}
	o.rows.Best, o.rows.Second = make([]int32, p.rows), make([]float64, p.rows)
	o.rows.Low, o.rows.High = make([]float32, p.rows), make([]float32, p.rows)
	l := List{Margin: p.margin, Dropped: o.dropped, End: []int32{1}, Cluster: []int32{7}, X: []float32{-7}}
	o.bad = params.BlockLists(scratch, &o.rows, o.mass, p.x, &l)
	o.end, o.cluster, o.x = l.End, l.Cluster, l.X
	return o
}

// done is the number of rows that have sums.
func (o *outcome) done() int {
	if o.bad >= 0 {
		return o.bad
	}
	return len(o.rows.Max)
}

func sameBits[F float32 | float64](a, b []F) bool {
	return slices.EqualFunc(a, b, func(x, y F) bool {
		return math.Float64bits(float64(x)) == math.Float64bits(float64(y)) || x != x && y != y
	})
}

// differs names the first difference between the rows that have sums, or is
// empty.
func (o *outcome) differs(p *outcome) string {
	n := o.done()
	cut := func(s []float64) []float64 { return s[:min(n, len(s))] }
	cut32 := func(s []float32) []float32 { return s[:min(n, len(s))] }
	cutInt := func(s []int32) []int32 { return s[:min(n, len(s))] }
	switch {
	case o.bad != p.bad:
		return fmt.Sprintf("bad row %d, %d", o.bad, p.bad)
	case !sameBits(cut(o.rows.Max), cut(p.rows.Max)):
		return fmt.Sprintf("max %v, %v", o.rows.Max, p.rows.Max)
	case !sameBits(cut(o.rows.Sum), cut(p.rows.Sum)):
		return fmt.Sprintf("sum %v, %v", o.rows.Sum, p.rows.Sum)
	case o.bad >= 0 && (o.rows.Sum[n] == o.rows.Sum[n] || p.rows.Sum[n] == p.rows.Sum[n]):
		return fmt.Sprintf("bad row's sum %v, %v", o.rows.Sum[n], p.rows.Sum[n])
	case !slices.Equal(cutInt(o.rows.Best), cutInt(p.rows.Best)):
		return fmt.Sprintf("best %v, %v", o.rows.Best, p.rows.Best)
	case !sameBits(cut(o.rows.Second), cut(p.rows.Second)):
		return fmt.Sprintf("second %v, %v", o.rows.Second, p.rows.Second)
	case !sameBits(cut32(o.rows.Low), cut32(p.rows.Low)) || !sameBits(cut32(o.rows.High), cut32(p.rows.High)):
		return fmt.Sprintf("range %v %v, %v %v", o.rows.Low, o.rows.High, p.rows.Low, p.rows.High)
	case !sameBits(o.mass, p.mass):
		return fmt.Sprintf("mass %v, %v", o.mass, p.mass)
	case !sameBits(o.dropped, p.dropped):
		return fmt.Sprintf("dropped %v, %v", o.dropped, p.dropped)
	case !slices.Equal(o.end, p.end) || !slices.Equal(o.cluster, p.cluster) || !sameBits(o.x, p.x):
		return fmt.Sprintf("lists %v %v %v, %v %v %v", o.end, o.cluster, o.x, p.end, p.cluster, p.x)
	}
	return ""
}

// plain evaluates p entry by entry, in the words of the documentation.
func (p *problem) plain() outcome {
	clusters := len(p.v)
	o := outcome{bad: -1, mass: make([]float64, clusters), dropped: make([]float64, clusters)}
	if !p.sparing {
		o.end, o.cluster, o.x = []int32{1}, []int32{7}, []float32{-7}
	}
	for i := range p.rows {
		x := p.x[i*clusters : (i+1)*clusters]
		t, w := make([]float64, clusters), make([]float64, clusters)
		for k := range x {
			t[k] = float64(p.lambda*float64(x[k])) + p.v[k]
		}
		top := slices.Max(t) + 0 // NaN if there is one
		lanes := [Lanes]float64{}
		for k := range t {
			if d := t[k] - top; !(d < -Cutoff) {
				w[k] = Exp(d)
			}
			lanes[k%Lanes] += w[k]
		}
		sum := ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))
		o.rows.Max, o.rows.Sum = append(o.rows.Max, top), append(o.rows.Sum, sum)
		if sum != sum {
			o.bad = i
			break
		}
		for k := range w {
			o.mass[k] += float64(w[k] * (1 / sum))
		}
		if p.sparing {
			continue
		}
		best := slices.Index(t, top)
		second := math.Inf(-1)
		for k := range t {
			if k != best && t[k]-top >= -Cutoff {
				second = max(second, t[k])
			}
			if k == best || t[k]-top >= -p.margin[k] {
				o.cluster, o.x = append(o.cluster, int32(k)), append(o.x, x[k])
			} else {
				o.dropped[k] += float64(w[k] * (1 / sum))
			}
		}
		o.end = append(o.end, int32(len(o.cluster)))
		o.rows.Best, o.rows.Second = append(o.rows.Best, int32(best)), append(o.rows.Second, second+0)
		o.rows.Low, o.rows.High = append(o.rows.Low, slices.Min(x)+0), append(o.rows.High, slices.Max(x)+0)
	}
	for i := len(o.rows.Max); i < p.rows; i++ {
		o.rows.Max, o.rows.Sum = append(o.rows.Max, 0), append(o.rows.Sum, 0)
	}
	return o
}

// every calls f with problems of every kind and length.
func every(t *testing.T, f func(t *testing.T, p *problem)) {
	for kind := range kinds {
		t.Run(kinds[kind].name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(kind), 1))
			for _, clusters := range lengths() {
				p := newProblem(r, kind, 5, clusters)
				f(t, p)
				p.sparing = true
				f(t, p)
			}
		})
	}
}

func TestPortableAgainstDefinition(t *testing.T) {
	use(t, portable)
	every(t, func(t *testing.T, p *problem) {
		want, got := p.plain(), p.solve()
		if d := want.differs(&got); d != "" {
			t.Fatalf("K=%d: plain and portable differ: %.600s", len(p.v), d)
		}
	})
}

func TestTwinsAgainstPortable(t *testing.T) {
	for _, tw := range twins[1:] {
		t.Run(tw.name, func(t *testing.T) {
			every(t, func(t *testing.T, p *problem) {
				use(t, portable)
				want := p.solve()
				use(t, tw)
				got := p.solve()
				if d := want.differs(&got); d != "" {
					t.Fatalf("K=%d: portable and %s differ: %.600s", len(p.v), tw.name, d)
				}
			})
		})
	}
}

// TestRowsWithoutSums puts what has no sums at every place of a row.
func TestRowsWithoutSums(t *testing.T) {
	for _, tw := range twins {
		t.Run(tw.name, func(t *testing.T) {
			use(t, tw)
			for _, clusters := range []int{1, 3, 8, 11, 64, 70, 129} {
				r := rand.New(rand.NewPCG(uint64(clusters), 2))
				for at := range clusters {
					for _, bad := range []float32{inf32, nan32} {
						for _, kind := range []int{0, 2} {
							p := newProblem(r, kind, 3, clusters)
							p.x[clusters+at] = bad
							got := p.solve()
							if got.bad != 1 || got.rows.Sum[1] == got.rows.Sum[1] || got.rows.Sum[2] != 0 {
								t.Fatalf("K=%d, %v at %d: bad row %d, sums %v", clusters, bad, at, got.bad, got.rows.Sum)
							}
							p.rows, p.x = 1, p.x[:clusters]
							if want := p.solve(); !sameBits(want.mass, got.mass) || !sameBits(want.dropped, got.dropped) || len(got.end) != 2 {
								t.Fatalf("K=%d: the bad row was added", clusters)
							}
						}
					}
				}
				p := newProblem(r, 2, 2, clusters)
				for k := range clusters {
					p.x[k] = -inf32
				}
				if got := p.solve(); got.bad != 0 || got.rows.Sum[0] == got.rows.Sum[0] {
					t.Errorf("K=%d, nothing but -Inf: bad row %d, sums %v", clusters, got.bad, got.rows.Sum)
				}
			}
		})
	}
}

// TestBlocksOfRows cuts the same rows into blocks.
func TestBlocksOfRows(t *testing.T) {
	for _, tw := range twins {
		use(t, tw)
		p := newProblem(rand.New(rand.NewPCG(3, 4)), 0, 12, 100)
		want := p.solve()
		params, scratch := NewParams(p.lambda, p.v), NewScratch(100)
		mass := make([]float64, 100)
		l := List{Margin: p.margin, Dropped: make([]float64, 100)}
		for i := 0; i < p.rows; i += 5 {
			n := min(5, p.rows-i)
			r := Rows{Max: make([]float64, n), Sum: make([]float64, n)}
			if bad := params.BlockLists(scratch, &r, mass, p.x[i*100:(i+n)*100], &l); bad >= 0 {
				t.Fatalf("%s: bad row %d", tw.name, bad)
			}
			if !sameBits(r.Sum, want.rows.Sum[i:i+n]) {
				t.Errorf("%s: sums differ", tw.name)
			}
		}
		if !sameBits(mass, want.mass) || !sameBits(l.Dropped, want.dropped) || !slices.Equal(l.Cluster, want.cluster[1:]) || len(l.End) != p.rows {
			t.Errorf("%s: masses or lists differ", tw.name)
		}
		before := l
		l.End, l.Cluster, l.X = l.End[:0], l.Cluster[:0], l.X[:0]
		r := Rows{Max: make([]float64, p.rows), Sum: make([]float64, p.rows)}
		if a := testing.AllocsPerRun(10, func() {
			l.End, l.Cluster, l.X = before.End[:0], before.Cluster[:0], before.X[:0]
			params.BlockLists(scratch, &r, mass, p.x, &l)
		}); a != 0 {
			t.Errorf("%s: %v allocations a call", tw.name, a)
		}
	}
}

// TestSumAccuracy compares a row's sum and shares with 200-bit arithmetic.
func TestSumAccuracy(t *testing.T) {
	p := newProblem(rand.New(rand.NewPCG(5, 6)), 0, 1, 300)
	got := p.solve()
	want := exact(0)
	want.SetInt64(0)
	for k, x := range p.x {
		t := float64(p.lambda*float64(x)) + p.v[k]
		want.Add(want, exact(t-got.rows.Max[0]))
	}
	if e := ulps(got.rows.Sum[0], want); e > 40 {
		t.Errorf("sum of 300 terms is off by %v units in the last place", e)
	}
	total := 0.0
	for _, m := range got.mass {
		total += m
	}
	if math.Abs(total-1) > 1e-14 {
		t.Errorf("shares sum to %v", total)
	}
}

func FuzzTwins(f *testing.F) {
	for kind := range kinds {
		f.Add(uint64(kind), uint8(kind), uint16(100), uint32(0x7fc00000), uint16(kind))
	}
	f.Fuzz(func(t *testing.T, seed uint64, kind uint8, clusters uint16, bits uint32, at uint16) {
		if clusters == 0 || clusters > 5000 {
			return
		}
		r := rand.New(rand.NewPCG(seed, 9))
		p := newProblem(r, int(kind)%len(kinds), 4, int(clusters))
		p.x[int(at)%len(p.x)] = math.Float32frombits(bits)
		use(t, portable)
		want := p.solve()
		for _, tw := range twins[1:] {
			use(t, tw)
			got := p.solve()
			if d := want.differs(&got); d != "" {
				t.Errorf("portable and %s differ: %.600s", tw.name, d)
			}
		}
	})
}
