package imageio

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// Tags of a TIFF directory (TIFF 6.0).
const (
	tiffWidth           = 256
	tiffHeight          = 257
	tiffBitsPerSample   = 258
	tiffCompression     = 259
	tiffPhotometric     = 262
	tiffFillOrder       = 266
	tiffStripOffsets    = 273
	tiffOrientation     = 274
	tiffSamplesPerPixel = 277
	tiffRowsPerStrip    = 278
	tiffStripBytes      = 279
	tiffPlanar          = 284
	tiffFaxOptions      = 292
	tiffPredictor       = 317
	tiffColourMap       = 320
	tiffTileWidth       = 322
	tiffTileHeight      = 323
	tiffTileOffsets     = 324
	tiffTileBytes       = 325
	tiffExtraSamples    = 338
	tiffSampleFormat    = 339
)

// Compressions.
const (
	tiffRaw        = 1
	tiffFax3       = 3
	tiffFax4       = 4
	tiffLZW        = 5
	tiffDeflate    = 8
	tiffPackBits   = 32773
	tiffOldDeflate = 32946
)

// Photometric interpretations.
const (
	tiffWhiteIsZero = 0
	tiffBlackIsZero = 1
	tiffRGB         = 2
	tiffPalette     = 3
	tiffCMYK        = 5
)

// tiffField is the value of a directory entry: count numbers of size bytes.
type tiffField struct {
	data  []byte
	size  int
	count int
}

// tiffFile is the first image of a TIFF or BigTIFF file.
type tiffFile struct {
	data          []byte
	order         binary.ByteOrder
	fields        map[uint16]tiffField
	width, height int // as stored, before turning
	orientation   int

	photometric int
	bits        int // per sample, 1 to 32
	samples     int // per pixel
	format      int // of samples: 1 unsigned, 2 signed, 3 floating point
	associated  bool
	compression int
	predictor   int
	reversed    bool // bits in bytes
	planes      int  // 1, or samples if each has its own strips

	blockWidth, blockHeight int // of a strip or tile
	across, down            int // blocks
	tiled                   bool
}

func tiffHeader(data []byte) (header, error) {
	f, err := parseTIFF(data)
	h := header{format: "tiff", width: f.width, height: f.height}
	if f.orientation >= 5 {
		h.width, h.height = f.height, f.width
	}
	return h, err
}

// at returns the i-th number of a field.
func (f *tiffFile) at(v tiffField, i int) uint64 {
	b := v.data[i*v.size:]
	switch v.size {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(f.order.Uint16(b))
	case 4:
		return uint64(f.order.Uint32(b))
	}
	return f.order.Uint64(b)
}

// number returns the first number of a field, or what stands for its absence.
func (f *tiffFile) number(tag uint16, absent int) int {
	v, ok := f.fields[tag]
	if !ok || v.count == 0 {
		return absent
	}
	return int(min(f.at(v, 0), math.MaxInt32))
}

// parseTIFF reads the first directory and refuses what this decoder does not
// know, or Pillow reads otherwise than the specification says.
func parseTIFF(data []byte) (f tiffFile, err error) {
	f = tiffFile{data: data, order: binary.LittleEndian, orientation: 1}
	if err := f.directory(); err != nil {
		return f, err
	}
	unsupported := func(message string, args ...any) (tiffFile, error) {
		return f, fail(Unsupported, "tiff", message, args...)
	}
	f.width, f.height = f.number(tiffWidth, 0), f.number(tiffHeight, 0)
	if o := f.number(tiffOrientation, 1); o >= 1 && o <= 8 {
		f.orientation = o
	}
	f.photometric = f.number(tiffPhotometric, 0)
	f.compression = f.number(tiffCompression, tiffRaw)
	f.predictor = 1
	switch f.compression {
	case tiffRaw, tiffPackBits:
	case tiffLZW, tiffDeflate, tiffOldDeflate:
		f.predictor = f.number(tiffPredictor, 1)
	case tiffFax3, tiffFax4:
		if f.compression == tiffFax3 && f.number(tiffFaxOptions, 0)&3 != 0 {
			return unsupported("two-dimensional or uncompressed group 3 fax")
		}
	default:
		return unsupported("compression %d", f.compression)
	}
	f.reversed = f.number(tiffFillOrder, 1) == 2
	if err := f.pixels(); err != nil {
		return f, err
	}
	f.planes = 1
	if f.number(tiffPlanar, 1) == 2 && f.samples > 1 {
		f.planes = f.samples
		alpha := f.samples > 3 && (f.associated || f.fields[tiffExtraSamples].count == 0)
		if f.photometric != tiffRGB || alpha || f.compression == tiffRaw && f.bits != 8 {
			return unsupported("%d planes of %d-bit samples, photometric interpretation %d", f.samples, f.bits, f.photometric)
		}
	}
	switch fax := f.compression == tiffFax3 || f.compression == tiffFax4; {
	case fax && (f.bits != 1 || f.samples != 1):
		return unsupported("a fax of %d samples of %d bits", f.samples, f.bits)
	case f.reversed && (f.bits > 8 || f.samples != 1 && f.samples != 3):
		return unsupported("reversed bits in %d samples of %d bits", f.samples, f.bits)
	case f.predictor == 2 && f.bits < 8, f.predictor == 3 && f.format != 3, f.predictor < 1, f.predictor > 3:
		return unsupported("predictor %d of %d-bit samples", f.predictor, f.bits)
	}
	return f, f.blocks()
}

// directory reads the first directory's entries.
func (f *tiffFile) directory() error {
	truncated := fail(Truncated, "tiff", "no image directory")
	data := f.data
	if len(data) < 16 {
		return truncated
	}
	if data[0] == 'M' {
		f.order = binary.BigEndian
	}
	var at, n uint64
	countSize, entrySize, inline := 2, 12, 4
	if big := f.order.Uint16(data[2:]) == 43; big {
		countSize, entrySize, inline = 8, 20, 8
		at = f.order.Uint64(data[8:])
	} else {
		at = uint64(f.order.Uint32(data[4:]))
	}
	if at+uint64(countSize) > uint64(len(data)) || at > uint64(len(data)) {
		return truncated
	}
	if countSize == 2 {
		n = uint64(f.order.Uint16(data[at:]))
	} else {
		n = f.order.Uint64(data[at:])
	}
	entries := data[at+uint64(countSize):]
	if n > uint64(len(entries)/entrySize) {
		return truncated
	}
	f.fields = make(map[uint16]tiffField, n)
	for ; n > 0; n, entries = n-1, entries[entrySize:] {
		v := tiffField{}
		switch f.order.Uint16(entries[2:]) {
		case 1:
			v.size = 1
		case 3:
			v.size = 2
		case 4, 13:
			v.size = 4
		case 16:
			v.size = 8
		default:
			continue // no tag of use has another type
		}
		var count, offset uint64
		if inline == 4 {
			count, offset = uint64(f.order.Uint32(entries[4:])), uint64(f.order.Uint32(entries[8:]))
		} else {
			count, offset = f.order.Uint64(entries[4:]), f.order.Uint64(entries[12:])
		}
		if count > uint64(len(data)/v.size) {
			return truncated
		}
		v.count = int(count)
		size := v.count * v.size
		v.data = entries[entrySize-inline : entrySize]
		if size > inline {
			if offset > uint64(len(data)) || uint64(size) > uint64(len(data))-offset {
				return truncated
			}
			v.data = data[offset:][:size]
		}
		f.fields[f.order.Uint16(entries)] = v
	}
	return nil
}

// pixels reads what a pixel is made of, and refuses what Pillow has no mode for.
func (f *tiffFile) pixels() error {
	bitsPer, formats, extras := f.fields[tiffBitsPerSample], f.fields[tiffSampleFormat], f.fields[tiffExtraSamples]
	f.samples = f.number(tiffSamplesPerPixel, 1)
	f.bits = f.number(tiffBitsPerSample, 1)
	f.format = f.number(tiffSampleFormat, 1)
	refuse := func() error {
		return fail(Unsupported, "tiff", "photometric interpretation %d of %d samples (%d extra) of %d bits, format %d",
			f.photometric, f.samples, extras.count, f.bits, f.format)
	}
	if f.samples > 6 || bitsPer.count > 1 && bitsPer.count < f.samples {
		return refuse()
	}
	for i := range min(bitsPer.count, f.samples) {
		if f.at(bitsPer, i) != uint64(f.bits) {
			return refuse()
		}
	}
	for i := range formats.count {
		if f.at(formats, i) != uint64(f.format) {
			return refuse()
		}
	}
	extra := -1 // what the first extra sample is
	if extras.count > 0 {
		extra = int(min(f.at(extras, 0), math.MaxInt32))
	}
	for i := 1; i < extras.count; i++ {
		if f.at(extras, i) != 0 {
			return refuse()
		}
	}
	colours := f.samples - extras.count
	known := false
	unsigned8, unsigned16 := f.format == 1 && f.bits == 8, f.format == 1 && f.bits == 16
	switch f.photometric {
	case tiffWhiteIsZero, tiffBlackIsZero:
		switch positive := f.photometric == tiffBlackIsZero; {
		case colours != 1:
		case f.samples == 2:
			known = unsigned8 && positive && (extra == 0 || extra == 2)
		case f.samples > 2:
		case f.format == 1:
			little := f.order == binary.LittleEndian
			known = f.bits <= 8 && bits.OnesCount(uint(f.bits)) == 1 ||
				f.bits == 16 && (positive || little) || f.bits == 32 && positive && little
		case f.format == 2:
			known = positive && (f.bits == 8 || f.swaps() && (f.bits == 16 || f.bits == 32))
		case f.format == 3:
			known = f.bits == 32 && f.swaps()
		}
	case tiffRGB:
		f.associated = extra == 1
		switch {
		case colours == 4 && f.samples == 4: // alpha without an entry that says so
			known = unsigned8 || unsigned16
		case colours != 3:
		case unsigned8:
			known = extra <= 2 || extra == 999 && f.samples == 4
		case unsigned16:
			known = f.samples <= 4 && extra <= 2
		}
	case tiffPalette:
		known = f.format == 1 && colours == 1 && (f.samples == 1 && f.bits <= 8 && bits.OnesCount(uint(f.bits)) == 1 ||
			f.samples == 2 && f.bits == 8 && (extra == 0 || extra == 2))
		if v := f.fields[tiffColourMap]; v.size != 2 || v.count%3 != 0 || v.count == 0 || v.count > 3*256 {
			known = false
		}
	case tiffCMYK:
		known = colours == 4 && extra <= 0 && (unsigned8 || unsigned16 && f.samples == 4)
	}
	if !known {
		return refuse()
	}
	return nil
}

// swaps tells whether Pillow takes wide samples in the order of bytes it gets
// them in: it swaps those of a compressed big-endian file a second time.
func (f *tiffFile) swaps() bool {
	return f.order == binary.LittleEndian || f.compression == tiffRaw
}

// blocks reads the layout of strips or tiles.
func (f *tiffFile) blocks() error {
	corrupt := func(message string, args ...any) error { return fail(Corrupt, "tiff", message, args...) }
	if f.width <= 0 || f.height <= 0 {
		return nil // for the check of limits to say
	}
	f.blockWidth, f.blockHeight, f.across = f.width, f.height, 1
	offsets, sizes := f.fields[tiffStripOffsets], f.fields[tiffStripBytes]
	if offsets.count == 0 {
		offsets, sizes, f.tiled = f.fields[tiffTileOffsets], f.fields[tiffTileBytes], true
		f.blockWidth, f.blockHeight = f.number(tiffTileWidth, 0), f.number(tiffTileHeight, 0)
		// No larger than the image or what programs write for small ones.
		if f.blockWidth <= 0 || f.blockHeight <= 0 || f.blockWidth > max(f.width, 1024) || f.blockHeight > max(f.height, 1024) {
			return corrupt("tiles of %d×%d pixels", f.blockWidth, f.blockHeight)
		}
		f.across = (f.width + f.blockWidth - 1) / f.blockWidth
	} else if rows := f.number(tiffRowsPerStrip, f.height); rows > 0 && rows < f.height {
		f.blockHeight = rows
	}
	f.down = (f.height + f.blockHeight - 1) / f.blockHeight
	if n := int64(f.across) * int64(f.down) * int64(f.planes); n > int64(offsets.count) || f.compression != tiffRaw && n > int64(sizes.count) {
		return corrupt("%d offsets and %d sizes of %d strips or tiles", offsets.count, sizes.count, n)
	}
	return nil
}

// block returns the stored bytes of a strip or tile; those of an uncompressed
// one go on to the end of the file, since Pillow does not look at its size.
func (f *tiffFile) block(i int) []byte {
	offsets, sizes := f.fields[tiffStripOffsets], f.fields[tiffStripBytes]
	if f.tiled {
		offsets, sizes = f.fields[tiffTileOffsets], f.fields[tiffTileBytes]
	}
	data := f.data[min(f.at(offsets, i), uint64(len(f.data))):]
	if f.compression == tiffRaw {
		return data
	}
	return data[:min(f.at(sizes, i), uint64(len(data)))]
}
