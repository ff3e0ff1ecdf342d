package imageio

// orientTile is the side in pixels of the squares in which an image is turned
// over its diagonal: 32 rows of both images, at most 128 bytes each, stay in the
// innermost cache.
const orientTile = 32

// orient makes dst the image that src shows once it is turned as orientation o
// says. Where o is 5 to 8, height and width change places. dst must not be src;
// its memory is used again if it is large enough.
func orient(src *RGB, o int, dst *RGB) {
	w, h := src.Width, src.Height
	if o >= 5 {
		dst.resize(h, w)
		turn(src, dst, o == 7 || o == 8, o == 6 || o == 7)
		return
	}
	dst.resize(w, h)
	for y := range h {
		from := y
		if o == 3 || o == 4 {
			from = h - 1 - y
		}
		in, out := src.row(from), dst.row(y)
		if o == 1 || o == 4 {
			copy(out, in)
			continue
		}
		for i, j := 0, len(in)-3; j >= 0; i, j = i+3, j-3 {
			p, q := out[i:i+3:i+3], in[j:j+3:j+3]
			p[0], p[1], p[2] = q[0], q[1], q[2]
		}
	}
}

// turn makes every column of src a row of dst. Columns are taken from the right
// where backward, and pixels from the bottom where upward.
func turn(src, dst *RGB, backward, upward bool) {
	pitch := 3 * src.Width
	step := pitch
	if upward {
		step = -pitch
	}
	for top := 0; top < dst.Height; top += orientTile {
		bottom := min(top+orientTile, dst.Height)
		for left := 0; left < dst.Width; left += orientTile {
			right := min(left+orientTile, dst.Width)
			for y := top; y < bottom; y++ {
				column, line := y, left
				if backward {
					column = src.Width - 1 - y
				}
				if upward {
					line = src.Height - 1 - left
				}
				at := line*pitch + 3*column
				out := dst.row(y)[3*left : 3*right]
				for ; len(out) >= 3; out = out[3:] {
					p, q := out[:3:3], src.Pix[at:at+3:at+3]
					p[0], p[1], p[2] = q[0], q[1], q[2]
					at += step
				}
			}
		}
	}
}
