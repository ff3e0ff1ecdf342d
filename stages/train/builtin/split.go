package builtin

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
)

// heldOut tells whether an image is assigned a label but never trained on, so
// that it shows how well the network predicts labels it has not seen. It is when
// the first 64 bits (big-endian) of
//
//	sha256("sela train.held_out" 00 key 00 member)
//
// are below share·2⁶⁴, 0 ≤ share < 1: the same images in every round, whatever
// the other images are, and a smaller share is a subset of a larger one.
func heldOut(key, member string, share float64) bool {
	var space [256]byte
	b := append(space[:0], "sela train.held_out\x00"...)
	b = append(b, key...)
	b = append(b, 0)
	b = append(b, member...)
	sum := sha256.Sum256(b)
	return binary.BigEndian.Uint64(sum[:]) < uint64(math.Ldexp(share, 64))
}

// split returns the indices of the images that are trained on and of those held
// out, ascending: 4 bytes an image.
func (l *Labels) split(share float64) (train, held []uint32) {
	for i := range l.rows {
		if img := l.Image(i); heldOut(img.Key, img.Member, share) {
			held = append(held, uint32(i))
		} else {
			train = append(train, uint32(i))
		}
	}
	return train, held
}
