package sinkhorn

import (
	"context"
	"math"

	"sela/sinkhorn/internal/kernel"
)

// checkEvery is the cadence of the reference's stop rule: iterations 1, 11,
// 21 … are checked.
const checkEvery = 10

// scaling is MethodSinkhorn. With P_ik = p_ik^λ the reference computes, from
// c_i = 1/N,
//
//	r_k = b_k / Σ_i c_i·P_ik,   c'_i = (1/N) / Σ_k r_k·P_ik,
//
// stops on a checked iteration when Σ_i |c_i/c'_i − 1| ≤ tol, and labels row i
// argmax_k r_k·P_ik. With v = log r, c'_i = exp(−lse_i(v))/N, so that
//
//	v ← log b − log mean_i exp(x_ik)    (iteration 1)
//	v ← v + log b − log m(v)            (every other),
//
// where m(v) comes from the pass that has just computed lse(v). No division
// of the reference is lost, so the additive constant of v is the reference's
// too. n iterations take n+1 passes: one before the first iteration, and one
// at each v, of which the last certifies.
func scaling(ctx context.Context, ev Evaluator, o *Options) (*Result, error) {
	s, err := loadState(ctx, o)
	if err == nil && s == nil {
		s, err = startScaling(ctx, ev, o)
	}
	if err != nil {
		return nil, err
	}
	for {
		s.Iterations++
		check := s.Iterations%checkEvery == 1
		last := s.Iterations >= o.MaxIterations
		r, err := s.pass(ctx, ev, o, Request{
			Lambda: o.Lambda, V: s.V,
			Change: check, Previous: s.Previous,
			Certify: check || last,
			LogMass: true,
		})
		switch {
		case err != nil:
			return nil, err
		case check && r.Change <= o.Tol:
			return s.result(o, Converged, r, proof{by: ProofPass, checked: check}), nil
		case last:
			return s.result(o, IterationLimit, r, proof{by: ProofPass, checked: check}), nil
		}
		s.Previous = append(s.Previous[:0], s.V...)
		if err := s.update(r.LogMass); err != nil {
			return nil, err
		}
		if err := s.save(ctx, o.Checkpoint); err != nil {
			return nil, err
		}
	}
}

// startScaling makes the pass before the first iteration.
func startScaling(ctx context.Context, ev Evaluator, o *Options) (*state, error) {
	s := &state{Method: o.Method, Lambda: o.Lambda, Tol: o.Tol}
	r, err := s.pass(ctx, ev, o, Request{Lambda: o.Lambda})
	if err != nil {
		return nil, err
	}
	clusters := len(r.LogMass)
	if s.Marginals, err = o.marginals(clusters); err != nil {
		return nil, err
	}
	if err := checkRows(r.Rows, clusters, o); err != nil {
		return nil, err
	}
	for k, logMass := range r.LogMass {
		if logMass < kernel.Log(0x1p-1022) {
			s.Starved = append(s.Starved, k)
		}
	}
	s.V = make([]float64, clusters)
	if err := s.update(r.LogMass); err != nil {
		return nil, err
	}
	return s, s.save(ctx, o.Checkpoint)
}

// update adds log b − logMass to v.
func (s *state) update(logMass []float64) error {
	var dead []int
	for k := range s.V {
		s.V[k] += kernel.Log(s.Marginals[k]) - logMass[k]
		if math.IsInf(logMass[k], -1) {
			dead = append(dead, k)
		}
	}
	if dead != nil {
		return &ColumnError{dead}
	}
	return nil
}
