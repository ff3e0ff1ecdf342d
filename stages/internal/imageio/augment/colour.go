package augment

// luma is Pillow's conversion to gray: ITU-R 601 in 16-bit fixed point.
func luma(r, g, b byte) uint32 {
	return (uint32(r)*19595 + uint32(g)*38470 + uint32(b)*7471 + 0x8000) >> 16
}

// grayscale gives the three channels the luma.
func grayscale(pix []byte) {
	for i := 0; i+3 <= len(pix); i += 3 {
		p := pix[i : i+3 : i+3]
		l := byte(luma(p[0], p[1], p[2]))
		p[0], p[1], p[2] = l, l, l
	}
}

// mean is the mean luma, rounded: halves up.
func mean(pix []byte) byte {
	sum := uint64(0)
	for i := 0; i+3 <= len(pix); i += 3 {
		p := pix[i : i+3 : i+3]
		sum += uint64(luma(p[0], p[1], p[2]))
	}
	n := uint64(len(pix) / 3)
	return byte((2*sum + n) / (2 * n))
}

// blend is Pillow's: gray + weight·(x − gray), both operations rounded to
// float32, truncated and clipped. The conversion keeps them from being fused.
func blend(gray, x byte, weight float32) byte {
	return clip(int32(float32(gray) + float32(weight*float32(int32(x)-int32(gray)))))
}

func clip(v int32) byte {
	if uint32(v) > 255 {
		v = ^(v >> 31)
	}
	return byte(v)
}

// towards blends all samples with one gray level.
func towards(pix []byte, gray byte, weight float32) {
	var to [256]byte
	for x := range to {
		to[x] = blend(gray, byte(x), weight)
	}
	for i, x := range pix {
		pix[i] = to[x]
	}
}

// saturate blends each sample with its pixel's luma, as blend does; the
// products are tabulated by x − luma.
func saturate(pix []byte, weight float32) {
	var product [512]float32 // at x − luma + 256
	for d := int32(-255); d <= 255; d++ {
		product[d+256] = weight * float32(d)
	}
	for i := 0; i+3 <= len(pix); i += 3 {
		p := pix[i : i+3 : i+3]
		l := luma(p[0], p[1], p[2])
		gray, zero := float32(int32(l)), 256-l
		r := int32(gray + product[(zero+uint32(p[0]))%512])
		g := int32(gray + product[(zero+uint32(p[1]))%512])
		b := int32(gray + product[(zero+uint32(p[2]))%512])
		p[0], p[1], p[2] = clip(r), clip(g), clip(b)
	}
}
