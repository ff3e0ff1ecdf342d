package imageio

import (
	"compress/lzw"
	"encoding/binary"
	"io"
)

// gifFrame is the first frame of a GIF (GIF89a specification). image/gif would
// decode it too, but forgets the colour of the transparent palette entry, which
// Pillow keeps.
type gifFrame struct {
	left, top, width, height int
	canvasWidth              int
	canvasHeight             int
	interlaced               bool
	palette                  []byte // 3 bytes per entry; nil if indices are grays
	fill                     byte   // index of what the frame does not cover
	litWidth                 int
	data                     []byte // sub-blocks
}

func gifHeader(data []byte) (header, error) {
	f, err := parseGIF(data)
	return header{format: "gif", width: f.canvasWidth, height: f.canvasHeight}, err
}

// parseGIF walks the blocks up to the first frame's data.
func parseGIF(data []byte) (f gifFrame, err error) {
	truncated := func() error { return fail(Truncated, "gif", "the file ends before the first frame") }
	if len(data) < 13 {
		return f, truncated()
	}
	f.canvasWidth = int(binary.LittleEndian.Uint16(data[6:]))
	f.canvasHeight = int(binary.LittleEndian.Uint16(data[8:]))
	flags := data[10]
	data = data[13:]
	table := func(flags byte) bool {
		n := 3 << (flags&7 + 1)
		if len(data) < n {
			return false
		}
		f.palette, data = data[:n], data[n:]
		if isRamp(f.palette) {
			f.palette = nil
		}
		return true
	}
	if flags&0x80 != 0 && !table(flags) {
		return f, truncated()
	}
	for {
		if len(data) == 0 {
			return f, truncated()
		}
		switch block := data[0]; block {
		case 0x21: // extension
			if len(data) < 2 {
				return f, truncated()
			}
			label := data[1]
			data = data[2:]
			if label == 0xf9 && len(data) >= 5 && data[0] == 4 && data[1]&1 != 0 {
				f.fill = data[4]
			}
			for len(data) > 0 && data[0] != 0 {
				data = data[min(len(data), 1+int(data[0])):]
			}
			if len(data) == 0 {
				return f, truncated()
			}
			data = data[1:]
		case 0x2c: // image
			if len(data) < 10 {
				return f, truncated()
			}
			f.left = int(binary.LittleEndian.Uint16(data[1:]))
			f.top = int(binary.LittleEndian.Uint16(data[3:]))
			f.width = int(binary.LittleEndian.Uint16(data[5:]))
			f.height = int(binary.LittleEndian.Uint16(data[7:]))
			// A first frame beyond the canvas enlarges it.
			f.canvasWidth = max(f.canvasWidth, f.left+f.width)
			f.canvasHeight = max(f.canvasHeight, f.top+f.height)
			flags = data[9]
			f.interlaced = flags&0x40 != 0
			data = data[10:]
			if flags&0x80 != 0 && !table(flags) {
				return f, truncated()
			}
			if len(data) == 0 {
				return f, truncated()
			}
			f.litWidth = int(data[0])
			if f.litWidth < 2 || f.litWidth > 8 {
				return f, fail(Corrupt, "gif", "a code size of %d bits", f.litWidth)
			}
			f.data = data[1:]
			return f, nil
		case 0x3b: // trailer
			return f, fail(Corrupt, "gif", "no frame")
		default: // padding
			data = data[1:]
		}
	}
}

// isRamp tells whether a palette gives every index the gray of its own value.
// Pillow drops such a palette, and with it the limit on indices.
func isRamp(palette []byte) bool {
	for i, v := range palette {
		if int(v) != i/3 {
			return false
		}
	}
	return true
}

// subBlocks reads the concatenated contents of GIF data sub-blocks.
type subBlocks struct {
	data []byte
	left int // bytes of the current sub-block not yet read
}

func (s *subBlocks) ReadByte() (byte, error) {
	for s.left == 0 {
		if len(s.data) == 0 {
			return 0, io.ErrUnexpectedEOF
		}
		if s.data[0] == 0 {
			return 0, io.EOF
		}
		s.left = int(s.data[0])
		s.data = s.data[1:]
		// Pillow reads nothing of a sub-block that is not whole.
		if len(s.data) < s.left {
			return 0, io.ErrUnexpectedEOF
		}
	}
	b := s.data[0]
	s.data = s.data[1:]
	s.left--
	return b, nil
}

// Read makes subBlocks an io.Reader for package lzw, which uses ReadByte.
func (s *subBlocks) Read(p []byte) (int, error) {
	for i := range p {
		b, err := s.ReadByte()
		if err != nil {
			return i, err
		}
		p[i] = b
	}
	return len(p), nil
}

// gifDecoder keeps the LZW tables between images.
type gifDecoder struct {
	blocks subBlocks
	lzw    *lzw.Reader
	row    []byte
}

func (d *gifDecoder) decode(data []byte, dst *RGB) error {
	f, err := parseGIF(data)
	if err != nil {
		return err
	}
	var colours [256][3]byte
	for i := range colours {
		// An index beyond the palette is black; without a palette it is gray.
		if f.palette == nil {
			colours[i] = [3]byte{byte(i), byte(i), byte(i)}
		} else if 3*i < len(f.palette) {
			colours[i] = [3]byte(f.palette[3*i:])
		}
	}
	dst.reset(f.canvasWidth, f.canvasHeight)
	if f.width < f.canvasWidth || f.height < f.canvasHeight {
		for i := 0; i < len(dst.Pix); i += 3 {
			*(*[3]byte)(dst.Pix[i:]) = colours[f.fill]
		}
	}
	d.blocks = subBlocks{data: f.data}
	if d.lzw == nil {
		d.lzw = lzw.NewReader(&d.blocks, lzw.LSB, f.litWidth).(*lzw.Reader)
	} else {
		d.lzw.Reset(&d.blocks, lzw.LSB, f.litWidth)
	}
	d.row = grow(d.row, f.width)
	pass, y := 0, 0
	for range f.height {
		if _, err := io.ReadFull(d.lzw, d.row); err != nil {
			return err
		}
		out := dst.Pix[3*((f.top+y)*dst.Width+f.left):][:3*f.width]
		for x, index := range d.row {
			*(*[3]byte)(out[3*x:]) = colours[index]
		}
		if !f.interlaced {
			y++
			continue
		}
		// Rows come in four passes: 0, 8, …; 4, 12, …; 2, 6, …; 1, 3, ….
		for y += interlace[pass].step; y >= f.height && pass < 3; y = interlace[pass].start {
			pass++
		}
	}
	return nil
}

var interlace = [4]struct{ start, step int }{{0, 8}, {4, 8}, {2, 4}, {1, 2}}
