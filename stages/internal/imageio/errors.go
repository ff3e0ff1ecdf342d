package imageio

import (
	"errors"
	"fmt"
	"image/jpeg"
	"image/png"
	"io"
	"strings"

	"sela/stages/internal/imageio/libjpeg"
)

// Class says why an image cannot be used. It is the class column of the
// quarantine table.
type Class string

const (
	// Empty is a file of no bytes.
	Empty Class = "empty"
	// Format is a file that is no image of a known format.
	Format Class = "format"
	// Truncated is an image that ends before its last pixel.
	Truncated Class = "truncated"
	// Corrupt is an image whose contents contradict its format.
	Corrupt Class = "corrupt"
	// TooLarge is an image beyond [Limits].
	TooLarge Class = "too-large"
	// Unsupported is a valid image that uses a feature no decoder here knows.
	Unsupported Class = "unsupported"
)

// Error is what is wrong with one image. Every error about an image's bytes is
// one; errors about the caller's arguments are not.
type Error struct {
	Class  Class
	Format string // "jpeg", "png", "gif", "bmp", "tiff", "webp", or "" if unknown
	Err    error  // what the decoder said
}

// Error names the format, the class and the cause.
func (e *Error) Error() string {
	format := e.Format
	if format == "" {
		format = "image"
	}
	return fmt.Sprintf("decode %s: %s: %v", format, e.Class, e.Err)
}

// Unwrap returns the decoder's error.
func (e *Error) Unwrap() error { return e.Err }

func fail(c Class, format, message string, args ...any) error {
	return &Error{c, format, fmt.Errorf(message, args...)}
}

var nativeClasses = map[libjpeg.Kind]Class{
	libjpeg.Corrupt: Corrupt, libjpeg.Truncated: Truncated, libjpeg.Unsupported: Unsupported, libjpeg.TooLarge: TooLarge,
}

// classify gives a decoder's error its class.
func classify(format string, err error) error {
	var own *Error
	if errors.As(err, &own) {
		return err
	}
	var (
		inJPEG jpeg.UnsupportedError
		inPNG  png.UnsupportedError
		native *libjpeg.Error
	)
	class := Corrupt
	switch {
	case errors.As(err, &native):
		class = nativeClasses[native.Kind]
	case errors.As(err, &inJPEG), errors.As(err, &inPNG):
		class = Unsupported
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), strings.HasSuffix(err.Error(), "not enough pixel data"):
		class = Truncated
	}
	return &Error{class, format, err}
}
