package imageio

import "fmt"

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
	resizer resizer
	image   RGB
	scaled  []byte
}

// Decode returns the whole image as RGB, before any resizing. The result is the
// worker's and holds until its next call. The error is an [*Error].
func (w *Worker) Decode(data []byte) (*RGB, error) {
	if err := w.decoder.decode(data, &w.image); err != nil {
		return nil, err
	}
	return &w.image, nil
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

// pixels decodes, resizes and crops: 3·height·width interleaved bytes, valid
// until the next call.
func (w *Worker) pixels(data []byte) ([]byte, error) {
	m, err := w.Decode(data)
	if err != nil {
		return nil, err
	}
	g := w.p.spec.plan(m.Width, m.Height)
	if whole := (Size{m.Height, m.Width}); g.scaled == whole && g.out == whole {
		return m.Pix, nil
	}
	if n := int64(m.Height) * int64(g.keep.Width); n > w.p.spec.Limits.MaxPixels {
		return nil, fail(TooLarge, "", "%d×%d pixels need %d between the passes of the resize, the limit is %d",
			m.Width, m.Height, n, w.p.spec.Limits.MaxPixels)
	}
	w.scaled = grow(w.scaled, 3*g.out.Height*g.out.Width)
	w.resizer.resize(m, w.p.spec.Filter, w.p.spec.Order, g, w.scaled)
	return w.scaled, nil
}
