//go:build race

package sinkhorn

// The race detector slows the kernels about tenfold.
const raceEnabled = true
