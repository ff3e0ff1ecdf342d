//go:build linux && cgo

package main

// #cgo CFLAGS: -O2
// #include <immintrin.h>
//
// // multiply_adds does n × 10 × 16 products of 16 bits, summed in pairs to 32:
// // ten chains hide the latency. The result is of no interest.
// __attribute__((target("avx2"))) static int multiply_adds(long n) {
//     __m256i sum[10], x = _mm256_set1_epi16(3), y = _mm256_set1_epi16(5);
//     for (int i = 0; i < 10; i++) sum[i] = _mm256_set1_epi32(i);
//     for (long k = 0; k < n; k++) {
//         _Pragma("GCC unroll 10")
//         for (int i = 0; i < 10; i++) {
//             // To the compiler x is another one each time, so it multiplies each time.
//             __asm__ volatile("" : "+x"(x));
//             sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(x, y));
//         }
//     }
//     for (int i = 1; i < 10; i++) sum[0] = _mm256_xor_si256(sum[0], sum[i]);
//     return _mm256_extract_epi32(sum[0], 0);
// }
//
// static int has_avx2(void) { __builtin_cpu_init(); return __builtin_cpu_supports("avx2"); }
import "C"

// multiplyRate returns the 16-bit multiply-adds per second of AVX2, 0 without.
func multiplyRate() float64 {
	if C.has_avx2() == 0 {
		return 0
	}
	const n = 10_000
	return bestRate(n*10*16, func() { C.multiply_adds(n) })
}
