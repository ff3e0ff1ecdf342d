package letters

import (
	"fmt"
	"math"
	"sync"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/gobolditalic"
	"golang.org/x/image/font/gofont/goitalic"
	"golang.org/x/image/font/gofont/gomedium"
	"golang.org/x/image/font/gofont/gomediumitalic"
	"golang.org/x/image/font/gofont/gomono"
	"golang.org/x/image/font/gofont/gomonobold"
	"golang.org/x/image/font/gofont/gomonobolditalic"
	"golang.org/x/image/font/gofont/gomonoitalic"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/gofont/gosmallcaps"
	"golang.org/x/image/font/gofont/gosmallcapsitalic"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/font/sfnt"
	"golang.org/x/image/math/f32"
	"golang.org/x/image/math/fixed"
	"golang.org/x/image/vector"
)

// faces are the fonts an image's letter is drawn from; first is the rune that
// stands for A in the font. The small capitals of a small-caps font stand in
// its lower-case places.
var faces = []struct {
	ttf   []byte
	first rune
}{
	{goregular.TTF, 'A'}, {goitalic.TTF, 'A'},
	{gomedium.TTF, 'A'}, {gomediumitalic.TTF, 'A'},
	{gobold.TTF, 'A'}, {gobolditalic.TTF, 'A'},
	{gomono.TTF, 'A'}, {gomonoitalic.TTF, 'A'},
	{gomonobold.TTF, 'A'}, {gomonobolditalic.TTF, 'A'},
	{gosmallcaps.TTF, 'a'}, {gosmallcapsitalic.TTF, 'a'},
}

// outline is a glyph whose bounding box is centred on the origin with its
// longer side of length 1; y grows downwards.
type outline []segment

type segment struct {
	op   sfnt.SegmentOp
	args [3]f32.Vec2
}

// outlines holds one outline per face and letter, loaded at first use. A font
// that does not parse is a defect of the fonts module, hence the panic.
var outlines = sync.OnceValue(func() (all [][Count]outline) {
	all = make([][Count]outline, len(faces))
	var buf sfnt.Buffer
	for f, face := range faces {
		parsed, err := opentype.Parse(face.ttf)
		if err != nil {
			panic(fmt.Sprintf("letters: parse font %d: %v", f, err))
		}
		for l := range all[f] {
			glyph, err := loadOutline(parsed, &buf, face.first+rune(l))
			if err != nil {
				panic(fmt.Sprintf("letters: font %d: %v", f, err))
			}
			all[f][l] = glyph
		}
	}
	return all
})

func loadOutline(f *sfnt.Font, buf *sfnt.Buffer, r rune) (outline, error) {
	// The size only sets the precision of the 26.6 coordinates.
	const ppem = 1024
	index, err := f.GlyphIndex(buf, r)
	if err != nil {
		return nil, fmt.Errorf("find glyph %q: %w", r, err)
	}
	if index == 0 {
		return nil, fmt.Errorf("no glyph for %q", r)
	}
	box, _, err := f.GlyphBounds(buf, index, fixed.I(ppem), font.HintingNone)
	if err != nil {
		return nil, fmt.Errorf("measure glyph %q: %w", r, err)
	}
	segments, err := f.LoadGlyph(buf, index, fixed.I(ppem), nil)
	if err != nil {
		return nil, fmt.Errorf("load glyph %q: %w", r, err)
	}
	cx, cy := float32(box.Min.X+box.Max.X)/2, float32(box.Min.Y+box.Max.Y)/2
	unit := 1 / float32(max(box.Max.X-box.Min.X, box.Max.Y-box.Min.Y))
	out := make(outline, len(segments))
	for i, s := range segments {
		out[i].op = s.Op
		for j, p := range s.Args {
			out[i].args[j] = f32.Vec2{(float32(p.X) - cx) * unit, (float32(p.Y) - cy) * unit}
		}
	}
	return out, nil
}

// trace adds the outline to z, turned by angle (radians, clockwise on the
// screen), its longer side size pixels long, its centre at (x, y).
func (o outline) trace(z *vector.Rasterizer, angle, size, x, y float64) {
	sin, cos := math.Sincos(angle)
	a, b := float32(size*cos), float32(size*sin)
	at := func(p f32.Vec2) (float32, float32) {
		return float32(x) + a*p[0] - b*p[1], float32(y) + b*p[0] + a*p[1]
	}
	for i, s := range o {
		x0, y0 := at(s.args[0])
		x1, y1 := at(s.args[1])
		x2, y2 := at(s.args[2])
		switch s.op {
		case sfnt.SegmentOpMoveTo:
			if i > 0 {
				z.ClosePath()
			}
			z.MoveTo(x0, y0)
		case sfnt.SegmentOpLineTo:
			z.LineTo(x0, y0)
		case sfnt.SegmentOpQuadTo:
			z.QuadTo(x0, y0, x1, y1)
		case sfnt.SegmentOpCubeTo:
			z.CubeTo(x0, y0, x1, y1, x2, y2)
		}
	}
	z.ClosePath()
}
