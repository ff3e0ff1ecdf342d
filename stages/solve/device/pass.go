package device

import (
	"context"
	"fmt"
	"math"

	"sela/sinkhorn"
	"sela/stages/internal/ort"
)

// Pass implements [sinkhorn.Evaluator]. A row that cannot be assigned is a
// *sinkhorn.RowError. A pass over tiles that are not kept reads them from the
// source, twice where columns are summed in log domain.
func (e *Evaluator) Pass(ctx context.Context, req sinkhorn.Request) (*sinkhorn.PassResult, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.check(&req); err != nil {
		return nil, err
	}
	if e.rows == 0 {
		return nil, sinkhorn.ErrNoRows
	}
	t := newTotals(&req, e.shape)
	err := e.sweep(ctx, func(tiles *batch) error {
		out, err := tiles.run(ctx, req.Lambda, t.v, nil, parts{rows: true, labels: req.Certify})
		if err != nil {
			return err
		}
		var before []ort.Array[float64]
		if req.Previous != nil && (req.Change || req.Certify) {
			before, err = tiles.run(ctx, req.Lambda, req.Previous, nil, parts{rows: req.Change, labels: req.Certify})
			if err != nil {
				return err
			}
		}
		if bad := t.add(tiles, out, before); bad >= 0 {
			return e.rowFault(ctx, bad, req.Lambda, t.v)
		}
		return nil
	})
	if err == nil && t.needColumns() {
		err = e.sweep(ctx, func(tiles *batch) error {
			out, err := tiles.run(ctx, req.Lambda, t.v, t.shift(tiles), parts{columns: true})
			if err == nil {
				t.addColumns(out)
			}
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("pass on %s: %w", e.options.Provider, err)
	}
	return t.result(), nil
}

// check refuses what cannot be evaluated.
func (e *Evaluator) check(req *sinkhorn.Request) error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", sinkhorn.ErrOptions, fmt.Sprintf(format, args...))
	}
	switch {
	case req.Lists != nil:
		return refuse("a pass on a device writes no lists: choose a method that needs none")
	case !(req.Lambda > 0) || math.IsInf(req.Lambda, 1):
		return refuse("lambda is %v, want a positive number", req.Lambda)
	case req.V == nil && (req.Change || req.Certify || req.Previous != nil):
		return refuse("a pass without potentials yields column sums only")
	}
	for _, v := range [][]float64{req.V, req.Previous} {
		if v != nil && int64(len(v)) != e.shape.clusters {
			return refuse("%d potentials for %d clusters", len(v), e.shape.clusters)
		}
		for k, vk := range v {
			if math.IsNaN(vk - vk) {
				return refuse("potential of cluster %d is %v", k, vk)
			}
		}
	}
	return nil
}

// batch is a run of tiles that one session evaluates.
type batch struct {
	program *ort.Program
	shape   shape
	first   int64 // rows before it
	rows    int64 // of the tiles' rows, those that are rows
	tiles   int64
	x       []float32 // the tiles, where the session does not hold them
}

// parts are the parts of a pass that a run computes.
type parts struct{ rows, labels, columns bool }

// run evaluates parts of a pass and returns the outputs in the order of
// outputNames. shift is for the columns.
func (b *batch) run(ctx context.Context, lambda float64, v, shift []float64, p parts) ([]ort.Array[float64], error) {
	k := b.shape.clusters
	params := append(append(make([]float64, 0, k+1), v...), lambda)
	count := make([]float64, b.tiles)
	for i := range count {
		count[i] = float64(min(b.shape.rows, b.rows-int64(i)*b.shape.rows))
	}
	shifts := ort.Array[float64]{Dims: []int64{1, 1, 1}, Values: []float64{0}}
	if p.columns {
		shifts = ort.Array[float64]{Dims: []int64{b.tiles, b.shape.rows, 1}, Values: shift}
	}
	flag := func(on bool) ort.Input { return ort.Array[bool]{Dims: []int64{1}, Values: []bool{on}} }
	inputs := []ort.Input{
		ort.Array[float64]{Dims: []int64{1, k + 1}, Values: params}, ort.Array[float64]{Dims: []int64{b.tiles, 1}, Values: count},
		shifts, flag(p.rows), flag(p.labels), flag(p.columns),
	}
	if b.x != nil {
		inputs = append(inputs, ort.Array[float32]{Dims: []int64{b.tiles, b.shape.rows, k}, Values: b.x})
	}
	return b.program.Run(ctx, inputs...)
}

// sweep calls fn with all tiles in order, kept ones first.
func (e *Evaluator) sweep(ctx context.Context, fn func(*batch) error) error {
	first := int64(0)
	for _, s := range e.kept {
		b := &batch{program: s.program, shape: e.shape, first: first, tiles: s.tiles, rows: min(s.tiles*e.shape.rows, e.rows-first)}
		if err := fn(b); err != nil {
			return err
		}
		first += b.rows
	}
	if e.stream == nil {
		return nil
	}
	return e.sweepStream(ctx, first, fn)
}

// sweepStream reads the tiles that are not kept, one batch ahead of fn.
func (e *Evaluator) sweepStream(ctx context.Context, first int64, fn func(*batch) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type filled struct {
		b   *batch
		err error
	}
	empty, full := make(chan []float32, len(e.buffers)), make(chan filled)
	for _, x := range e.buffers {
		empty <- x
	}
	done := make(chan struct{})
	defer func() { <-done }() // the buffers are free when a pass ends
	defer cancel()
	go func() {
		defer close(done)
		defer close(full)
		at, block := e.next, new(sinkhorn.Block)
		for from := first; from < e.rows; {
			var x []float32
			select {
			case x = <-empty:
			case <-ctx.Done():
				return
			}
			b, err := e.fill(ctx, &at, from, x, block)
			if err == nil && from+b.rows == e.rows {
				err = at.end(ctx, e.src, e.rows)
			}
			select {
			case full <- filled{b, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
			from += b.rows
		}
	}()
	for f := range full {
		if f.err != nil {
			return f.err
		}
		if err := fn(f.b); err != nil {
			return err
		}
		empty <- f.b.x[:cap(f.b.x)]
	}
	return ctx.Err()
}

// fill reads the next batch, from the row with index from on, into x. Behind
// the last row the tile holds zeros or rows of an earlier batch, which count
// for nothing.
func (e *Evaluator) fill(ctx context.Context, at *cursor, from int64, x []float32, block *sinkhorn.Block) (*batch, error) {
	rows := min(e.batch()*e.shape.rows, e.rows-from)
	tiles := (rows + e.shape.rows - 1) / e.shape.rows
	x = x[:tiles*e.shape.rows*e.shape.clusters]
	rest := x
	got, err := at.read(ctx, e.src, rows, block, func(values []float32) error {
		rest = rest[copy(rest, values):]
		return nil
	})
	if err == nil && got < rows {
		err = e.short(from + got)
	}
	return &batch{program: e.stream, shape: e.shape, first: from, rows: rows, tiles: tiles, x: x}, err
}

// rowFault explains what is wrong with the row of the given index, which the
// device could not evaluate.
func (e *Evaluator) rowFault(ctx context.Context, index int64, lambda float64, v []float64) error {
	var buf sinkhorn.Block
	var fault error
	dst := make([]sinkhorn.Assignment, sinkhorn.ChunkRows)
	for i, seen := 0, int64(0); i < e.src.Chunks() && fault == nil && seen <= index; i++ {
		err := e.src.ReadChunk(ctx, i, &buf, func(b *sinkhorn.Block) error {
			if seen += int64(len(b.Rows)); seen > index {
				fault = sinkhorn.NewAssigner(lambda, v).Block(dst, b)
			}
			return fault
		})
		if err != nil {
			return err
		}
	}
	if fault == nil {
		return fmt.Errorf("%w: the row of index %d has no log-sum-exp on the device and has one on the CPU", sinkhorn.ErrSource, index)
	}
	return fault
}
