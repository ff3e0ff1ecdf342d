package builtin

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

func order(n int, seed uint64, epoch int) []uint32 {
	p := make([]uint32, n)
	for i := range p {
		p[i] = uint32(i)
	}
	shuffle(p, seed, epoch)
	return p
}

// The order of an epoch is fixed for ever: checkpoints rely on it.
func Example_shuffle() {
	fmt.Println(order(10, 42, 0))
	fmt.Println(order(10, 42, 1))
	fmt.Println(order(10, 43, 0))
	// Output:
	// [3 5 7 9 0 4 6 2 1 8]
	// [2 4 1 5 9 8 7 3 6 0]
	// [9 8 4 1 2 0 5 6 7 3]
}

func TestShuffleIsABijection(t *testing.T) {
	for _, n := range []int{1, 2, 3, 1000, 4097} {
		for epoch := range 3 {
			p := order(n, 7, epoch)
			slices.Sort(p)
			for i, x := range p {
				if int(x) != i {
					t.Fatalf("of %d: %d stands where %d should", n, x, i)
				}
			}
		}
	}
}

// TestShuffleIsUniform counts the 24 orders of four images over the epochs. The
// statistic exceeds 60 by chance once in 30,000 seeds.
func TestShuffleIsUniform(t *testing.T) {
	const epochs = 24000
	counts := map[string]int{}
	for epoch := range epochs {
		counts[fmt.Sprint(order(4, 11, epoch))]++
	}
	chi2 := 0.0
	for _, n := range counts {
		d := float64(n) - epochs/24
		chi2 += d * d / (epochs / 24)
	}
	if len(counts) != 24 || chi2 > 60 {
		t.Errorf("%d orders, χ² = %.1f", len(counts), chi2)
	}
}

// TestShuffleSpreads looks where the first and the last image come to lie in a
// long order: anywhere.
func TestShuffleSpreads(t *testing.T) {
	const n, epochs = 997, 2000
	var first, last float64
	for epoch := range epochs {
		p := order(n, 5, epoch)
		first += float64(slices.Index(p, 0)) / (n - 1)
		last += float64(slices.Index(p, n-1)) / (n - 1)
	}
	// The mean of so many uniform numbers deviates by σ = 0.0065.
	for _, mean := range []float64{first / epochs, last / epochs} {
		if math.Abs(mean-0.5) > 0.03 {
			t.Errorf("mean place %.4f", mean)
		}
	}
}

func TestMask(t *testing.T) {
	for _, ratio := range []float64{0, 0.1, 0.5, 0.9} {
		var d draws
		d.begin(forMask, 1, 2, 3, 4)
		got := make([]float32, 40001)
		d.mask(got, ratio)
		zeros := 0
		for _, x := range got {
			switch x {
			case 0:
				zeros++
			case float32(1 / (1 - ratio)):
			default:
				t.Fatalf("ratio %v: %v", ratio, x)
			}
		}
		if share := float64(zeros) / float64(len(got)); math.Abs(share-ratio) > 0.015 {
			t.Errorf("ratio %v: a share of %v is 0", ratio, share)
		}
	}
}

// TestKeys changes each part of the key: other words.
func TestKeys(t *testing.T) {
	seen := map[uint64]string{}
	for _, c := range []struct {
		p     purpose
		seed  uint64
		epoch int
		row   int64
		index int
	}{{}, {p: 1}, {seed: 1}, {seed: 1 << 32}, {epoch: 1}, {row: 1}, {row: 1 << 32}, {index: 1}} {
		var d draws
		d.begin(c.p, c.seed, c.epoch, c.row, c.index)
		w := d.Uint64()
		if other, ok := seen[w]; ok {
			t.Errorf("%+v and %s draw the same", c, other)
		}
		seen[w] = fmt.Sprintf("%+v", c)
		d.begin(c.p, c.seed, c.epoch, c.row, c.index)
		if d.Uint64() != w {
			t.Errorf("%+v draws other words the second time", c)
		}
	}
}
