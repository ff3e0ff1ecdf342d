package sinkhorn

import (
	"math"

	"sela/sinkhorn/internal/kernel"
)

// pass holds what the rows of one pass share.
type pass struct {
	req              *Request
	params, previous *kernel.Params
	starved          []int32 // columns of the second read
}

func newPass(req *Request) *pass {
	p := &pass{req: req}
	if req.V != nil {
		p.params = kernel.NewParams(req.Lambda, req.V)
	}
	if req.Previous != nil {
		p.previous = kernel.NewParams(req.Lambda, req.Previous)
	}
	return p
}

// block adds the rows of b to part.
func (p *pass) block(w *worker, b *Block, part *partial) error {
	req, n := p.req, len(b.Rows)
	part.rows += n
	if req.V == nil {
		part.openLogSums(len(part.mass))
		if bad := kernel.LogSums(part.max, part.sum, nil, b.X, nil, nil, req.Lambda); bad >= 0 {
			return rowFault(b, bad)
		}
		return nil
	}
	w.size(n, req.Certify)
	bad := -1
	if req.Lists == nil {
		bad = p.params.Block(w.scratch, &w.rows, part.mass, b.X)
	} else {
		bad = p.listBlock(w, b, part)
	}
	if bad >= 0 {
		return rowFault(b, bad)
	}
	if p.previous != nil {
		if bad := p.previous.Block(w.scratch, &w.previous, nil, b.X); bad >= 0 {
			return rowFault(b, bad)
		}
	}
	for r := range n {
		lse := w.rows.Max[r] + kernel.Log(w.rows.Sum[r])
		part.lse += lse
		if req.Change {
			previous := 0.0
			if p.previous != nil {
				previous = w.previous.Max[r] + kernel.Log(w.previous.Sum[r])
			}
			part.change += math.Abs(kernel.Exp(lse-previous) - 1)
		}
		if req.Certify {
			part.certify(&w.rows, r, lse)
			if p.previous != nil && w.previous.Best[r] != w.rows.Best[r] {
				part.changed++
			}
		}
	}
	return nil
}

// listBlock is Params.Block that also lists the rows' entries.
func (p *pass) listBlock(w *worker, b *Block, part *partial) int {
	l := &part.list
	if part.dropped == nil {
		part.dropped = make([]float64, len(part.mass))
	}
	w.list = kernel.List{Margin: p.req.Lists.Margin, End: l.End, Cluster: l.Cluster, X: l.X, Dropped: part.dropped}
	bad := p.params.BlockLists(w.scratch, &w.rows, part.mass, b.X, &w.list)
	l.Rows = append(l.Rows, b.Rows...)
	l.End, l.Cluster, l.X = w.list.End, w.list.Cluster, w.list.X
	return bad
}

// starvedBlock adds the rows of b to the log sums of the starved columns.
func (p *pass) starvedBlock(w *worker, b *Block, part *partial) error {
	n := len(b.Rows)
	w.size(n, false)
	if bad := p.params.Block(w.scratch, &w.rows, nil, b.X); bad >= 0 {
		return rowFault(b, bad)
	}
	shift := w.shift[:n]
	for r := range shift {
		shift[r] = w.rows.Max[r] + kernel.Log(w.rows.Sum[r])
	}
	part.openLogSums(len(p.starved))
	kernel.LogSums(part.max, part.sum, p.starved, b.X, shift, p.req.V, p.req.Lambda)
	return nil
}

// rowFault names what is wrong with row i of b.
func rowFault(b *Block, i int) error {
	clusters := len(b.X) / len(b.Rows)
	return rowError(b.Rows[i], b.X[i*clusters:(i+1)*clusters])
}
