//go:build !race

package sinkhorn

const raceEnabled = false
