//go:build !linux

package ort

// keepSignals calls fn: the providers that replace signal handlers exist on
// Linux only.
func keepSignals(fn func() error) error { return fn() }
