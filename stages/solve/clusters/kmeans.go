package clusters

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"sela/sinkhorn"
)

// KMeans parametrises [Features.KMeans].
type KMeans struct {
	Clusters   int
	Iterations int // at most; it ends before if nothing changes any more

	// Seed and Head draw the starting centres: heads of one seed have
	// different ones.
	Seed, Head uint64

	// Start continues from a state that Save was given; nil starts anew.
	Start *State
	// Save is called after each iteration but the last, if it is not nil. The
	// state is valid until it returns.
	Save func(ctx context.Context, s State) error
}

// State is all that the next iteration depends on.
type State struct {
	Iterations int       // done
	Moved      int       // see [Result]
	Centres    []float32 // row-major [Clusters·Width]
}

// Result is a clustering.
type Result struct {
	Labels     []int32 // of each row, in the order of their numbers: the nearest centre, the lowest of equal ones
	Counts     []int64 // rows by cluster
	Centres    []float32
	Iterations int
	Converged  bool // the last iteration changed nothing
	// Moved is how often a cluster without rows got the farthest one.
	Moved int
	// Objective is the mean squared distance of a row to its centre.
	Objective float64
}

// memory is the number of bytes that clusters take beside the rows: the sample
// of rows that seeds are drawn from, sums, centres for everyone, and each
// worker's chunks and their products.
func (e *Engine) memory(clusters, width int) int64 {
	k, d, workers := int64(clusters), int64(width), int64(e.workers)
	return k*d*(4*seedRows+8+3*4+4*workers) + 4*sinkhorn.ChunkRows*workers*(k+(1+windowChunks)*d)
}

// Memory tells how much of memory bytes is left to hold rows of so many columns
// in, of which there are so many clusters; or [ErrMemory].
func (e *Engine) Memory(memory int64, clusters, width int) (int64, error) {
	left := memory - e.memory(clusters, width)
	if left < 0 {
		return 0, fmt.Errorf("%w: %d clusters of %d features take %d MiB", ErrMemory, clusters, width, (memory-left)>>20+1)
	}
	return left, nil
}

// KMeans finds clusters by Lloyd's algorithm (S. Lloyd, "Least squares
// quantization in PCM", IEEE Trans. Inf. Theory 28, 1982): each row belongs to
// the nearest centre, each centre is the mean of its rows, and so on from the
// centres of k-means++. A cluster without rows takes the row that is farthest
// from its centre, as scikit-learn's does, unless that row is alone or lies on
// its centre. Errors are [ErrTooFewRows], Save's, or come from the source.
func (f *Features) KMeans(ctx context.Context, o KMeans) (_ *Result, err error) {
	if len(f.numbers) < o.Clusters {
		return nil, fmt.Errorf("%w: %d for %d", ErrTooFewRows, len(f.numbers), o.Clusters)
	}
	l := &lloyd{Features: f, clusters: o.Clusters, labels: make([]int32, len(f.numbers)), counts: make([]int64, o.Clusters),
		half: make([]float32, o.Clusters), sums: make([]float64, o.Clusters*f.width), next: make([]float32, o.Clusters*f.width)}
	r := &Result{Labels: l.labels, Counts: l.counts}
	if o.Start != nil {
		if len(o.Start.Centres) != o.Clusters*f.width {
			return nil, fmt.Errorf("a state of %d numbers does not fit %d clusters of %d columns", len(o.Start.Centres), o.Clusters, f.width)
		}
		r.Iterations, r.Moved, l.centres = o.Start.Iterations, o.Start.Moved, slices.Clone(o.Start.Centres)
	} else if l.centres, err = f.seed(ctx, o.Clusters, rand.New(rand.NewPCG(o.Seed, o.Head))); err != nil {
		return nil, err
	}
	if l.products, err = f.engine.products(ctx, f.width, o.Clusters); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeAll(l.products)) }()
	for r.Iterations < o.Iterations && !r.Converged {
		moved, changed, err := l.iterate(ctx)
		if err != nil {
			return nil, err
		}
		r.Iterations++
		r.Moved += moved
		r.Converged = !changed
		if o.Save != nil && changed && r.Iterations < o.Iterations {
			if err := o.Save(ctx, State{r.Iterations, r.Moved, l.centres}); err != nil {
				return nil, err
			}
		}
	}
	if err := l.assign(ctx, false); err != nil {
		return nil, err
	}
	distances, err := l.distances(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range distances {
		r.Objective += d
	}
	r.Objective /= float64(len(distances))
	r.Centres = l.centres
	return r, nil
}

// lloyd is a clustering under way.
type lloyd struct {
	*Features
	clusters int
	products []*product // rows by centres, one for each worker
	centres  []float32  // [clusters·width]
	next     []float32
	half     []float32 // ½|centre|²
	labels   []int32
	counts   []int64
	sums     []float64 // of each cluster's rows
}

// iterate makes labels, and of them new centres.
func (l *lloyd) iterate(ctx context.Context) (moved int, changed bool, err error) {
	if err := l.assign(ctx, true); err != nil {
		return 0, false, err
	}
	if moved, err = l.refill(ctx); err != nil {
		return 0, false, err
	}
	d := l.width
	for k, n := range l.counts {
		if n == 0 {
			copy(l.next[k*d:(k+1)*d], l.centres[k*d:])
			continue
		}
		for j, sum := range l.sums[k*d : (k+1)*d] {
			l.next[k*d+j] = float32(sum / float64(n))
		}
	}
	changed = !slices.Equal(l.centres, l.next)
	l.centres, l.next = l.next, l.centres
	return moved, changed, nil
}

// assign gives each row its nearest centre and counts rows by cluster; and adds
// them up if asked.
func (l *lloyd) assign(ctx context.Context, sum bool) error {
	for k := range l.half {
		norm := 0.0
		for _, v := range l.centres[k*l.width : (k+1)*l.width] {
			norm += float64(v) * float64(v)
		}
		l.half[k] = float32(norm / 2)
	}
	for _, p := range l.products {
		copy(p.w, l.centres)
	}
	clear(l.counts)
	clear(l.sums)
	err := l.sweep(ctx, l.nearest, func(s span) error {
		for _, k := range l.labels[s.first : s.first+len(s.x)/l.width] {
			l.counts[k]++
		}
		if !sum {
			return nil
		}
		return l.add(ctx, s)
	})
	return err
}

// nearest labels rows. |x − c|² is least where x·c − ½|c|² is largest.
func (l *lloyd) nearest(ctx context.Context, worker int, s span) error {
	p, k := l.products[worker], l.clusters
	copy(p.x, s.x)
	if err := p.run(ctx); err != nil {
		return err
	}
	for i := range len(s.x) / l.width {
		y, half := p.y[i*k:(i+1)*k], l.half[:k]
		best, label := y[0]-half[0], 0
		for j, v := range y {
			if v -= half[j]; v > best {
				best, label = v, j
			}
		}
		l.labels[s.first+i] = int32(label)
	}
	return nil
}

// add adds rows to the sums of their clusters, in order: each worker its share
// of the columns.
func (l *lloyd) add(ctx context.Context, s span) error {
	workers := min(l.engine.workers, l.width)
	return l.each(ctx, 0, workers, func(_ context.Context, _, part int) error {
		from, to := part*l.width/workers, (part+1)*l.width/workers
		for i, k := range l.labels[s.first : s.first+len(s.x)/l.width] {
			x := s.x[i*l.width+from : i*l.width+to]
			sum := l.sums[int(k)*l.width+from:][:len(x)]
			for j, v := range x {
				sum[j] += float64(v)
			}
		}
		return nil
	})
}

// refill gives clusters without rows the rows that are farthest from their
// centres, and returns how many it could.
func (l *lloyd) refill(ctx context.Context) (moved int, err error) {
	var empty []int
	for k, n := range l.counts {
		if n == 0 {
			empty = append(empty, k)
		}
	}
	if len(empty) == 0 {
		return 0, nil
	}
	distances, err := l.distances(ctx)
	if err != nil {
		return 0, err
	}
	order := make([]int, len(distances))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(distances[b], distances[a]), cmp.Compare(a, b))
	})
	x, d := make([]float32, l.width), l.width
	for _, index := range order {
		if moved == len(empty) || distances[index] == 0 {
			break
		}
		from, to := int(l.labels[index]), empty[moved]
		if l.counts[from] == 1 {
			continue
		}
		if err := l.row(ctx, index, x); err != nil {
			return moved, err
		}
		for j, v := range x {
			l.sums[from*d+j] -= float64(v)
			l.sums[to*d+j] = float64(v)
		}
		l.counts[from]--
		l.counts[to] = 1
		moved++
	}
	return moved, nil
}

// distances returns each row's squared distance to the centre of its label.
func (l *lloyd) distances(ctx context.Context) ([]float64, error) {
	all := make([]float64, len(l.labels))
	err := l.sweep(ctx, func(_ context.Context, _ int, s span) error {
		for i := range len(s.x) / l.width {
			k := int(l.labels[s.first+i])
			all[s.first+i] = squaredDistance(s.x[i*l.width:(i+1)*l.width], l.centres[k*l.width:(k+1)*l.width])
		}
		return nil
	}, nil)
	return all, err
}
