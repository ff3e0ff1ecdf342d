package imageio

import (
	"fmt"
	"image"
)

// chroma holds the rows of a chroma upsampling between images.
type chroma struct {
	cb, cr []byte
}

// jpeg converts planes to RGB with libjpeg's "fancy" upsampling, a triangle
// filter that weights the nearer sample ¾ and the farther ¼ (jdsample.c names
// the method; 4:1:1 and 4:1:0, and components at most two samples wide, are
// repeated), and convert, a row's colour conversion. dst has the image's size.
func (c *chroma) jpeg(m *image.YCbCr, convert func(out, y, cb, cr []byte), dst *RGB) error {
	w, h := dst.Width, dst.Height
	sx, sy := 1, 1
	switch m.SubsampleRatio {
	case image.YCbCrSubsampleRatio444:
	case image.YCbCrSubsampleRatio422:
		sx = 2
	case image.YCbCrSubsampleRatio420:
		sx, sy = 2, 2
	case image.YCbCrSubsampleRatio440:
		sy = 2
	case image.YCbCrSubsampleRatio411:
		sx = 4
	case image.YCbCrSubsampleRatio410:
		sx, sy = 4, 2
	default:
		return fmt.Errorf("chroma subsampling %v", m.SubsampleRatio)
	}
	cw, ch := (w+sx-1)/sx, (h+sy-1)/sy
	smooth := sx == 1 && sy == 2 || sx == 2 && cw > 2
	c.cb, c.cr = grow(c.cb, sx*cw), grow(c.cr, sx*cw)
	for y := range h {
		near := y / sy
		far := near
		if sy == 2 && smooth {
			far = min(max(near-1+2*(y&1), 0), ch-1)
		}
		cb, cr := c.cb, c.cr
		switch nearCb, nearCr := m.Cb[near*m.CStride:][:cw], m.Cr[near*m.CStride:][:cw]; {
		case sx == 1 && sy == 1:
			cb, cr = nearCb, nearCr
		case !smooth:
			repeat(cb, nearCb, sx)
			repeat(cr, nearCr, sx)
		case sy == 1:
			triangleH(cb, nearCb)
			triangleH(cr, nearCr)
		case sx == 1:
			bias := 1 + y&1
			triangleV(cb, nearCb, m.Cb[far*m.CStride:][:cw], bias)
			triangleV(cr, nearCr, m.Cr[far*m.CStride:][:cw], bias)
		default:
			triangleHV(cb, nearCb, m.Cb[far*m.CStride:][:cw])
			triangleHV(cr, nearCr, m.Cr[far*m.CStride:][:cw])
		}
		convert(dst.row(y), m.Y[y*m.YStride:][:w], cb[:w], cr[:w])
	}
	return nil
}

// repeat writes every sample n times.
func repeat(out, in []byte, n int) {
	for i, v := range in {
		for j := range n {
			out[n*i+j] = v
		}
	}
}

// triangleH doubles a row: ¾ of the nearer and ¼ of the farther sample, the
// rounding alternating between just below and just above one half.
func triangleH(out, in []byte) {
	last := len(in) - 1
	out = out[:2*len(in)]
	before := int(in[0])
	for i, v := range in {
		after := int(in[min(i+1, last)])
		p := out[2*i : 2*i+2 : 2*i+2]
		p[0] = byte((3*int(v) + before + 1) >> 2)
		p[1] = byte((3*int(v) + after + 2) >> 2)
		before = int(v)
	}
}

// triangleV is one row between near and far.
func triangleV(out, near, far []byte, bias int) {
	out, far = out[:len(near)], far[:len(near)]
	for i, v := range near {
		out[i] = byte((3*int(v) + int(far[i]) + bias) >> 2)
	}
}

// triangleHV is one row of the doubling in both directions, in sixteenths.
func triangleHV(out, near, far []byte) {
	far = far[:len(near)]
	out = out[:2*len(near)]
	this := 3*int(near[0]) + int(far[0])
	before := this
	for i := range near {
		after := this
		if i+1 < len(near) {
			after = 3*int(near[i+1]) + int(far[i+1])
		}
		p := out[2*i : 2*i+2 : 2*i+2]
		p[0] = byte((3*this + before + 8) >> 4)
		p[1] = byte((3*this + after + 7) >> 4)
		before, this = this, after
	}
}

// interleave is the conversion of components that are colours already.
func interleave(out, a, b, c []byte) {
	for i := range a {
		out[3*i], out[3*i+1], out[3*i+2] = a[i], b[i], c[i]
	}
}

// jpegRow is the JFIF conversion in 16-bit fixed point with libjpeg's
// constants and rounding.
func jpegRow(out, ys, cbs, crs []byte) {
	const (
		redCr   = 91881  // 1.402 · 2¹⁶
		greenCb = 22554  // 0.344136 · 2¹⁶
		greenCr = 46802  // 0.714136 · 2¹⁶
		blueCb  = 116130 // 1.772 · 2¹⁶
		half    = 1 << 15
	)
	cbs, crs = cbs[:len(ys)], crs[:len(ys)]
	out = out[:3*len(ys)]
	for i, v := range ys {
		y, cb, cr := int32(v), int32(cbs[i])-128, int32(crs[i])-128
		r := y + (redCr*cr+half)>>16
		g := y + (half-greenCb*cb-greenCr*cr)>>16
		b := y + (blueCb*cb+half)>>16
		if uint32(r) > 255 {
			r = ^(r >> 31)
		}
		if uint32(g) > 255 {
			g = ^(g >> 31)
		}
		if uint32(b) > 255 {
			b = ^(b >> 31)
		}
		p := out[3*i : 3*i+3 : 3*i+3]
		p[0], p[1], p[2] = byte(r), byte(g), byte(b)
	}
}
