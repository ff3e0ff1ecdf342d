package imageio

import (
	"bytes"
	"fmt"
	"image"
	"image/png"

	"golang.org/x/image/vp8l"
)

// RGB is an image of 8-bit samples, rows top to bottom without padding, red
// first: 3·Width·Height bytes.
type RGB struct {
	Width, Height int
	Pix           []byte
}

// reset makes m a black image of the given size, in its old memory if that is
// large enough.
func (m *RGB) reset(width, height int) {
	m.Width, m.Height = width, height
	m.Pix = grow(m.Pix, 3*width*height)
	clear(m.Pix)
}

// resize is reset for a caller that writes every byte.
func (m *RGB) resize(width, height int) {
	m.Width, m.Height = width, height
	m.Pix = grow(m.Pix, 3*width*height)
}

func (m *RGB) row(y int) []byte { return m.Pix[3*m.Width*y:][:3*m.Width] }

// grow returns a slice of length n, b's memory if it suffices.
func grow[T any](b []T, n int) []T {
	if cap(b) < n {
		return make([]T, n)
	}
	return b[:n]
}

// reading is what is wanted of an image. The zero value is all of it.
type reading struct {
	// eighths is 1 to 7 for a JPEG decoded at eighths/8 of its size, each side
	// rounded up: the low frequencies of its blocks alone, which no resize of the
	// whole image gives. 0 and 8 are full size. Other formats and image/jpeg,
	// which cannot, give the whole size.
	eighths int
	// window bounds the pixels that will be read, in the coordinates of the
	// (reduced) image. The others may be left undefined. Empty: all are read.
	window image.Rectangle
}

// decoder turns encoded bytes into RGB as Pillow's convert("RGB") would. It
// owns what can be reused between images; it is not safe for concurrent use.
type decoder struct {
	limits Limits
	reader bytes.Reader
	jpeg   jpegDecoder
	gif    gifDecoder
	bmp    bmpDecoder
	tiff   tiffDecoder
	chroma chroma
}

// decode overwrites dst with the image, at its whole (reduced) size even where
// a window of it is wanted. plan says what is wanted, once the header is known
// and within the limits; nil is all of it. A panic in a decoder is a corrupt
// image.
func (d *decoder) decode(data []byte, plan func(h header) reading, dst *RGB) (err error) {
	if n := int64(len(data)); n > d.limits.MaxBytes {
		return fail(TooLarge, "", "%d bytes, the limit is %d", n, d.limits.MaxBytes)
	}
	var h header
	defer func() {
		if p := recover(); p != nil {
			err = fail(Corrupt, h.format, "the decoder panicked: %v", p)
		}
	}()
	if h, err = readHeader(data); err != nil {
		return err
	}
	if err = h.check(len(data), d.limits); err != nil {
		return err
	}
	var r reading
	if plan != nil {
		r = plan(h)
	}
	if err = d.pixels(h, data, r, dst); err != nil {
		return classify(h.format, err)
	}
	if h.format == "jpeg" && d.jpeg.scales() {
		h.width, h.height = r.scaled(h.width), r.scaled(h.height)
	}
	if dst.Width != h.width || dst.Height != h.height {
		return fail(Corrupt, h.format, "%d×%d pixels decoded, %d×%d in the header", dst.Width, dst.Height, h.width, h.height)
	}
	return nil
}

// scaled returns the length of a side that has n pixels at full size.
func (r reading) scaled(n int) int {
	if r.eighths == 0 {
		return n
	}
	return (n*r.eighths + 7) / 8
}

func (d *decoder) pixels(h header, data []byte, r reading, dst *RGB) error {
	d.reader.Reset(data)
	// The data belongs to the caller: forget it.
	defer d.reader.Reset(nil)
	var (
		m   image.Image
		err error
	)
	switch h.format {
	case "jpeg":
		return d.jpeg.decode(h, data, r, dst)
	case "gif":
		return d.gif.decode(data, dst)
	case "webp":
		d.reader.Reset(h.webp.data)
		if !h.webp.lossless {
			return d.chroma.vp8(h, &d.reader, dst)
		}
		if m, err = vp8l.Decode(&d.reader); err == nil {
			dst.reset(h.width, h.height)
			return flattenAt(m, h.webp.left, h.webp.top, dst)
		}
	case "png":
		m, err = png.Decode(&d.reader)
	case "bmp":
		return d.bmp.decode(data, dst)
	case "tiff":
		return d.tiff.decode(data, dst)
	default:
		err = fmt.Errorf("no decoder")
	}
	if err != nil {
		return err
	}
	return flatten(m, h.gray16, dst)
}
