package imageio

import (
	"encoding/binary"
	"errors"
	"image"
	"io"

	"golang.org/x/image/vp8"
)

// webpFrame is the first frame of a WebP: its place on the canvas and its
// bitstream. The alpha chunk is not read, since alpha is dropped.
type webpFrame struct {
	left, top, width, height int
	lossless                 bool
	data                     []byte
}

// webpHeader walks the RIFF chunks (WebP container specification) to the first
// bitstream and checks its size against the canvas's.
func webpHeader(data []byte) (header, error) {
	h := header{format: "webp"}
	short := func() error { return fail(Truncated, "webp", "the file ends before the first frame") }
	if size := int64(binary.LittleEndian.Uint32(data[4:])); size > int64(len(data))-8 {
		return h, fail(Truncated, "webp", "%d bytes of %d", len(data), size+8)
	}
	f, animated := &h.webp, false
	for data = data[12:]; ; {
		if len(data) < 8 {
			return h, short()
		}
		id, size := string(data[:4]), int64(binary.LittleEndian.Uint32(data[4:]))
		if size > int64(len(data))-8 {
			return h, short()
		}
		body := data[8 : 8+size]
		switch id {
		case "VP8X":
			if size < 10 {
				return h, fail(Corrupt, "webp", "an extended header of %d bytes", size)
			}
			h.width, h.height = 1+uint24(body[4:]), 1+uint24(body[7:])
		case "ANMF":
			if size < 16 {
				return h, fail(Corrupt, "webp", "a frame header of %d bytes", size)
			}
			f.left, f.top = 2*uint24(body), 2*uint24(body[3:])
			// The frame's own chunks follow its header.
			animated, data = true, body[16:]
			continue
		case "VP8 ":
			if len(body) < 10 {
				return h, short()
			}
			f.width = int(binary.LittleEndian.Uint16(body[6:]) & 0x3fff)
			f.height = int(binary.LittleEndian.Uint16(body[8:]) & 0x3fff)
			f.data = body
		case "VP8L":
			if len(body) < 5 {
				return h, short()
			}
			bits := binary.LittleEndian.Uint32(body[1:])
			f.width, f.height = 1+int(bits&0x3fff), 1+int(bits>>14&0x3fff)
			f.data, f.lossless = body, true
		}
		if f.data != nil {
			break
		}
		data = data[min(int64(len(data)), 8+size+size&1):]
	}
	if h.width == 0 {
		h.width, h.height = f.width, f.height
	}
	fits := f.left+f.width <= h.width && f.top+f.height <= h.height
	if !fits || !animated && (f.width != h.width || f.height != h.height) {
		return h, fail(Corrupt, "webp", "a frame of %d×%d at (%d, %d) on a canvas of %d×%d",
			f.width, f.height, f.left, f.top, h.width, h.height)
	}
	return h, nil
}

func uint24(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }

// vp8 decodes a lossy frame with libwebp's upsampling and colour conversion.
func (c *chroma) vp8(h header, r io.Reader, dst *RGB) error {
	// Loop filter deltas outlive a frame in a reused decoder: take a new one.
	d := vp8.NewDecoder()
	d.Init(r, len(h.webp.data))
	head, err := d.DecodeFrameHeader()
	if err != nil {
		return err
	}
	if !head.KeyFrame || head.Width != h.webp.width || head.Height != h.webp.height {
		return errors.New("not a key frame")
	}
	m, err := d.DecodeFrame()
	if err != nil {
		return err
	}
	dst.reset(h.width, h.height)
	c.webp(m, h.webp, dst)
	return nil
}

// webp converts 4:2:0 planes as libwebp's upsampler does: rows in pairs that
// straddle two chroma rows, each output sample the mean of the diagonal and the
// nearest of the four samples round it, (9a + 3b + 3c + d)/16 in two roundings.
func (c *chroma) webp(m *image.YCbCr, f webpFrame, dst *RGB) {
	w, h := f.width, f.height
	cw, ch := (w+1)/2, (h+1)/2
	c.cb, c.cr = grow(c.cb, 2*cw), grow(c.cr, 2*cw)
	for y := range h {
		near := y / 2
		far := min(max(near-1+2*(y&1), 0), ch-1)
		diamond(c.cb, m.Cb[near*m.CStride:][:cw], m.Cb[far*m.CStride:][:cw])
		diamond(c.cr, m.Cr[near*m.CStride:][:cw], m.Cr[far*m.CStride:][:cw])
		webpRow(dst.row(f.top + y)[3*f.left:][:3*w], m.Y[y*m.YStride:][:w], c.cb[:w], c.cr[:w])
	}
}

// diamond doubles a row horizontally, between its near and its far chroma row.
func diamond(out, near, far []byte) {
	last := len(near) - 1
	out[0] = byte((3*int(near[0]) + int(far[0]) + 2) >> 2)
	for i := range last {
		a, b := int(near[i]), int(near[i+1])
		p, q := int(far[i]), int(far[i+1])
		sum := a + b + p + q + 8
		out[2*i+1] = byte(((sum+2*(b+p))>>3 + a) >> 1)
		out[2*i+2] = byte(((sum+2*(a+q))>>3 + b) >> 1)
	}
	out[2*last+1] = byte((3*int(near[last]) + int(far[last]) + 2) >> 2)
}

// webpRow is libwebp's conversion from limited-range BT.601 in 14-bit fixed
// point (products cut to 6 fractional bits before they are added).
func webpRow(out, ys, us, vs []byte) {
	us, vs = us[:len(ys)], vs[:len(ys)]
	out = out[:3*len(ys)]
	for i := range ys {
		y, u, v := int32(ys[i]), int32(us[i]), int32(vs[i])
		y = y * 19077 >> 8
		p := out[3*i : 3*i+3 : 3*i+3]
		p[0] = clip6(y + v*26149>>8 - 14234)
		p[1] = clip6(y - u*6419>>8 - v*13320>>8 + 8708)
		p[2] = clip6(y + u*33050>>8 - 17685)
	}
}

func clip6(v int32) byte { return byte(min(max(v>>6, 0), 255)) }
