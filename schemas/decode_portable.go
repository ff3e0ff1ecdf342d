//go:build !cgo

package schemas

// decode is decodeRows where there is no C.
func decode(dst []float32, codes []uint16, scales []scale, width int) {
	decodeRows(dst, codes, scales, width)
}
