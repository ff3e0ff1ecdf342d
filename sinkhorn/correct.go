package sinkhorn

import (
	"context"

	"sela/sinkhorn/internal/kernel"
)

// Constants of the way over a corrected sample.
const (
	correctRows      = 24   // of the sample per cluster: with fewer it is too noisy to gain on L-BFGS
	correctStall     = 0.45 // a full pass that leaves more than this of the last error calls for L-BFGS
	correctReduction = 0.05 // of the error, on the sample
	correctPasses    = 60   // over the sample, for one correction
)

// correct makes one full pass and then solves the sample for the shares
//
//	b' = b + c_sample(v) − c(v),
//
// that is, it minimises F of the sample with the linear term that makes its
// gradient at v that of all rows (Shamir, Srebro and Zhang,
// "Communication-efficient distributed optimization using an approximate
// Newton-type method", ICML 2014). The error falls by about the sample's noise
// from pass to pass; where it does not, L-BFGS takes over.
func (s *state) correct(ctx context.Context, ev Evaluator, o *Options) (*Result, error) {
	if o.Sample == nil { // a resumed solve may have lost it
		s.Phase = phaseLBFGS
		return nil, nil
	}
	r, err := s.pass(ctx, ev, o, Request{Lambda: o.Lambda, V: s.V, Previous: s.Previous, Certify: true})
	if err != nil {
		return nil, err
	}
	l1, end := s.ended(o, r)
	if end != nil {
		return end, nil
	}
	if s.LastL1 > 0 && l1 > correctStall*s.LastL1 {
		s.Phase, s.Previous = phaseLBFGS, nil
		return nil, nil
	}
	sample := &sampleSolve{ev: NewCPU(o.Sample.Solve, o.Workers), b: s.Marginals, o: o}
	here, _, err := sample.at(ctx, s.V, nil)
	if err != nil {
		return nil, err
	}
	possible := sample.b // not 0: the sample can say where such a potential goes
	sample.b = make([]float64, len(s.V))
	sum := 0.0
	for k, logMass := range r.LogMass {
		if possible[k] > 0 {
			b := s.Marginals[k]
			sample.b[k] = max(b+here.share[k]-kernel.Exp(logMass), b/10)
			sum += sample.b[k]
		}
	}
	for k := range sample.b {
		sample.b[k] /= sum
	}
	v := append([]float64(nil), s.V...)
	if _, err := sample.descend(ctx, v, max(correctReduction*l1, o.Tol/4), correctPasses); err != nil {
		return nil, err
	}
	s.SamplePasses += sample.passes
	s.LastL1, s.Previous, s.V = l1, s.V, v
	return nil, nil
}
