package label

import (
	"context"
	"encoding/hex"
	"fmt"

	"sela/pipeline"
	"sela/schemas"
	"sela/sinkhorn"
	"sela/stages/list"
	"sela/stages/solve"
)

// labeller makes the label rows of one head: it walks the images in row order
// and beside them the log-probabilities, the digests and the previous labels.
type labeller struct {
	listing  *list.Listing
	source   *solve.Source
	digests  *solve.Source // of head 0, which alone has the images' digests
	previous *previousLabels
	lambda   float64
	v        []float64

	// The chunk under way, and the index of its next row to label.
	block       sinkhorn.Block
	assignments []sinkhorn.Assignment
	digits      []byte // hexDigits for each row
	digest      string // the same, one string that the rows share
	next        int

	top []sinkhorn.Candidate
	row rowBuffer
}

// hexDigits is the number of digits of a sha256.
const hexDigits = 64

// rowBuffer holds a label row and what it points to.
type rowBuffer struct {
	label    schemas.Label
	prob     float32
	previous int32
}

// write labels the usable images with rows in [from, to), both multiples of
// [sinkhorn.ChunkRows] or the end, and returns their number.
func (l *labeller) write(ctx context.Context, a *pipeline.Attempt, w *schemas.LabelsWriter, from, to int64) (int64, error) {
	var written, told int64
	chunk := int64(-1)
	err := l.listing.Read(ctx, from, to, func(img schemas.Image) error {
		if c := img.Row / sinkhorn.ChunkRows; c != chunk {
			if err := l.done(); err != nil {
				return err
			}
			chunk = c
			if err := l.load(ctx, int(c)); err != nil {
				return err
			}
			a.Progress(img.Row - from - told)
			told = img.Row - from
		}
		if l.next == len(l.block.Rows) || l.block.Rows[l.next] != img.Row {
			return nil // quarantined
		}
		if err := l.fill(img); err != nil {
			return err
		}
		l.next++
		written++
		return w.Write(&l.row.label)
	})
	if err == nil {
		err = l.done()
	}
	a.Progress(to - from - told)
	return written, err
}

// done checks that every row of the chunk was labelled.
func (l *labeller) done() error {
	if l.next < len(l.block.Rows) {
		return pipeline.BadData(fmt.Errorf("row %d is in the shards but not among the images", l.block.Rows[l.next]))
	}
	return nil
}

// load reads a chunk and labels it.
func (l *labeller) load(ctx context.Context, chunk int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := l.source.ReadChunk(ctx, chunk, &l.block); err != nil {
		return err
	}
	if err := sinkhorn.AssignBlock(l.assignments, &l.block, l.lambda, l.v); err != nil {
		return pipeline.BadData(err)
	}
	l.next, l.digits = 0, l.digits[:0]
	at := 0
	from := int64(chunk) * sinkhorn.ChunkRows
	err := l.digests.SHA256s(ctx, from, from+sinkhorn.ChunkRows, func(row int64, sum [32]byte) error {
		if at == len(l.block.Rows) || l.block.Rows[at] != row {
			return pipeline.BadData(fmt.Errorf("row %d is in the shards of head 0 but not in this head's", row))
		}
		l.digits = hex.AppendEncode(l.digits, sum[:])
		at++
		return nil
	})
	if err == nil && at != len(l.block.Rows) {
		err = pipeline.BadData(fmt.Errorf("row %d is in this head's shards but not in those of head 0", l.block.Rows[at]))
	}
	l.digest = string(l.digits)
	return err
}

// fill makes the label row of an image from the chunk's next row.
func (l *labeller) fill(img schemas.Image) error {
	as := l.assignments[l.next]
	r := &l.row
	r.prob = float32(as.Prob)
	r.label = schemas.Label{Row: img.Row, Key: img.Key, Member: img.Member, SHA256: l.digest[l.next*hexDigits : (l.next+1)*hexDigits],
		Label: as.Label, Prob: &r.prob, ModelLabel: as.ModelLabel, ModelProb: float32(as.ModelProb), TopK: r.label.TopK[:0]}
	if len(l.top) > 0 {
		k := len(l.v)
		for _, c := range l.top[:sinkhorn.TopK(l.top, l.block.X[l.next*k:(l.next+1)*k], l.lambda, l.v)] {
			r.label.TopK = append(r.label.TopK, schemas.TopK{Label: c.Label, Prob: float32(c.Prob)})
		}
	}
	if l.previous == nil {
		return nil
	}
	label, ok, err := l.previous.of(img.Key, img.Member)
	if ok {
		r.previous = label
		r.label.PrevLabel = &r.previous
	}
	return err
}

func (l *labeller) close() {
	for _, s := range []*solve.Source{l.source, l.digests} {
		if s != nil {
			s.Close()
		}
	}
	if l.previous != nil {
		l.previous.close()
	}
}
