package extract

import (
	"context"
	"errors"
	"fmt"
	"math"

	"golang.org/x/sync/errgroup"

	"sela/pipeline"
	"sela/pipeline/bucket"
)

// takeover is the sink of a task that takes over rows of an earlier run: it puts
// them between those of the batches, in row order.
type takeover struct {
	ctx   context.Context
	out   *output
	shard *shardReader
	rows  []taken
	next  int

	tables  []*table
	numbers [][]int64 // scratch memory, by table
}

func newTakeover(ctx context.Context, out *output, e *earlier, rows []taken) *takeover {
	return &takeover{ctx: ctx, out: out, shard: e.reader(), rows: rows, tables: out.tables(), numbers: make([][]int64, len(e.files))}
}

// write implements [sink].
func (t *takeover) write(b *batch) error {
	for from := 0; from < len(b.images); {
		if err := t.before(b.images[from].Row); err != nil {
			return err
		}
		to := from + 1
		for to < len(b.images) && (t.next == len(t.rows) || b.images[to].Row < t.rows[t.next].now) {
			to++
		}
		if err := t.out.writePart(b, from, to); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// before copies the rows whose numbers are below limit.
func (t *takeover) before(limit int64) error {
	for t.next < len(t.rows) && t.rows[t.next].now < limit {
		from, index := t.next, t.rows[t.next].before/t.shard.from.rows
		for t.next < len(t.rows) && t.rows[t.next].now < limit && t.rows[t.next].before/t.shard.from.rows == index {
			t.next++
		}
		err := t.shard.move(t.ctx, index)
		if errors.Is(err, bucket.ErrNotFound) {
			err = pipeline.Retryable(err) // removed since the task looked: it will look again
		}
		if err == nil {
			err = t.copy(t.rows[from:t.next])
		}
		if err != nil {
			return fmt.Errorf("take over rows of run %s: %w", t.shard.from.run.Run, err)
		}
	}
	return nil
}

// copy appends rows of the open shard to every table.
func (t *takeover) copy(rows []taken) error {
	var group errgroup.Group
	group.SetLimit(writers)
	heads := len(t.out.heads)
	for i, table := range t.tables {
		group.Go(func() error {
			var s *sample
			if i >= heads && i < 2*heads {
				s = t.out.samples[i-heads]
				if err := s.flush(); err != nil {
					return err
				}
			}
			if err := t.copyTo(i, rows, s); err != nil {
				return fmt.Errorf("%s: %w", table.name, err)
			}
			return nil
		})
	}
	t.out.attempt.Progress(int64(len(rows)))
	return group.Wait()
}

// copyTo appends the rows, or those of them that are in the sample, to a table,
// as many at once as lie side by side.
func (t *takeover) copyTo(table int, rows []taken, in *sample) error {
	w, from, numbers, first := t.tables[table].w, t.shard.tables[table], t.numbers[table][:0], int64(0)
	for _, row := range rows {
		if in != nil && row.hash >= in.threshold {
			continue
		}
		index, ok := from.Find(row.before)
		if !ok {
			return pipeline.BadData(fmt.Errorf("it has no row %d: start a run with extract.reuse: none", row.before))
		}
		if len(numbers) > 0 && index != first+int64(len(numbers)) {
			if err := w.Copy(from, first, numbers); err != nil {
				return err
			}
			numbers = numbers[:0]
		}
		if len(numbers) == 0 {
			first = index
		}
		numbers = append(numbers, row.now)
	}
	t.numbers[table] = numbers
	if len(numbers) == 0 {
		return nil
	}
	return w.Copy(from, first, numbers)
}

// finish copies what is left and closes the earlier run's shard.
func (t *takeover) finish() error { return t.before(math.MaxInt64) }

func (t *takeover) close() { t.shard.close() }
