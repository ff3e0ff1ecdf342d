package resample

import "encoding/binary"

// scratch is what passes work in.
type scratch struct {
	sums  []int32 // of a row, portable
	cells []byte  // of a twin
}

// across is the horizontal pass over rows, four taps at a time.
func across(t *taps, in, out pixels, rows int, _ *scratch) {
	for y := range rows {
		from, to := in.row(y), out.row(y)
		for i := range t.n {
			k := t.coeff[i*t.stride:][:t.count[i]]
			p := from[3*t.start[i]:][:3*len(k)]
			var r, g, b int32 = half, half, half
			for len(k) >= 4 && len(p) >= 12 {
				c, q := (*[4]int32)(k), (*[12]byte)(p)
				r += c[0]*int32(q[0]) + c[1]*int32(q[3]) + c[2]*int32(q[6]) + c[3]*int32(q[9])
				g += c[0]*int32(q[1]) + c[1]*int32(q[4]) + c[2]*int32(q[7]) + c[3]*int32(q[10])
				b += c[0]*int32(q[2]) + c[1]*int32(q[5]) + c[2]*int32(q[8]) + c[3]*int32(q[11])
				k, p = k[4:], p[12:]
			}
			switch len(k) {
			case 3:
				c, q := (*[3]int32)(k), (*[9]byte)(p)
				r += c[0]*int32(q[0]) + c[1]*int32(q[3]) + c[2]*int32(q[6])
				g += c[0]*int32(q[1]) + c[1]*int32(q[4]) + c[2]*int32(q[7])
				b += c[0]*int32(q[2]) + c[1]*int32(q[5]) + c[2]*int32(q[8])
			case 2:
				c, q := (*[2]int32)(k), (*[6]byte)(p)
				r += c[0]*int32(q[0]) + c[1]*int32(q[3])
				g += c[0]*int32(q[1]) + c[1]*int32(q[4])
				b += c[0]*int32(q[2]) + c[1]*int32(q[5])
			case 1:
				c, q := k[0], (*[3]byte)(p)
				r += c * int32(q[0])
				g += c * int32(q[1])
				b += c * int32(q[2])
			}
			q := (*[3]byte)(to[3*i:])
			q[0], q[1], q[2] = clip(r), clip(g), clip(b)
		}
	}
}

// down is the vertical pass over rows of n bytes: weighted sums of whole rows,
// four at a time so that the sums are loaded and stored less often.
func down(t *taps, in, out pixels, n int, s *scratch) {
	s.sums = grow(s.sums, n)
	sums := s.sums
	for y := range t.n {
		k := t.coeff[y*t.stride:][:t.count[y]]
		from := t.start[y]
		// What remains after some fours, which may be none: up to four taps, the
		// missing ones with weight zero.
		fours := (len(k) - 1) / 4
		for i := range fours {
			p, q, r, s := in.row(from)[:n], in.row(from + 1)[:n], in.row(from + 2)[:n], in.row(from + 3)[:n]
			a, b, c, d := k[0], k[1], k[2], k[3]
			if i == 0 {
				for i := range sums {
					sums[i] = half + a*int32(p[i]) + b*int32(q[i]) + c*int32(r[i]) + d*int32(s[i])
				}
			} else {
				for i := range sums {
					sums[i] += a*int32(p[i]) + b*int32(q[i]) + c*int32(r[i]) + d*int32(s[i])
				}
			}
			from += 4
			k = k[4:]
		}
		var c [4]int32
		copy(c[:], k)
		last := from + len(k) - 1
		p, q, r, s := in.row(from)[:n], in.row(min(from+1, last))[:n], in.row(min(from+2, last))[:n], in.row(last)[:n]
		to := out.row(y)[:n]
		if fours == 0 {
			for i := range to {
				to[i] = clip(half + c[0]*int32(p[i]) + c[1]*int32(q[i]) + c[2]*int32(r[i]) + c[3]*int32(s[i]))
			}
			continue
		}
		for i, v := range sums {
			to[i] = clip(v + c[0]*int32(p[i]) + c[1]*int32(q[i]) + c[2]*int32(r[i]) + c[3]*int32(s[i]))
		}
	}
}

func clip(v int32) byte {
	v >>= precision
	if uint32(v) > 255 {
		v = ^(v >> 31)
	}
	return byte(v)
}

// nearest copies pixels, with the byte that follows where there is one: that is
// one move instead of two, and the next pixel overwrites it.
func nearest(h, v *taps, in, out pixels) {
	inner := h.n - 1
	for inner > 0 && h.start[inner-1] == h.span-1 {
		inner--
	}
	for y, row := range v.start {
		from, to := in.row(row), out.row(y)[:3*h.n]
		for x, column := range h.start[:inner] {
			binary.NativeEndian.PutUint32(to[3*x:], binary.NativeEndian.Uint32(from[3*column:]))
		}
		for x := inner; x < h.n; x++ {
			*(*[3]byte)(to[3*x:]) = [3]byte(from[3*h.start[x]:])
		}
	}
}
