package imageio

import (
	"bytes"
	"image"
	"math/rand/v2"
	"testing"

	"sela/stages/internal/imageio/libjpeg"
)

// mutate damages a copy of a file in one of the ways that files are damaged:
// flipped bits, overwritten, lost, repeated and foreign runs, a lost tail, a
// marker where none belongs, wild values in the header.
func mutate(random *rand.Rand, data, other []byte) []byte {
	data = bytes.Clone(data)
	run := func(b []byte, most int) (from, to int) {
		from = random.IntN(len(b))
		return from, min(len(b), from+1+random.IntN(most))
	}
	for range 1 + random.IntN(3) {
		if len(data) == 0 {
			return data
		}
		switch random.IntN(9) {
		case 0:
			for range 1 + random.IntN(8) {
				data[random.IntN(len(data))] ^= 1 << random.IntN(8)
			}
		case 1:
			from, to := run(data, 32)
			v := []byte{0, 0xff, 0x7f, byte(random.IntN(256))}[random.IntN(4)]
			for i := from; i < to; i++ {
				data[i] = v
			}
		case 2:
			from, to := run(data, 200)
			data = append(data[:from], data[to:]...)
		case 3:
			from, to := run(data, 200)
			data = append(data[:to:to], data[from:]...)
		case 4:
			at := random.IntN(len(data))
			from, to := run(other, 400)
			data = append(append(data[:at:at], other[from:to]...), data[at:]...)
		case 5:
			data = data[:random.IntN(len(data))]
		case 6: // mostly lost, its end kept: headers walk to it
			from, to := run(data, len(data))
			to = min(to, max(from, len(data)-2))
			data = append(data[:from], data[to:]...)
		case 7:
			at := random.IntN(len(data))
			marker := []byte{0xff, byte(0xc0 + random.IntN(64)), 0, byte(random.IntN(20))}
			data = append(append(data[:at:at], marker[:2+2*random.IntN(2)]...), data[at:]...)
		case 8:
			for range 1 + random.IntN(3) {
				data[random.IntN(min(len(data), 200))] = byte(random.IntN(256))
			}
		}
	}
	return data
}

// TestMutations puts damaged samples through every decoder: each must end in an
// image or in an [Error], and in a used decoder leave nothing to the next image.
// The decoders in C have no other guard than their own checks, so this test is
// also run under a sanitiser.
func TestMutations(t *testing.T) {
	const mutations = 10000
	limits := Limits{MaxBytes: 1 << 20, MaxPixels: 1 << 18, MaxRatio: 1 << 20}
	decoders := []*decoder{{limits: limits, jpeg: new(standardJPEG)}}
	if libjpeg.Available {
		decoders = append(decoders, &decoder{limits: limits, jpeg: newJPEG()})
	}
	files := sampleFiles(t)
	random := rand.New(rand.NewPCG(20, 26))
	var whole, part RGB
	decoded := 0
	for i := range mutations {
		// The files in turn, the kind of damage by chance.
		data := mutate(random, files[i%len(files)], files[random.IntN(len(files))])
		for _, d := range decoders {
			err := d.decode(data, nil, &whole)
			if err != nil && classOf(err) == "" {
				t.Fatalf("mutation %d: an error without a class: %v", i, err)
			}
			if err == nil {
				decoded++
			}
			var r reading
			partErr := d.decode(data, func(h header) reading {
				if random.IntN(2) == 0 && d.jpeg.scales() {
					r.eighths = 1 + random.IntN(8)
				}
				w, h2 := r.scaled(h.width), r.scaled(h.height)
				x, y := random.IntN(w), random.IntN(h2)
				r.window = image.Rect(x, y, x+1+random.IntN(w-x), y+1+random.IntN(h2-y))
				return r
			}, &part)
			if partErr != nil && classOf(partErr) == "" {
				t.Fatalf("mutation %d: a window %+v: an error without a class: %v", i, r, partErr)
			}
			if r.eighths%8 != 0 {
				continue
			}
			if (err == nil) != (partErr == nil) {
				t.Errorf("mutation %d: the whole image: %v, window %v of it: %v", i, err, r.window, partErr)
			}
			if err != nil || partErr != nil {
				continue
			}
			for y := r.window.Min.Y; y < r.window.Max.Y; y++ {
				from, to := 3*r.window.Min.X, 3*r.window.Max.X
				if !bytes.Equal(whole.row(y)[from:to], part.row(y)[from:to]) {
					t.Errorf("mutation %d: row %d of window %v of %d×%d differs from the whole image's", i, y, r.window, whole.Width, whole.Height)
					break
				}
			}
		}
	}
	if decoded == 0 {
		t.Error("no mutation left an image that decodes: they test no decoder")
	}
	t.Logf("%d of %d decodings gave an image", decoded, mutations*len(decoders))
}
