package builtin

import (
	"context"
	"errors"
	"fmt"
	"image"

	"sela/stages/internal/imageio"
	"sela/stages/internal/imageio/augment"
)

// painter makes tensors of images, in buffers that it reuses. It belongs to one
// goroutine.
type painter struct {
	*Loader
	decoder *imageio.Worker // of the evaluation's pixels, not normalised
	augment *augment.Worker
	draws   draws

	stored []byte // from the cache
	plain  []byte // as in evaluation
	varied []byte
	turned []byte
}

func (l *Loader) newPainter() (*painter, error) {
	w, err := l.o.Augment.NewWorker()
	if err != nil {
		return nil, err
	}
	return &painter{Loader: l, decoder: l.plain.NewWorker(), augment: w, plain: make([]byte, l.plain.Len()),
		varied: make([]byte, l.plain.Len()), turned: make([]byte, l.plain.Len())}, nil
}

// keptPixels bounds the images that the cache keeps as pixels though they are
// smaller encoded, in bytes: up to 147×147 pixels. It saves their decoding in all
// later epochs.
const keptPixels = 64 << 10

// pixels returns an image as interleaved RGB: whole, of which only the part that
// crop chooses is defined, or as in evaluation if crop is nil. data is what was
// fetched for it, if anything.
func (p *painter) pixels(ctx context.Context, i int, data []byte, crop func(width, height int) image.Rectangle) (pix []byte, width int, err error) {
	stored := false
	if data == nil {
		if data, width, stored = p.cache.get(i, &p.stored); width > 0 {
			return data, width, nil
		}
	}
	if data == nil {
		if data, err = p.fetch(ctx, i); err != nil {
			return nil, 0, err
		}
	}
	if crop != nil {
		var m *imageio.RGB
		m, err = p.decoder.DecodePart(data, func(width, height int) image.Rectangle {
			if p.keeps(3*width*height, data) {
				return image.Rect(0, 0, width, height)
			}
			return crop(width, height)
		})
		if err == nil {
			pix, width = m.Pix, m.Width
		}
	} else {
		pix, width = p.plain, p.size.X
		err = p.decoder.Uint8(data, pix)
	}
	if err != nil {
		if bad := new(imageio.Error); errors.As(err, &bad) {
			err = &reject{bad.Error()}
		}
		return nil, 0, err
	}
	switch {
	case p.keeps(len(pix), data):
		p.cache.put(i, pix, width)
	case !stored && !p.images.Local():
		p.cache.put(i, data, 0)
	}
	return pix, width, nil
}

// keeps tells whether the cache is to keep so many bytes of pixels rather than
// the encoded bytes.
func (p *painter) keeps(pixels int, data []byte) bool {
	return pixels <= max(len(data), min(p.share, keptPixels))
}

// train writes the tensor of an image as an epoch sees it and returns its number
// of quarter turns.
func (p *painter) train(ctx context.Context, dst []float32, i int, data []byte, epoch int) (turns int, err error) {
	row := p.labels.rows[i].number
	draw := func(width, height int) augment.Choices {
		return p.o.Augment.Draw(augment.Key{Seed: p.o.Seed, Epoch: uint32(epoch), Row: uint64(row)}, width, height)
	}
	var crop func(width, height int) image.Rectangle
	if p.o.Augment.Size != (image.Point{}) {
		crop = func(width, height int) image.Rectangle { return draw(width, height).Crop }
	}
	pix, width, err := p.pixels(ctx, i, data, crop)
	if err != nil {
		return 0, err
	}
	height := len(pix) / 3 / width
	if err := p.augment.Apply(p.varied, pix, width, height, draw(width, height)); err != nil {
		return 0, fmt.Errorf("row %d: %w", row, err)
	}
	pix = p.varied
	if p.o.Rotations {
		p.draws.begin(forTurn, p.o.Seed, epoch, row, 0)
		turns = int(p.draws.Uint64() >> 62)
		augment.QuarterTurns(p.turned, pix, p.size.X, p.size.Y, turns)
		pix = p.turned
	}
	p.normalise(dst, pix)
	return turns, nil
}

// evaluate writes the tensor of an image as the labels' model saw it.
func (p *painter) evaluate(ctx context.Context, dst []float32, i int, data []byte) error {
	pix, _, err := p.pixels(ctx, i, data, nil)
	if err == nil {
		p.normalise(dst, pix)
	}
	return err
}

// normalise writes (x/255 − mean)/std, each operation rounded to float32, as
// package imageio does.
func (p *painter) normalise(dst []float32, pix []byte) {
	n := len(pix) / 3
	t := p.values
	if p.o.Preprocess.Layout == imageio.NHWC {
		for i := range n {
			in, out := pix[3*i:3*i+3:3*i+3], dst[3*i:3*i+3:3*i+3]
			out[0], out[1], out[2] = t[0][in[0]], t[1][in[1]], t[2][in[2]]
		}
		return
	}
	r, g, b := dst[:n], dst[n:2*n], dst[2*n:3*n]
	for i := range r {
		in := pix[3*i : 3*i+3 : 3*i+3]
		r[i], g[i], b[i] = t[0][in[0]], t[1][in[1]], t[2][in[2]]
	}
}

// normalised tabulates normalise for each channel and sample.
func normalised(mean, std [3]float32) *[3][256]float32 {
	var t [3][256]float32
	for c := range t {
		for x := range t[c] {
			t[c][x] = float32(float32(x)/255-mean[c]) / std[c]
		}
	}
	return &t
}
