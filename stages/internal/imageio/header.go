package imageio

import (
	"bytes"
	"encoding/binary"
)

// header is what an image says about itself before any pixel is decoded.
type header struct {
	format        string
	width, height int

	components int       // jpeg: number of components
	halved     bool      // jpeg: the first component has twice the samples of the second both ways
	jfif       bool      // jpeg: a JFIF marker
	rgb        bool      // jpeg: three components that are red, green and blue to libjpeg
	adobe      int       // jpeg: offset of the transform byte of the Adobe marker, or 0
	tail       bool      // jpeg: segments follow the first scan, which may be in error
	gray16     bool      // png: 16-bit gray
	webp       webpFrame // webp: what to decode
}

// maxScans bounds the scans of a JPEG: each scan of a few bytes may cost a walk
// over all its blocks. Encoders write about ten.
const maxScans = 500

// readHeader tells the format by content and reads the size of the image.
func readHeader(data []byte) (header, error) {
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
	case hasPrefix(data, "II*\x00"), hasPrefix(data, "MM\x00*"), hasPrefix(data, "II+\x00"):
		return tiffHeader(data)
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
	used, defined := 0, 0    // quantisation tables, as bits
	scans, named := 0, false // named: the components are called R, G and B
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
		h.tail = h.tail || scans > 0
		switch {
		case marker == 0xe0 && len(segment) >= 14 && hasPrefix(segment, "JFIF\x00"):
			h.jfif = true
		case marker == 0xee && len(segment) >= 12 && hasPrefix(segment, "Adobe"):
			h.adobe = at + 2 + 11
		case marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc: // SOF
			if h.components != 0 {
				return h, fail(Corrupt, "jpeg", "a second frame header")
			}
			if len(segment) < 6 {
				return h, fail(Corrupt, "jpeg", "the frame header has %d bytes", len(segment))
			}
			h.height = int(binary.BigEndian.Uint16(segment[1:]))
			h.width = int(binary.BigEndian.Uint16(segment[3:]))
			h.components = int(segment[5])
			if n := h.components; n != 1 && n != 3 && n != 4 {
				return h, fail(Unsupported, "jpeg", "%d components", n)
			}
			h.halved = len(segment) >= 12 && segment[7] == 0x22 && segment[10] == 0x11
			for i := 8; i < len(segment); i += 3 {
				used |= 1 << (segment[i] & 15)
			}
			named = len(segment) >= 15 && segment[6] == 'R' && segment[9] == 'G' && segment[12] == 'B'
		case marker == 0xdb: // DQT
			for q := segment; len(q) > 0; {
				defined |= 1 << (q[0] & 15)
				q = q[min(len(q), 65+64*int(q[0]>>4&1)):]
			}
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
	if used&^defined != 0 {
		return h, fail(Corrupt, "jpeg", "a quantisation table is missing")
	}
	// The rule of libjpeg's jdapimin.c.
	if h.adobe != 0 {
		named = data[h.adobe] == 0
	}
	h.rgb = h.components == 3 && !h.jfif && named
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

// bmpHeader reads the size of the image.
func bmpHeader(data []byte) (header, error) {
	f, err := parseBMP(data)
	return header{format: "bmp", width: f.width, height: f.height}, err
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
