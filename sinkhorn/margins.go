package sinkhorn

import (
	"math"

	"sela/sinkhorn/internal/kernel"
)

// Constants of the lists (distances in nats of x = λ·log p), by measurement on
// synthetic and real rows: with a margin of 45 a row of 3,000 entries lists
// about 10, and leaves out less than e^−45 of itself in any other entry until
// potentials have moved by more than the box allows.
const (
	listMargin     = 45.0
	maxNewtonSteps = 60
	boxSlack       = 12.0 // an entry outside its list stays below e^−12 of its row within the box
)

// listMargins returns the margin of each column: wider where the cluster's
// share, as far as it is known, is far below the wanted one, since its
// potential will rise most.
func listMargins(share, b []float64) []float64 {
	margin := make([]float64, len(b))
	for k := range margin {
		margin[k] = listMargin
		switch {
		case share == nil:
		case share[k] < 0.1*b[k]:
			margin[k] = 6 * listMargin
		case share[k] < 0.5*b[k]:
			margin[k] = 2.5 * listMargin
		}
	}
	return margin
}

// listBox bounds the potentials of a solve on lists made at v: within it no
// entry outside its list can weigh more than e^−boxSlack in its row.
func listBox(v, margin []float64) (low, high []float64) {
	const reach = (listMargin - boxSlack) / 2
	low, high = make([]float64, len(v)), make([]float64, len(v))
	for k := range v {
		low[k], high[k] = v[k]-reach, v[k]+margin[k]-boxSlack-reach
	}
	return low, high
}

// droppedBound bounds what lists made at v0 leave out at v: the mean over the
// rows of the shares of entries outside the lists. With δ = v − v0, the share
// of entry k in row i grows by no more than e^(δ_k − min δ), since the row's
// other entries shrink by no more than e^(min δ); dropped holds the means of
// the shares left out at v0, up to DroppedTail in each entry. The L1 error of
// the lists' column shares is at most twice the bound. An entry outside its
// list began margin_k below the best; it stays at least gap below: where gap is
// positive no such entry is its row's largest.
func droppedBound(v0, v, margin, dropped []float64) (bound, gap float64) {
	least := math.Inf(1)
	for k := range v {
		least = min(least, v[k]-v0[k])
	}
	gap = math.Inf(1)
	for k := range v {
		rise := v[k] - v0[k] - least
		gap = min(gap, margin[k]-rise)
		bound += float64((dropped[k] + DroppedTail) * kernel.Exp(rise))
	}
	return bound, gap
}
