package imageio

// Black returns the tensor of a black image, in the slice of the spec's type;
// the others are nil. It stands where a batch has no image: however the samples
// are normalised and wherever, black ones mean the same. The caller owns it.
func (p *Preprocessor) Black() (f32 []float32, f16 []uint16, u8 []uint8) {
	pix := make([]byte, p.Len())
	switch p.spec.DType {
	case Float32:
		f32 = make([]float32, p.Len())
		p.f32.write(f32, pix, p.spec.Layout)
	case Float16:
		f16 = make([]uint16, p.Len())
		p.f16.write(f16, pix, p.spec.Layout)
	case Uint8:
		u8 = pix
	}
	return f32, f16, u8
}
