//go:build cgo && turbojpeg

package libjpeg

// The folder is where jobs/setup/libjpeg.sh puts the library without root.

// #cgo CFLAGS: -O3 -I${SRCDIR}/../../../../.build/libjpeg/include
// #cgo LDFLAGS: -L${SRCDIR}/../../../../.build/libjpeg/lib -l:libjpeg.a
// #cgo noescape decode
// #cgo nocallback decode
// #include "native.h"
import "C"

import (
	"bytes"
	"fmt"
	"image"
	"unsafe"
)

// Available tells whether libjpeg-turbo is built in.
const Available = true

// Version returns the version of libjpeg-turbo that is built in, such as
// "2.1.5".
func Version() string { return C.GoString(C.version()) }

// Decode writes the pixels of the window into dst, which is the whole decoded
// image: rows from the top without padding, 3 bytes a pixel, red first,
// Scaled(r.Width, r.Eighths) by Scaled(r.Height, r.Eighths) pixels. Pixels
// outside the window are left undefined. Nothing is kept of data, dst or the
// call: it is safe for concurrent use. An error about the file is an [*Error];
// any other is the caller's.
func Decode(data []byte, r Request, dst []byte) error {
	if r.Width < 1 || r.Height < 1 || r.Eighths < 1 || r.Eighths > 8 {
		return fmt.Errorf("libjpeg: a request for %d/8 of %d×%d pixels", r.Eighths, r.Width, r.Height)
	}
	width, height := Scaled(r.Width, r.Eighths), Scaled(r.Height, r.Eighths)
	if len(dst) != 3*width*height {
		return fmt.Errorf("libjpeg: %d bytes for %d×%d pixels", len(dst), width, height)
	}
	all := image.Rect(0, 0, width, height)
	window := r.Window
	if window.Empty() {
		window = all
	}
	if !window.In(all) {
		return fmt.Errorf("libjpeg: a window %v of %d×%d pixels", window, width, height)
	}
	if r.Whole {
		// Skipped rows would not do: libjpeg stops reading after them.
		window.Max.Y = height
	}
	var message [C.MESSAGE_LENGTH]byte
	kind := C.decode((*C.uchar)(unsafe.SliceData(data)), C.size_t(len(data)), C.request{
		width: C.int(r.Width), height: C.int(r.Height), eighths: C.int(r.Eighths), scans: C.int(r.Scans),
		left: C.int(window.Min.X), top: C.int(window.Min.Y), right: C.int(window.Max.X), bottom: C.int(window.Max.Y),
	}, (*C.uchar)(unsafe.SliceData(dst)), C.int(width), C.int(height), (*C.char)(unsafe.Pointer(&message)))
	if kind != 0 {
		return &Error{Kind(kind), string(message[:bytes.IndexByte(message[:], 0)])}
	}
	return nil
}
