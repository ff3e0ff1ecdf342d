package ort

import "math"

// EncodeFloat16 writes src as IEEE 754 binary16, rounded to nearest, ties to
// even; what exceeds 65504 by half a step becomes infinite, NaN stays NaN.
// dst must be at least as long as src.
func EncodeFloat16(dst []uint16, src []float32) {
	dst = dst[:len(src)]
	for i, v := range src {
		dst[i] = encodeFloat16(v)
	}
}

// DecodeFloat16 writes src, IEEE 754 binary16, as float32, exactly. dst must be
// at least as long as src.
func DecodeFloat16(dst []float32, src []uint16) {
	dst = dst[:len(src)]
	for i, v := range src {
		dst[i] = decodeFloat16(v)
	}
}

func encodeFloat16(v float32) uint16 {
	b := math.Float32bits(v)
	sign := uint16(b >> 16 & 0x8000)
	b &= 0x7fffffff
	switch {
	case b > 0x7f800000:
		return sign | 0x7e00
	case b >= 0x47800000: // 2^16 and above, infinity
		return sign | 0x7c00
	case b < 0x38800000: // below 2^-14: subnormal, in steps of 2^-24
		// Adding 0.5 puts the wanted bits, rounded by the addition itself, at
		// the low end of the sum.
		return sign | uint16(math.Float32bits(math.Float32frombits(b)+0.5)-0x3f000000)
	}
	// Rebias the exponent and round the 13 dropped bits; a carry out of the
	// mantissa raises the exponent, up to infinity, as it should.
	return sign | uint16((b-0x38000000+0xfff+(b>>13&1))>>13)
}

func decodeFloat16(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	b := uint32(h & 0x7fff)
	switch {
	case b >= 0x7c00: // infinity, NaN
		return math.Float32frombits(sign | 0x7f800000 | b<<13)
	case b < 0x0400: // zero, subnormal
		return math.Float32frombits(sign | math.Float32bits(float32(b)*0x1p-24))
	}
	return math.Float32frombits(sign | (b<<13 + 0x38000000))
}
