package imageio

import "math"

// table maps a sample to its tensor element, per channel. Normalising depends
// on the sample alone, so 3 × 256 values hold all of it.
type table[T any] [3][256]T

// normalised is (x/255 − mean)/std, each operation rounded to float32.
func (s Spec) normalised() *table[float32] {
	var t table[float32]
	for c := range t {
		for x := range t[c] {
			v := float32(x) / 255
			v = float32(v - s.Mean[c])
			t[c][x] = v / s.Std[c]
		}
	}
	return &t
}

func halved(in *table[float32]) *table[uint16] {
	var t table[uint16]
	for c := range t {
		for x := range t[c] {
			t[c][x] = toFloat16(in[c][x])
		}
	}
	return &t
}

// write converts interleaved samples into one image's tensor.
func (t *table[T]) write(dst []T, pix []byte, layout Layout) {
	n := len(pix) / 3
	if layout == NHWC {
		for i := range n {
			p := pix[3*i : 3*i+3 : 3*i+3]
			q := dst[3*i : 3*i+3 : 3*i+3]
			q[0], q[1], q[2] = t[0][p[0]], t[1][p[1]], t[2][p[2]]
		}
		return
	}
	r, g, b := dst[:n], dst[n:2*n], dst[2*n:3*n]
	for i := range r {
		p := pix[3*i : 3*i+3 : 3*i+3]
		r[i] = t[0][p[0]]
		g[i] = t[1][p[1]]
		b[i] = t[2][p[2]]
	}
}

// separate copies interleaved samples into three planes.
func separate(dst, pix []byte) {
	n := len(pix) / 3
	r, g, b := dst[:n], dst[n:2*n], dst[2*n:3*n]
	for i := range r {
		p := pix[3*i : 3*i+3 : 3*i+3]
		r[i], g[i], b[i] = p[0], p[1], p[2]
	}
}

// toFloat16 rounds to IEEE 754 binary16, halves to even.
func toFloat16(v float32) uint16 {
	bits := math.Float32bits(v)
	sign := uint16(bits >> 16 & 0x8000)
	exponent := int(bits>>23&0xff) - 127 + 15
	mantissa := bits&0x7fffff | 0x800000
	switch {
	case bits&0x7fffffff > 0x7f800000:
		return sign | 0x7e00 // NaN
	case exponent >= 31:
		return sign | 0x7c00
	case exponent < -10:
		return sign
	}
	shift := 13
	if exponent <= 0 { // subnormal: the leading one is stored
		shift += 1 - exponent
		exponent = 0
	} else {
		mantissa &= 0x7fffff
	}
	m := mantissa >> shift
	rest, middle := mantissa&(1<<shift-1), uint32(1)<<(shift-1)
	if rest > middle || rest == middle && m&1 == 1 {
		m++
	}
	// A carry out of the mantissa raises the exponent, up to infinity.
	return sign | uint16(uint32(exponent)<<10+m)
}
