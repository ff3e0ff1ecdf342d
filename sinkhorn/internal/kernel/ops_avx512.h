// Vectors of the AVX-512 twin. S is 16 floats, D 8 doubles, M a bit per lane
// of D. A name ending in _n loads or stores the first n lanes only and touches
// no memory past them.
#ifdef __clang__
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,fma,bmi,bmi2,popcnt"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,fma,bmi,bmi2,popcnt")
#include <immintrin.h>
#endif

#define OP static inline __attribute__((always_inline))
#define TWIN(name) name##_avx512
#define TWIN_NAME "avx512"

typedef __m512 S;
typedef __m512d D;
typedef __mmask8 M;
typedef __mmask16 Ordered; // lanes that saw no NaN

OP S s_set(float a) { return _mm512_set1_ps(a); }
OP S s_load(const float *p) { return _mm512_loadu_ps(p); }
OP S s_load_n(const float *p, int64_t n, S other) { return _mm512_mask_loadu_ps(other, (__mmask16)_bzhi_u32(0xffff, n), p); }
OP void s_store(float *p, S a) { _mm512_storeu_ps(p, a); }
OP S s_add(S a, S b) { return _mm512_add_ps(a, b); }
OP S s_fma(S a, S b, S c) { return _mm512_fmadd_ps(a, b, c); }
OP S s_min(S a, S b) { return _mm512_min_ps(a, b); }
OP S s_max(S a, S b) { return _mm512_max_ps(a, b); }
OP uint64_t s_ge(S a, S b) { return _cvtmask16_u32(_mm512_cmp_ps_mask(a, b, _CMP_GE_OQ)); }
OP float s_least(S a) { return _mm512_reduce_min_ps(a); }
OP float s_largest(S a) { return _mm512_reduce_max_ps(a); }
OP Ordered ordered_all(void) { return 0xffff; }
OP Ordered ordered_and(Ordered o, S a, S b) { return _mm512_mask_cmp_ps_mask(o, a, b, _CMP_ORD_Q); }
OP int is_ordered(Ordered o) { return o == 0xffff; }

OP D d_set(double a) { return _mm512_set1_pd(a); }
OP D d_load(const double *p) { return _mm512_loadu_pd(p); }
OP D d_load_n(const double *p, int64_t n) { return _mm512_maskz_loadu_pd(_bzhi_u32(0xff, n), p); }
OP void d_store(double *p, D a) { _mm512_storeu_pd(p, a); }
OP void d_store_n(double *p, int64_t n, D a) { _mm512_mask_storeu_pd(p, _bzhi_u32(0xff, n), a); }
OP D d_widen(const float *p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
OP D d_widen_n(const float *p, int64_t n, float other) { return _mm512_cvtps_pd(_mm256_mask_loadu_ps(_mm256_set1_ps(other), _bzhi_u32(0xff, n), p)); }
OP void d_narrow(float *p, D a) { _mm256_storeu_ps(p, _mm512_cvtpd_ps(a)); }
OP D d_add(D a, D b) { return _mm512_add_pd(a, b); }
OP D d_sub(D a, D b) { return _mm512_sub_pd(a, b); }
OP D d_mul(D a, D b) { return _mm512_mul_pd(a, b); }
OP D d_max(D a, D b) { return _mm512_max_pd(a, b); }
OP D d_negative(D a) { return _mm512_or_pd(a, _mm512_set1_pd(-0.0)); } // −|a|
OP double d_largest(D a) { return _mm512_reduce_max_pd(a); }
OP D d_scale(D p, D s) { // p·2^k for the k in the low bits of s
	return _mm512_castsi512_pd(_mm512_add_epi64(_mm512_castpd_si512(p), _mm512_slli_epi64(_mm512_castpd_si512(s), 52)));
}
OP M d_ge(D a, D b) { return _mm512_cmp_pd_mask(a, b, _CMP_GE_OQ); }
OP M d_gt(D a, D b) { return _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ); }
OP M d_unordered(D a) { return _mm512_cmp_pd_mask(a, a, _CMP_UNORD_Q); }
OP M m_of(unsigned bits) { return bits; }
OP unsigned m_bits(M m) { return _cvtmask8_u32(m); }
OP D d_where(M m, D a, D b) { return _mm512_mask_blend_pd(m, b, a); } // m ? a : b
OP D d_keep(M m, D a) { return _mm512_maskz_mov_pd(m, a); }           // m ? a : +0

// append writes first + the numbers of m's bits, ascending, and returns how
// many. It may write up to 8.
OP int64_t append(int32_t *p, int32_t first, unsigned m) {
	__m256i all = _mm256_add_epi32(_mm256_set1_epi32(first), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
	_mm256_storeu_si256((__m256i *)p, _mm256_maskz_compress_epi32(m, all));
	return _mm_popcnt_u32(m);
}

// any8 returns a bit for each byte of m that is not zero.
OP unsigned any8(uint64_t m) {
	__m128i b = _mm_cvtsi64_si128(m);
	return _cvtmask16_u32(_mm_test_epi8_mask(b, b));
}
