package label

import (
	"context"
	"encoding/hex"
	"fmt"

	"sela/pipeline"
	"sela/schemas"
	"sela/sinkhorn"
	"sela/stages/label/published"
	"sela/stages/list"
	"sela/stages/solve"
)

// labeller makes the label rows of one head: it walks the images in row order
// and beside them the log-probabilities, the digests and the previous labels.
type labeller struct {
	listing  *list.Listing
	source   *solve.Source
	digests  *solve.Source // of head 0, which alone has the images' digests
	previous *published.Labels
	balanced *balanced // nil where the potentials decide
	lambda   float64
	certain  bool // labels have no probability
	v        []float64
	assigner *sinkhorn.Assigner

	// The chunk under way: its rows, their labels and, where wanted, the
	// candidates of all rows with the end of each row's; and the index of the
	// next row to write.
	rows        []int64
	assignments []sinkhorn.Assignment
	candidates  []sinkhorn.Candidate
	ends        []int
	digits      []byte // hexDigits for each row
	digest      string // the same, one string that the rows share
	next        int

	block sinkhorn.Block
	top   []sinkhorn.Candidate // room for those of a row
	row   rowBuffer
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
		if l.next == len(l.rows) || l.rows[l.next] != img.Row {
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
	if l.next < len(l.rows) {
		return pipeline.BadData(fmt.Errorf("row %d is in the shards but not among the images", l.rows[l.next]))
	}
	return nil
}

// load reads a chunk and labels it.
func (l *labeller) load(ctx context.Context, chunk int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.next, l.rows, l.candidates, l.ends, l.digits = 0, l.rows[:0], l.candidates[:0], l.ends[:0], l.digits[:0]
	if err := l.source.ReadChunk(ctx, chunk, &l.block, l.assign); err != nil {
		return err
	}
	at := 0
	from := int64(chunk) * sinkhorn.ChunkRows
	err := l.digests.SHA256s(ctx, from, from+sinkhorn.ChunkRows, func(row int64, sum [32]byte) error {
		if at == len(l.rows) || l.rows[at] != row {
			return pipeline.BadData(fmt.Errorf("row %d is in the shards of head 0 but not in this head's", row))
		}
		l.digits = hex.AppendEncode(l.digits, sum[:])
		at++
		return nil
	})
	if err == nil && at != len(l.rows) {
		err = pipeline.BadData(fmt.Errorf("row %d is in this head's shards but not in those of head 0", l.rows[at]))
	}
	l.digest = string(l.digits)
	return err
}

// assign labels a block of the chunk.
func (l *labeller) assign(b *sinkhorn.Block) error {
	assignments := l.assignments[len(l.rows):]
	if err := l.assigner.Block(assignments, b); err != nil {
		return pipeline.BadData(err)
	}
	if l.balanced != nil {
		if err := l.balanced.replace(assignments, b, l.lambda, l.v); err != nil {
			return err
		}
	}
	l.rows = append(l.rows, b.Rows...)
	if len(l.top) == 0 {
		return nil
	}
	k := len(l.v)
	for i := range b.Rows {
		n := sinkhorn.TopK(l.top, b.X[i*k:(i+1)*k], l.lambda, l.v)
		l.candidates = append(l.candidates, l.top[:n]...)
		l.ends = append(l.ends, len(l.candidates))
	}
	return nil
}

// fill makes the label row of an image from the chunk's next row.
func (l *labeller) fill(img schemas.Image) error {
	as := l.assignments[l.next]
	r := &l.row
	r.label = schemas.Label{Row: img.Row, Key: img.Key, Member: img.Member, SHA256: l.digest[l.next*hexDigits : (l.next+1)*hexDigits],
		Label: as.Label, ModelLabel: as.ModelLabel, ModelProb: float32(as.ModelProb), TopK: r.label.TopK[:0]}
	if !l.certain {
		r.prob = float32(as.Prob)
		r.label.Prob = &r.prob
	}
	if len(l.top) > 0 {
		from := 0
		if l.next > 0 {
			from = l.ends[l.next-1]
		}
		for _, c := range l.candidates[from:l.ends[l.next]] {
			r.label.TopK = append(r.label.TopK, schemas.TopK{Label: c.Label, Prob: float32(c.Prob)})
		}
	}
	if l.previous == nil {
		return nil
	}
	label, ok, err := l.previous.Of(img.Key, img.Member)
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
		l.previous.Close()
	}
}
