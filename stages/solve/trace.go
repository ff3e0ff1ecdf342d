package solve

import "sela/sinkhorn"

// Pass is what one full pass of a solve measured.
type Pass struct {
	Pass       int     `json:"pass"`        // from 1
	MarginalL1 float64 `json:"marginal_l1"` // Σ_k |m_k − b_k| at the potentials of the pass
}

// tracePasses bounds the passes that a commit records: where there are more,
// every second, every fourth and so on is recorded.
const tracePasses = 256

// trace gathers the passes of a solve. Those that an earlier process made
// before it died are not among them. It belongs to one goroutine.
type trace struct {
	passes []Pass
	stride int
}

// add takes a pass. One that has measured nothing, before the first iteration,
// has no error.
func (t *trace) add(p sinkhorn.Progress) {
	t.stride = max(t.stride, 1)
	if p.Passes%t.stride != 0 || p.MarginalL1 == 0 {
		return
	}
	t.passes = append(t.passes, Pass{p.Passes, p.MarginalL1})
	if len(t.passes) <= tracePasses {
		return
	}
	t.stride *= 2
	kept := t.passes[:0]
	for _, q := range t.passes {
		if q.Pass%t.stride == 0 {
			kept = append(kept, q)
		}
	}
	t.passes = kept
}

// upTo returns the passes, and the one that the certificate is of as the last.
func (t *trace) upTo(c *sinkhorn.Certificate) []Pass {
	n := len(t.passes)
	if c.MarginalL1 > 0 && (n == 0 || t.passes[n-1].Pass < c.Passes) {
		return append(t.passes, Pass{c.Passes, c.MarginalL1})
	}
	return t.passes
}
