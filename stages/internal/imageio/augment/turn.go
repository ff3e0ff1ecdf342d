package augment

import (
	"fmt"
	"math"

	"sela/stages/internal/imageio/resample"
)

// mirror reverses rows of width pixels.
func mirror(pix []byte, width int) {
	for ; len(pix) >= 3*width; pix = pix[3*width:] {
		for i, j := 0, 3*(width-1); i < j; i, j = i+3, j-3 {
			p, q := (*[3]byte)(pix[i:]), (*[3]byte)(pix[j:])
			*p, *q = *q, *p
		}
	}
}

// QuarterTurns writes the image, 3·width·height bytes of interleaved RGB,
// turned counter-clockwise by turns·90°, which may be any number, to dst of
// the same length: torch.rot90 over height and width. After an odd number of
// turns, the result is height pixels wide. dst and src must not overlap.
func QuarterTurns(dst, src []byte, width, height, turns int) {
	if len(src) != 3*width*height || len(dst) != len(src) {
		panic(fmt.Sprintf("augment: quarter turns of %d×%d pixels from %d bytes to %d", width, height, len(src), len(dst)))
	}
	// Output pixel (x, y) is the source's at start + x·right + y·down.
	var start, right, down, across int
	switch turns & 3 {
	case 0:
		copy(dst, src)
		return
	case 1:
		start, right, down, across = width-1, width, -1, height
	case 2:
		start, right, down, across = width*height-1, -1, -width, width
	case 3:
		start, right, down, across = (height-1)*width, -width, 1, height
	}
	for ; len(dst) > 0; start += down {
		at := start
		for range across {
			*(*[3]byte)(dst) = *(*[3]byte)(src[3*at:])
			dst, at = dst[3:], at+right
		}
	}
}

// affine maps the centre of output pixel (x, y) to a point of the source:
// (a·x + b·y + c, d·x + e·y + f).
type affine struct{ a, b, c, d, e, f float64 }

// rotate writes src turned by the angle about its centre to dst, as Pillow's
// Image.rotate does; what comes from outside is black.
func rotate(dst, src []byte, width, height int, degrees float32, filter resample.Filter) {
	if degrees == 0 {
		copy(dst, src)
		return
	}
	cos, sin := rotation(float64(degrees))
	x, y := float64(0.5*float64(width)), float64(0.5*float64(height))
	m := affine{a: cos, b: sin, d: -sin, e: cos}
	m.c = float64(cos*-x) + float64(sin*-y) + x
	m.f = float64(-sin*-x) + float64(cos*-y) + y
	if filter == resample.Bilinear {
		m.bilinear(dst, src, width, height)
	} else {
		m.nearest(dst, src, width, height)
	}
}

// nearest steps through the source in 16-bit fixed point.
func (m affine) nearest(dst, src []byte, width, height int) {
	fix := func(v float64) int32 { return int32(math.Floor(float64(v*65536) + 0.5)) }
	a, b, d, e := fix(m.a), fix(m.b), fix(m.d), fix(m.e)
	left := fix(m.c + float64(m.a*0.5) + float64(m.b*0.5))
	top := fix(m.f + float64(m.d*0.5) + float64(m.e*0.5))
	for range height {
		x, y := left, top
		for range width {
			p := (*[3]byte)(dst)
			*p = [3]byte{}
			if u, v := int(x>>16), int(y>>16); uint(u) < uint(width) && uint(v) < uint(height) {
				*p = *(*[3]byte)(src[3*(v*width+u):])
			}
			dst = dst[3:]
			x, y = x+a, y+d
		}
		left, top = left+b, top+e
	}
}

// bilinear interpolates between four pixels in float64 and truncates. Beyond
// the outermost centres, the border's pixels go on.
func (m affine) bilinear(dst, src []byte, width, height int) {
	w, h := float64(width), float64(height)
	for i := range height {
		row := float64(i) + 0.5
		for j := range width {
			column := float64(j) + 0.5
			x := float64(m.a*column) + float64(m.b*row) + m.c
			y := float64(m.d*column) + float64(m.e*row) + m.f
			p := (*[3]byte)(dst)
			dst = dst[3:]
			if !(x >= 0 && x < w && y >= 0 && y < h) {
				*p = [3]byte{}
				continue
			}
			left, top := math.Floor(x-0.5), math.Floor(y-0.5)
			dx, dy := x-0.5-left, y-0.5-top
			x0, x1 := max(int(left), 0), min(int(left)+1, width-1)
			y0, y1 := max(int(top), 0), min(int(top)+1, height-1)
			a, b := (*[3]byte)(src[3*(y0*width+x0):]), (*[3]byte)(src[3*(y0*width+x1):])
			c, d := (*[3]byte)(src[3*(y1*width+x0):]), (*[3]byte)(src[3*(y1*width+x1):])
			for k := range p {
				v1, v2 := between(a[k], b[k], dx), between(c[k], d[k], dx)
				p[k] = byte(v1 + float64((v2-v1)*dy))
			}
		}
	}
}

func between(a, b byte, at float64) float64 {
	return float64(a) + float64(float64(int(b)-int(a))*at)
}
