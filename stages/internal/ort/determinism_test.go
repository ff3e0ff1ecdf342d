package ort_test

import (
	"math"
	"strings"
	"testing"

	"sela/stages/internal/ort"
)

func TestCheckDeterminism(t *testing.T) {
	all := ort.Determinism{Repeat: true, Concurrency: true, Position: true, Company: true, BatchSize: true}
	company := all
	company.Company, company.BatchSize = false, false
	for _, tt := range []struct {
		model, input string
		dims         []int64
		want         ort.Determinism
	}{
		{"linear_batch4.onnx", "images", []int64{4, 3, 4, 4}, all},
		{"linear_float16.onnx", "images", []int64{8, 3, 4, 4}, all},
		{"uint8.onnx", "images", []int64{8, 4, 4, 3}, all},
		{"conv.onnx", "images", []int64{16, 3, 32, 32}, all},
		// The square root of a negative number is NaN each time: equal bits.
		{"nan.onnx", "images", []int64{8, 4}, all},
		// Sums of multiples of 1/32 are exact: moving rows changes nothing, other rows do.
		{"batch_mean.onnx", "images", []int64{8, 4}, company},
		{"random_noise.onnx", "images", []int64{8, 4}, ort.Determinism{}},
	} {
		t.Run(tt.model, func(t *testing.T) {
			s := open(t, tt.model, ort.Options{})
			slot := newSlot(t, s, tt.dims)
			in := slot.Inputs[0]
			fillPixels(in.Float32())
			for i := range in.Uint8() {
				in.Uint8()[i] = byte(37 * i)
			}
			for i := range in.Float16() {
				ort.EncodeFloat16(in.Float16()[i:], []float32{pixel(i)})
			}
			got, err := s.CheckDeterminism(t.Context(), slot)
			if err != nil {
				t.Fatal(err)
			}
			if got.Bitwise() != (got.MaxDifference == 0) || math.IsNaN(got.MaxDifference) {
				t.Errorf("bitwise %v with difference %v", got.Bitwise(), got.MaxDifference)
			}
			got.MaxDifference = 0
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if x := in.Float32(); x != nil && x[1] != pixel(1) {
				t.Error("the caller's inputs were changed")
			}
		})
	}
}

func TestCheckDeterminismNeedsRows(t *testing.T) {
	s := open(t, "loop.onnx", ort.Options{})
	slot := newSlot(t, s, []int64{64, 64}, []int64{1})
	if _, err := s.CheckDeterminism(t.Context(), slot); err == nil || !strings.Contains(err.Error(), "rows cannot be compared") {
		t.Errorf("error %v", err)
	}
}
