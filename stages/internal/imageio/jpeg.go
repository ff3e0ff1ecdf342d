package imageio

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"
	"runtime"

	"sela/stages/internal/imageio/libjpeg"
)

// jpegDecoder is the seam for other JPEG decoders: they differ in speed and in
// the last bit, so the fingerprint carries their name.
type jpegDecoder interface {
	// name identifies the decoder and every version that may change a pixel.
	name() string
	// scales tells whether decode heeds a reading's eighths.
	scales() bool
	// decode overwrites dst with what is wanted of the image of the given header.
	decode(h header, data []byte, r reading, dst *RGB) error
}

// newJPEG returns the decoder this build uses.
func newJPEG() jpegDecoder {
	if libjpeg.Available {
		return turboJPEG{}
	}
	return new(standardJPEG)
}

// turboJPEG decodes with libjpeg-turbo, as Pillow does.
type turboJPEG struct{}

func (turboJPEG) name() string { return "libjpeg-turbo " + libjpeg.Version() }

func (turboJPEG) scales() bool { return true }

func (turboJPEG) decode(h header, data []byte, r reading, dst *RGB) error {
	request := libjpeg.Request{
		Width: h.width, Height: h.height, Eighths: r.eighths, Window: r.window,
		Whole: h.tail, Scans: maxScans,
	}
	if request.Eighths == 0 {
		request.Eighths = 8
	}
	dst.resize(r.scaled(h.width), r.scaled(h.height))
	return libjpeg.Decode(data, request, dst.Pix)
}

// standardJPEG decodes with image/jpeg, which leaves chroma at its own
// resolution, and finishes as libjpeg does.
type standardJPEG struct {
	reader bytes.Reader
	chroma chroma
	edited []byte    // the file with a marker added or changed
	planes [3][]byte // the components of such a file but black
}

func (*standardJPEG) name() string { return "image/jpeg " + runtime.Version() + " triangle-upsampling" }

func (*standardJPEG) scales() bool { return false }

func (d *standardJPEG) decode(h header, data []byte, _ reading, dst *RGB) error {
	ycck := false
	switch {
	case h.components == 4:
		data, ycck = d.exposeCMYK(h, data)
	case h.components == 3 && !h.jfif:
		data = d.keepPlanes(data)
	}
	d.reader.Reset(data)
	defer d.reader.Reset(nil)
	m, err := jpeg.Decode(&d.reader)
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *image.YCbCr:
		dst.resize(m.Rect.Dx(), m.Rect.Dy())
		convert := jpegRow
		if h.rgb {
			convert = interleave
		}
		return d.chroma.jpeg(m, convert, dst)
	case *image.CMYK:
		return d.cmykToRGB(m, ycck, h.halved, dst)
	default: // gray
		return flatten(m, false, dst)
	}
}

// keepPlanes returns a copy of a file with a JFIF marker, by which image/jpeg
// takes three components to be YCbCr and hands them out at their own
// resolution. Its own guess is not libjpeg's, see header.rgb.
func (d *standardJPEG) keepPlanes(data []byte) []byte {
	const marker = "\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
	d.edited = append(append(append(d.edited[:0], data[:2]...), marker...), data[2:]...)
	return d.edited
}

// exposeCMYK returns a copy of a four-component file whose Adobe marker says
// that no colour transform was applied, so that image/jpeg hands out the stored
// samples instead of a colour conversion of its own, and whether they are in
// fact YCCK. A file without the marker is CMYK to libjpeg; it gets one.
func (d *standardJPEG) exposeCMYK(h header, data []byte) (edited []byte, ycck bool) {
	if h.adobe != 0 {
		d.edited = append(d.edited[:0], data...)
		ycck = d.edited[h.adobe] != 0
		d.edited[h.adobe] = 0
		return d.edited, ycck
	}
	const marker = "\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
	d.edited = append(d.edited[:0], data[:2]...)
	d.edited = append(d.edited, marker...)
	d.edited = append(d.edited, data[2:]...)
	return d.edited, false
}

// cmykToRGB converts to what Pillow makes of mode CMYK. image/jpeg inverts the
// stored samples and Pillow takes every file to be inverted, as Adobe writes
// them, so m holds ink for both. Halved components come out of image/jpeg
// repeated: their own samples are taken back out and upsampled as libjpeg does.
func (d *standardJPEG) cmykToRGB(m *image.CMYK, ycck, halved bool, dst *RGB) error {
	w, h := m.Rect.Dx(), m.Rect.Dy()
	dst.resize(w, h)
	if len(m.Pix) < 4*w*h || m.Stride != 4*w {
		return fmt.Errorf("a CMYK image of stride %d and %d bytes for %d×%d pixels", m.Stride, len(m.Pix), w, h)
	}
	step, ratio := 1, image.YCbCrSubsampleRatio444
	if halved {
		step, ratio = 2, image.YCbCrSubsampleRatio420
	}
	for c, step := range [3]int{1, step, step} {
		pw, ph := (w+step-1)/step, (h+step-1)/step
		d.planes[c] = grow(d.planes[c], pw*ph)
		for y := range ph {
			row := d.planes[c][y*pw:][:pw]
			for x := range row {
				row[x] = 255 - m.Pix[4*(step*y*w+step*x)+c]
			}
		}
	}
	stored := image.YCbCr{
		Y: d.planes[0], Cb: d.planes[1], Cr: d.planes[2], YStride: w, CStride: (w + step - 1) / step,
		SubsampleRatio: ratio, Rect: image.Rect(0, 0, w, h),
	}
	// libjpeg turns YCCK into the complement of RGB.
	convert, complement := interleave, byte(255)
	if ycck {
		convert, complement = jpegRow, 0
	}
	if err := d.chroma.jpeg(&stored, convert, dst); err != nil {
		return err
	}
	// Pillow's CMYK → RGB: (255 − k) − c·(255 − k)/255, the product rounded.
	for i := range w * h {
		white := 255 - int(m.Pix[4*i+3])
		p := dst.Pix[3*i : 3*i+3 : 3*i+3]
		for c, v := range p {
			t := int(v^complement)*white + 128
			p[c] = byte(max(0, white-(t>>8+t)>>8))
		}
	}
	return nil
}
