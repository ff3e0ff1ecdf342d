package schemas

import (
	"errors"
	"math"
)

// The compact form of a block table stores a value x of a row as its gap to the
// row's maximum in whole steps: code = (max − x) / step, rounded to nearest.
const (
	infCode  = 1<<16 - 1   // stands for −Inf
	lastCode = infCode - 1 // stands for every gap from lastCode·step on

	// A row's step is the smallest power of two that reaches its smallest finite
	// value, within these bounds. Below the first, float32 is no finer. Above the
	// second, 256 nats, values are taken for the last code.
	minStep = 1.0 / (1 << 20)
	maxStep = 1.0 / (1 << 8)
)

var errNotANumber = errors.New("a value is NaN or +Inf, which the compact form cannot hold")

// scale is what the codes of a row mean.
type scale struct{ top, step float32 }

// sound tells whether s can be of a row that encodeRow has encoded.
func (s scale) sound() bool {
	fraction, _ := math.Frexp(float64(s.step))
	return s.top <= math.MaxFloat32 && s.step >= minStep && s.step <= maxStep && fraction == 0.5
}

// encodeRow sets codes to those of the row x, which has as many values.
func encodeRow(codes []uint16, x []float32) (scale, error) {
	top, bottom := float32(math.Inf(-1)), float32(math.MaxFloat32)
	for _, v := range x {
		switch {
		case v > top:
			top = v
		case !(v <= top):
			return scale{}, errNotANumber
		}
		if v < bottom && v >= -math.MaxFloat32 {
			bottom = v
		}
	}
	if top > math.MaxFloat32 {
		return scale{}, errNotANumber
	}
	step, from := minStep, float64(top)
	for step < maxStep && from-float64(bottom) > lastCode*step {
		step *= 2
	}
	perNat := 1 / step // exact, as is every product with it
	for k, v := range x {
		if v < -math.MaxFloat32 {
			codes[k] = infCode
			continue
		}
		codes[k] = uint16(math.RoundToEven(min((from-float64(v))*perNat, lastCode)))
	}
	return scale{top, float32(step)}, nil
}

// decodeRows is the definition of what decode computes. The product is exact,
// so that a fused subtraction gives the same bits. codes may lie in the second
// half of dst's memory: a value is only written over codes that were read.
func decodeRows(dst []float32, codes []uint16, scales []scale, width int) {
	for r, s := range scales {
		for k := r * width; k < (r+1)*width; k++ {
			c := codes[k]
			x := s.top - float32(float32(c)*s.step)
			if c == infCode {
				x = float32(math.Inf(-1))
			}
			dst[k] = x
		}
	}
}

// RoundTrip replaces the values of a row by those that come back from a compact
// table, and refuses a row that such a table refuses. codes is scratch memory
// of the row's length.
func RoundTrip(x []float32, codes []uint16) error {
	s, err := encodeRow(codes, x)
	if err == nil {
		decode(x, codes, []scale{s}, len(x))
	}
	return err
}
