package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// BenchmarkBlock measures each twin on rows of normal log-probabilities at
// λ = 25, peaked (std 3) and flat (std 0.3), over and over on one block that
// stays in the L2 cache, and streaming from memory. A block's time is the
// tenth percentile of all, which a busy machine disturbs little. "of-copy" is
// the share of the rate at which copy moves the same blocks into one buffer,
// measured in turn: what a read from the page cache costs at least.
func BenchmarkBlock(b *testing.B) {
	const memory = 32 << 20 // numbers: more than a core's share of any cache
	all := make([]float32, memory)
	for _, c := range []struct {
		name   string
		spread float64
	}{{"peaked", 3}, {"flat", 0.3}} {
		fill(all, c.spread)
		for _, clusters := range []int{128, 1000, 3000, 30_000} {
			for _, place := range []string{"L2", "memory"} {
				x := all
				if place == "L2" {
					x = all[:max(96<<10, clusters)]
				}
				for _, mode := range []string{"sums", "certify", "lists"} {
					if mode != "sums" && clusters != 3000 {
						continue
					}
					for _, tw := range twins {
						b.Run(fmt.Sprintf("%s/K=%d/%s/%s/%s", c.name, clusters, place, mode, tw.name), func(b *testing.B) {
							use(b, tw)
							stream(b, x, clusters, mode)
						})
					}
				}
			}
		}
	}
}

// fill sets normal numbers, from few distinct ones to save time.
func fill(x []float32, spread float64) {
	r := rand.New(rand.NewPCG(9, 10))
	n := min(len(x), 1<<20)
	for i := range x[:n] {
		x[i] = float32(r.NormFloat64() * spread)
	}
	for ; n < len(x); n *= 2 {
		copy(x[n:], x[:n])
	}
}

// stream evaluates x in blocks of at most 512 KiB and reports rates.
func stream(b *testing.B, x []float32, clusters int, mode string) {
	rows := max(1, min(len(x), 128<<10)/clusters)
	params, scratch := NewParams(25, make([]float64, clusters)), NewScratch(clusters)
	r := Rows{Max: make([]float64, rows), Sum: make([]float64, rows)}
	mass := make([]float64, clusters)
	var l *List
	switch mode {
	case "certify":
		r.Best, r.Second, r.Low, r.High = make([]int32, rows), make([]float64, rows), make([]float32, rows), make([]float32, rows)
	case "lists":
		l = &List{Margin: make([]float64, clusters), Dropped: make([]float64, clusters)}
		for k := range l.Margin {
			l.Margin[k] = 10
		}
	}
	size := rows * clusters
	var times, copies []time.Duration
	buffer := make([]float32, size)
	for b.Loop() {
		for i := 0; i+size <= len(x); i += size {
			start := time.Now()
			if l != nil {
				l.End, l.Cluster, l.X = l.End[:0], l.Cluster[:0], l.X[:0]
			}
			if bad := params.BlockLists(scratch, &r, mass, x[i:i+size], l); bad >= 0 {
				b.Fatalf("bad row %d", bad)
			}
			times = append(times, time.Since(start))
		}
		for i := 0; i+size <= len(x); i += size {
			start := time.Now()
			copy(buffer, x[i:i+size])
			copies = append(copies, time.Since(start))
		}
	}
	slices.Sort(times)
	slices.Sort(copies)
	typical, copied := times[len(times)/10], copies[len(copies)/10]
	rate := float64(size) / float64(typical.Nanoseconds())
	b.ReportMetric(rate, "Gelem/s")
	b.ReportMetric(4*rate, "GB/s")
	b.ReportMetric(float64(copied)/float64(typical), "of-copy")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkLogSums measures the pass before the first iteration on a chunk of
// 1,024 rows, 12 MB in memory.
func BenchmarkLogSums(b *testing.B) {
	const clusters, rows = 3000, 1024
	x := make([]float32, rows*clusters)
	for _, c := range []struct {
		name   string
		spread float64
	}{{"peaked", 3}, {"flat", 0.3}} {
		fill(x, c.spread)
		for _, tw := range twins {
			b.Run(c.name+"/"+tw.name, func(b *testing.B) {
				use(b, tw)
				max, sum := make([]float64, clusters), make([]float64, clusters)
				var times []time.Duration
				for b.Loop() {
					for k := range max {
						max[k], sum[k] = math.Inf(-1), 0
					}
					start := time.Now()
					if bad := LogSums(max, sum, nil, x, nil, nil, 25); bad >= 0 {
						b.Fatalf("bad row %d", bad)
					}
					times = append(times, time.Since(start))
				}
				slices.Sort(times)
				rate := float64(len(x)) / float64(times[len(times)/10].Nanoseconds())
				b.ReportMetric(rate, "Gelem/s")
				b.ReportMetric(4*rate, "GB/s")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// BenchmarkCall measures what entering a twin costs: a block of no rows.
func BenchmarkCall(b *testing.B) {
	params, scratch, r := NewParams(25, make([]float64, 8)), NewScratch(8), new(Rows)
	for _, tw := range twins {
		b.Run(tw.name, func(b *testing.B) {
			for b.Loop() {
				tw.block(params, scratch, r, 0, nil, nil, nil)
			}
		})
	}
}
