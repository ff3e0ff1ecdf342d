package imageio

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"io"
	"math"
)

// upright is the orientation of an image that is stored as it is to be shown.
const upright = 1

// orientation returns how an image has to be turned, in the numbers of TIFF's
// tag 274: 1 to 8. It reads what Pillow's ImageOps.exif_transpose reads (that of
// Pillow 13; before it the last of several tags counted) and where that raises,
// because what is there is damaged, the image is taken to be upright:
//
//   - the EXIF block of a JPEG (APP1), PNG (eXIf, or a text chunk of hexadecimal
//     digits as ImageMagick writes) or WebP, and the first directory of a TIFF;
//   - where that has no such tag, the tiff:Orientation of the file's XMP.
//
// format is as in [header]; data must begin as that format does. Nothing is
// allocated but for PNG files with such text chunks.
func orientation(format string, data []byte) int {
	var m metadata
	switch format {
	case "jpeg":
		m.jpeg(data)
	case "png":
		m.png(data)
	case "webp":
		m.webp(data)
	case "tiff":
		d, ok := newDirectory(data)
		if !ok {
			return upright
		}
		if typ, value := d.find(700); typ == tiffByte || typ == tiffUndefined {
			m.xmp = value
		}
		return m.orientation(d)
	default:
		return upright
	}
	for range 2 {
		m.exif = bytes.TrimPrefix(m.exif, exifPrefix)
	}
	if len(m.exif) == 0 {
		return m.orientation(directory{})
	}
	d, ok := newDirectory(m.exif)
	if !ok {
		return upright
	}
	return m.orientation(d)
}

var (
	exifPrefix = []byte("Exif\x00\x00")
	xmpPrefix  = []byte("http://ns.adobe.com/xap/1.0/\x00")
)

// metadata is where a file may say how it has to be turned; nil where it has
// no such thing.
type metadata struct{ exif, xmp []byte }

// orientation is that of the directory, or else of the XMP.
func (m *metadata) orientation(d directory) int {
	typ, value := d.find(274)
	v := 0.0
	if value != nil {
		v = d.number(typ, value)
	} else {
		v = xmpOrientation(m.xmp)
	}
	if v >= 2 && v <= 8 && v == math.Trunc(v) {
		return int(v)
	}
	return upright
}

// xmpOrientation finds the first tiff:Orientation that a digit follows, be it
// written as an attribute or as an element; 0 if there is none.
func xmpOrientation(xmp []byte) float64 {
	name := []byte("tiff:Orientation")
	for {
		i := bytes.Index(xmp, name)
		if i < 0 {
			return 0
		}
		xmp = xmp[i+len(name):]
		rest, ok := bytes.CutPrefix(xmp, []byte(`="`))
		if !ok {
			rest, ok = bytes.CutPrefix(xmp, []byte(">"))
		}
		if ok && len(rest) > 0 && rest[0] >= '0' && rest[0] <= '9' {
			return float64(rest[0] - '0')
		}
	}
}

// jpeg walks the marker segments before the first scan. Several EXIF segments
// are parts of one; of several XMP segments the last counts.
func (m *metadata) jpeg(data []byte) {
	for at := 2; at+1 < len(data); {
		marker := data[at+1]
		switch {
		case data[at] != 0xff, marker == 0xff:
			at++
			continue
		case marker <= 0x01, marker == 0xc8, marker >= 0xd0 && marker <= 0xd9, marker >= 0xf0 && marker <= 0xfd:
			at += 2 // no segment follows
			continue
		case marker == 0xda, at+4 > len(data):
			return
		}
		end := at + 2 + max(2, int(binary.BigEndian.Uint16(data[at+2:])))
		if end > len(data) {
			return
		}
		segment := data[at+4 : end : end]
		switch {
		case marker != 0xe1:
		case bytes.HasPrefix(segment, exifPrefix) && m.exif == nil:
			m.exif = segment
		case bytes.HasPrefix(segment, exifPrefix):
			m.exif = append(m.exif, segment[len(exifPrefix):]...)
		case bytes.HasPrefix(segment, xmpPrefix):
			m.xmp = segment[len(xmpPrefix):]
		}
		at = end
	}
}

// webp walks the chunks of an extended file, whose flags say which metadata
// count; the first of a kind does.
func (m *metadata) webp(data []byte) {
	if len(data) < 12 {
		return
	}
	data = data[12:min(int64(len(data)), 8+max(4, int64(binary.LittleEndian.Uint32(data[4:]))))]
	flags := byte(0)
	for first := true; len(data) >= 8; first = false {
		id, size := string(data[:4]), int64(binary.LittleEndian.Uint32(data[4:]))
		if size > int64(len(data))-8 {
			return
		}
		body := data[8 : 8+size]
		switch {
		case first && id == "VP8X" && size > 0:
			flags = body[0]
		case id == "EXIF" && flags&0x08 != 0 && m.exif == nil:
			m.exif = body
		case id == "XMP " && flags&0x04 != 0 && m.xmp == nil:
			m.xmp = body
		}
		data = data[min(int64(len(data)), 8+size+size&1):]
	}
}

// directory is a TIFF directory at an offset of data; the zero value has no
// entries.
type directory struct {
	data  []byte
	order binary.ByteOrder
	at    int64
}

// newDirectory reads a TIFF header: that of the byte order, in which two
// variants are tolerated, and the offset of the first directory. A file with
// 64-bit offsets is none.
func newDirectory(data []byte) (d directory, ok bool) {
	if len(data) < 8 {
		return d, false
	}
	d.data = data
	switch string(data[:4]) {
	case "II*\x00", "II\x00*":
		d.order = binary.LittleEndian
	case "MM\x00*", "MM*\x00", "MM\x00+":
		d.order = binary.BigEndian
	default:
		return d, false
	}
	d.at = int64(d.order.Uint32(data[4:]))
	return d, true
}

// The types of a TIFF entry that are no numbers here, and the size in bytes of
// every known type's elements (TIFF 6.0, section 2, and its supplements).
const (
	tiffByte      = 1
	tiffASCII     = 2
	tiffUndefined = 7
)

var tiffSizes = [17]int64{tiffByte: 1, tiffASCII: 1, 3: 2, 4: 4, 5: 8, 6: 1, tiffUndefined: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}

// find returns the type and the value, at least one element, of the first
// usable entry of a tag; nil if there is none. Entries of unknown types and
// without elements are passed over, as are those that with the ones before would
// hold more than there is; at a value that lies outside, the directory ends.
func (d directory) find(tag uint16) (typ uint16, value []byte) {
	length := int64(len(d.data))
	if d.at+2 > length {
		return 0, nil
	}
	var seen [1 << 16 / 64]uint64 // tags
	total, n := int64(0), d.order.Uint16(d.data[d.at:])
	for entry := d.data[d.at+2:]; n > 0 && len(entry) >= 12; n, entry = n-1, entry[12:] {
		id, typ := d.order.Uint16(entry), d.order.Uint16(entry[2:])
		if int(typ) >= len(tiffSizes) || seen[id/64]>>(id%64)&1 != 0 {
			continue
		}
		size := int64(d.order.Uint32(entry[4:])) * tiffSizes[typ]
		if size == 0 {
			continue
		}
		value := entry[8:12]
		if size > 4 {
			if total += size; total > length {
				continue
			}
			at := int64(d.order.Uint32(value))
			if at+size > length {
				return 0, nil
			}
			value = d.data[at:]
		}
		if id == tag {
			return typ, value[:size]
		}
		seen[id/64] |= 1 << (id % 64)
	}
	return 0, nil
}

// number returns the first element of a value: whatever its type, a number
// that equals an orientation is one. Bytes and texts are 0.
func (d directory) number(typ uint16, v []byte) float64 {
	switch typ {
	case 3:
		return float64(d.order.Uint16(v))
	case 4, 13:
		return float64(d.order.Uint32(v))
	case 5:
		return float64(d.order.Uint32(v)) / float64(d.order.Uint32(v[4:]))
	case 6:
		return float64(int8(v[0]))
	case 8:
		return float64(int16(d.order.Uint16(v)))
	case 9:
		return float64(int32(d.order.Uint32(v)))
	case 10:
		return float64(int32(d.order.Uint32(v))) / float64(int32(d.order.Uint32(v[4:])))
	case 11:
		return float64(math.Float32frombits(d.order.Uint32(v)))
	case 12:
		return math.Float64frombits(d.order.Uint64(v))
	case 16:
		return float64(d.order.Uint64(v))
	}
	return 0
}

// png walks the chunks, those behind the pixels included, up to the second
// frame of an animation. Of several of a kind the last counts.
func (m *metadata) png(data []byte) {
	var profile, xml []byte                              // hexadecimal EXIF; XMP that is text
	frames, control, pixels := int64(0), int64(0), false // of an animation: frames, frame headers; IDAT was seen
	for at := int64(8); at+8 <= int64(len(data)); {
		size, id := int64(binary.BigEndian.Uint32(data[at:])), string(data[at+4:at+8])
		if size > int64(len(data))-at-8 || id == "IEND" {
			break
		}
		body := data[at+8 : at+8+size]
		if id == "acTL" && len(body) >= 8 && !pixels {
			if frames != 0 { // twice: no animation
				frames = -1
			} else {
				frames = int64(binary.BigEndian.Uint32(body))
			}
		}
		if id == "fcTL" {
			// Pixels that no frame header precedes are a frame of their own.
			if pixels && frames > control {
				break
			}
			control = 1
		}
		switch key, text := pngText(id, body); {
		case id == "IDAT":
			pixels = true
		case id == "eXIf":
			m.exif = body
		case key == "Raw profile type exif":
			profile = text
		case key == "XML:com.adobe.xmp":
			xml = text
		}
		at += 12 + size
	}
	if m.xmp = xml; m.exif == nil && profile != nil {
		m.exif = pngProfile(profile)
	}
}

// maxPNGText is how much a text chunk may hold when decompressed.
const maxPNGText = 1 << 20

// pngText returns keyword and text of a tEXt, zTXt or iTXt chunk (PNG
// specification, 11.3.3) with a keyword that matters; other chunks are "".
func pngText(id string, body []byte) (key string, text []byte) {
	if id != "tEXt" && id != "zTXt" && id != "iTXt" {
		return "", nil
	}
	name, text, _ := bytes.Cut(body, []byte{0})
	switch string(name) {
	case "Raw profile type exif":
		key = "Raw profile type exif"
	case "XML:com.adobe.xmp":
		key = "XML:com.adobe.xmp"
	default:
		return "", nil
	}
	compressed := id == "zTXt"
	if id == "iTXt" {
		if len(text) < 2 || text[0] != 0 && text[1] != 0 {
			return "", nil
		}
		compressed = text[0] != 0
		_, rest, one := bytes.Cut(text[2:], []byte{0}) // language
		_, rest, two := bytes.Cut(rest, []byte{0})     // translated keyword
		if !one || !two {
			return "", nil
		}
		text = rest
	} else if compressed && len(text) > 0 {
		if text[0] != 0 {
			return "", nil
		}
		text = text[1:]
	}
	if !compressed {
		return key, text
	}
	z, err := zlib.NewReader(bytes.NewReader(text))
	if err != nil {
		return key, nil
	}
	text, err = io.ReadAll(io.LimitReader(z, maxPNGText+1))
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) || len(text) > maxPNGText {
		return key, nil
	}
	return key, text
}

// pngProfile decodes an EXIF block written as text: three lines of name and
// length, then hexadecimal digits, between whose pairs white space may stand.
// What is damaged comes back as a block that is no TIFF structure.
func pngProfile(text []byte) []byte {
	damaged := []byte{0}
	for range 3 {
		_, text, _ = bytes.Cut(text, []byte{'\n'})
	}
	exif := make([]byte, 0, len(text)/2)
	text = bytes.ReplaceAll(text, []byte{'\n'}, nil)
	for {
		text = bytes.TrimLeft(text, " \t\v\f\r")
		if len(text) == 0 {
			return exif
		}
		if len(text) < 2 {
			return damaged
		}
		high, low := hexDigit(text[0]), hexDigit(text[1])
		if high < 0 || low < 0 {
			return damaged
		}
		exif, text = append(exif, byte(high<<4|low)), text[2:]
	}
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}
