package sinkhorn

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// synthetic is a source whose rows are made when they are read: logits of rank
// 32 and standard deviation 3, plus column biases of standard deviation 1.5,
// or, with classes, of rows about 1 of K prototypes drawn by Zipf's law of
// exponent 0.7. Rows are not normalised, which does not matter to labels.
type synthetic struct {
	rows     int64
	clusters int
	first    int64 // row numbers of another range are other rows
	factors  []float32
	bias     []float32
	classes  []float64 // cumulated, nil without
}

const rank32 = 32

func newSynthetic(rows int64, clusters int, classes bool) *synthetic {
	r := rand.New(rand.NewPCG(uint64(clusters), 1))
	s := &synthetic{rows: rows, clusters: clusters, factors: make([]float32, rank32*clusters), bias: make([]float32, clusters)}
	for i := range s.factors {
		s.factors[i] = float32(r.NormFloat64() * 3 / math.Sqrt(rank32))
	}
	if !classes {
		for k := range s.bias {
			s.bias[k] = float32(1.5 * r.NormFloat64())
		}
		return s
	}
	sum := 0.0
	for k := range clusters {
		sum += math.Pow(float64(k+1), -0.7)
		s.classes = append(s.classes, sum)
	}
	return s
}

func (s *synthetic) sample(first, rows int64) *synthetic {
	c := *s
	c.first, c.rows = first, rows
	return &c
}

func (s *synthetic) Dims() (int64, int) { return s.rows, s.clusters }
func (s *synthetic) Chunks() int        { return int((s.rows + ChunkRows - 1) / ChunkRows) }

func (s *synthetic) ReadChunk(ctx context.Context, i int, buf *Block, yield func(*Block) error) error {
	size := max(1, BlockBytes/4/s.clusters)
	end := min(int64(i+1)*ChunkRows, s.rows)
	for row := int64(i) * ChunkRows; row < end; {
		buf.Rows, buf.X = buf.Rows[:0], buf.X[:0]
		for ; row < end && len(buf.Rows) < size; row++ {
			buf.Rows = append(buf.Rows, row)
			buf.X = append(buf.X, s.bias...)
			s.fill(buf.X[len(buf.X)-s.clusters:], s.first+row)
		}
		if err := yield(buf); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (s *synthetic) fill(x []float32, row int64) {
	r := rand.New(rand.NewPCG(uint64(row), 2))
	var z [rank32]float32
	for j := range z {
		z[j] = float32(r.NormFloat64())
	}
	if s.classes != nil {
		u := r.Float64() * s.classes[s.clusters-1]
		class := 0
		for s.classes[class] < u {
			class++
		}
		for j := range z {
			z[j] = 0.6*z[j] + 0.8*s.factors[j*s.clusters+class]*float32(math.Sqrt(rank32)/3)
		}
	}
	for j := 0; j < rank32; j += 4 {
		a, b, c, d := z[j], z[j+1], z[j+2], z[j+3]
		fa, fb := s.factors[j*s.clusters:][:len(x)], s.factors[(j+1)*s.clusters:][:len(x)]
		fc, fd := s.factors[(j+2)*s.clusters:][:len(x)], s.factors[(j+3)*s.clusters:][:len(x)]
		for k := range x {
			x[k] += a*fa[k] + b*fb[k] + c*fc[k] + d*fd[k]
		}
	}
}

// BenchmarkBalance measures the balancing of converged potentials by step:
// placing the labels, and measuring them. Making the rows takes most of the
// time that it runs.
func BenchmarkBalance(b *testing.B) {
	for _, c := range []struct {
		rows     int64
		clusters int
		classes  bool
	}{{128000, 300, false}, {128000, 300, true}, {255000, 3000, false}, {255000, 3000, true}} {
		name := fmt.Sprintf("%dx%d/bias", c.rows, c.clusters)
		if c.classes {
			name = fmt.Sprintf("%dx%d/zipf", c.rows, c.clusters)
		}
		b.Run(name, func(b *testing.B) {
			ctx := context.Background()
			s := newSynthetic(c.rows, c.clusters, c.classes)
			n := int64(20 * c.clusters)
			cpu := NewCPU(s, 2)
			res, err := Solve(ctx, cpu, Options{Sample: &Sample{Solve: s.sample(1<<40, n), Judge: s.sample(1<<41, n)}, Workers: 2, Memory: 4 << 30})
			if err != nil || res.Status != Converged {
				b.Fatal(res, err)
			}
			o := BalanceOptions{Lambda: 25, ListV: res.V, Margin: make([]float64, c.clusters)}
			for k := range o.Margin {
				o.Margin[k] = 45
			}
			lists := NewLists(4<<30, nil)
			if _, err := cpu.Pass(ctx, Request{Lambda: 25, V: res.V, Lists: &ListRequest{Margin: o.Margin, Into: lists}}); err != nil {
				b.Fatal(err)
			}
			var got *Balanced
			var place, report time.Duration
			for b.Loop() {
				start := time.Now()
				bal, err := newBalancer(lists, res.V, &o)
				if err == nil {
					err = bal.place(ctx)
				}
				if err != nil {
					b.Fatal(err)
				}
				place += time.Since(start)
				start = time.Now()
				if got, err = bal.report(ctx, &o); err != nil {
					b.Fatal(err)
				}
				report += time.Since(start)
			}
			b.ReportMetric(place.Seconds()/float64(b.N), "s-place")
			b.ReportMetric(report.Seconds()/float64(b.N), "s-report")
			b.ReportMetric(float64(lists.Entries())/float64(c.rows), "entries/row")
			b.ReportMetric(float64(got.Surplus), "surplus")
			b.ReportMetric(float64(got.Moved), "moved")
			b.ReportMetric(got.Gap*1e12, "gap-e-12")
			b.ReportMetric(float64(got.Unproved), "unproved")
		})
	}
}
