package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

// columns are the arguments and results of LogSums.
type columns struct {
	max, sum []float64
	bad      int
}

// logSumsBy adds p's rows in blocks of at most the given number.
func (p *problem) logSumsBy(rows int, shift, v []float64) columns {
	clusters := len(p.v)
	c := columns{max: make([]float64, clusters), sum: make([]float64, clusters), bad: -1}
	for k := range c.max {
		c.max[k] = math.Inf(-1)
	}
	for i := 0; i < p.rows; i += rows {
		n := min(rows, p.rows-i)
		part := shift
		if part != nil {
			part = shift[i : i+n]
		}
		if bad := LogSums(c.max, c.sum, nil, p.x[i*clusters:(i+n)*clusters], part, v, p.lambda); bad >= 0 {
			c.bad = i + bad
			break
		}
	}
	return c
}

func TestLogSumsTwinsAndBlocks(t *testing.T) {
	for kind := range kinds {
		r := rand.New(rand.NewPCG(uint64(kind), 11))
		for _, clusters := range lengths() {
			p := newProblem(r, kind, 9, clusters)
			shift := make([]float64, p.rows)
			for i := range shift {
				shift[i] = 40 * r.NormFloat64()
			}
			for _, c := range []struct{ shift, v []float64 }{{nil, nil}, {shift, nil}, {nil, p.v}, {shift, p.v}} {
				use(t, portable)
				want := p.logSumsBy(p.rows, c.shift, c.v)
				for _, tw := range twins {
					use(t, tw)
					for _, rows := range []int{1, 4, p.rows} {
						got := p.logSumsBy(rows, c.shift, c.v)
						if got.bad != want.bad {
							t.Fatalf("%s, K=%d, %s: bad row %d, want %d", kinds[kind].name, clusters, tw.name, got.bad, want.bad)
						}
						if want.bad < 0 && (!sameBits(got.max, want.max) || !sameBits(got.sum, want.sum)) {
							t.Fatalf("%s, K=%d, %s, %d rows at once: %v %v, want %v %v", kinds[kind].name, clusters, tw.name, rows, got.max, got.sum, want.max, want.sum)
						}
					}
				}
			}
			if clusters > 200 {
				continue
			}
			cols := []int32{int32(r.IntN(clusters)), int32(clusters - 1)}
			use(t, portable)
			all := p.logSumsBy(p.rows, shift, p.v)
			max, sum := []float64{math.Inf(-1), math.Inf(-1)}, []float64{0, 0}
			if bad := LogSums(max, sum, cols, p.x, shift, p.v, p.lambda); bad != -1 {
				t.Fatalf("some columns: bad row %d", bad)
			}
			for j, k := range cols {
				if all.bad < 0 && (max[j] != all.max[k] || sum[j] != all.sum[k]) {
					t.Fatalf("%s, K=%d, column %d: %v %v, want %v %v", kinds[kind].name, clusters, k, max[j], sum[j], all.max[k], all.sum[k])
				}
			}
		}
	}
}

// TestLogSumsAccuracy compares with sums about the true maximum.
func TestLogSumsAccuracy(t *testing.T) {
	p := newProblem(rand.New(rand.NewPCG(12, 13)), 2, 50, 40)
	for i := range p.rows {
		p.x[i*40+4] = -inf32
		p.x[i*40+5] -= 300
	}
	got := p.logSumsBy(p.rows, nil, p.v)
	for k := range 40 {
		if k == 4 {
			if !math.IsInf(got.max[k], -1) || got.sum[k] != 0 {
				t.Errorf("column of -Inf: %v, %v", got.max[k], got.sum[k])
			}
			continue
		}
		high, want := math.Inf(-1), 0.0
		for i := range p.rows {
			high = math.Max(high, p.lambda*float64(p.x[i*40+k])+p.v[k])
		}
		for i := range p.rows {
			want += math.Exp(p.lambda*float64(p.x[i*40+k]) + p.v[k] - high)
		}
		if got.max[k] != high || math.Abs(got.sum[k]/want-1) > 1e-12 {
			t.Errorf("column %d: %v, %v, want %v, %v", k, got.max[k], got.sum[k], high, want)
		}
	}
}

func TestLogSumsRefusesRows(t *testing.T) {
	for _, tw := range twins {
		use(t, tw)
		for _, clusters := range []int{1, 5, 8, 19} {
			for at := range clusters {
				for _, bad := range []float32{nan32, inf32} {
					p := newProblem(rand.New(rand.NewPCG(14, 15)), 2, 4, clusters)
					p.x[2*clusters+at] = bad
					if got := p.logSumsBy(p.rows, nil, nil).bad; got != 2 {
						t.Errorf("%s, K=%d, %v at %d: bad row %d, want 2", tw.name, clusters, bad, at, got)
					}
				}
			}
			p := newProblem(rand.New(rand.NewPCG(16, 17)), 2, 4, clusters)
			for k := range clusters {
				p.x[3*clusters+k] = -inf32
			}
			if got := p.logSumsBy(p.rows, nil, nil).bad; got != 3 {
				t.Errorf("%s, K=%d, nothing but -Inf: bad row %d, want 3", tw.name, clusters, got)
			}
		}
	}
}

func TestMergeLogSums(t *testing.T) {
	p := newProblem(rand.New(rand.NewPCG(18, 19)), 2, 37, 30)
	for i := range p.rows {
		p.x[i*30+3] = -inf32
		if i < 20 {
			p.x[i*30+4] = -inf32
		}
	}
	all := p.logSumsBy(p.rows, nil, nil)
	first, rest := *p, *p
	first.rows, first.x = 20, p.x[:20*30]
	rest.rows, rest.x = 17, p.x[20*30:]
	a, b := first.logSumsBy(20, nil, nil), rest.logSumsBy(17, nil, nil)
	for k := range all.max {
		MergeLogSums(&a.max[k], &a.sum[k], b.max[k], b.sum[k])
		got, want := a.max[k]+Log(a.sum[k]), all.max[k]+Log(all.sum[k])
		if got != want && math.Abs(got-want) > 1e-12*math.Abs(want) {
			t.Errorf("column %d: merged %v, at once %v", k, got, want)
		}
	}
}
