// Package resample scales images exactly as Pillow's Image.resize does: byte for
// byte, whatever the filter, the sizes and the processor.
//
// # Arithmetic
//
// A resize is two passes, one along each axis, and the result of the first is
// rounded to 8 bits. An output sample is a weighted sum of its neighbours in
// fixed point,
//
//	clip((2²¹ + Σ weight·sample) >> 22)
//
// with weights rounded to 22 bits after the point. The weights are computed in
// float64 in Pillow's order, with every product rounded before it is added. The
// sum is exact, so its terms may be added in any order and in parts.
//
// # Twins
//
// The portable Go code is the definition. Its twins in C return the same bytes:
// AVX-512 with VNNI, AVX2 and NEON from one source (passes.h) over three sets of
// vector operations (ops_*.h); the best one that the processor runs is in use.
// They multiply parts of the weights: a weight has 24 bits, which are three
// digits of 8 bits for VNNI's products of bytes, or two of 16 bits for AVX2's
// products of words, and sums of digits are put together at the end, exact
// modulo 2³². They are entered through cgo once per pass. With CGO_ENABLED=0, on
// other processors, or with the build tag portable, the Go code runs alone.
//
// # Work
//
// Only the wanted part of the result is computed, from only the part of the
// source that it needs ([Scaling.Window]), and the first pass makes only what
// the second reads.
package resample
