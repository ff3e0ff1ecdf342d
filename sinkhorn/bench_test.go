package sinkhorn

import (
	"context"
	"fmt"
	"testing"
)

func perElement(b *testing.B, elements int) {
	b.ReportMetric(float64(elements)*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "Gelem/s")
}

// BenchmarkPass measures each kind of pass from memory, on two workers.
func BenchmarkPass(b *testing.B) {
	for _, c := range []struct {
		name           string
		rows, clusters int
		scale          float64
	}{{"10000x128/flat", 10000, 128, 0.3}, {"10000x128/peaked", 10000, 128, 3}, {"4096x3000/peaked", 4096, 3000, 3}} {
		m := problem(1, c.rows, c.clusters, c.scale, 0)
		cpu := NewCPU(m, 2)
		res, err := Solve(context.Background(), cpu, Options{Method: MethodSinkhorn, Tol: float64(c.rows) / 100})
		if err != nil {
			b.Fatal(err)
		}
		for _, kind := range []struct {
			name string
			req  Request
		}{
			{"first", Request{Lambda: 25}},
			{"iteration", Request{Lambda: 25, V: res.V}},
			{"check", Request{Lambda: 25, V: res.V, Change: true, Previous: res.V, Certify: true}},
		} {
			b.Run(c.name+"/"+kind.name, func(b *testing.B) {
				for b.Loop() {
					if _, err := cpu.Pass(context.Background(), kind.req); err != nil {
						b.Fatal(err)
					}
				}
				perElement(b, len(m.x))
			})
		}
	}
}

// BenchmarkSolve measures whole solves of 10,000 x 128, by method.
func BenchmarkSolve(b *testing.B) {
	for _, scale := range []float64{0.3, 1, 3} {
		m := problem(2, 10000, 128, scale, 0.3)
		potentials := make([]float64, 128)
		for _, o := range []Options{{Method: MethodSinkhorn}, {Method: MethodFixed, Potentials: potentials}} {
			b.Run(fmt.Sprintf("%s/scale=%v", o.WithDefaults().Method, scale), func(b *testing.B) {
				passes := 0
				for b.Loop() {
					res, err := Solve(context.Background(), NewCPU(m, 2), o)
					if err != nil {
						b.Fatal(err)
					}
					passes = res.Passes
				}
				b.ReportMetric(float64(passes), "passes")
				perElement(b, passes*len(m.x))
			})
		}
	}
}

// BenchmarkAssigner measures labelling, one goroutine.
func BenchmarkAssigner(b *testing.B) {
	m := problem(3, ChunkRows, 128, 1, 0)
	var block Block
	m.chunk(0, &block)
	assigner, dst := NewAssigner(25, make([]float64, 128)), make([]Assignment, ChunkRows)
	for b.Loop() {
		if err := assigner.Block(dst, &block); err != nil {
			b.Fatal(err)
		}
	}
	perElement(b, len(m.x))
}
