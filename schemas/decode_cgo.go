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

#define INLINE static inline __attribute__((always_inline))

// One lane. The choice is made on bits: compilers do not vectorise a choice
// between floats that may trap.
INLINE uint32_t value(int32_t code, float top, float step) {
	float x = top - (float)code * step;
	uint32_t bits, inf = -(uint32_t)(code == 0xffff);
	memcpy(&bits, &x, sizeof bits);
	return (bits & ~inf) | (0xff800000u & inf);
}

// codes may lie in the second half of dst: lanes are read before they are
// written, and lane by lane dst never overtakes the codes.
INLINE void decode_rows(char *dst, const char *codes, const float *scales, size_t rows, size_t width) {
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

#ifdef __x86_64__
__attribute__((target("avx512f,avx512bw,avx512vl,prefer-vector-width=512")))
static void decode_avx512(char *dst, const char *codes, const float *scales, size_t rows, size_t width) {
	decode_rows(dst, codes, scales, rows, width);
}
#endif

static void decode(char *dst, const char *codes, const float *scales, size_t rows, size_t width) {
#ifdef __x86_64__
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
		decode_avx512(dst, codes, scales, rows, width);
		return;
	}
#endif
	decode_rows(dst, codes, scales, rows, width);
}
*/
import "C"

import "unsafe"

// decode computes what decodeRows does, faster: 35 GB/s of float32 per core with
// AVX-512 and 17 without (with SSE2; GCC 12 makes 6 of AVX2), against 4, where
// rows of 3,000 stay in the cache.
func decode(dst []float32, codes []uint16, scales []scale, width int) {
	if len(scales) == 0 {
		return
	}
	C.decode((*C.char)(unsafe.Pointer(unsafe.SliceData(dst))), (*C.char)(unsafe.Pointer(unsafe.SliceData(codes))),
		(*C.float)(unsafe.Pointer(unsafe.SliceData(scales))), C.size_t(len(scales)), C.size_t(width))
}
