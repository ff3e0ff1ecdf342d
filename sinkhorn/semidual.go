package sinkhorn

import (
	"context"
	"errors"
	"fmt"
	"math"

	"sela/sinkhorn/internal/kernel"
)

// phase is the way a solve of the semi-dual is at.
type phase string

const (
	phaseLists   phase = "lists"
	phaseSample  phase = "sample"
	phaseLBFGS   phase = "lbfgs"
	phaseScaling phase = "scaling"
)

// Constants of the choice between lists and L-BFGS.
const (
	flatShare    = 8   // lists of more than K/flatShare entries a row don't pay
	stalledRatio = 0.5 // a full pass that leaves more than this of the last error is a stall
	maxStalls    = 3   // after which lists give way to L-BFGS
	lbfgsMemory  = 20
	maxLifts     = 5   // scaling steps before L-BFGS
	uselessStart = 1.0 // a start with a larger L1 error is worse than none
	changeFrom   = 100 // an error within this factor of the tolerance may be the last but one
)

// lbfgsMaxPasses is the number of passes after which L-BFGS gives way to
// scaling: a variable for tests.
var lbfgsMaxPasses = 400

// semidual is MethodLists and MethodLBFGS: it minimises F from the best start
// it knows of, and falls back from lists to L-BFGS to scaling rather than
// fail.
func semidual(ctx context.Context, ev Evaluator, o *Options) (*Result, error) {
	s, err := loadState(ctx, o)
	if err == nil && s == nil {
		s, err = begin(ctx, ev, o)
	}
	if err != nil {
		return nil, err
	}
	for {
		var r *Result
		switch s.Phase {
		case phaseLists:
			r, err = s.lists(ctx, ev, o)
		case phaseSample:
			r, err = s.correct(ctx, ev, o)
		case phaseLBFGS:
			r, err = s.lbfgs(ctx, ev, o)
		default:
			r, err = s.scale(ctx, ev, o)
		}
		if r != nil || err != nil {
			return r, err
		}
		if err := s.save(ctx, o.Checkpoint); err != nil {
			return nil, err
		}
	}
}

// begin chooses the potentials and the method to start with.
func begin(ctx context.Context, ev Evaluator, o *Options) (*state, error) {
	rows, clusters := ev.Dims()
	b, err := o.marginals(clusters)
	if err != nil {
		return nil, err
	}
	if err := checkRows(rows, clusters, o); err != nil {
		return nil, err
	}
	s := &state{Method: o.Method, Lambda: o.Lambda, Tol: o.Tol, Marginals: b, Phase: phaseLists}
	if lister, ok := ev.(Lister); !ok || !lister.GrantsLists() || o.Method == MethodLBFGS {
		s.Phase = phaseLBFGS
	}
	start, err := findStart(ctx, b, o)
	if err != nil {
		return nil, err
	}
	s.V, s.Share, s.SamplePasses = start.v, start.share, start.passes
	s.Unjudged = !start.cold && start.share == nil
	switch {
	case start.flat && o.Method == MethodLists && start.rows >= correctRows*int64(clusters):
		s.Phase = phaseSample
	case start.flat:
		s.Phase = phaseLBFGS
	case start.cold && s.Phase == phaseLists:
		s.Phase, s.Approach = phaseLBFGS, true
	}
	return s, s.save(ctx, o.Checkpoint)
}

func checkRows(rows int64, clusters int, o *Options) error {
	switch {
	case rows < 1:
		return ErrNoRows
	case o.Marginals == nil && rows < int64(clusters):
		return fmt.Errorf("%w: %d rows cannot give %d clusters equal shares; use fewer clusters, or state the marginals", ErrTooFewRows, rows, clusters)
	}
	return nil
}

// lists makes one full pass that lists, and a solve on the lists. It returns a
// result when the pass, or a bound on what the lists leave out, proves it.
func (s *state) lists(ctx context.Context, ev Evaluator, o *Options) (*Result, error) {
	rows, _ := ev.Dims()
	lists := newLists(rows, len(s.V), o)
	margin := listMargins(s.Share, s.Marginals)
	exact := s.starved()
	r, err := s.pass(ctx, ev, o, Request{
		Lambda: o.Lambda, V: s.V, Previous: s.Previous, Certify: true, LogMass: exact,
		Lists: &ListRequest{Margin: margin, Into: lists},
	})
	if errors.Is(err, ErrListsFull) {
		s.Passes++ // most of one
		s.Phase, s.Previous = phaseLBFGS, nil
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s.ListLength = float64(lists.Entries()) / float64(max(lists.Rows(), 1))
	l1, end := s.ended(o, r)
	if end != nil {
		return end, nil
	}
	if s.dropStart(l1) {
		return nil, nil
	}
	if s.LastL1 > 0 && l1 > stalledRatio*s.LastL1 {
		s.Stalls++
	}
	s.LastL1 = l1
	if s.Stalls >= maxStalls {
		s.Phase = phaseLBFGS
		return nil, nil
	}
	p := newListProblem(lists, s.Marginals, o.Lambda, o.Workers)
	v := append([]float64(nil), s.V...)
	low, high := listBox(s.V, margin)
	out, err := p.solve(ctx, v, newtonOptions{tol: o.Tol / 4, low: low, high: high, steps: maxNewtonSteps})
	if err != nil {
		return nil, err
	}
	s.ListSteps += out.steps
	if bound, gap := droppedBound(s.V, v, margin, r.Dropped); gap > 0 && out.l1+2*bound <= o.Tol {
		certified, err := p.certify(ctx, v, s.V, r.MaxRange)
		if err != nil {
			return nil, err
		}
		certified.MinMargin = min(certified.MinMargin, gap)
		s.V = v
		return s.result(o, Converged, certified, proof{by: ProofBound, dropped: bound}), nil
	}
	s.Share = make([]float64, len(v))
	for k, logMass := range r.LogMass {
		s.Share[k] = kernel.Exp(logMass)
		// A cluster that no list holds moves as scaling would move it.
		if lift := kernel.Log(s.Marginals[k]) - logMass; v[k] >= high[k] && lift > v[k]-s.V[k] && !math.IsInf(lift, 1) {
			v[k] = s.V[k] + lift
		}
	}
	if exact {
		if err := deadColumns(r.LogMass); err != nil {
			return nil, err
		}
	}
	s.Previous, s.V = s.V, v
	return nil, nil
}

// ended returns the L1 error that a full pass at s.V found, and the result where
// that pass is the last: because the error is small enough, or because no more
// are allowed.
func (s *state) ended(o *Options, r *PassResult) (l1 float64, end *Result) {
	l1, _, _ = marginalErrors(s.Marginals, r)
	switch {
	case l1 <= o.Tol:
		end = s.result(o, Converged, r, proof{by: ProofPass})
	case s.Passes >= o.MaxIterations:
		end = s.result(o, IterationLimit, r, proof{by: ProofPass})
	}
	return l1, end
}

// dropStart goes back to zero when the first full pass shows given potentials
// to be of no use: a solve from them may take more passes than a cold one.
func (s *state) dropStart(l1 float64) bool {
	drop := s.Unjudged && l1 > uselessStart
	s.Unjudged = false
	if drop {
		s.V, s.Approach, s.Phase = make([]float64, len(s.V)), s.Phase == phaseLists, phaseLBFGS
	}
	return drop
}

// starved tells whether some cluster's mass may need to be summed in log
// domain.
func (s *state) starved() bool {
	for _, share := range s.Share {
		if share < 1e4*StarvedShare {
			return true
		}
	}
	return false
}

// deadColumns reports clusters of probability zero in every row, after a pass
// that summed in log domain.
func deadColumns(logMass []float64) error {
	var dead []int
	for k, m := range logMass {
		if math.IsInf(m, -1) {
			dead = append(dead, k)
		}
	}
	if dead != nil {
		return &ColumnError{dead}
	}
	return nil
}

// lbfgs makes full passes at the points that L-BFGS asks for. What they found
// is kept in the state, so that a solve that was killed replays it.
func (s *state) lbfgs(ctx context.Context, ev Evaluator, o *Options) (*Result, error) {
	// At the solution the Hessian's diagonal is b_k − mean_i P_ik², about b.
	l := newLBFGS(s.V, s.Marginals, lbfgsMemory)
	moving := true
	var previous []float64
	for _, j := range s.Journal {
		previous = s.previousOf(l.next(), &j)
		moving = l.tell(j.F, j.gradient(s.Marginals))
	}
	for moving && len(s.Journal) < lbfgsMaxPasses {
		v, first := append([]float64(nil), l.next()...), len(s.Journal) == 0
		r, err := s.pass(ctx, ev, o, Request{Lambda: o.Lambda, V: v, Previous: previous, Certify: true, LogMass: first})
		if err != nil {
			return nil, err
		}
		at := *s
		at.V, at.Previous = v, previous
		l1, end := at.ended(o, r)
		if end != nil {
			return end, nil
		}
		if first {
			if s.dropStart(l1) {
				return nil, nil
			}
			if err := deadColumns(r.LogMass); err != nil {
				return nil, err
			}
			if s.Lifts < maxLifts && s.lift(r.LogMass) {
				s.Lifts++
				return nil, nil
			}
		}
		j := journal{F: objective(s.Marginals, v, r), Mass: make([]float64, len(v))}
		for k, logMass := range r.LogMass {
			j.Mass[k] = kernel.Exp(logMass)
		}
		if s.Approach && l1 <= roughTol {
			*s = state{Method: s.Method, Lambda: s.Lambda, Tol: s.Tol, Rows: s.Rows, Marginals: s.Marginals, Passes: s.Passes,
				Phase: phaseLists, V: v, Share: j.Mass}
			return nil, nil
		}
		s.Journal = append(s.Journal, j)
		if err := s.save(ctx, o.Checkpoint); err != nil {
			return nil, err
		}
		previous = s.previousOf(v, &j)
		moving = l.tell(j.F, j.gradient(s.Marginals))
	}
	s.V, s.Journal, s.Previous, s.Phase = l.x, nil, nil, phaseScaling
	return nil, nil
}

// previousOf returns a copy of v, where j was found, if the next pass may be
// the last and is to count the rows whose labels changed since; else nil.
func (s *state) previousOf(v []float64, j *journal) []float64 {
	if l1Error(j.Mass, s.Marginals) < changeFrom*s.Tol {
		return append([]float64(nil), v...)
	}
	return nil
}

// lift makes a scaling step where some cluster is starved: F is too flat there
// for any method that follows its gradient.
func (s *state) lift(logMass []float64) bool {
	starved := false
	for k, m := range logMass {
		starved = starved || m < kernel.Log(starvedRatio*s.Marginals[k])
	}
	if starved {
		for k, m := range logMass {
			s.V[k] += kernel.Log(s.Marginals[k]) - m
		}
	}
	return starved
}

// scale makes the passes of alternating scaling from where s is, until the
// shares are the wanted ones.
func (s *state) scale(ctx context.Context, ev Evaluator, o *Options) (*Result, error) {
	r, err := s.pass(ctx, ev, o, Request{Lambda: o.Lambda, V: s.V, Previous: s.Previous, Certify: true, LogMass: true})
	if err != nil {
		return nil, err
	}
	if _, end := s.ended(o, r); end != nil {
		return end, nil
	}
	s.Previous = append([]float64(nil), s.V...)
	return nil, s.update(r.LogMass)
}
