//go:build !cgo || !(amd64 || arm64) || portable

package resample

// native returns nothing: this build has the portable code only.
func native() []twin { return nil }
