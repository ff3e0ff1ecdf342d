package imageio

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"io"
	"math"
	"math/bits"

	"golang.org/x/image/ccitt"
	"golang.org/x/image/tiff/lzw"
)

// tiffDecoder keeps the buffers and the inflater between images.
type tiffDecoder struct {
	reader   bytes.Reader
	inflate  io.ReadCloser
	reversed []byte
	buf      []byte // one strip or tile
	spare    []byte // a row while its floating point predictor is undone
	samples  []byte // of the whole image, interleaved, 8 bits each
	unturned RGB
}

// decode overwrites dst with the image turned as its orientation says, which is
// what Pillow does with TIFF and with no other format.
func (d *tiffDecoder) decode(data []byte, dst *RGB) error {
	f, err := parseTIFF(data)
	if err != nil {
		return err
	}
	defer d.reader.Reset(nil)
	d.samples = grow(d.samples, f.samples*f.width*f.height)
	for plane := range f.planes {
		for j := range f.down {
			for i := range f.across {
				if err := d.block(&f, plane, i, j); err != nil {
					return err
				}
			}
		}
	}
	if f.orientation == 1 {
		f.colour(d.samples, dst)
		return nil
	}
	f.colour(d.samples, &d.unturned)
	orient(&d.unturned, f.orientation, dst)
	return nil
}

// block decodes one strip or tile into the samples.
func (d *tiffDecoder) block(f *tiffFile, plane, i, j int) error {
	stored := f.samples // samples per pixel in the block
	if f.planes > 1 {
		stored = 1
	}
	x0, y0 := i*f.blockWidth, j*f.blockHeight
	rows, columns := min(f.blockHeight, f.height-y0), min(f.blockWidth, f.width-x0)
	pitch := (f.blockWidth*stored*f.bits + 7) / 8
	if err := d.uncompress(f, f.block((plane*f.down+j)*f.across+i), pitch, rows); err != nil {
		return err
	}
	for y := range rows {
		row := d.buf[y*pitch:][:pitch]
		switch f.predictor {
		case 2:
			f.integrate(row, stored)
		case 3:
			d.spare = grow(d.spare, len(row))
			f.integrateFloat(row, d.spare, stored)
		}
		out := d.samples[((y0+y)*f.width+x0)*f.samples+plane:]
		if stored == f.samples {
			f.widen(row, out[:columns*stored], 1)
		} else {
			f.widen(row, out[:(columns-1)*f.samples+1], f.samples)
		}
	}
	return nil
}

// uncompress fills d.buf with rows of pitch bytes.
func (d *tiffDecoder) uncompress(f *tiffFile, in []byte, pitch, rows int) error {
	need := pitch * rows
	d.buf = grow(d.buf, need)
	if f.reversed {
		d.reversed = grow(d.reversed, len(in))
		for i, v := range in {
			d.reversed[i] = bits.Reverse8(v)
		}
		in = d.reversed
	}
	d.reader.Reset(in)
	var r io.Reader = &d.reader
	switch f.compression {
	case tiffPackBits:
		return unpackBits(d.buf, in)
	case tiffDeflate, tiffOldDeflate:
		if d.inflate == nil {
			z, err := zlib.NewReader(r)
			if err != nil {
				return err
			}
			d.inflate = z
		} else if err := d.inflate.(zlib.Resetter).Reset(r, nil); err != nil {
			return err
		}
		r = d.inflate
	case tiffLZW:
		if len(in) >= 2 && in[0] == 0 && in[1]&1 != 0 {
			return fail(Unsupported, "tiff", "codes of the old LZW")
		}
		z := lzw.NewReader(r, lzw.MSB, 8)
		defer z.Close()
		r = z
	case tiffFax3, tiffFax4:
		format := ccitt.Group3
		if f.compression == tiffFax4 {
			format = ccitt.Group4
		}
		r = ccitt.NewReader(r, ccitt.MSB, format, f.blockWidth, rows, &ccitt.Options{Invert: true})
	}
	if _, err := io.ReadFull(r, d.buf); err != nil {
		return err
	}
	if r == d.inflate {
		// The checksum comes behind the last byte.
		if _, err := r.Read(make([]byte, 1)); err != nil && err != io.EOF {
			return err
		}
	}
	return nil
}

// unpackBits undoes Apple's run lengths (TIFF 6.0, section 9).
func unpackBits(out, in []byte) error {
	for len(out) > 0 {
		if len(in) < 2 {
			return io.ErrUnexpectedEOF
		}
		switch n := int(int8(in[0])); {
		case n >= 0:
			n = min(n+1, len(out))
			if len(in) < 1+n {
				return io.ErrUnexpectedEOF
			}
			copy(out, in[1:1+n])
			out, in = out[n:], in[1+n:]
		case n == -128:
			in = in[1:]
		default:
			n = min(1-n, len(out))
			for i := range n {
				out[i] = in[1]
			}
			out, in = out[n:], in[2:]
		}
	}
	return nil
}

// integrate undoes the horizontal difference of a row (TIFF 6.0, section 14).
func (f *tiffFile) integrate(row []byte, samples int) {
	switch step := samples * f.bits / 8; f.bits {
	case 8:
		for i := step; i < len(row); i++ {
			row[i] += row[i-step]
		}
	case 16:
		for i := step; i+2 <= len(row); i += 2 {
			f.order.PutUint16(row[i:], f.order.Uint16(row[i:])+f.order.Uint16(row[i-step:]))
		}
	case 32:
		for i := step; i+4 <= len(row); i += 4 {
			f.order.PutUint32(row[i:], f.order.Uint32(row[i:])+f.order.Uint32(row[i-step:]))
		}
	}
}

// integrateFloat undoes the floating point predictor: differences of bytes,
// the most significant bytes of all samples first (Adobe Technical Note 3).
func (f *tiffFile) integrateFloat(row, spare []byte, samples int) {
	for i := samples; i < len(row); i++ {
		row[i] += row[i-samples]
	}
	copy(spare, row)
	n := len(row) / 4
	for i := range n {
		for b := range 4 {
			at := 4*i + b
			if f.order == binary.LittleEndian {
				at = 4*i + 3 - b
			}
			row[at] = spare[b*n+i]
		}
	}
}

// widen turns a row's samples into 8 bits as Pillow does, every step-th byte of
// out: gray of 1 to 4 bits scaled, palette indices as they are, colour of 16
// bits cut to its high byte, and gray of more than 8 bits clipped to 0…255.
func (f *tiffFile) widen(row, out []byte, step int) {
	gray := f.photometric <= tiffBlackIsZero
	flip := byte(0)
	if f.photometric == tiffWhiteIsZero && f.bits <= 8 {
		flip = 255
	}
	for i, o := 0, 0; o < len(out); i, o = i+1, o+step {
		var v byte
		switch {
		case f.bits == 8:
			v = row[i]
		case f.bits < 8:
			perByte, mask := 8/f.bits, byte(1<<f.bits-1)
			v = row[i/perByte] >> (8 - f.bits - f.bits*(i%perByte)) & mask
			if gray {
				v *= 255 / mask
			}
		case !gray:
			v = byte(f.order.Uint16(row[2*i:]) >> 8)
		case f.bits == 16 && f.format == 1:
			v = byte(min(f.order.Uint16(row[2*i:]), 255))
		case f.bits == 16:
			v = byte(min(max(int16(f.order.Uint16(row[2*i:])), 0), 255))
		case f.format == 3:
			v = byte(min(max(math.Float32frombits(f.order.Uint32(row[4*i:])), 0), 255))
		default:
			v = byte(min(max(int32(f.order.Uint32(row[4*i:])), 0), 255))
		}
		out[o] = v ^ flip
	}
}

// colour converts the whole image's samples to RGB.
func (f *tiffFile) colour(samples []byte, dst *RGB) {
	dst.resize(f.width, f.height)
	var palette [256][3]byte
	if v := f.fields[tiffColourMap]; f.photometric == tiffPalette {
		n := v.count / 3
		for i := range n {
			for c := range 3 {
				palette[i][c] = byte(f.at(v, c*n+i) >> 8)
			}
		}
	}
	for out := dst.Pix; len(out) >= 3; samples, out = samples[f.samples:], out[3:] {
		p, s := out[:3:3], samples[:f.samples:f.samples]
		switch f.photometric {
		case tiffRGB:
			p[0], p[1], p[2] = s[0], s[1], s[2]
			if f.associated && s[3] != 255 {
				unpremultiply(p, s[3])
			}
		case tiffPalette:
			*(*[3]byte)(p) = palette[s[0]]
		case tiffCMYK:
			for c := range 3 {
				p[c] = inkToLight(s[c], s[3])
			}
		default:
			p[0], p[1], p[2] = s[0], s[0], s[0]
		}
	}
}

// inkToLight is Pillow's CMYK → RGB: (255 − k) − c·(255 − k)/255, the product
// rounded.
func inkToLight(ink, black byte) byte {
	white := 255 - int(black)
	t := int(ink)*white + 128
	return byte(max(0, white-(t>>8+t)>>8))
}
