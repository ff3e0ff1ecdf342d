package builtin

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
)

// purpose keeps apart what is drawn for one thing from what is drawn for
// another.
type purpose uint64

const (
	forOrder purpose = iota
	forTurn
	forMask
	forHeads
)

// draws is a source of random words: ChaCha8 under a key that says what they are
// for. So every choice is a function of its key alone, the same on every machine
// and for any number of workers.
type draws struct{ rand.ChaCha8 }

// begin starts the words for an image, or for a whole epoch.
func (d *draws) begin(p purpose, seed uint64, epoch int, row int64, index int) {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[0:], seed)
	binary.LittleEndian.PutUint64(key[8:], uint64(row))
	binary.LittleEndian.PutUint32(key[16:], uint32(epoch))
	binary.LittleEndian.PutUint32(key[20:], uint32(index))
	binary.LittleEndian.PutUint64(key[24:], uint64(p))
	d.Seed(key)
}

// below returns a number from 0 to n−1, each equally likely (Lemire, Fast random
// integer generation in an interval, 2019).
func (d *draws) below(n uint64) uint64 {
	high, low := bits.Mul64(d.Uint64(), n)
	if low < n {
		for limit := -n % n; low < limit; {
			high, low = bits.Mul64(d.Uint64(), n)
		}
	}
	return high
}

// shuffle puts the indices into the order of an epoch, each order equally likely
// (Fisher and Yates' shuffle): a function of the seed, the epoch and the
// indices' order before.
func shuffle(indices []uint32, seed uint64, epoch int) {
	var d draws
	d.begin(forOrder, seed, epoch, 0, 0)
	for i := len(indices) - 1; i > 0; i-- {
		j := d.below(uint64(i) + 1)
		indices[i], indices[j] = indices[j], indices[i]
	}
}

// mask fills dst for a Dropout: 0 with the probability ratio, 1/(1−ratio)
// otherwise.
func (d *draws) mask(dst []float32, ratio float64) {
	keep, drop := float32(1/(1-ratio)), uint32(min(ratio*(1<<32), 1<<32-1))
	value := func(word uint32) float32 {
		if word < drop {
			return 0
		}
		return keep
	}
	for ; len(dst) >= 2; dst = dst[2:] {
		w := d.Uint64()
		dst[0], dst[1] = value(uint32(w)), value(uint32(w>>32))
	}
	if len(dst) > 0 {
		dst[0] = value(uint32(d.Uint64()))
	}
}
