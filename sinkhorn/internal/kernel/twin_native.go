//go:build cgo && (amd64 || arm64) && !portable

package kernel

// -std=c11 forbids the compiler to fuse products with sums (GCC's default
// mode does so even across intrinsics, and cgo does not let -ffp-contract
// pass); the tests compare bits.

// #cgo CFLAGS: -O3 -std=c11
// #cgo noescape block
// #cgo nocallback block
// #cgo noescape log_sums
// #cgo nocallback log_sums
// #include "twin.h"
//
// // twin_of returns the twins from the slowest on, null for one that this
// // processor cannot run.
// static const native_twin *twin_of(int i) {
// #ifdef __aarch64__
//     return i == 0 ? &twin_neon : 0;
// #else
//     __builtin_cpu_init();
//     if (i == 0)
//         return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
//                __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt") ? &twin_avx2 : 0;
//     return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
//            __builtin_cpu_supports("avx512vl") && twin_of(0) ? &twin_avx512 : 0;
// #endif
// }
//
// static int64_t block(const native_twin *t, int64_t i, int64_t n, const float *x, block_args a) {
//     return t->block(i, n, x, &a);
// }
//
// static int64_t log_sums(const native_twin *t, int64_t rows, int64_t clusters, double *max, double *sum, const float *x,
//                      const double *shift, const double *v, double lambda) {
//     return t->log_sums(rows, clusters, max, sum, x, shift, v, lambda);
// }
import "C"

import (
	"slices"
	"unsafe"
)

// native returns the twins in C that this processor can run, best last.
func native() []twin {
	var found []twin
	for i := range 2 {
		t := C.twin_of(C.int(i))
		if t == nil {
			continue
		}
		found = append(found, twin{
			name: C.GoString(t.name),
			block: func(p *Params, s *Scratch, r *Rows, i int, mass []float64, x []float32, l *List) int {
				return nativeBlock(t, p, s, r, i, mass, x, l)
			},
			logSums: func(max, sum []float64, x []float32, shift, v []float64, lambda float64) int {
				rows := len(x) / len(max)
				return int(C.log_sums(t, C.int64_t(rows), C.int64_t(len(max)), f64(max), f64(sum), f32(x), f64(shift), f64(v), C.double(lambda)))
			},
		})
	}
	return found
}

// nativeBlock is a twin's block.
func nativeBlock(t *C.native_twin, p *Params, s *Scratch, r *Rows, i int, mass []float64, x []float32, l *List) int {
	n := len(r.Max)
	a := C.block_args{
		clusters: C.int64_t(p.clusters), lambda: C.double(p.lambda), largest: C.double(p.largest), v: f64(p.v), v32: f32(p.v32),
		weights: f64(s.weights), groups: i32(s.groups), hits: i32(s.hits), listed: (*C.uint8_t)(unsafe.SliceData(s.listed)),
		tiles: f32(s.tiles), reach: f32(s.reach), bounds: f32(s.bounds),
		max: f64(r.Max), sum: f64(r.Sum[:n]), low: f32(r.Low), high: f32(r.High),
		best: i32(r.Best), second: f64(r.Second),
		mass: f64(mass),
	}
	if l == nil {
		return int(C.block(t, C.int64_t(i), C.int64_t(n), f32(x), a))
	}
	l.End = slices.Grow(l.End, n-i)
	rows, entries, room := len(l.End), len(l.Cluster), min(cap(l.Cluster), cap(l.X))
	a.margin, a.dropped = f64(l.Margin), f64(l.Dropped)
	a.end = i32(l.End[rows : rows+n-i])
	a.cluster, a.x = i32(l.Cluster[:room]), f32(l.X[:room])
	a.entries, a.room = C.int64_t(entries), C.int64_t(room)
	done := int(C.block(t, C.int64_t(i), C.int64_t(n), f32(x), a))
	if done > i {
		l.End = l.End[:rows+done-i]
		entries = int(l.End[len(l.End)-1])
		l.Cluster, l.X = l.Cluster[:entries], l.X[:entries]
	}
	return done
}

func f64(s []float64) *C.double { return (*C.double)(unsafe.SliceData(s)) }
func f32(s []float32) *C.float  { return (*C.float)(unsafe.SliceData(s)) }
func i32(s []int32) *C.int32_t  { return (*C.int32_t)(unsafe.SliceData(s)) }
