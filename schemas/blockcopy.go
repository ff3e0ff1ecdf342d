package schemas

import "fmt"

// Copy appends len(rows) rows of another table, from the one on that has first
// rows before it there, and gives them the numbers rows, which must follow the
// rows written before. Payloads go over byte by byte: what a compact table holds
// would not always come out the same if it were read and written again. The
// other table must be of the same kind, head, width and form. After an error the
// table cannot be committed.
func (w *BlocksWriter) Copy(from *Blocks, first int64, rows []int64) error {
	err := w.out.do(func() error { return w.copy(from, first, rows) })
	if err != nil {
		return fmt.Errorf("copy rows of %s to %s %s: %w", from.path, w.meta.Kind, w.out.path, err)
	}
	return nil
}

func (w *BlocksWriter) copy(from *Blocks, first int64, rows []int64) error {
	m, n := from.meta, w.meta
	if m.Kind != n.Kind || m.Head != n.Head || m.Width != n.Width || m.WithSHA256 != n.WithSHA256 || m.Compact != n.Compact {
		return fmt.Errorf("it is another table: %s of head %d with %d columns, compact %t, sha256 %t; not %s of head %d with %d columns, compact %t, sha256 %t",
			m.Kind, m.Head, m.Width, m.Compact, m.WithSHA256, n.Kind, n.Head, n.Width, n.Compact, n.WithSHA256)
	}
	if first < 0 || first > from.rows-int64(len(rows)) {
		return fmt.Errorf("there are no %d rows from %d among its %d", len(rows), first, from.rows)
	}
	if err := w.ascend(rows); err != nil {
		return err
	}
	for len(rows) > 0 {
		block, skip, count := from.piece(first, len(rows))
		at := w.room(&count)
		copy(w.block.rows[at:], rows[:count])
		part, place := w.block.part(n, at, count), from.places[block].skip(n, int64(skip))
		if err := part.read(from.f, place); err != nil {
			return err
		}
		if err := w.full(); err != nil {
			return err
		}
		first, rows = first+int64(count), rows[count:]
	}
	return nil
}

// part is the memory of n rows of a block of table m, from the row at on, but for
// their numbers.
func (p *payloads) part(m BlocksMeta, at, n int) payloads {
	var q payloads
	if m.Compact {
		q.tops, q.steps, q.codes = p.tops[at:at+n], p.steps[at:at+n], p.codes[at*m.Width:(at+n)*m.Width]
	} else {
		q.values = p.values[at*m.Width : (at+n)*m.Width]
	}
	if m.WithSHA256 {
		q.sha = p.sha[at*32 : (at+n)*32]
	}
	return q
}

// skip returns where the payloads of a block of table m lie after so many rows.
func (p place) skip(m BlocksMeta, rows int64) place {
	value := int64(4)
	if m.Compact {
		value = 2
	}
	return place{rows: p.rows + 8*rows, tops: p.tops + 4*rows, steps: p.steps + 4*rows, values: p.values + value*rows*int64(m.Width), sha: p.sha + 32*rows}
}
