package letters

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"image/png"
	"math"
	"math/rand/v2"

	"golang.org/x/image/vector"
)

const (
	// Version changes whenever the same number and seed give another image.
	Version = 1
	// Count is the number of letters.
	Count = 26
	// Size is the width and height of every image, in pixels.
	Size = 32
)

// schemes are the pairs of colours a letter is drawn in.
var schemes = []struct{ paper, ink color.RGBA }{
	{rgb(0xf2ecdf), rgb(0x2b2a33)}, // cream, black
	{rgb(0xf4c95d), rgb(0x5a2a27)}, // amber, brown
	{rgb(0xbfd7ea), rgb(0x1d3461)}, // sky, navy
	{rgb(0xf0b7a4), rgb(0x7a1f3d)}, // salmon, wine
	{rgb(0xb9d8a4), rgb(0x1f4d2e)}, // leaf, forest
	{rgb(0x3b4a6b), rgb(0xf3e9c8)}, // slate, ivory
}

func rgb(v uint32) color.RGBA {
	return color.RGBA{uint8(v >> 16), uint8(v >> 8), uint8(v), 0xff}
}

// Letter returns the letter ('A' to 'Z') of image number index.
func Letter(index int, seed uint64) byte {
	hand, place := uint64(index/Count), index%Count
	deal := rand.New(rand.NewPCG(seed, ^hand))
	return 'A' + byte(deal.Perm(Count)[place])
}

// Render draws image number index (≥ 0) and returns it with its letter. It is
// a pure function of its arguments, safe for concurrent use; the image is
// opaque, Size × Size, and the caller's own.
func Render(index int, seed uint64) (*image.RGBA, byte) {
	letter := Letter(index, seed)
	rng := rand.New(rand.NewPCG(seed, uint64(index)))
	uniform := func(low, high float64) float64 { return low + (high-low)*rng.Float64() }

	glyphs := outlines()
	shape := glyphs[rng.IntN(len(glyphs))][letter-'A']
	scheme := schemes[rng.IntN(len(schemes))]
	paper, ink := tint(rng, scheme.paper), tint(rng, scheme.ink)
	angle := uniform(-18, 18) * math.Pi / 180
	size := uniform(0.60, 0.84) * Size
	x, y := Size/2+uniform(-2.5, 2.5), Size/2+uniform(-2.5, 2.5)
	light, from := uniform(0, 18), uniform(0, 2*math.Pi)
	grain := uniform(2, 12)

	pen := vector.NewRasterizer(Size, Size)
	pen.DrawOp = draw.Src
	shape.trace(pen, angle, size, x, y)
	cover := image.NewAlpha(image.Rect(0, 0, Size, Size))
	pen.Draw(cover, cover.Bounds(), image.Opaque, image.Point{})

	img := image.NewRGBA(cover.Bounds())
	slopeY, slopeX := math.Sincos(from)
	for i, alpha := range cover.Pix {
		column, row := float64(i%Size), float64(i/Size)
		shade := light*(slopeX*(column/Size-0.5)+slopeY*(row/Size-0.5)) + grain*rng.NormFloat64()
		a := float64(alpha) / 255
		pixel := img.Pix[4*i : 4*i+4 : 4*i+4]
		for c := range 3 {
			pixel[c] = level(paper[c]*(1-a) + ink[c]*a + shade)
		}
		pixel[3] = 0xff
	}
	return img, letter
}

// tint returns the colour's channels, each moved a little.
func tint(rng *rand.Rand, c color.RGBA) (channels [3]float64) {
	for i, v := range [3]uint8{c.R, c.G, c.B} {
		channels[i] = float64(v) + 16*rng.Float64() - 8
	}
	return channels
}

func level(v float64) uint8 { return uint8(min(max(v+0.5, 0), 255)) }

// jpegShare is the share of images that are encoded as JPEG.
const jpegShare = 0.75

// Encode draws image number index and appends its file to buf: a JPEG of
// varied quality or a PNG. It returns the file name's extension (".jpg" or
// ".png") and the letter. Like Render it is a pure function of index and seed.
func Encode(buf *bytes.Buffer, index int, seed uint64) (ext string, letter byte, err error) {
	img, letter := Render(index, seed)
	// A stream of its own, so that the file format does not follow from
	// anything that can be seen in the image.
	rng := rand.New(rand.NewPCG(^seed, uint64(index)))
	if rng.Float64() < jpegShare {
		ext = ".jpg"
		err = jpeg.Encode(buf, img, &jpeg.Options{Quality: 85 + rng.IntN(11)})
	} else {
		ext = ".png"
		err = png.Encode(buf, img)
	}
	if err != nil {
		return "", 0, fmt.Errorf("encode letter image %d: %w", index, err)
	}
	return ext, letter, nil
}
