//go:build linux

package main

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// matrix gives rows of log-probabilities, in nats: the same bits however the
// rows are asked for. fill may be called concurrently.
type matrix interface {
	dims() (rows int64, clusters int)
	// fill sets dst, row-major, to as many rows as it holds, from row from on.
	fill(from int64, dst []float32) error
}

const rank = 32 // of family B

// family makes rows of one of the synthetic families on which methods are
// compared. Logits of "A" are independent and normal with standard deviation 3;
// those of "B" have rank 32, the same deviation, and a bias of each column with
// deviation 1.5; in "C" each row has a true class, Zipf(0.7) distributed, whose
// logit is raised by 9 above A's; "flat" is B with deviation 0.3, as an
// untrained network.
type family struct {
	name     string
	rows     int64
	clusters int
	seed     uint64
	std      float64

	bias    []float32 // of B
	weights []float32 // of B, [clusters·rank]
	share   []float64 // of C: cumulative, of the classes
	class   []int     // of C: their columns
}

func newFamily(name string, rows int64, clusters int, seed uint64) (*family, error) {
	f := &family{name: name, rows: rows, clusters: clusters, seed: seed, std: 3}
	r := rand.New(rand.NewPCG(seed, uint64(clusters)))
	switch name {
	case "A":
	case "B", "flat":
		if name == "flat" {
			f.std = 0.3
		}
		f.bias, f.weights = make([]float32, clusters), make([]float32, clusters*rank)
		for k := range f.bias {
			f.bias[k] = float32(1.5 * r.NormFloat64())
		}
		for i := range f.weights {
			f.weights[i] = float32(r.NormFloat64() * f.std / math.Sqrt(rank))
		}
	case "C":
		total := 0.0
		for k := range clusters {
			total += math.Pow(float64(k+1), -0.7)
			f.share = append(f.share, total)
		}
		f.class = r.Perm(clusters)
	default:
		return nil, fmt.Errorf("there is no family %q: these are A, B, C and flat", name)
	}
	return f, nil
}

func (f *family) dims() (int64, int) { return f.rows, f.clusters }

// fill draws each row from a generator seeded with the row's number.
func (f *family) fill(from int64, dst []float32) error {
	const together = 4 // rows for which a column of weights is read once
	var z [together][rank]float32
	var pcg rand.PCG
	r := rand.New(&pcg)
	n := len(dst) / f.clusters
	for i := 0; i < n; i += together {
		rows := min(together, n-i)
		for j := range rows {
			pcg.Seed(f.seed, uint64(from)+uint64(i+j)+1)
			x := dst[(i+j)*f.clusters : (i+j+1)*f.clusters]
			switch {
			case f.weights != nil:
				for d := range z[j] {
					z[j][d] = float32(r.NormFloat64())
				}
			default:
				for k := range x {
					x[k] = float32(f.std * r.NormFloat64())
				}
				if f.class != nil {
					x[f.draw(r)] += float32(3 * f.std)
				}
			}
		}
		if f.weights != nil {
			f.lowRank(dst[i*f.clusters:(i+rows)*f.clusters], &z)
		}
		for j := range rows {
			normalise(dst[(i+j)*f.clusters : (i+j+1)*f.clusters])
		}
	}
	return nil
}

// draw returns the column of a class.
func (f *family) draw(r *rand.Rand) int {
	u := r.Float64() * f.share[f.clusters-1]
	low, high := 0, f.clusters-1
	for low < high {
		if mid := (low + high) / 2; f.share[mid] < u {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return f.class[low]
}

// lowRank sets up to four rows to z·weightsᵀ + bias. Products are rounded
// before they are added, so that no compiler fuses them.
func (f *family) lowRank(dst []float32, z *[4][rank]float32) {
	n := len(dst)
	for k, b := range f.bias {
		w := f.weights[k*rank : (k+1)*rank]
		s0, s1, s2, s3 := b, b, b, b
		for j, wj := range w {
			s0 += float32(z[0][j] * wj)
			s1 += float32(z[1][j] * wj)
			s2 += float32(z[2][j] * wj)
			s3 += float32(z[3][j] * wj)
		}
		for i, s := range [4]float32{s0, s1, s2, s3} {
			if at := i*f.clusters + k; at < n {
				dst[at] = s
			}
		}
	}
}

// normalise turns logits into log-probabilities. Its exponentials come from a
// table: they only shift the row, and an error of 1e-6 in the shift is the
// float32's own.
func normalise(x []float32) {
	top := float32(math.Inf(-1))
	for _, v := range x {
		top = max(top, v)
	}
	const steps = 1 << expBits
	var sum [4]float64
	for i, v := range x {
		t := float32(v-top) * (steps / math.Ln2)
		if t < -100*steps {
			continue // below 2^−100
		}
		n := int32(t)
		e := expTable[n&(steps-1)] * (1 + float32((t-float32(n))*(math.Ln2/steps)))
		sum[i&3] += float64(math.Float32frombits(uint32(int32(math.Float32bits(e)) + n>>expBits<<23)))
	}
	shift := top + float32(math.Log(sum[0]+sum[1]+sum[2]+sum[3]))
	for i := range x {
		x[i] -= shift
	}
}

const expBits = 10

// expTable has 2^(i/1024).
var expTable = func() (t [1 << expBits]float32) {
	for i := range t {
		t[i] = float32(math.Exp2(float64(i) / (1 << expBits)))
	}
	return t
}()

// inSample tells whether a row is in the sample of so large a share of the
// rows, as the hash of an image's key would.
func inSample(row int64, share float64) bool {
	x := (uint64(row) + 0x632be59bd9b4e019) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	x = (x ^ x>>29) * 0x9e3779b97f4a7c15
	return float64((x^x>>32)>>11)/(1<<53) < share
}
