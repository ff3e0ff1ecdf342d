package sinkhorn

import (
	"fmt"
	"math"
	"slices"

	"sela/sinkhorn/internal/kernel"
)

// Certificate states what a full pass under the final potentials found: how
// far the solution is from the constraints and, at most, from the optimum, and
// how the labels argmax_k (x_ik + v_k) use the clusters. It is a pure function
// of the rows and the options. Names that end in _nats are in units of x =
// λ·log p; divided by λ they are in units of log p.
type Certificate struct {
	Method     Method  `json:"method"`
	Status     Status  `json:"status"`
	Rows       int64   `json:"rows"`     // N, rows present
	Clusters   int     `json:"clusters"` // K
	Lambda     float64 `json:"lambda"`
	Iterations int     `json:"iterations"`
	Passes     int     `json:"passes"` // full passes, this one included

	// Way is how MethodLists and MethodLBFGS came to the potentials: lists,
	// sample (corrected by full passes), lbfgs or scaling. SamplePasses are those over the sample, ListSteps the
	// Newton steps on lists, ListLength the mean number of entries of a row's
	// list, of the last ones that were made.
	Way          phase   `json:"way,omitempty"`
	SamplePasses int     `json:"sample_passes,omitempty"`
	ListSteps    int     `json:"list_steps,omitempty"`
	ListLength   float64 `json:"list_length,omitempty"`

	// Proof says what stands behind the figures below: a full pass at the
	// final potentials, or a bound on what lists left out at potentials close
	// by. Then sums run over the lists, and DroppedBound is at least the mean
	// share that they leave out of a row: at most 2·DroppedBound has to be
	// added to MarginalL1, and labels are those of all entries.
	Proof        Proof   `json:"proof"`
	DroppedBound float64 `json:"dropped_bound,omitempty"`

	// RowsChanged is the number of rows whose label is another than under the
	// potentials of the pass before; nil where that was not counted.
	RowsChanged *int64 `json:"rows_changed,omitempty"`

	// Tol ends a solve. Of MethodSinkhorn, Tol and Change are the two sides of
	// the stop rule, sums over rows: Σ_i |c_i/c'_i − 1| ≤ Tol; Change is nil
	// when the last pass did not evaluate it, or it is not finite. Else
	// MarginalL1 + 2·DroppedBound ≤ Tol.
	Tol    float64  `json:"tol,omitempty"`
	Change *float64 `json:"change,omitempty"`

	// Objective is F = mean_i lse_i(v) − Σ_k b_k·v_k.
	Objective           float64 `json:"objective_nats"`
	ObjectiveOverLambda float64 `json:"objective_over_lambda"`

	// MarginalL1 is Σ_k |m_k − b_k|, MarginalMax max_k |m_k − b_k|, both
	// shares of all rows; MarginalMaxRatio is max_k |m_k/b_k − 1|.
	MarginalL1       float64 `json:"marginal_l1"`
	MarginalMax      float64 `json:"marginal_max"`
	MarginalMaxRatio float64 `json:"marginal_max_ratio"`

	// Gap bounds F(v) − min F from above by
	// ½·‖m − b‖₁·(osc v + max_i range x_i + log(b_max/b_min)), with osc and
	// range the largest minus the smallest entry. nil where some p is 0.
	Gap           *float64 `json:"gap_bound_nats,omitempty"`
	GapOverLambda *float64 `json:"gap_bound_over_lambda,omitempty"`

	// HardGap is G = mean_i max_k (x_ik + v_k) − b·v − mean_i x_i,label:
	// where the counts equal b·N, what the labels may lack to the optimum of
	// the linear programme. Elsewhere it may be of either sign.
	HardGap           float64 `json:"hard_gap_nats"`
	HardGapOverLambda float64 `json:"hard_gap_over_lambda"`

	// Hard counts are rows by label.
	LargestCount  int64   `json:"largest_count"`
	SmallestCount int64   `json:"smallest_count"`
	MaxCountRatio float64 `json:"max_count_ratio"` // max_k count_k/(b_k·N)
	EmptyClusters int     `json:"empty_clusters"`

	// UseEntropy is −Σ_k (count_k/N)·log(count_k/N), at most log K nats.
	UseEntropy float64 `json:"use_entropy_nats"`

	// MinMargin is the smallest difference between a row's best and
	// second-best score, where Proof is a bound at least so much; nil where it
	// is above 60 nats in every row. TiedRows is the number of rows where it is
	// 0.
	MinMargin *float64 `json:"min_margin_nats,omitempty"`
	TiedRows  int64    `json:"tied_rows"`

	// StarvedClusters is, for MethodSinkhorn, the number of clusters whose
	// mean of p^λ over the rows is below the smallest normal float64
	// (2.2e-308), where arithmetic on p^λ itself breaks down. They have been
	// solved in log domain.
	StarvedClusters int `json:"starved_clusters,omitempty"`

	// Exactly is there where labels were given exact counts.
	Exactly *Exactly `json:"exact_counts,omitempty"`

	// Warnings are sentences for a person, about labels that obey the rules
	// and still may be of no use.
	Warnings []string `json:"warnings,omitempty"`
}

// Proof is what stands behind a certificate.
type Proof string

const (
	ProofPass  Proof = "pass"  // a full pass at the final potentials
	ProofBound Proof = "bound" // lists, and a bound on what they leave out
)

// proof is how a result was proved.
type proof struct {
	by      Proof
	dropped float64 // bound
	checked bool    // MethodSinkhorn's stop rule was evaluated
}

// certify writes the certificate of pass r under potentials s.V.
func certify(o *Options, s *state, status Status, r *PassResult, p proof) Certificate {
	b, v, n := s.Marginals, s.V, float64(r.Rows)
	c := Certificate{
		Method: o.Method, Status: status, Rows: r.Rows, Clusters: len(v), Lambda: o.Lambda,
		Iterations: s.Iterations, Passes: s.Passes,
		TiedRows: r.TiedRows, StarvedClusters: len(s.Starved),
	}
	switch o.Method {
	case MethodLists, MethodLBFGS:
		c.Tol, c.Way, c.SamplePasses, c.ListSteps, c.ListLength = o.Tol, s.Phase, s.SamplePasses, s.ListSteps, s.ListLength
	case MethodSinkhorn:
		c.Tol = o.Tol
	}
	c.Proof, c.DroppedBound = p.by, p.dropped
	if s.Previous != nil || p.by == ProofBound {
		c.RowsChanged = &r.Changed
	}
	if p.checked {
		c.Change = finite(r.Change)
	}
	low, high := v[0], v[0]
	rare, common := b[0], b[0]
	c.count(r.Counts, func(k int) float64 { return b[k] })
	for k, count := range r.Counts {
		c.HardGap += float64((float64(count)/n - b[k]) * v[k])
		low, high = min(low, v[k]), max(high, v[k])
		rare, common = min(rare, b[k]), max(common, b[k])
	}
	c.Objective = objective(b, v, r)
	c.MarginalL1, c.MarginalMax, c.MarginalMaxRatio = marginalErrors(b, r)
	gap := (0.5*c.MarginalL1 + p.dropped) * (high - low + r.MaxRange + kernel.Log(common/rare))
	c.Gap, c.GapOverLambda = finite(gap), finite(gap/o.Lambda)
	c.MinMargin = finite(r.MinMargin)
	c.ObjectiveOverLambda = c.Objective / o.Lambda
	c.HardGapOverLambda = c.HardGap / o.Lambda
	c.Warnings = warnings(&c, s, r)
	return c
}

// count states how labels with the given counts use the clusters, whose wanted
// shares are b.
func (c *Certificate) count(counts []int64, b func(k int) float64) {
	c.LargestCount, c.SmallestCount = slices.Max(counts), slices.Min(counts)
	c.MaxCountRatio, c.UseEntropy, c.EmptyClusters = 0, 0, 0
	for k, count := range counts {
		share := float64(count) / float64(c.Rows)
		c.MaxCountRatio = max(c.MaxCountRatio, share/b(k))
		if count > 0 {
			c.UseEntropy -= float64(share * kernel.Log(share))
		} else {
			c.EmptyClusters++
		}
	}
}

// warnings looks for labels that carry no information.
func warnings(c *Certificate, s *state, r *PassResult) (w []string) {
	if c.Clusters > 1 && c.Rows > 1 {
		switch {
		case c.LargestCount == c.Rows && r.MinLSE == r.MaxLSE:
			w = append(w, "collapse: all rows have the same log-probabilities, so all have the same label")
		case c.LargestCount == c.Rows:
			w = append(w, "collapse: all rows have the same label")
		case c.EmptyClusters > 0:
			w = append(w, fmt.Sprintf("%d of %d clusters have no row", c.EmptyClusters, c.Clusters))
		}
	}
	if c.TiedRows > 0 && c.Clusters > 1 {
		w = append(w, fmt.Sprintf("%d rows have equal best scores; the lowest cluster was taken", c.TiedRows))
	}
	if len(s.Starved) > 0 {
		w = append(w, fmt.Sprintf("the model gives almost no probability to clusters %s; they were solved in log domain", listed(s.Starved)))
	}
	return w
}

// objective returns F = mean_i lse_i(v) − b·v.
func objective(b, v []float64, r *PassResult) float64 {
	dot := 0.0
	for k := range v {
		dot += float64(b[k] * v[k])
	}
	return r.MeanLSE - dot
}

// marginalErrors returns Σ|m − b|, max |m − b| and max |m/b − 1|.
func marginalErrors(b []float64, r *PassResult) (l1, most, ratio float64) {
	for k, logMass := range r.LogMass {
		e := math.Abs(kernel.Exp(logMass) - b[k])
		l1 += e
		most = max(most, e)
		ratio = max(ratio, e/b[k])
	}
	return l1, most, ratio
}

// finite returns x for JSON, or nil where JSON has no such number.
func finite(x float64) *float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	return &x
}
