package augment

import "math/bits"

// Key names the image whose random choices are drawn, and in which pass.
type Key struct {
	Seed  uint64 // of the run
	Epoch uint32
	Row   uint64 // of the image in the data set
}

// block returns the four words with the given number: Philox 4×32 with ten
// rounds, counter (row, epoch, number), key seed.
func (k Key) block(number uint32) [4]uint32 {
	return philox([4]uint32{uint32(k.Row), uint32(k.Row >> 32), k.Epoch, number}, uint32(k.Seed), uint32(k.Seed>>32))
}

func philox(c [4]uint32, k0, k1 uint32) [4]uint32 {
	for range 10 {
		hi0, lo0 := bits.Mul32(0xD2511F53, c[0])
		hi1, lo1 := bits.Mul32(0xCD9E8D57, c[2])
		c = [4]uint32{hi1 ^ c[1] ^ k0, lo1, hi0 ^ c[3] ^ k1, lo0}
		k0 += 0x9E3779B9 // the golden ratio
		k1 += 0xBB67AE85 // √3 − 1
	}
	return c
}

// uniform maps a word to [low, high] as torch's uniform_ does: 24 bits, in
// float32.
func uniform(word uint32, low, high float64) float32 {
	a, b := float32(low), float32(high)
	u := float32(word>>8) * 0x1p-24
	return min(float32(u*(b-a))+a, b)
}

// below maps a word to 0 … n−1; no value is likelier than another by more than
// n/2³² of its share.
func below(word uint32, n int) int {
	hi, _ := bits.Mul32(word, uint32(n))
	return int(hi)
}
