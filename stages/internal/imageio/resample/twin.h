// What Go and the twins in C share.
#include <stdint.h>

#define PRECISION 22 // of taps.go

// table is the part of taps (taps.go) that a twin works on.
typedef struct {
	int64_t n, span;      // outputs; samples they read
	int64_t groups;       // of samples per output
	const int32_t *group; // first of each output
	const int32_t *digits;
} table;

// image_rows are rows of interleaved RGB in and out, pitch bytes from one to
// the next.
typedef struct {
	const uint8_t *in;
	uint8_t *out;
	int64_t in_pitch, out_pitch;
} image_rows;

// native_twin is a twin in C: the horizontal pass over rows, and the vertical
// one over rows of bytes. cells has room for cell_bytes, times the samples that
// a row or a column has, rounded up to a multiple of 4.
typedef struct {
	const char *name;
	int32_t size, count; // layout of taps.go
	int32_t across_bytes, down_bytes;
	void (*across)(table t, image_rows p, int64_t rows, uint8_t *cells);
	void (*down)(table t, image_rows p, int64_t bytes, uint8_t *cells);
} native_twin;

extern const native_twin resample_avx512, resample_avx2, resample_neon;
