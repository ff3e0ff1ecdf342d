package sinkhorn

import (
	"context"
	"math"

	"sela/sinkhorn/internal/kernel"
)

// listProblem is the semi-dual with each row restricted to its list:
//
//	F(v) = mean_i log Σ_{k ∈ L_i} exp(x_ik + v_k) − b·v,
//	∇F = c − b,  ∇²F = diag(c) − mean_i P_i·P_iᵀ,
//
// where P_i is the softmax of row i over its list and c = mean_i P_i.
// evaluate sets the point at which product applies the Hessian.
type listProblem struct {
	lists     *Lists
	marginals []float64
	lambda    float64
	rows      float64
	workers   []*listWorker
	window    []*listPartial
	v         []float64   // of the last evaluation
	weights   [][]float32 // by chunk: P under v, of the chunks in memory
}

// listGroup is the number of chunks whose sums are formed together, before
// they are merged in order. It is part of what determines the bits.
const listGroup = 16

// listWorker holds the buffers of one goroutine.
type listWorker struct {
	buf     ListBuffer
	weights []float32 // P of a spilled chunk
	scores  []float64 // of one row
}

// listPartial is what a group of chunks contributes.
type listPartial struct {
	lse    float64
	mass   []float64 // Σ P
	square []float64 // Σ P²; the product in products
	labels listLabels
}

func newListProblem(lists *Lists, marginals []float64, lambda float64, workers int) *listProblem {
	p := &listProblem{lists: lists, marginals: marginals, lambda: lambda, rows: float64(lists.rows), weights: make([][]float32, len(lists.chunks))}
	for range max(workers, 1) {
		p.workers = append(p.workers, new(listWorker))
	}
	clusters := len(marginals)
	for range 2 * len(p.workers) {
		p.window = append(p.window, &listPartial{mass: make([]float64, clusters), square: make([]float64, clusters)})
	}
	p.v = make([]float64, clusters)
	return p
}

// each calls row sums on every group of chunks, merged in order.
func (p *listProblem) each(ctx context.Context, chunk func(w *listWorker, i int, c *ListChunk, part *listPartial), merge func(*listPartial)) error {
	groups := (len(p.lists.chunks) + listGroup - 1) / listGroup
	return inOrder(ctx, len(p.workers), groups, p.window, func(worker, group int, part *listPartial) error {
		w := p.workers[worker]
		clear(part.mass)
		clear(part.square)
		part.lse = 0
		part.labels.reset(len(part.mass))
		for i := group * listGroup; i < min((group+1)*listGroup, len(p.lists.chunks)); i++ {
			c, err := p.lists.Chunk(i, &w.buf)
			if err != nil {
				return err
			}
			chunk(w, i, c, part)
		}
		return nil
	}, func(_ int, part *listPartial) error {
		merge(part)
		return nil
	})
}

// listValue is the semi-dual at a point.
type listValue struct {
	f        float64
	mass     []float64 // c, shares of all rows
	diagonal []float64 // of the Hessian
}

// evaluate computes F, its gradient and the Hessian's diagonal at v.
func (p *listProblem) evaluate(ctx context.Context, v []float64) (*listValue, error) {
	copy(p.v, v)
	val := &listValue{mass: make([]float64, len(v)), diagonal: make([]float64, len(v))}
	lse := 0.0
	err := p.each(ctx, func(w *listWorker, i int, c *ListChunk, part *listPartial) {
		weights := p.room(w, i, c)
		first := int32(0)
		for _, end := range c.End {
			lse, shares := p.row(w, c, first, end, weights)
			part.lse += lse
			for e, k := range c.Cluster[first:end] {
				part.mass[k] += shares[e]
				part.square[k] += float64(shares[e] * shares[e])
			}
			first = end
		}
	}, func(part *listPartial) {
		lse += part.lse
		add(val.mass, part.mass)
		add(val.diagonal, part.square)
	})
	if err != nil {
		return nil, err
	}
	val.f = lse / p.rows
	for k := range v {
		val.mass[k] /= p.rows
		val.diagonal[k] = val.mass[k] - val.diagonal[k]/p.rows
		val.f -= float64(p.marginals[k] * v[k])
	}
	return val, nil
}

// row returns the log-sum-exp of the row with entries [first, end) under p.v
// and their shares, valid until the next call, and writes these to weights too.
func (p *listProblem) row(w *listWorker, c *ListChunk, first, end int32, weights []float32) (lse float64, shares []float64) {
	n := int(end - first)
	if cap(w.scores) < n {
		w.scores = make([]float64, max(n, 256))
	}
	scores, top := w.scores[:n], math.Inf(-1)
	for j, k := range c.Cluster[first:end] {
		scores[j] = kernel.Score(c.X[int(first)+j], p.v[k], p.lambda)
		top = max(top, scores[j])
	}
	sum := 0.0
	for j, t := range scores {
		scores[j] = kernel.Exp(t - top)
		sum += scores[j]
	}
	for j, s := range scores {
		scores[j] = s / sum
		weights[int(first)+j] = float32(scores[j])
	}
	return top + kernel.Log(sum), scores
}

// room returns where the shares of chunk i go: kept for a chunk in memory,
// the worker's own for a spilled one.
func (p *listProblem) room(w *listWorker, i int, c *ListChunk) []float32 {
	if p.lists.chunks[i].offset < 0 {
		if p.weights[i] == nil {
			p.weights[i] = make([]float32, len(c.X))
		}
		return p.weights[i]
	}
	if cap(w.weights) < len(c.X) {
		w.weights = make([]float32, len(c.X))
	}
	return w.weights[:len(c.X)]
}

// product sets out to ∇²F·d at the point of the last evaluation.
func (p *listProblem) product(ctx context.Context, out, d []float64) error {
	clear(out)
	err := p.each(ctx, func(w *listWorker, i int, c *ListChunk, part *listPartial) {
		weights := p.room(w, i, c)
		first := int32(0)
		for _, end := range c.End {
			if p.lists.chunks[i].offset >= 0 {
				p.row(w, c, first, end, weights)
			}
			shares, clusters := weights[first:end], c.Cluster[first:end]
			mean := 0.0
			for e, k := range clusters {
				mean += float64(float64(shares[e]) * d[k])
			}
			for e, k := range clusters {
				part.mass[k] += float64(float64(shares[e]) * (d[k] - mean))
			}
			first = end
		}
	}, func(part *listPartial) { add(out, part.mass) })
	for k := range out {
		out[k] /= p.rows
	}
	return err
}
