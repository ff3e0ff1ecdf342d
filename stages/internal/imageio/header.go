package imageio

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/image/tiff"
)

// header is what an image says about itself before any pixel is decoded.
type header struct {
	format        string
	width, height int

	components int       // jpeg: number of components
	halved     bool      // jpeg: the first component has twice the samples of the second both ways
	adobe      int       // jpeg: offset of the transform byte of the Adobe marker, or 0
	gray16     bool      // png: 16-bit gray
	webp       webpFrame // webp: what to decode
}

// maxScans bounds the scans of a JPEG: each scan of a few bytes may cost a walk
// over all its blocks. Encoders write about ten.
const maxScans = 500

// readHeader tells the format by content and reads the size of the image.
func readHeader(data []byte, r *bytes.Reader) (header, error) {
	if len(data) == 0 {
		return header{}, fail(Empty, "", "the file has no bytes")
	}
	switch {
	case hasPrefix(data, "\xff\xd8\xff"):
		return jpegHeader(data)
	case hasPrefix(data, "\x89PNG\r\n\x1a\n"):
		return pngHeader(data)
	case hasPrefix(data, "GIF87a"), hasPrefix(data, "GIF89a"):
		return gifHeader(data)
	case len(data) >= 12 && hasPrefix(data, "RIFF") && string(data[8:12]) == "WEBP":
		return webpHeader(data)
	case hasPrefix(data, "II*\x00"), hasPrefix(data, "MM\x00*"):
		r.Reset(data)
		c, err := tiff.DecodeConfig(r)
		if err != nil {
			return header{}, classify("tiff", err)
		}
		return header{format: "tiff", width: c.Width, height: c.Height}, nil
	case hasPrefix(data, "BM"):
		return bmpHeader(data)
	}
	return header{}, fail(Format, "", "no known image format begins with %q", data[:min(len(data), 12)])
}

func hasPrefix(data []byte, prefix string) bool {
	return len(data) >= len(prefix) && string(data[:len(prefix)]) == prefix
}

// jpegHeader walks the marker segments (ITU-T T.81, Annex B).
func jpegHeader(data []byte) (header, error) {
	h := header{format: "jpeg"}
	scans := 0
	for at := 2; ; {
		// The next marker: 0xff, not stuffed and not a restart.
		i := bytes.IndexByte(data[at:], 0xff)
		if i < 0 || at+i+1 >= len(data) {
			return h, fail(Truncated, "jpeg", "no end of image")
		}
		at += i + 1
		marker := data[at]
		if marker == 0xff {
			continue
		}
		at++
		if marker == 0 || marker == 0x01 || marker >= 0xd0 && marker <= 0xd7 {
			continue
		}
		if marker == 0xd9 { // EOI
			break
		}
		if at+2 > len(data) {
			return h, fail(Truncated, "jpeg", "a marker segment ends early")
		}
		n := int(binary.BigEndian.Uint16(data[at:]))
		if n < 2 || at+n > len(data) {
			return h, fail(Truncated, "jpeg", "a marker segment of %d bytes ends early", n)
		}
		segment := data[at+2 : at+n]
		switch {
		case marker == 0xee && len(segment) >= 12 && hasPrefix(segment, "Adobe"):
			h.adobe = at + 2 + 11
		case marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc: // SOF
			if len(segment) < 6 {
				return h, fail(Corrupt, "jpeg", "the frame header has %d bytes", len(segment))
			}
			h.height = int(binary.BigEndian.Uint16(segment[1:]))
			h.width = int(binary.BigEndian.Uint16(segment[3:]))
			h.components = int(segment[5])
			h.halved = len(segment) >= 12 && segment[7] == 0x22 && segment[10] == 0x11
		case marker == 0xda: // SOS
			if scans++; scans > maxScans {
				return h, fail(TooLarge, "jpeg", "more than %d scans", maxScans)
			}
		}
		at += n
	}
	if h.components == 0 {
		return h, fail(Corrupt, "jpeg", "no frame header")
	}
	return h, nil
}

// pngHeader reads IHDR, which comes first (PNG specification, 11.2.1).
func pngHeader(data []byte) (header, error) {
	h := header{format: "png"}
	if len(data) < 33 {
		return h, fail(Truncated, "png", "no header chunk")
	}
	if string(data[12:16]) != "IHDR" {
		return h, fail(Corrupt, "png", "the first chunk is %q", data[12:16])
	}
	w, ht := binary.BigEndian.Uint32(data[16:]), binary.BigEndian.Uint32(data[20:])
	if w > 1<<31-1 || ht > 1<<31-1 {
		return h, fail(Corrupt, "png", "a size of %d×%d", w, ht)
	}
	h.width, h.height = int(w), int(ht)
	h.gray16 = data[24] == 16 && data[25] == 0
	return h, nil
}

// bmpHeader reads the size from the file's information header.
func bmpHeader(data []byte) (header, error) {
	h := header{format: "bmp"}
	if len(data) < 26 {
		return h, fail(Truncated, "bmp", "no information header")
	}
	if n := binary.LittleEndian.Uint32(data[14:]); n < 40 {
		return h, fail(Unsupported, "bmp", "an information header of %d bytes", n)
	}
	w := int64(int32(binary.LittleEndian.Uint32(data[18:])))
	ht := int64(int32(binary.LittleEndian.Uint32(data[22:])))
	if w < 0 {
		return h, fail(Corrupt, "bmp", "a width of %d", w)
	}
	h.width, h.height = int(w), int(max(ht, -ht))
	return h, nil
}

// blackIsZeroFax tells whether a TIFF file that decoded without error is a fax
// (CCITT group 3 or 4) whose zeros are black. x/image/tiff makes its white runs
// white; libtiff takes the photometric tag's word.
func blackIsZeroFax(data []byte) bool {
	compression := tiffTag(data, 259)
	return (compression == 3 || compression == 4) && tiffTag(data, 262) == 1
}

// tiffTag returns the value of a tag of type SHORT in the first directory, or
// −1 (TIFF 6.0, section 2).
func tiffTag(data []byte, tag uint16) int {
	var order binary.ByteOrder = binary.LittleEndian
	if data[0] == 'M' {
		order = binary.BigEndian
	}
	at := int64(order.Uint32(data[4:]))
	if at+2 > int64(len(data)) {
		return -1
	}
	n := order.Uint16(data[at:])
	for data = data[at+2:]; n > 0 && len(data) >= 12; n, data = n-1, data[12:] {
		if order.Uint16(data) == tag && order.Uint16(data[2:]) == 3 {
			return int(order.Uint16(data[8:]))
		}
	}
	return -1
}

// check holds the header against the limits, before memory is taken.
func (h header) check(encoded int, l Limits) error {
	if h.width <= 0 || h.height <= 0 {
		return fail(Corrupt, h.format, "a size of %d×%d pixels", h.width, h.height)
	}
	if max(h.width, h.height) > maxImageSide {
		return fail(TooLarge, h.format, "%d×%d pixels, no side may exceed %d", h.width, h.height, maxImageSide)
	}
	if int64(h.width) > l.MaxPixels/int64(h.height) {
		return fail(TooLarge, h.format, "%d×%d pixels, the limit is %d in all", h.width, h.height, l.MaxPixels)
	}
	decoded := 3 * int64(h.width) * int64(h.height)
	if decoded > ratioExempt && decoded/int64(encoded) > l.MaxRatio {
		return fail(TooLarge, h.format, "%d×%d pixels from %d bytes, %d times as many; the limit is %d times",
			h.width, h.height, encoded, decoded/int64(encoded), l.MaxRatio)
	}
	return nil
}
