// Vectors of the NEON twin, as in ops_avx512.h: each is four registers.
#include <arm_neon.h>
#include <string.h>

#define OP static inline __attribute__((always_inline))
#define TWIN(name) name##_neon
#define TWIN_NAME "neon"
#define EACH for (int j = 0; j < 4; j++)

typedef struct { float32x4_t v[4]; } S;
typedef struct { float64x2_t v[4]; } D;
typedef struct { uint64x2_t v[4]; } M;       // all ones or zeros in a lane
typedef struct { uint32x4_t v; } Ordered; // zero in a lane that saw a NaN

OP S s_set(float a) { S r; EACH r.v[j] = vdupq_n_f32(a); return r; }
OP S s_load(const float *p) { S r; EACH r.v[j] = vld1q_f32(p + 4 * j); return r; }
OP void s_store(float *p, S a) { EACH vst1q_f32(p + 4 * j, a.v[j]); }
OP S s_load_n(const float *p, int64_t n, S other) {
	float all[16];
	s_store(all, other);
	memcpy(all, p, n * sizeof *p);
	return s_load(all);
}
OP S s_add(S a, S b) { EACH a.v[j] = vaddq_f32(a.v[j], b.v[j]); return a; }
OP S s_fma(S a, S b, S c) { EACH c.v[j] = vfmaq_f32(c.v[j], a.v[j], b.v[j]); return c; }
OP S s_min(S a, S b) { EACH a.v[j] = vminq_f32(a.v[j], b.v[j]); return a; }
OP S s_max(S a, S b) { EACH a.v[j] = vmaxq_f32(a.v[j], b.v[j]); return a; }
OP uint64_t s_ge(S a, S b) {
	const uint32x4_t bit = {1, 2, 4, 8};
	uint64_t m = 0;
	EACH m |= (uint64_t)vaddvq_u32(vandq_u32(vcgeq_f32(a.v[j], b.v[j]), bit)) << 4 * j;
	return m;
}
OP float s_least(S a) { return vminvq_f32(vminq_f32(vminq_f32(a.v[0], a.v[1]), vminq_f32(a.v[2], a.v[3]))); }
OP float s_largest(S a) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3]))); }
OP Ordered ordered_all(void) { return (Ordered){vdupq_n_u32(~0u)}; }
OP Ordered ordered_and(Ordered o, S a, S b) {
	EACH o.v = vandq_u32(o.v, vandq_u32(vceqq_f32(a.v[j], a.v[j]), vceqq_f32(b.v[j], b.v[j])));
	return o;
}
OP int is_ordered(Ordered o) { return vminvq_u32(o.v) != 0; }

OP D d_set(double a) { D r; EACH r.v[j] = vdupq_n_f64(a); return r; }
OP D d_load(const double *p) { D r; EACH r.v[j] = vld1q_f64(p + 2 * j); return r; }
OP void d_store(double *p, D a) { EACH vst1q_f64(p + 2 * j, a.v[j]); }
OP D d_load_n(const double *p, int64_t n) {
	double all[8] = {0};
	memcpy(all, p, n * sizeof *p);
	return d_load(all);
}
OP void d_store_n(double *p, int64_t n, D a) {
	double all[8];
	d_store(all, a);
	memcpy(p, all, n * sizeof *p);
}
OP D d_widen(const float *p) { D r; EACH r.v[j] = vcvt_f64_f32(vld1_f32(p + 2 * j)); return r; }
OP D d_widen_n(const float *p, int64_t n, float other) {
	float all[16];
	s_store(all, s_load_n(p, n, s_set(other)));
	return d_widen(all);
}
OP void d_narrow(float *p, D a) { EACH vst1_f32(p + 2 * j, vcvt_f32_f64(a.v[j])); }
OP D d_add(D a, D b) { EACH a.v[j] = vaddq_f64(a.v[j], b.v[j]); return a; }
OP D d_sub(D a, D b) { EACH a.v[j] = vsubq_f64(a.v[j], b.v[j]); return a; }
OP D d_mul(D a, D b) { EACH a.v[j] = vmulq_f64(a.v[j], b.v[j]); return a; }
OP D d_max(D a, D b) { EACH a.v[j] = vmaxq_f64(a.v[j], b.v[j]); return a; }
OP D d_negative(D a) { EACH a.v[j] = vnegq_f64(vabsq_f64(a.v[j])); return a; }
OP double d_largest(D a) { return vmaxvq_f64(vmaxq_f64(vmaxq_f64(a.v[0], a.v[1]), vmaxq_f64(a.v[2], a.v[3]))); }
OP D d_scale(D p, D s) {
	EACH p.v[j] = vreinterpretq_f64_s64(vaddq_s64(vreinterpretq_s64_f64(p.v[j]), vshlq_n_s64(vreinterpretq_s64_f64(s.v[j]), 52)));
	return p;
}
OP M d_ge(D a, D b) { M r; EACH r.v[j] = vcgeq_f64(a.v[j], b.v[j]); return r; }
OP M d_gt(D a, D b) { M r; EACH r.v[j] = vcgtq_f64(a.v[j], b.v[j]); return r; }
OP M d_unordered(D a) { M r; EACH r.v[j] = vreinterpretq_u64_u32(vmvnq_u32(vreinterpretq_u32_u64(vceqq_f64(a.v[j], a.v[j])))); return r; }
OP M m_of(unsigned bits) {
	const uint64x2_t bit = {1, 2};
	M r;
	EACH r.v[j] = vtstq_u64(vdupq_n_u64(bits >> 2 * j), bit);
	return r;
}
OP unsigned m_bits(M m) {
	const uint64x2_t bit = {1, 2};
	unsigned bits = 0;
	EACH bits |= (unsigned)vaddvq_u64(vandq_u64(m.v[j], bit)) << 2 * j;
	return bits;
}
OP D d_where(M m, D a, D b) { EACH a.v[j] = vbslq_f64(m.v[j], a.v[j], b.v[j]); return a; }
OP D d_keep(M m, D a) { return d_where(m, a, d_set(0)); }

OP int64_t append(int32_t *p, int32_t first, unsigned m) {
	int64_t n = 0;
	for (int j = 0; j < 8; j++) {
		p[n] = first + j;
		n += m >> j & 1;
	}
	return n;
}

OP unsigned any8(uint64_t m) {
	const uint8x8_t bit = {1, 2, 4, 8, 16, 32, 64, 128};
	uint8x8_t b = vcreate_u8(m);
	return vaddv_u8(vand_u8(vtst_u8(b, b), bit));
}
