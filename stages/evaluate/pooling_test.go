package evaluate

import (
	"slices"
	"testing"
)

func TestPooling(t *testing.T) {
	// Two channels of 3×4.
	shape, src := []int{2, 3, 4}, make([]float32, 24)
	for i := range src {
		src[i] = float32(i)
	}
	for _, c := range []struct {
		pooling Pooling
		want    []float32
	}{
		{Pooling{}, src},
		{Pooling{Side: 1}, []float32{5.5, 17.5}},
		{Pooling{Side: 1, Largest: true}, []float32{11, 23}},
		// Rows 0–1 and 1–2: windows overlap where they do not fit.
		{Pooling{Side: 2}, []float32{2.5, 4.5, 6.5, 8.5, 14.5, 16.5, 18.5, 20.5}},
		{Pooling{Side: 2, Largest: true}, []float32{5, 7, 9, 11, 17, 19, 21, 23}},
		{Pooling{Side: 9, Largest: true}, src},
	} {
		got := make([]float32, c.pooling.dim(shape))
		c.pooling.apply(got, src, shape)
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.pooling, got, c.want)
		}
	}
	flat := make([]float32, 3)
	Pooling{Side: 1}.apply(flat, src[:3], []int{3})
	if !slices.Equal(flat, src[:3]) {
		t.Errorf("a vector becomes %v", flat)
	}
}

// TestProbeFeatures has the sizes that linear probes of AlexNet are known for.
func TestProbeFeatures(t *testing.T) {
	for _, c := range []struct {
		shape []int
		dim   int
	}{
		{[]int{96, 55, 55}, 9600}, {[]int{256, 27, 27}, 9216}, {[]int{384, 13, 13}, 9600}, {[]int{256, 13, 13}, 9216},
		{[]int{256, 4, 4}, 4096}, {[]int{64, 16, 16}, 9216}, {[]int{20000, 7, 7}, 20000}, {[]int{512}, 512},
	} {
		p := forProbe(c.shape)
		if got := p.dim(c.shape); got != c.dim {
			t.Errorf("%v: %d features (%+v), want %d", c.shape, got, p, c.dim)
		}
	}
}
