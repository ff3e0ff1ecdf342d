// Vectors of the NEON twin, as in ops_avx512.h: one quarter. A cell holds one
// sample widened to 32 bits; a coefficient is one digit.
#include <arm_neon.h>

#define OP static inline __attribute__((always_inline))
#define TWIN(name) name##_neon
#define TWIN_NAME "neon"
#define QUARTERS 1
#define GROUP 1
#define DIGITS 1

typedef uint32x4_t V;

OP V v_of8(uint8x16_t a) { return vreinterpretq_u32_u8(a); }
OP uint8x16_t v_as8(V a) { return vreinterpretq_u8_u32(a); }
OP V v_of64(uint64x2_t a) { return vreinterpretq_u32_u64(a); }
OP uint64x2_t v_as64(V a) { return vreinterpretq_u64_u32(a); }

OP V v_set(int32_t a) { return vdupq_n_u32((uint32_t)a); }
OP V v_load(const uint8_t *p) { return v_of8(vld1q_u8(p)); }
OP void v_store(uint8_t *p, V a) { vst1q_u8(p, v_as8(a)); }
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
OP V v_add(V a, V b) { return vaddq_u32(a, b); }
OP V v_raise(V a) { return a; } // there is no next digit
OP V v_descale(V a) { return vreinterpretq_u32_s32(vshrq_n_s32(vreinterpretq_s32_u32(a), PRECISION)); }
OP V v_dot(V sum, V cells, V digits) { return vmlaq_u32(sum, cells, digits); }

OP V v_shuffle(V a, const uint8_t *table) { return v_of8(vqtbl1q_u8(v_as8(a), vld1q_u8(table))); }
OP V v_low32(V a, V b) { return vzip1q_u32(a, b); }
OP V v_high32(V a, V b) { return vzip2q_u32(a, b); }
OP V v_low64(V a, V b) { return v_of64(vzip1q_u64(v_as64(a), v_as64(b))); }
OP V v_high64(V a, V b) { return v_of64(vzip2q_u64(v_as64(a), v_as64(b))); }
OP int16x8_t v_narrow(V a, V b) { return vcombine_s16(vqmovn_s32(vreinterpretq_s32_u32(a)), vqmovn_s32(vreinterpretq_s32_u32(b))); }
OP V v_clip(V a, V b, V c, V d) { return v_of8(vcombine_u8(vqmovun_s16(v_narrow(a, b)), vqmovun_s16(v_narrow(c, d)))); }

OP V v_gather(const uint8_t *const *row, int64_t at) { return v_load(row[0] + at); }
OP void v_scatter(uint8_t *const *row, int64_t at, V a) { v_store(row[0] + at, a); }

OP void v_interleave(const V *in, V *out) {
	uint8x16_t zero = vdupq_n_u8(0);
	uint8x16_t a = vzip1q_u8(v_as8(in[0]), zero), b = vzip2q_u8(v_as8(in[0]), zero);
	out[0] = v_of8(vzip1q_u8(a, zero)); // sample i in bytes 4i
	out[1] = v_of8(vzip2q_u8(a, zero));
	out[2] = v_of8(vzip1q_u8(b, zero));
	out[3] = v_of8(vzip2q_u8(b, zero));
}
