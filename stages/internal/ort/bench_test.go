package ort_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"sela/stages/internal/ort"
)

// BenchmarkRun measures ready batches: no decoding, no copying.
func BenchmarkRun(b *testing.B) {
	for _, workers := range []int{1, 2, 4} {
		for _, arena := range []bool{false, true} {
			for _, batch := range []int64{16, 64, 256} {
				b.Run(fmt.Sprintf("workers=%d/arena=%v/batch=%d", workers, arena, batch), func(b *testing.B) {
					benchmarkRun(b, workers, batch, ort.Options{Arena: arena})
				})
			}
		}
	}
}

func benchmarkRun(b *testing.B, workers int, batch int64, opts ort.Options) {
	s := open(b, "conv.onnx", opts)
	slots := make([]*ort.Slot, workers)
	for i := range slots {
		slots[i] = newSlot(b, s, []int64{batch, 3, 32, 32})
		fillPixels(slots[i].Inputs[0].Float32())
	}
	b.ResetTimer()
	var all sync.WaitGroup
	for i, slot := range slots {
		runs := b.N / workers
		if i < b.N%workers {
			runs++
		}
		all.Go(func() {
			for range runs {
				if err := s.Run(context.Background(), slot); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(int64(b.N)*batch)/b.Elapsed().Seconds(), "images/s")
}

func BenchmarkFloat16(b *testing.B) {
	x, h := make([]float32, 1<<16), make([]uint16, 1<<16)
	fillPixels(x)
	b.Run("encode", func(b *testing.B) {
		b.SetBytes(4 << 16)
		for b.Loop() {
			ort.EncodeFloat16(h, x)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(4 << 16)
		for b.Loop() {
			ort.DecodeFloat16(x, h)
		}
	})
}
