//go:build linux && !(amd64 && cgo)

package main

// multiplyRate is not measured without C, or on other processors.
func multiplyRate() float64 { return 0 }
