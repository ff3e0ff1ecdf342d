// Vectors of the AVX-512 twin: sixteen lanes of 32 bits in four quarters. A cell
// holds four samples of 8 bits; a coefficient has three digits of 8 bits.
#ifdef __clang__
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vnni,bmi2"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vnni,bmi2")
#include <immintrin.h>
#endif

#define OP static inline __attribute__((always_inline))
#define TWIN(name) name##_avx512
#define TWIN_NAME "avx512"
#define QUARTERS 4
#define GROUP 4
#define DIGITS 3

typedef __m512i V;

OP V v_set(int32_t a) { return _mm512_set1_epi32(a); }
OP V v_load(const uint8_t *p) { return _mm512_loadu_si512(p); }
OP V v_load_n(const uint8_t *p, int64_t n) { return _mm512_maskz_loadu_epi8(_bzhi_u64(~0ull, n), p); }
OP void v_store(uint8_t *p, V a) { _mm512_storeu_si512(p, a); }
OP void v_store_n(uint8_t *p, int64_t n, V a) { _mm512_mask_storeu_epi8(p, _bzhi_u64(~0ull, n), a); }
OP V v_add(V a, V b) { return _mm512_add_epi32(a, b); }
OP V v_raise(V a) { return _mm512_slli_epi32(a, 8); } // to the next digit
OP V v_descale(V a) { return _mm512_srai_epi32(a, PRECISION); }
OP V v_dot(V sum, V cells, V digits) { return _mm512_dpbusd_epi32(sum, cells, digits); }

// Of each quarter.
OP V v_shuffle(V a, const uint8_t *table) { return _mm512_shuffle_epi8(a, _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)table))); }
OP V v_low32(V a, V b) { return _mm512_unpacklo_epi32(a, b); }
OP V v_high32(V a, V b) { return _mm512_unpackhi_epi32(a, b); }
OP V v_low64(V a, V b) { return _mm512_unpacklo_epi64(a, b); }
OP V v_high64(V a, V b) { return _mm512_unpackhi_epi64(a, b); }
OP V v_clip(V a, V b, V c, V d) { return _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d)); }

// v_gather returns 16 bytes of every fourth row, v_scatter stores them.
OP V v_gather(const uint8_t *const *row, int64_t at) {
	V a = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(row[0] + at)));
	a = _mm512_inserti32x4(a, _mm_loadu_si128((const __m128i *)(row[4] + at)), 1);
	a = _mm512_inserti32x4(a, _mm_loadu_si128((const __m128i *)(row[8] + at)), 2);
	return _mm512_inserti32x4(a, _mm_loadu_si128((const __m128i *)(row[12] + at)), 3);
}
OP void v_scatter(uint8_t *const *row, int64_t at, V a) {
	_mm_storeu_si128((__m128i *)(row[0] + at), _mm512_castsi512_si128(a));
	_mm_storeu_si128((__m128i *)(row[4] + at), _mm512_extracti32x4_epi32(a, 1));
	_mm_storeu_si128((__m128i *)(row[8] + at), _mm512_extracti32x4_epi32(a, 2));
	_mm_storeu_si128((__m128i *)(row[12] + at), _mm512_extracti32x4_epi32(a, 3));
}

// v_interleave makes cells of GROUP rows: in[i] has the samples of row i, of
// out[j] each quarter has the cells of its samples 4j to 4j+3.
OP void v_interleave(const V *in, V *out) {
	V a = _mm512_unpacklo_epi8(in[0], in[1]), b = _mm512_unpackhi_epi8(in[0], in[1]);
	V c = _mm512_unpacklo_epi8(in[2], in[3]), d = _mm512_unpackhi_epi8(in[2], in[3]);
	out[0] = _mm512_unpacklo_epi16(a, c);
	out[1] = _mm512_unpackhi_epi16(a, c);
	out[2] = _mm512_unpacklo_epi16(b, d);
	out[3] = _mm512_unpackhi_epi16(b, d);
}
