// Package libjpeg decodes JPEG files with libjpeg-turbo: the pixels of Pillow,
// which decodes with it too.
//
// It is a thin layer over libjpeg's C interface, built in by the tag turbojpeg
// where the headers and the static library are installed ([Available] tells).
// The library is linked statically, so that [Version] names the code that runs:
// a shared one could be replaced under a binary, and have other pixels, without
// a trace in any fingerprint.
//
// # Exactness
//
// The settings are Pillow's: the accurate integer inverse DCT, fancy
// upsampling, block smoothing of progressive files whose last scans are
// missing. Four components are taken for inverted CMYK, as Adobe writes it,
// and become RGB by Pillow's formula. A file over which libjpeg warns is
// decoded, as Pillow does; one that ends early never is.
//
// # Windows
//
// A [Request] may ask for a part of the image. Columns outside it, to the
// nearest whole coding unit, are entropy-decoded but not transformed, rows above
// it neither where the file permits, and rows below it are not read at all. The
// pixels inside are those of the whole image, bit for bit.
//
// # Safety
//
// The library's errors come back by longjmp as an [*Error]; it never prints or
// exits. Nothing of the Go heap is kept or taken by a call, and the C memory that
// one takes is bounded by the request's size, with which the file must agree.
package libjpeg
