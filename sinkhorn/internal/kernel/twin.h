// What Go and the twins in C share.
#include <stdint.h>

// block_args is what Block works on. Each field is what params.go calls so; a
// pointer that Go leaves nil is null here.
typedef struct {
	// Params
	int64_t clusters;
	double lambda, largest;
	const double *v;
	const float *v32;
	// Scratch
	double *weights;
	int32_t *groups, *hits;
	uint8_t *listed;
	float *tiles, *reach, *bounds;
	// Rows
	double *max, *sum, *second;
	int32_t *best;
	float *low, *high;
	double *mass;
	// List: entries of cluster and x are taken, there is room for room in all;
	// end is that of the first row evaluated.
	const double *margin;
	double *dropped;
	int32_t *end, *cluster;
	float *x;
	int64_t entries, room;
} block_args;

// native_twin is a twin in C. Its block evaluates rows i ≤ row < n of x and
// returns the first one it leaves to the portable code, or n; its log_sums is
// logSums of logsums.go.
typedef struct {
	const char *name;
	int64_t (*block)(int64_t i, int64_t n, const float *x, const block_args *a);
	int64_t (*log_sums)(int64_t rows, int64_t clusters, double *max, double *sum, const float *x, const double *shift, const double *v, double lambda);
} native_twin;

extern const native_twin twin_avx512, twin_avx2, twin_neon;
