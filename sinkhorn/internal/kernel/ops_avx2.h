// Vectors of the AVX2 twin, as in ops_avx512.h: each is two registers.
#ifdef __clang__
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx2,fma,bmi,bmi2,popcnt"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,bmi,bmi2,popcnt")
#include <immintrin.h>
#endif

#define OP static inline __attribute__((always_inline))
#define TWIN(name) name##_avx2
#define TWIN_NAME "avx2"

typedef struct { __m256 a, b; } S;
typedef struct { __m256d a, b; } D;
typedef struct { __m256d a, b; } M;      // all ones or zeros in a lane
typedef struct { __m256 a, b; } Ordered; // not zero in a lane that saw a NaN

OP S s_of(__m256 a, __m256 b) { return (S){a, b}; }
OP D d_of(__m256d a, __m256d b) { return (D){a, b}; }

// lanes32 and lanes64 are masks of the lanes j with from + j < n.
OP __m256i lanes32(int64_t n, int from) { return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n - from), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
OP __m256i lanes64(int64_t n, int from) { return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n - from), _mm256_setr_epi64x(0, 1, 2, 3)); }
OP __m256 load32_n(const float *p, __m256i m, __m256 other) { return _mm256_blendv_ps(other, _mm256_maskload_ps(p, m), _mm256_castsi256_ps(m)); }

OP S s_set(float a) { return s_of(_mm256_set1_ps(a), _mm256_set1_ps(a)); }
OP S s_load(const float *p) { return s_of(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
OP S s_load_n(const float *p, int64_t n, S other) {
	return s_of(load32_n(p, lanes32(n, 0), other.a), load32_n(p + 8, lanes32(n, 8), other.b));
}
OP void s_store(float *p, S x) { _mm256_storeu_ps(p, x.a); _mm256_storeu_ps(p + 8, x.b); }
OP S s_add(S x, S y) { return s_of(_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)); }
OP S s_fma(S x, S y, S z) { return s_of(_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)); }
OP S s_min(S x, S y) { return s_of(_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)); }
OP S s_max(S x, S y) { return s_of(_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)); }
OP uint64_t s_ge(S x, S y) {
	return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(x.a, y.a, _CMP_GE_OQ)) | (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(x.b, y.b, _CMP_GE_OQ)) << 8;
}
OP float s_least(S x) {
	__m256 m = _mm256_min_ps(x.a, x.b);
	__m128 h = _mm_min_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
	h = _mm_min_ps(h, _mm_movehl_ps(h, h));
	return _mm_cvtss_f32(_mm_min_ss(h, _mm_movehdup_ps(h)));
}
OP float s_largest(S x) {
	__m256 m = _mm256_max_ps(x.a, x.b);
	__m128 h = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
	h = _mm_max_ps(h, _mm_movehl_ps(h, h));
	return _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)));
}
OP Ordered ordered_all(void) { return (Ordered){_mm256_setzero_ps(), _mm256_setzero_ps()}; }
OP Ordered ordered_and(Ordered o, S x, S y) {
	return (Ordered){_mm256_or_ps(o.a, _mm256_cmp_ps(x.a, y.a, _CMP_UNORD_Q)), _mm256_or_ps(o.b, _mm256_cmp_ps(x.b, y.b, _CMP_UNORD_Q))};
}
OP int is_ordered(Ordered o) { return _mm256_movemask_ps(_mm256_or_ps(o.a, o.b)) == 0; }

OP D d_set(double a) { return d_of(_mm256_set1_pd(a), _mm256_set1_pd(a)); }
OP D d_load(const double *p) { return d_of(_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4)); }
OP D d_load_n(const double *p, int64_t n) { return d_of(_mm256_maskload_pd(p, lanes64(n, 0)), _mm256_maskload_pd(p + 4, lanes64(n, 4))); }
OP void d_store(double *p, D x) { _mm256_storeu_pd(p, x.a); _mm256_storeu_pd(p + 4, x.b); }
OP void d_store_n(double *p, int64_t n, D x) { _mm256_maskstore_pd(p, lanes64(n, 0), x.a); _mm256_maskstore_pd(p + 4, lanes64(n, 4), x.b); }
OP D widened(__m256 x) { return d_of(_mm256_cvtps_pd(_mm256_castps256_ps128(x)), _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1))); }
OP D d_widen(const float *p) { return d_of(_mm256_cvtps_pd(_mm_loadu_ps(p)), _mm256_cvtps_pd(_mm_loadu_ps(p + 4))); }
OP D d_widen_n(const float *p, int64_t n, float other) { return widened(load32_n(p, lanes32(n, 0), _mm256_set1_ps(other))); }
OP void d_narrow(float *p, D x) { _mm_storeu_ps(p, _mm256_cvtpd_ps(x.a)); _mm_storeu_ps(p + 4, _mm256_cvtpd_ps(x.b)); }
OP D d_add(D x, D y) { return d_of(_mm256_add_pd(x.a, y.a), _mm256_add_pd(x.b, y.b)); }
OP D d_sub(D x, D y) { return d_of(_mm256_sub_pd(x.a, y.a), _mm256_sub_pd(x.b, y.b)); }
OP D d_mul(D x, D y) { return d_of(_mm256_mul_pd(x.a, y.a), _mm256_mul_pd(x.b, y.b)); }
OP D d_max(D x, D y) { return d_of(_mm256_max_pd(x.a, y.a), _mm256_max_pd(x.b, y.b)); }
OP D d_negative(D x) { return d_of(_mm256_or_pd(x.a, _mm256_set1_pd(-0.0)), _mm256_or_pd(x.b, _mm256_set1_pd(-0.0))); }
OP double d_largest(D x) {
	__m256d m = _mm256_max_pd(x.a, x.b);
	__m128d h = _mm_max_pd(_mm256_castpd256_pd128(m), _mm256_extractf128_pd(m, 1));
	return _mm_cvtsd_f64(_mm_max_sd(h, _mm_unpackhi_pd(h, h)));
}
OP __m256d scaled(__m256d p, __m256d s) { return _mm256_castsi256_pd(_mm256_add_epi64(_mm256_castpd_si256(p), _mm256_slli_epi64(_mm256_castpd_si256(s), 52))); }
OP D d_scale(D p, D s) { return d_of(scaled(p.a, s.a), scaled(p.b, s.b)); }
OP M d_ge(D x, D y) { return (M){_mm256_cmp_pd(x.a, y.a, _CMP_GE_OQ), _mm256_cmp_pd(x.b, y.b, _CMP_GE_OQ)}; }
OP M d_gt(D x, D y) { return (M){_mm256_cmp_pd(x.a, y.a, _CMP_GT_OQ), _mm256_cmp_pd(x.b, y.b, _CMP_GT_OQ)}; }
OP M d_unordered(D x) { return (M){_mm256_cmp_pd(x.a, x.a, _CMP_UNORD_Q), _mm256_cmp_pd(x.b, x.b, _CMP_UNORD_Q)}; }
OP __m256d lanes_of(unsigned bits, int from) {
	__m256i bit = _mm256_slli_epi64(_mm256_setr_epi64x(1, 2, 4, 8), from);
	return _mm256_castsi256_pd(_mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x(bits), bit), bit));
}
OP M m_of(unsigned bits) { return (M){lanes_of(bits, 0), lanes_of(bits, 4)}; }
OP unsigned m_bits(M m) { return (unsigned)_mm256_movemask_pd(m.a) | (unsigned)_mm256_movemask_pd(m.b) << 4; }
OP D d_where(M m, D x, D y) { return d_of(_mm256_blendv_pd(y.a, x.a, m.a), _mm256_blendv_pd(y.b, x.b, m.b)); }
OP D d_keep(M m, D x) { return d_of(_mm256_and_pd(m.a, x.a), _mm256_and_pd(m.b, x.b)); }

OP int64_t append(int32_t *p, int32_t first, unsigned m) {
	int64_t n = 0;
	for (int j = 0; j < 8; j++) {
		p[n] = first + j;
		n += m >> j & 1;
	}
	return n;
}

OP unsigned any8(uint64_t m) {
	__m128i none = _mm_cmpeq_epi8(_mm_cvtsi64_si128(m), _mm_setzero_si128());
	return ~_mm_movemask_epi8(none) & 0xff;
}
