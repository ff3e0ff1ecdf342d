package device

import (
	"math"

	"sela/sinkhorn"
	"sela/stages/internal/ort"
)

// lightMass bounds the column sums that are added again in log domain: above
// it no share that matters is below the normal numbers of float64.
const lightMass = 1e-280

// farMargin is the margin from which on one counts as infinite, as in
// sinkhorn.PassResult.
const farMargin = 60

// totals is the sum of the tiles evaluated so far, in row order.
type totals struct {
	req   *sinkhorn.Request
	shape shape
	v     []float64 // the potentials, zeros where there are none

	rows           int64
	mass           []float64
	lse, change    float64
	all            []float64 // lse of each row, where columns may be needed
	counts         []int64
	changed, tied  int64
	margin, span   float64
	minLSE, maxLSE float64

	max, sum []float64 // by column, in log domain; nil until added
}

func newTotals(req *sinkhorn.Request, s shape) *totals {
	t := &totals{
		req: req, shape: s, v: req.V, mass: make([]float64, s.clusters),
		margin: math.Inf(1), minLSE: math.Inf(1), maxLSE: math.Inf(-1),
	}
	if t.v == nil {
		t.v = make([]float64, s.clusters)
	}
	if req.Certify {
		t.counts = make([]int64, s.clusters)
	}
	return t
}

// add takes in what a run found, and what one under the previous potentials
// did, where there are any. It returns the index of the first row without a
// log-sum-exp, or −1.
func (t *totals) add(b *batch, out, before []ort.Array[float64]) (bad int64) {
	mass, lse, label, margin, span := out[0].Values, out[1].Values, out[2].Values, out[3].Values, out[4].Values
	for tile := range b.tiles {
		low := tile * t.shape.rows
		high := min(low+t.shape.rows, b.rows)
		lseSum, change := 0.0, 0.0
		for i := low; i < high; i++ {
			if math.IsNaN(lse[i] - lse[i]) {
				return b.first + i
			}
			lseSum += lse[i]
			if t.req.Change {
				previous := 0.0
				if before != nil {
					previous = before[1].Values[i]
				}
				change += math.Abs(math.Exp(lse[i]-previous) - 1)
			}
			if t.req.Certify {
				t.counts[int(label[i])]++
				if before != nil && before[2].Values[i] != label[i] {
					t.changed++
				}
				t.minLSE, t.maxLSE = min(t.minLSE, lse[i]), max(t.maxLSE, lse[i])
				t.span = max(t.span, span[i])
				if margin[i] == 0 {
					t.tied++
				}
				if margin[i] <= farMargin {
					t.margin = min(t.margin, margin[i])
				}
			}
		}
		t.lse += lseSum
		t.change += change
		for k, m := range mass[tile*t.shape.clusters : (tile+1)*t.shape.clusters] {
			t.mass[k] += m
		}
	}
	if t.req.V != nil && t.req.LogMass {
		t.all = append(t.all, lse[:b.rows]...)
	}
	t.rows += b.rows
	return -1
}

// needColumns tells whether some mass must be found in log domain.
func (t *totals) needColumns() bool {
	if t.req.V == nil {
		return true
	}
	light := false
	for _, m := range t.mass {
		light = light || m < lightMass
	}
	return light && t.req.LogMass
}

// shift returns what the scores of the batch's rows are lessened by: their
// log-sum-exp, nothing without potentials, infinity where there is no row.
func (t *totals) shift(b *batch) []float64 {
	shift := make([]float64, b.tiles*t.shape.rows)
	if t.req.V != nil {
		copy(shift, t.all[b.first:b.first+b.rows])
	}
	for i := b.rows; i < int64(len(shift)); i++ {
		shift[i] = math.Inf(1)
	}
	return shift
}

// addColumns takes in the column sums of a batch in log domain.
func (t *totals) addColumns(out []ort.Array[float64]) {
	if t.max == nil {
		t.max, t.sum = repeated(math.Inf(-1), t.shape.clusters), make([]float64, t.shape.clusters)
	}
	tops, sums := out[5].Values, out[6].Values
	for len(tops) > 0 {
		for k := range t.max {
			switch top, sum := tops[k], sums[k]; {
			case sum == 0:
			case top > t.max[k]:
				t.sum[k] = t.sum[k]*math.Exp(t.max[k]-top) + sum
				t.max[k] = top
			default:
				t.sum[k] += sum * math.Exp(top-t.max[k])
			}
		}
		tops, sums = tops[t.shape.clusters:], sums[t.shape.clusters:]
	}
}

// result turns the sums into means.
func (t *totals) result() *sinkhorn.PassResult {
	n := float64(t.rows)
	r := &sinkhorn.PassResult{Rows: t.rows, LogMass: t.mass, MeanLSE: t.lse / n, Change: t.change}
	for k, m := range t.mass {
		log := math.Log(m)
		if t.max != nil && (t.req.V == nil || m < lightMass) {
			log = t.max[k] + math.Log(t.sum[k])
		}
		r.LogMass[k] = log - math.Log(n)
	}
	if t.req.V == nil {
		r.MeanLSE = 0
	}
	if t.req.Certify {
		r.Counts, r.Changed, r.TiedRows, r.MinMargin = t.counts, t.changed, t.tied, t.margin
		r.MaxRange = t.req.Lambda * t.span
		r.MinLSE, r.MaxLSE = t.minLSE, t.maxLSE
	}
	return r
}
