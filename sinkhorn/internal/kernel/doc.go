// Package kernel holds the inner loops of the solver. The portable Go code is
// the definition; the twins of Block and LogSums in C return the same bits.
//
// # Rules that make the bits reproducible
//
//   - Every float64 operation is an IEEE 754 addition, subtraction,
//     multiplication or division rounded once. Go may fuse x*y + z on some
//     architectures, so each product that is added is written float64(x*y),
//     which the language specification forbids to fuse; the C code is compiled
//     as -std=c11, which forbids it too. Nothing here calls package math for
//     exp or log, whose results differ between architectures in the last
//     place.
//   - A sum along a row runs in Lanes interleaved partial sums: lane j adds
//     the terms k = j, j+Lanes, j+2·Lanes … in this order, and the lanes are
//     then added as ((l0+l4)+(l2+l6)) + ((l1+l5)+(l3+l7)): one 512-bit
//     register, or two of 256 bits. Adding +0 to a lane changes nothing, so
//     groups of Lanes columns without a term may be skipped.
//   - A sum down a column adds one row after the other.
//   - float32 only screens: it may keep too much, never too little (block.h
//     has the bound and its proof).
//
// # What is left out of a sum
//
// A term e^(t−max) with t−max < −Cutoff counts as zero. Next to the row's
// largest term, which is 1, the K terms left out weigh at most K·e^−60 <
// K·8.8e-27: below half a unit in the last place of the row's sum for every K
// up to 10¹⁰. A column's mass over N rows is too small by at most N·8.8e-27,
// which matters to columns that consist of such terms: those the caller adds
// again with LogSums, in log domain.
//
// # Twins
//
// The twins are C with intrinsics, AVX-512, AVX2 and NEON from one source
// (block.h) over three sets of vector operations (ops_*.h), and the best one
// that the processor runs is in use. They are entered through cgo once per
// block, not per row: 0.12 µs a call at best, where a block of 512 KiB takes
// at least 15 µs (AVX-512, peaked rows, K = 30,000, from the L2 cache;
// BenchmarkCall, BenchmarkBlock). Assembly would save that one percent, and
// cost one text per processor, register allocation by hand and the checks of
// a compiler.
// With CGO_ENABLED=0, on other processors, or with the build tag portable,
// the Go code runs alone.
package kernel

// Lanes is the number of interleaved partial sums along a row.
const Lanes = 8

// Cutoff is the distance in nats below a row's largest score at which an
// entry no longer takes part in the row's sums.
const Cutoff = 60.0
