package imageio

import (
	"bytes"
	"fmt"
	"image"
	"image/png"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
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

// decoder turns encoded bytes into RGB as Pillow's convert("RGB") would. It
// owns what can be reused between images; it is not safe for concurrent use.
type decoder struct {
	limits Limits
	reader bytes.Reader
	jpeg   jpegDecoder
	gif    gifDecoder
	chroma chroma
}

// decode overwrites dst. A panic in a decoder is a corrupt image.
func (d *decoder) decode(data []byte, dst *RGB) (err error) {
	if n := int64(len(data)); n > d.limits.MaxBytes {
		return fail(TooLarge, "", "%d bytes, the limit is %d", n, d.limits.MaxBytes)
	}
	var h header
	defer func() {
		if p := recover(); p != nil {
			err = fail(Corrupt, h.format, "the decoder panicked: %v", p)
		}
	}()
	if h, err = readHeader(data, &d.reader); err != nil {
		return err
	}
	if err = h.check(len(data), d.limits); err != nil {
		return err
	}
	if err = d.pixels(h, data, dst); err != nil {
		return classify(h.format, err)
	}
	if dst.Width != h.width || dst.Height != h.height {
		return fail(Corrupt, h.format, "%d×%d pixels decoded, %d×%d in the header", dst.Width, dst.Height, h.width, h.height)
	}
	return nil
}

func (d *decoder) pixels(h header, data []byte, dst *RGB) error {
	d.reader.Reset(data)
	// The data belongs to the caller: forget it.
	defer d.reader.Reset(nil)
	var (
		m   image.Image
		err error
	)
	switch h.format {
	case "jpeg":
		return d.jpeg.decode(h, data, dst)
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
		m, err = bmp.Decode(&d.reader)
	case "tiff":
		if m, err = tiff.Decode(&d.reader); err == nil {
			err = flatten(m, false, dst)
			if blackIsZeroFax(data) {
				invert(dst.Pix)
			}
			return err
		}
	default:
		err = fmt.Errorf("no decoder")
	}
	if err != nil {
		return err
	}
	return flatten(m, h.gray16, dst)
}
