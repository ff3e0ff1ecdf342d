// Package imageio turns the bytes of an image file into the tensor a network
// was trained on: decode, resize, crop, normalise.
//
// The reference is torchvision on Pillow: Image.open(f).convert("RGB"), then
// Resize, CenterCrop, ToTensor and Normalize. A pipeline whose pixels differ
// from the ones a network saw in training gives other labels without any
// error, so every step follows the reference's arithmetic:
//
//   - PNG, GIF (first frame), BMP, TIFF (first page) and WebP decode to Pillow's
//     bytes. Alpha is dropped, not composited; 16-bit colour keeps its high byte,
//     16-bit gray is clipped at 255, 32-bit and floating point gray to 0…255; a
//     palette entry keeps its colour even if transparent. TIFF, alone, is turned
//     as its orientation tag says, since Pillow does so unasked.
//   - JPEG decodes to Pillow's bytes where libjpeg-turbo is built in (package
//     libjpeg, tag turbojpeg), and then only what the resize reads is decoded.
//     Without it, image/jpeg does, whose inverse DCT rounds differently; chroma
//     upsampling (triangle filter) and the colour conversion are libjpeg's. What
//     remains is 0.03 levels on average and 3 at most on 500 ImageNet photographs
//     (97 % of the bytes are equal); the tests assert such bounds. [Decoder] and
//     the [Spec.Fingerprint] name the decoder.
//   - Resizing is Pillow's two passes in 22-bit fixed point, byte for byte. Their
//     order changed in Pillow 13: see [Order].
//   - The tensor is (x/255 − mean)/std in float32, rounded after each operation
//     as torch does.
//
// # Use
//
// A [Spec] says what is wanted, [New] checks it and precomputes what all
// goroutines share, and each goroutine takes its own [Worker], which owns the
// buffers and writes one image's tensor into memory the caller owns:
//
//	p, err := imageio.New(spec)
//	w := p.NewWorker()
//	err = w.Float32(data, batch[i*p.Len():(i+1)*p.Len()])
//
// # Unusable images
//
// Formats are told by content, never by name. Sizes are read from the headers
// and held against [Limits] before memory is taken. Whatever is wrong with an
// image comes back as an [*Error] whose [Class] is what quarantine records; a
// panic inside a decoder becomes [Corrupt]. A truncated image is an error, as
// it is for Pillow. PNG files with a wrong checksum over pixels, or without an
// end, are errors though Pillow does not notice, and so are, without
// libjpeg-turbo, damaged JPEG files for which libjpeg only warns.
//
// [Unsupported] are: TIFF compressed as JPEG, LZMA, Zstandard, WebP or modified
// Huffman, two-dimensional group 3, YCbCr, CIELab, 12 bits, planes with
// undeclared or associated alpha, and big-endian files that Pillow reads wrongly
// or not at all; BMP with 2 bits per pixel or unusual bit fields; JPEG of 12
// bits, and without libjpeg-turbo arithmetic coding and unusual sampling factors.
// Without libjpeg-turbo half of the progressive JPEG files with restart markers
// are taken to be [Corrupt].
//
// # Memory
//
// A worker keeps 3 bytes per pixel of the largest image it has seen, and what
// one resize needs. While it decodes, the decoder takes up to 8 more bytes per
// pixel, and 15 for a progressive JPEG or a TIFF. [Limits] bounds both.
package imageio
