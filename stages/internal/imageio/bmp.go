package imageio

import (
	"encoding/binary"
	"io"
)

// bmpFile is the layout of a BMP file (the Windows BITMAPINFOHEADER family and
// the OS/2 headers), as Pillow understands it.
type bmpFile struct {
	width, height int
	topDown       bool
	bits          int // per pixel
	rle4, rle8    bool
	mask          [3]uint32 // 16 and 32 bits: where red, green and blue are
	palette       []byte    // blue, green, red and entry−3 bytes of padding per colour
	entry         int
	colours       int
	offset        int64 // of the pixels
}

// bmpMasks are the layouts Pillow knows by "bit fields": bits per pixel, red,
// green, blue and alpha masks.
var bmpMasks = [...]struct {
	bits int
	rgba [4]uint32
}{
	{16, [4]uint32{0xf800, 0x7e0, 0x1f}},
	{16, [4]uint32{0x7c00, 0x3e0, 0x1f}},
	{24, [4]uint32{0xff0000, 0xff00, 0xff}},
	{32, [4]uint32{0xff0000, 0xff00, 0xff, 0}},
	{32, [4]uint32{0xff000000, 0xff0000, 0xff00, 0}},
	{32, [4]uint32{0xff000000, 0xff00, 0xff, 0}},
	{32, [4]uint32{0xff000000, 0xff0000, 0xff00, 0xff}},
	{32, [4]uint32{0xff, 0xff00, 0xff0000, 0xff000000}},
	{32, [4]uint32{0xff0000, 0xff00, 0xff, 0xff000000}},
	{32, [4]uint32{0xff000000, 0xff00, 0xff, 0xff0000}},
	{32, [4]uint32{}},
}

// parseBMP reads what precedes the pixels.
func parseBMP(data []byte) (f bmpFile, err error) {
	if len(data) < 18 {
		return f, fail(Truncated, "bmp", "no information header")
	}
	n := binary.LittleEndian.Uint32(data[14:])
	switch n {
	case 12, 40, 52, 56, 64, 108, 124:
	default:
		return f, fail(Unsupported, "bmp", "an information header of %d bytes", n)
	}
	end := 14 + int(n)
	if len(data) < end {
		return f, fail(Truncated, "bmp", "the information header ends early")
	}
	f.offset = int64(binary.LittleEndian.Uint32(data[10:]))
	info := data[14:end]
	u16 := func(at int) int { return int(binary.LittleEndian.Uint16(info[at:])) }
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(info[at:]) }
	compression := uint32(0)
	if n == 12 {
		f.width, f.height, f.bits, f.entry = u16(4), u16(6), u16(10), 3
	} else {
		height := u32(8)
		// Only heights above −2²⁴ count as negative.
		if f.topDown = info[11] == 0xff; f.topDown {
			height = -height
		}
		if int32(u32(4)) < 0 {
			return f, fail(Corrupt, "bmp", "a width of %d", int32(u32(4)))
		}
		f.width, f.height, f.bits, f.entry = int(u32(4)), int(height), u16(14), 4
		compression = u32(16)
		f.colours = int(u32(32))
	}
	switch f.bits {
	case 1, 4, 8:
		if f.colours == 0 {
			f.colours = 1 << f.bits
		}
		if f.colours > 256 {
			return f, fail(Unsupported, "bmp", "a palette of %d colours", f.colours)
		}
		size := f.entry * f.colours
		if f.offset == int64(end) {
			f.offset += int64(size) // written by encoders that forget the palette
		}
		f.palette = data[end:min(end+size, len(data))]
		end += len(f.palette)
	case 16:
		f.mask = [3]uint32(bmpMasks[1].rgba[:])
	case 24, 32:
		f.mask = [3]uint32{0xff0000, 0xff00, 0xff}
	default:
		return f, fail(Unsupported, "bmp", "%d bits per pixel", f.bits)
	}
	switch compression {
	case 0:
	case 1, 2:
		if f.bits > 8 {
			return f, fail(Unsupported, "bmp", "run lengths of %d bits per pixel", f.bits)
		}
		f.rle8, f.rle4 = compression == 1, compression == 2
	case 3:
		var masks [4]uint32
		fields := 3
		if n == 40 { // they follow the header
			if len(data) < end+12 {
				return f, fail(Truncated, "bmp", "no masks")
			}
			info, end = data[14:end+12], end+12
		} else if n >= 56 {
			fields = 4
		}
		for i := range fields {
			masks[i] = u32(40 + 4*i)
		}
		if err := f.setMasks(masks); err != nil {
			return f, err
		}
	default:
		return f, fail(Unsupported, "bmp", "compression %d", compression)
	}
	if f.offset == 0 {
		f.offset = int64(end)
	}
	return f, nil
}

// setMasks takes the masks of a file with bit fields.
func (f *bmpFile) setMasks(masks [4]uint32) error {
	for _, known := range bmpMasks {
		want := masks
		if known.bits < 32 {
			want[3] = 0
		}
		if known.bits == f.bits && known.rgba == want {
			if want != [4]uint32{} { // no mask at all: the usual order
				f.mask = [3]uint32(want[:])
			}
			return nil
		}
	}
	return fail(Unsupported, "bmp", "masks %x of %d bits per pixel", masks, f.bits)
}

// colourTable returns the colour of every index and the bits of a stored index.
// Pillow drops a palette of grays in order, and then takes the samples to be 1
// bit wide if there are two colours or fewer and 8 bits wide otherwise.
func (f *bmpFile) colourTable() (table [256][3]byte, bits int) {
	ramp := true
	for i := range f.colours {
		gray := byte(i)
		if f.colours == 2 {
			gray = byte(255 * i)
		}
		e := f.palette[min(i*f.entry, len(f.palette)):]
		ramp = ramp && len(e) >= 3 && [3]byte(e) == [3]byte{gray, gray, gray}
		if len(e) >= f.entry {
			table[i] = [3]byte{e[2], e[1], e[0]}
		}
	}
	if !ramp {
		return table, f.bits
	}
	bits, scale := 8, 1
	if f.colours <= 2 {
		bits, scale = 1, 255
	}
	for i := range table {
		gray := byte(min(scale*i, 255))
		table[i] = [3]byte{gray, gray, gray}
	}
	return table, bits
}

// bmpDecoder keeps the run-length decoder's indices between images.
type bmpDecoder struct {
	indices []byte
}

func (d *bmpDecoder) decode(data []byte, dst *RGB) error {
	f, err := parseBMP(data)
	if err != nil {
		return err
	}
	dst.resize(f.width, f.height)
	pixels := data[min(f.offset, int64(len(data))):]
	// Rows are padded to four bytes; the last one's padding may be missing.
	stride := (f.width*f.bits + 31) / 32 * 4
	var table [256][3]byte
	bits := f.bits
	if bits <= 8 {
		table, bits = f.colourTable()
	}
	if f.rle4 || f.rle8 {
		if pixels, err = d.runs(f, data); err != nil {
			return err
		}
		stride, bits = f.width, 8
	}
	need := (f.width*bits + 7) / 8
	if need > stride {
		return fail(Unsupported, "bmp", "rows of %d bytes for %d pixels of %d bits", stride, f.width, bits)
	}
	for i := range f.height {
		y := f.height - 1 - i
		if f.topDown {
			y = i
		}
		if int64(len(pixels)) < int64(i)*int64(stride)+int64(need) {
			return io.ErrUnexpectedEOF
		}
		in, out := pixels[i*stride:][:need], dst.row(y)
		if bits <= 8 {
			perByte, mask := 8/bits, byte(1<<bits-1)
			for x := range f.width {
				v := in[x/perByte] >> (8 - bits - bits*(x%perByte)) & mask
				*(*[3]byte)(out[3*x:]) = table[v]
			}
			continue
		}
		f.colours16to32(in, out)
	}
	return nil
}

// colours16to32 converts a row of pixels that hold their colour.
func (f *bmpFile) colours16to32(in, out []byte) {
	var shift, top [3]uint32
	for c, m := range f.mask {
		for ; m&1 == 0; m >>= 1 {
			shift[c]++
		}
		top[c] = m
	}
	for step := f.bits / 8; len(out) >= 3; in, out = in[step:], out[3:] {
		var v uint32
		for i := range step {
			v |= uint32(in[i]) << (8 * i)
		}
		for c := range 3 {
			out[c] = byte(v >> shift[c] & top[c] * 255 / top[c])
		}
	}
}

// runs expands run-length codes into an index per pixel, in the file's order of
// rows. What a delta or an early end of line skips is index 0; runs are cut at
// the end of a row, verbatim pixels go on in the next.
func (d *bmpDecoder) runs(f bmpFile, data []byte) ([]byte, error) {
	total := f.width * f.height
	d.indices = grow(d.indices, total)
	out, n := d.indices, 0
	at := int(min(f.offset, int64(len(data)))) // of the next code in the file, since verbatim pixels are aligned in it
	zero := func(count int) {
		count = min(count, total-n)
		clear(out[n : n+count])
		n += count
	}
	for x := 0; n < total && at+2 <= len(data); {
		count, code := int(data[at]), data[at+1]
		at += 2
		switch {
		case count > 0:
			if x+count > f.width {
				count = max(0, f.width-x)
			}
			x += count
			for i := range min(count, total-n) {
				v := code
				if f.rle4 {
					v = code >> (4 * (1 - i%2)) & 15
				}
				out[n] = v
				n++
			}
		case code == 0: // end of line
			zero((f.width - n%f.width) % f.width)
			x = 0
		case code == 1: // end of bitmap
			return nil, io.ErrUnexpectedEOF
		case code == 2: // delta
			if at+2 > len(data) {
				return nil, io.ErrUnexpectedEOF
			}
			zero(int(data[at]) + int(data[at+1])*f.width)
			at += 2
			x = n % f.width
		default:
			count := min(int(code), total-n)
			size := count
			if f.rle4 {
				size = (count + 1) / 2
			}
			if at+size > len(data) {
				return nil, io.ErrUnexpectedEOF
			}
			for i := range count {
				if f.rle4 {
					out[n] = data[at+i/2] >> (4 * (1 - i%2)) & 15
				} else {
					out[n] = data[at+i]
				}
				n++
			}
			x += int(code)
			at += size + (at+size)%2
		}
	}
	if n < total {
		return nil, io.ErrUnexpectedEOF
	}
	return out, nil
}
