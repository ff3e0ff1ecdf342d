package sinkhorn

import (
	"context"
	"errors"
	"math"
	"slices"

	"sela/sinkhorn/internal/kernel"
)

// Sample is two disjoint unbiased samples of the rows: one to solve on, one to
// judge on. About 20 rows per cluster and part are enough; far fewer than that
// are worse than none.
type Sample struct {
	Solve, Judge Source
}

// minSampleRows is the number of rows per cluster below which a sample is not
// solved: its solution is mostly noise.
const minSampleRows = 4

// A sample is solved to an L1 error of sampleTol, well below its noise.
// Without a good start L-BFGS leads to an error of roughTol before lists are
// made, which are long where clusters are starved.
const (
	sampleTol = 1e-2
	roughTol  = 0.2
)

// maxStartRange bounds the range of potentials to start from, in nats: beyond
// it scores lose what distinguishes rows to the rounding of float64.
const maxStartRange = 1e10

// start is where a solve begins.
type start struct {
	v      []float64
	share  []float64 // shares of the clusters at v on the judging sample; nil if unknown
	flat   bool      // the rows are too flat for lists
	cold   bool      // v is zero for lack of anything better
	passes int       // over the sample
	rows   int64     // of the part of the sample that was solved
}

// enough tells whether there are rows enough for so many clusters.
func (s *Sample) enough(clusters int) bool {
	solve, _ := s.Solve.Dims()
	judge, _ := s.Judge.Dims()
	return min(solve, judge) >= minSampleRows*int64(clusters)
}

// findStart returns whichever of zero, the given potentials and the solution
// on the sample has the smallest F on the judging sample. After training, the
// potentials of the last round are often worse than zero: the network has
// absorbed them.
func findStart(ctx context.Context, b []float64, o *Options) (*start, error) {
	st := &start{v: make([]float64, len(b))}
	candidates := [][]float64{st.v}
	if o.Start != nil {
		if err := checkPotentials(o.Start, len(b)); err != nil {
			return nil, err
		}
	}
	given := o.Start != nil && slices.Max(o.Start)-slices.Min(o.Start) <= maxStartRange
	if given {
		candidates = [][]float64{o.Start, st.v}
		st.v = slices.Clone(o.Start)
	}
	if o.Sample == nil || !o.Sample.enough(len(b)) {
		st.cold = !given
		return st, nil
	}
	judge := &sampleSolve{ev: NewCPU(o.Sample.Judge, o.Workers), b: b, o: o}
	solve := &sampleSolve{ev: NewCPU(o.Sample.Solve, o.Workers), b: b, o: o}
	if len(o.Anneal) > 0 {
		v, err := solve.anneal(ctx)
		if err != nil {
			return nil, err
		}
		candidates = append(candidates, v)
	}
	best, err := judge.best(ctx, candidates)
	if err != nil {
		return nil, err
	}
	v := append([]float64(nil), best.v...)
	st.flat, err = solve.run(ctx, v)
	if err != nil {
		return nil, err
	}
	found, err := judge.best(ctx, [][]float64{v})
	if err != nil {
		return nil, err
	}
	if found.f < best.f {
		best = found
	}
	st.rows, _ = o.Sample.Solve.Dims()
	st.v, st.share, st.passes = slices.Clone(best.v), best.share, solve.passes+judge.passes
	return st, nil
}

// sampleSolve makes passes over a sample.
type sampleSolve struct {
	ev     *CPU
	b      []float64 // 0 where the sample knows nothing of a cluster, after the first pass
	o      *Options
	passes int
}

// judged is a point and what a sample says of it.
type judged struct {
	v, share []float64
	logMass  []float64
	f, l1    float64
}

func (s *sampleSolve) at(ctx context.Context, v []float64, lists *ListRequest) (*judged, *PassResult, error) {
	r, err := s.ev.Pass(ctx, Request{Lambda: s.o.Lambda, V: v, LogMass: true, Lists: lists})
	if err != nil {
		return nil, nil, err
	}
	if s.passes++; s.passes == 1 {
		s.b = possibleShares(s.b, r.LogMass)
	}
	j := &judged{v: v, f: objective(s.b, v, r), logMass: r.LogMass, share: make([]float64, len(v))}
	for k, m := range r.LogMass {
		j.share[k] = kernel.Exp(m)
	}
	j.l1 = l1Error(j.share, s.b)
	return j, r, nil
}

// best returns the candidate with the smallest F, the first among equals.
func (s *sampleSolve) best(ctx context.Context, candidates [][]float64) (best *judged, err error) {
	for _, v := range candidates {
		j, _, err := s.at(ctx, v, nil)
		if err != nil {
			return nil, err
		}
		if best == nil || j.f < best.f {
			best = j
		}
	}
	return best, nil
}

// anneal solves the sample at the values of Options.Anneal and returns the
// potentials, which grow with λ as x does, at Options.Lambda.
func (s *sampleSolve) anneal(ctx context.Context) ([]float64, error) {
	v, o := make([]float64, len(s.b)), s.o
	defer func() { s.o = o }()
	for i, lambda := range o.Anneal {
		at := *o
		at.Lambda = lambda
		s.o = &at
		if _, err := s.run(ctx, v); err != nil {
			return nil, err
		}
		next := o.Lambda
		if i+1 < len(o.Anneal) {
			next = o.Anneal[i+1]
		}
		for k := range v {
			v[k] *= next / lambda
		}
	}
	return v, nil
}

// run improves v in place and tells whether the rows are too flat for lists.
// A sample needs no certificate: whatever is found is judged elsewhere.
func (s *sampleSolve) run(ctx context.Context, v []float64) (flat bool, err error) {
	const sweeps, passes, rounds = 3, 30, 4
	for range sweeps {
		j, _, err := s.at(ctx, v, nil)
		if err != nil {
			return false, err
		}
		if j.l1 <= roughTol {
			break
		}
		s.scale(v, j.logMass)
	}
	share, err := s.descend(ctx, v, roughTol, passes)
	if err != nil {
		return false, err
	}
	for range rounds {
		margin := listMargins(share, s.b)
		rows, _ := s.ev.Dims()
		lists := newLists(rows, len(v), s.o)
		j, _, err := s.at(ctx, v, &ListRequest{Margin: margin, Into: lists})
		switch {
		case errors.Is(err, ErrListsFull):
			_, err = s.descend(ctx, v, sampleTol, passes)
			return true, err
		case err != nil || j.l1 <= sampleTol:
			return false, err
		}
		share = j.share
		low, high := listBox(v, margin)
		p := newListProblem(lists, s.b, s.o.Lambda, s.o.Workers)
		if _, err := p.solve(ctx, v, newtonOptions{tol: sampleTol / 4, low: low, high: high, steps: maxNewtonSteps}); err != nil {
			return false, err
		}
	}
	return false, nil
}

// possibleShares returns b with 0 for the clusters that have probability zero
// in every row of the sample: F on the sample would have no minimum, falling
// as their potentials rise.
func possibleShares(b, logMass []float64) []float64 {
	possible, sum := make([]float64, len(b)), 0.0
	for k, m := range logMass {
		if !math.IsInf(m, -1) {
			possible[k] = b[k]
			sum += b[k]
		}
	}
	if !slices.Contains(possible, 0) {
		return b
	}
	for k := range possible {
		possible[k] /= sum
	}
	return possible
}

// scale is a step of alternating scaling.
func (s *sampleSolve) scale(v, logMass []float64) {
	for k, b := range s.b {
		if b > 0 {
			v[k] += kernel.Log(b) - logMass[k]
		}
	}
}

// descend is L-BFGS on the sample, to an L1 error of tol. It returns the
// shares at v.
func (s *sampleSolve) descend(ctx context.Context, v []float64, tol float64, passes int) (share []float64, err error) {
	l := newLBFGS(v, s.b, lbfgsMemory)
	for range passes {
		j, _, err := s.at(ctx, append([]float64(nil), l.next()...), nil)
		if err != nil {
			return nil, err
		}
		share = j.share
		if j.l1 <= tol {
			copy(v, j.v)
			return share, nil
		}
		g := make([]float64, len(v))
		for k := range g {
			g[k] = j.share[k] - s.b[k]
		}
		if !l.tell(j.f, g) {
			break
		}
	}
	copy(v, l.x)
	return share, nil
}
