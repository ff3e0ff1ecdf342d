package clusters

import (
	"context"
	"math/rand/v2"
)

// seedRows is the number of rows per cluster among which k-means++ chooses:
// enough for every dense place to be there, and few enough to go through once
// for each centre, which over all rows of a large data set would take as many
// passes as there are clusters.
const seedRows = 32

// seed chooses starting centres by k-means++ (D. Arthur and S. Vassilvitskii,
// "k-means++: the advantages of careful seeding", SODA 2007) among the rows of a
// random sample, or all rows where they are fewer: the first with equal
// probability, each further one with a probability in proportion to the squared
// distance to the nearest centre so far.
func (f *Features) seed(ctx context.Context, clusters int, random *rand.Rand) ([]float32, error) {
	x, err := f.sample(ctx, min(seedRows*clusters, len(f.numbers)), random)
	if err != nil {
		return nil, err
	}
	d := f.width
	n := len(x) / d
	nearest := make([]float64, n) // squared distance
	centres := make([]float32, 0, clusters*d)
	at := random.IntN(n)
	for {
		centre := x[at*d : (at+1)*d]
		first := len(centres) == 0
		centres = append(centres, centre...)
		if len(centres) == clusters*d {
			return centres, nil
		}
		const block = 512
		err := f.each(ctx, 0, (n+block-1)/block, func(_ context.Context, _, b int) error {
			for i := b * block; i < min((b+1)*block, n); i++ {
				if distance := squaredDistance(x[i*d:(i+1)*d], centre); first || distance < nearest[i] {
					nearest[i] = distance
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		at = draw(nearest, random)
	}
}

// draw returns an index with a probability in proportion to its weight, or any
// where all weights are 0.
func draw(weights []float64, random *rand.Rand) int {
	total := 0.0
	for _, w := range weights {
		total += w
	}
	rest, last := random.Float64()*total, random.IntN(len(weights))
	for i, w := range weights {
		if w > 0 {
			last = i
			if rest -= w; rest < 0 {
				break
			}
		}
	}
	return last
}

// sample returns n rows drawn without replacement, in order.
func (f *Features) sample(ctx context.Context, n int, random *rand.Rand) ([]float32, error) {
	chosen := make([]int, 0, n)
	for i := range f.numbers { // selection sampling (Knuth, volume 2, algorithm S)
		if random.IntN(len(f.numbers)-i) < n-len(chosen) {
			chosen = append(chosen, i)
		}
	}
	x := make([]float32, n*f.width)
	at := 0
	err := f.sweep(ctx, func(context.Context, int, span) error { return nil }, func(s span) error {
		for end := s.first + len(s.x)/f.width; at < n && chosen[at] < end; at++ {
			copy(x[at*f.width:(at+1)*f.width], s.x[(chosen[at]-s.first)*f.width:])
		}
		return nil
	})
	return x, err
}

// squaredDistance returns |a − b|², in four sums so that they overlap.
func squaredDistance(a, b []float32) float64 {
	b = b[:len(a)]
	var s0, s1, s2, s3 float64
	for len(a) >= 4 && len(b) >= 4 {
		d0, d1, d2, d3 := float64(a[0]-b[0]), float64(a[1]-b[1]), float64(a[2]-b[2]), float64(a[3]-b[3])
		s0 += d0 * d0
		s1 += d1 * d1
		s2 += d2 * d2
		s3 += d3 * d3
		a, b = a[4:], b[4:]
	}
	for i, v := range a {
		d := float64(v - b[i])
		s0 += d * d
	}
	return s0 + s1 + (s2 + s3)
}
