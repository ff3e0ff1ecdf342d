package sinkhorn

import (
	"context"
	"fmt"

	"sela/sinkhorn/internal/kernel"
)

// Solve finds the potentials of a head with ev's passes. A solve that ends
// without success still returns a Result: its Status says so, and its
// certificate how far it came. Errors are those of the options (ErrOptions),
// the rows (*RowError, *ColumnError, ErrNoRows, ErrTooFewRows), the evaluator,
// the checkpoint, and ctx.
func Solve(ctx context.Context, ev Evaluator, o Options) (*Result, error) {
	o = o.WithDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	switch o.Method {
	case MethodFixed:
		return fixed(ctx, ev, &o)
	case MethodSinkhorn:
		return scaling(ctx, ev, &o)
	}
	return semidual(ctx, ev, &o)
}

// fixed certifies given potentials.
func fixed(ctx context.Context, ev Evaluator, o *Options) (*Result, error) {
	b, err := o.marginals(len(o.Potentials))
	if err != nil {
		return nil, err
	}
	s := &state{V: append([]float64(nil), o.Potentials...), Marginals: b}
	r, err := s.pass(ctx, ev, o, Request{Lambda: o.Lambda, V: s.V, Certify: true})
	if err != nil {
		return nil, err
	}
	return s.result(o, Evaluated, r, proof{by: ProofPass}), nil
}

// pass makes one pass and counts, checks and records it.
func (s *state) pass(ctx context.Context, ev Evaluator, o *Options, req Request) (*PassResult, error) {
	r, err := ev.Pass(ctx, req)
	if err != nil {
		return nil, err
	}
	if s.Rows == 0 {
		s.Rows = r.Rows
	}
	clusters := len(r.LogMass)
	switch {
	case r.Rows < 1 || r.Rows != s.Rows:
		return nil, fmt.Errorf("%w: pass %d saw %d rows, the ones before %d", ErrSource, s.Passes+1, r.Rows, s.Rows)
	case clusters < 1 || req.V != nil && clusters != len(req.V) || req.Certify && len(r.Counts) != clusters:
		return nil, fmt.Errorf("%w: pass %d returned %d masses and %d counts for %d clusters", ErrSource, s.Passes+1, clusters, len(r.Counts), len(req.V))
	}
	s.Passes++
	if o.Recorder != nil {
		p := Progress{Passes: s.Passes, Iterations: s.Iterations, Rows: r.Rows, Checked: req.Change, Change: r.Change}
		if req.V != nil {
			p.Objective = objective(s.Marginals, req.V, r)
			p.MarginalL1, _, _ = marginalErrors(s.Marginals, r)
		}
		o.Recorder.Record(p)
	}
	return r, nil
}

// result packs the outcome of the certifying pass r, or of its equivalent on
// lists.
func (s *state) result(o *Options, status Status, r *PassResult, p proof) *Result {
	masses := make([]float64, len(r.LogMass))
	for k, logMass := range r.LogMass {
		masses[k] = kernel.Exp(logMass)
	}
	return &Result{
		V: s.V, Status: status, Iterations: s.Iterations, Passes: s.Passes,
		Certificate: certify(o, s, status, r, p),
		Masses:      masses, Counts: r.Counts,
	}
}
