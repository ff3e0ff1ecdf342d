package sinkhorn

import (
	"context"
	"math"
	"math/rand/v2"
	"sync/atomic"
)

// memory is a Source over a matrix, with row numbers of its own.
type memory struct {
	rows     []int64 // ascending; nil means 0, 1, 2 …
	x        []float32
	clusters int
	reads    atomic.Int64
}

func (m *memory) number(i int) int64 {
	if m.rows == nil {
		return int64(i)
	}
	return m.rows[i]
}

func (m *memory) len() int { return len(m.x) / m.clusters }

func (m *memory) Dims() (int64, int) { return int64(m.len()), m.clusters }

func (m *memory) Chunks() int {
	if m.len() == 0 {
		return 0
	}
	return int(m.number(m.len()-1)/ChunkRows) + 1
}

// ReadChunk cuts a chunk into blocks of another size on every read.
func (m *memory) ReadChunk(ctx context.Context, i int, buf *Block, yield func(*Block) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.chunk(i, buf)
	all, size := *buf, 1+int(m.reads.Add(1)*37%1500)
	defer func() { *buf = all }()
	for first := 0; first < len(all.Rows); first += size {
		last := min(first+size, len(all.Rows))
		buf.Rows, buf.X = all.Rows[first:last], all.X[first*m.clusters:last*m.clusters]
		if err := yield(buf); err != nil {
			return err
		}
	}
	return nil
}

// chunk sets dst to the rows of chunk i.
func (m *memory) chunk(i int, dst *Block) {
	dst.Rows, dst.X = dst.Rows[:0], dst.X[:0]
	low, high := 0, m.len()
	if m.rows == nil {
		low, high = min(i*ChunkRows, high), min((i+1)*ChunkRows, high)
	}
	for j := low; j < high; j++ {
		if row := m.number(j); row >= int64(i)*ChunkRows && row < int64(i+1)*ChunkRows {
			dst.Rows = append(dst.Rows, row)
			dst.X = append(dst.X, m.x[j*m.clusters:(j+1)*m.clusters]...)
		}
	}
}

// problem returns log-softmax rows of normal logits with a bias by cluster.
func problem(seed uint64, rows, clusters int, scale, bias float64) *memory {
	r := rand.New(rand.NewPCG(seed, 77))
	shift := make([]float64, clusters)
	for k := range shift {
		shift[k] = bias * r.NormFloat64()
	}
	m := &memory{x: make([]float32, rows*clusters), clusters: clusters}
	logits := make([]float64, clusters)
	for i := range rows {
		top := math.Inf(-1)
		for k := range logits {
			logits[k] = scale*r.NormFloat64() + shift[k]
			top = math.Max(top, logits[k])
		}
		sum := 0.0
		for _, l := range logits {
			sum += math.Exp(l - top)
		}
		for k, l := range logits {
			m.x[i*clusters+k] = float32(l - top - math.Log(sum))
		}
	}
	return m
}

// textbook is the reference algorithm on a dense matrix in linear domain.
type textbook struct {
	iterations int
	err        float64
	v          []float64 // log r
	labels     []int
	masses     []float64 // column sums of the plan under r
}

func solveTextbook(m *memory, lambda, tol float64, b []float64) textbook {
	n, clusters := m.len(), m.clusters
	p := make([]float64, len(m.x))
	for i, x := range m.x {
		p[i] = math.Pow(math.Exp(float64(x)), lambda)
	}
	share := func(k int) float64 {
		if b == nil {
			return 1 / float64(clusters)
		}
		return b[k]
	}
	c, r := make([]float64, n), make([]float64, clusters)
	for i := range c {
		c[i] = 1 / float64(n)
	}
	t := textbook{err: math.Inf(1)}
	for t.err > tol {
		for k := range r {
			sum := 0.0
			for i := range c {
				sum += c[i] * p[i*clusters+k]
			}
			r[k] = share(k) / sum
		}
		check := t.iterations%10 == 0
		if check {
			t.err = 0
		}
		for i := range c {
			sum := 0.0
			for k := range r {
				sum += r[k] * p[i*clusters+k]
			}
			next := 1 / float64(n) / sum
			if check {
				t.err += math.Abs(c[i]/next - 1)
			}
			c[i] = next
		}
		t.iterations++
	}
	t.labels, t.masses = make([]int, n), make([]float64, clusters)
	for i := range c {
		for k := range r {
			plan := c[i] * p[i*clusters+k] * r[k]
			t.masses[k] += plan
			if plan > c[i]*p[i*clusters+t.labels[i]]*r[t.labels[i]] {
				t.labels[i] = k
			}
		}
	}
	for _, x := range r {
		t.v = append(t.v, math.Log(x))
	}
	return t
}

// labels returns an Assigner's labels for all rows.
func labels(m *memory, lambda float64, v []float64) []int32 {
	all := make([]int32, 0, m.len())
	var block Block
	assigned, assigner := make([]Assignment, ChunkRows), NewAssigner(lambda, v)
	for i := range m.Chunks() {
		m.chunk(i, &block)
		if err := assigner.Block(assigned, &block); err != nil {
			panic(err)
		}
		for _, a := range assigned[:len(block.Rows)] {
			all = append(all, a.Label)
		}
	}
	return all
}
