package imageio

import (
	"fmt"
	"image"

	"sela/stages/internal/imageio/resample"
)

// Preprocessor is a checked [Spec] with what all its workers share. It is
// immutable and safe for concurrent use.
type Preprocessor struct {
	spec Spec
	f32  *table[float32]
	f16  *table[uint16]
}

// New validates the spec.
func New(spec Spec) (*Preprocessor, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	spec = spec.withDefaults()
	p := &Preprocessor{spec: spec}
	switch spec.DType {
	case Float32:
		p.f32 = spec.normalised()
	case Float16:
		p.f16 = halved(spec.normalised())
	}
	return p, nil
}

// Spec returns the spec with its defaults filled in.
func (p *Preprocessor) Spec() Spec { return p.spec }

// Len returns the number of elements of one image's tensor, 3·height·width.
func (p *Preprocessor) Len() int { return p.spec.Len() }

// NewWorker returns a worker for one goroutine.
func (p *Preprocessor) NewWorker() *Worker {
	return &Worker{p: p, decoder: decoder{limits: p.spec.Limits, jpeg: newJPEG()}}
}

// Worker preprocesses one image at a time in buffers it owns and reuses. It is
// not safe for concurrent use.
type Worker struct {
	p       *Preprocessor
	decoder decoder
	resizer resample.Resizer
	image   RGB
	turned  RGB
	scaled  []byte
}

// Decode returns the whole image as RGB, before any resizing. The result is the
// worker's and holds until its next call. The error is an [*Error].
func (w *Worker) Decode(data []byte) (*RGB, error) {
	if err := w.decoder.decode(data, nil, &w.image); err != nil {
		return nil, err
	}
	return &w.image, nil
}

// DecodePart is [Worker.Decode] for a caller that reads a part of the image
// only, turned as the spec's orientation says: wanted is given the size of the
// turned image, before any pixel is decoded, and returns that part. Pixels
// outside it are undefined.
func (w *Worker) DecodePart(data []byte, wanted func(width, height int) image.Rectangle) (*RGB, error) {
	turn := upright
	err := w.decoder.decode(data, func(h header) (r reading) {
		turn = w.turn(h, data)
		if turn >= 5 { // a quarter turn
			h.width, h.height = h.height, h.width
		}
		if part := wanted(h.width, h.height); turn == upright {
			r.window = part
		}
		return r
	}, &w.image)
	if err != nil {
		return nil, err
	}
	if turn == upright {
		return &w.image, nil
	}
	orient(&w.image, turn, &w.turned)
	return &w.turned, nil
}

// turn returns how the image is to be turned. Pillow, and so the decoder, turns
// a TIFF whatever it is asked.
func (w *Worker) turn(h header, data []byte) int {
	if w.p.spec.Orientation != EXIFOrientation || h.format == "tiff" {
		return upright
	}
	return orientation(h.format, data)
}

// Float32 writes the tensor of the encoded image into dst, which has length
// [Preprocessor.Len]. data is not kept. An error about the image is an
// [*Error], and dst is then untouched.
func (w *Worker) Float32(data []byte, dst []float32) error {
	if err := w.expect(Float32, len(dst)); err != nil {
		return err
	}
	pix, err := w.pixels(data)
	if err == nil {
		w.p.f32.write(dst, pix, w.p.spec.Layout)
	}
	return err
}

// Float16 is [Worker.Float32] for IEEE 754 half precision, as bit patterns.
func (w *Worker) Float16(data []byte, dst []uint16) error {
	if err := w.expect(Float16, len(dst)); err != nil {
		return err
	}
	pix, err := w.pixels(data)
	if err == nil {
		w.p.f16.write(dst, pix, w.p.spec.Layout)
	}
	return err
}

// Uint8 is [Worker.Float32] for samples that are not normalised.
func (w *Worker) Uint8(data []byte, dst []uint8) error {
	if err := w.expect(Uint8, len(dst)); err != nil {
		return err
	}
	pix, err := w.pixels(data)
	switch {
	case err != nil:
	case w.p.spec.Layout == NHWC:
		copy(dst, pix)
	default:
		separate(dst, pix)
	}
	return err
}

func (w *Worker) expect(t DType, n int) error {
	if w.p.spec.DType != t {
		return fmt.Errorf("preprocess: the spec's tensor is %s, not %s", w.p.spec.DType, t)
	}
	if n != w.p.Len() {
		return fmt.Errorf("preprocess: room for %d elements, one image has %d", n, w.p.Len())
	}
	return nil
}

// pixels decodes, turns, resizes and crops: 3·height·width interleaved bytes,
// valid until the next call. Only what the resize reads is decoded.
func (w *Worker) pixels(data []byte) ([]byte, error) {
	s := w.p.spec
	turn, g := upright, geometry{}
	err := w.decoder.decode(data, func(h header) (r reading) {
		turn = w.turn(h, data)
		if turn >= 5 { // a quarter turn
			h.width, h.height = h.height, h.width
		}
		g = s.plan(h.width, h.height)
		if r.eighths = 8; s.Decode == Scaled && h.format == "jpeg" {
			r.eighths = g.eighths(h.width, h.height)
		}
		if turn == upright {
			r.window = g.scaling(r.scaled(h.width), r.scaled(h.height), s.Filter, s.Order).Window()
		}
		return r
	}, &w.image)
	if err != nil {
		return nil, err
	}
	m := &w.image
	if turn != upright {
		orient(m, turn, &w.turned)
		m = &w.turned
	}
	if whole := (Size{m.Height, m.Width}); g.scaled == whole && g.out == whole {
		return m.Pix, nil
	}
	if n := int64(m.Height) * int64(g.keep.Width); n > s.Limits.MaxPixels {
		return nil, fail(TooLarge, "", "%d×%d pixels need %d between the passes of the resize, the limit is %d",
			m.Width, m.Height, n, s.Limits.MaxPixels)
	}
	w.scaled = grow(w.scaled, 3*g.out.Height*g.out.Width)
	g.resize(&w.resizer, w.scaled, m, s.Filter, s.Order)
	return w.scaled, nil
}
