// Vectors of the AVX2 twin, as in ops_avx512.h: two quarters. A cell holds two
// samples widened to 16 bits; a coefficient has two digits of 16 bits.
#ifdef __clang__
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#include <immintrin.h>
#endif

#define OP static inline __attribute__((always_inline))
#define TWIN(name) name##_avx2
#define TWIN_NAME "avx2"
#define QUARTERS 2
#define GROUP 2
#define DIGITS 2

typedef __m256i V;

OP V v_set(int32_t a) { return _mm256_set1_epi32(a); }
OP V v_load(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
OP void v_store(uint8_t *p, V a) { _mm256_storeu_si256((__m256i *)p, a); }
OP V v_load_n(const uint8_t *p, int64_t n) {
	uint8_t all[sizeof(V)] = {0};
	memcpy(all, p, n);
	return v_load(all);
}
OP void v_store_n(uint8_t *p, int64_t n, V a) {
	uint8_t all[sizeof(V)];
	v_store(all, a);
	memcpy(p, all, n);
}
OP V v_add(V a, V b) { return _mm256_add_epi32(a, b); }
OP V v_raise(V a) { return _mm256_slli_epi32(a, 16); }
OP V v_descale(V a) { return _mm256_srai_epi32(a, PRECISION); }
OP V v_dot(V sum, V cells, V digits) { return _mm256_add_epi32(sum, _mm256_madd_epi16(cells, digits)); }

OP V v_shuffle(V a, const uint8_t *table) { return _mm256_shuffle_epi8(a, _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table))); }
OP V v_low32(V a, V b) { return _mm256_unpacklo_epi32(a, b); }
OP V v_high32(V a, V b) { return _mm256_unpackhi_epi32(a, b); }
OP V v_low64(V a, V b) { return _mm256_unpacklo_epi64(a, b); }
OP V v_high64(V a, V b) { return _mm256_unpackhi_epi64(a, b); }
OP V v_clip(V a, V b, V c, V d) { return _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d)); }

OP V v_gather(const uint8_t *const *row, int64_t at) {
	V a = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(row[0] + at)));
	return _mm256_inserti128_si256(a, _mm_loadu_si128((const __m128i *)(row[4] + at)), 1);
}
OP void v_scatter(uint8_t *const *row, int64_t at, V a) {
	_mm_storeu_si128((__m128i *)(row[0] + at), _mm256_castsi256_si128(a));
	_mm_storeu_si128((__m128i *)(row[4] + at), _mm256_extracti128_si256(a, 1));
}

OP void v_interleave(const V *in, V *out) {
	V zero = _mm256_setzero_si256();
	V a = _mm256_unpacklo_epi8(in[0], in[1]), b = _mm256_unpackhi_epi8(in[0], in[1]);
	out[0] = _mm256_unpacklo_epi8(a, zero);
	out[1] = _mm256_unpackhi_epi8(a, zero);
	out[2] = _mm256_unpacklo_epi8(b, zero);
	out[3] = _mm256_unpackhi_epi8(b, zero);
}
