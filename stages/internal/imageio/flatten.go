package imageio

import (
	"fmt"
	"image"
	"image/color"
)

// flatten converts what the lossless decoders return into RGB as Pillow's
// convert("RGB") does: alpha dropped, colour of 16 bits cut to its high byte,
// gray of 16 bits clipped at 255 (Pillow's mode I;16). gray16 says that a
// 16-bit image is such a gray one, which a colour image of the decoder's making
// no longer tells.
func flatten(m image.Image, gray16 bool, dst *RGB) error {
	size := m.Bounds().Size()
	dst.resize(size.X, size.Y)
	n := size.X
	switch m := m.(type) {
	case *image.Gray:
		for y := range size.Y {
			out := dst.row(y)
			for x, v := range m.Pix[y*m.Stride:][:n] {
				p := out[3*x : 3*x+3 : 3*x+3]
				p[0], p[1], p[2] = v, v, v
			}
		}
	case *image.Gray16:
		for y := range size.Y {
			wide(m.Pix[y*m.Stride:][:2*n], 2, true, dst.row(y))
		}
	case *image.NRGBA:
		for y := range size.Y {
			drop(m.Pix[y*m.Stride:][:4*n], dst.row(y))
		}
	case *image.NRGBA64:
		for y := range size.Y {
			wide(m.Pix[y*m.Stride:][:8*n], 8, gray16, dst.row(y))
		}
	case *image.RGBA: // opaque
		for y := range size.Y {
			in, out := m.Pix[y*m.Stride:][:4*n], dst.row(y)
			drop(in, out)
		}
	case *image.RGBA64: // opaque
		for y := range size.Y {
			in, out := m.Pix[y*m.Stride:][:8*n], dst.row(y)
			wide(in, 8, gray16, out)
			for x := range n {
				if a := in[8*x+6]; a != 255 {
					unpremultiply(out[3*x:][:3], a)
				}
			}
		}
	case *image.Paletted:
		var colours [256][3]byte
		for i, c := range m.Palette {
			colours[i] = entry(c)
		}
		for y := range size.Y {
			out := dst.row(y)
			for x, index := range m.Pix[y*m.Stride:][:n] {
				*(*[3]byte)(out[3*x:]) = colours[index]
			}
		}
	default:
		return fmt.Errorf("a decoded image of type %T", m)
	}
	return nil
}

// flattenAt flattens an NRGBA frame into its place on the canvas.
func flattenAt(m image.Image, left, top int, canvas *RGB) error {
	frame, ok := m.(*image.NRGBA)
	if !ok {
		return fmt.Errorf("a decoded frame of type %T", m)
	}
	size := frame.Bounds().Size()
	for y := range size.Y {
		drop(frame.Pix[y*frame.Stride:][:4*size.X], canvas.row(top + y)[3*left:][:3*size.X])
	}
	return nil
}

// drop copies RGBA without its alpha.
func drop(in, out []byte) {
	for len(in) >= 4 && len(out) >= 3 {
		out[0], out[1], out[2] = in[0], in[1], in[2]
		in, out = in[4:], out[3:]
	}
}

// wide converts one row of big-endian 16-bit samples, step bytes per pixel.
func wide(in []byte, step int, gray bool, out []byte) {
	for i, o := 0, 0; o+3 <= len(out); i, o = i+step, o+3 {
		if !gray {
			out[o], out[o+1], out[o+2] = in[i], in[i+2], in[i+4]
			continue
		}
		v := in[i+1]
		if in[i] != 0 {
			v = 255
		}
		out[o], out[o+1], out[o+2] = v, v, v
	}
}

// unpremultiply divides by alpha in integers, rounding down, as Pillow does
// when it reads TIFF with associated alpha; a fully transparent pixel is black.
func unpremultiply(p []byte, alpha byte) {
	for c := range p {
		if alpha == 0 {
			p[c] = 0
		} else {
			p[c] = byte(min(255, int(p[c])*255/int(alpha)))
		}
	}
}

// entry is a palette entry's colour whatever its alpha.
func entry(c color.Color) [3]byte {
	switch c := c.(type) {
	case color.NRGBA:
		return [3]byte{c.R, c.G, c.B}
	case color.RGBA:
		return [3]byte{c.R, c.G, c.B}
	}
	r, g, b, _ := c.RGBA()
	return [3]byte{byte(r >> 8), byte(g >> 8), byte(b >> 8)}
}
