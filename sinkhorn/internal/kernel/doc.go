// Package kernel holds the inner loops of the solver: small functions on
// slices, written in portable Go. What is written here is the definition: a
// faster twin of a function is right when it returns the same bits.
//
// # Rules that make the bits reproducible
//
//   - Every float64 operation is an IEEE 754 addition, subtraction,
//     multiplication or division rounded once. Go may fuse x*y + z on some
//     architectures, so each product that is added is written float64(x*y),
//     which the language specification forbids to fuse. Nothing here calls
//     package math for exp or log, whose results differ between
//     architectures in the last place.
//   - A sum along a row runs in Lanes interleaved partial sums: lane j adds
//     the terms k = j, j+Lanes, j+2·Lanes … in this order, and the lanes are
//     then added as ((l0+l4)+(l2+l6)) + ((l1+l5)+(l3+l7)): one 512-bit
//     register, or two of 256 bits.
//   - A sum down a column adds one row after the other.
//
// # What is left out of a sum
//
// A term e^(t−max) with t−max < −Cutoff counts as zero. Next to the row's
// largest term, which is 1, the K terms left out weigh at most K·e^−100 <
// K·4e-44: far below half a unit in the last place of any row sum for every
// K that fits a machine, so no row sum loses a bit by it. A column
// sum may consist of such terms only; the caller sees it by its size (less
// than StarvedMass) and adds that column again with Columns, in log domain.
package kernel

// Lanes is the number of interleaved partial sums along a row.
const Lanes = 8

// Cutoff is the distance in nats below a row's largest score at which an
// entry no longer takes part in the row's sums.
const Cutoff = 100.0

// StarvedMass bounds what Row can hide from a column: the entries that Row
// leaves out add at most 1024·e^−Cutoff = 3.8e-41 to a column over 1,024
// rows, less than 2⁻⁵³ of any column sum of at least StarvedMass. Columns
// below it must be added by Columns.
const StarvedMass = 1e-24
