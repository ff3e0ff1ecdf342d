package publish

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"

	"sela/pipeline"
	"sela/schemas"
)

// readLabels reads all label tables, one head after the other, and the
// quarantine beside head 0.
func (v *verifier) readLabels(ctx context.Context, c *Check) error {
	v.choose()
	for _, h := range v.heads {
		var cover *coverage
		if h.number == 0 {
			next, stop := iter.Pull2(v.quarantined(ctx))
			defer stop()
			cover = &coverage{next: next}
			if err := cover.advance(); err != nil {
				if err := c.judge(err); err != nil {
					return err
				}
				cover = nil
			}
		}
		if h.v == nil {
			c.fail("head %d: without potentials its labels cannot be judged", h.number)
		}
		h.counts = make([]int64, len(h.v))
		t := &rowReader{verifier: v, head: h, cover: cover, ids: sha256.New(), lastRow: -1, members: map[[16]byte]bool{}}
		for _, f := range h.files {
			if h.v == nil {
				break
			}
			if err := h.judge(c, f, v.open(ctx, f, func(local string) error { return t.read(ctx, f, local) })); err != nil {
				return err
			}
		}
		if cover != nil && !h.broken {
			if err := c.judge(cover.end()); err != nil {
				return err
			}
		}
		v.report.Labels += h.rows
	}
	v.report.Images = v.heads[0].rows
	c.done("%d rows; in each head every image of the listing that is not in quarantine has one row, with a label in range", v.report.Labels)
	return nil
}

// rowReader checks the rows of one head.
type rowReader struct {
	*verifier
	head    *head
	cover   *coverage // of head 0
	ids     hash.Hash // of the images of a part
	lastRow int64
	lastKey string
	members map[[16]byte]bool // of the tar lastKey, by their names' digests
	scratch []byte
	next    int // the first sample that was not met
}

// read checks one part.
func (t *rowReader) read(ctx context.Context, f pipeline.Output, local string) error {
	if err := t.metadata(f, local); err != nil {
		return err
	}
	t.ids.Reset()
	rows := int64(0)
	if err := schemas.ReadLabels(local, func(l *schemas.Label) error {
		if rows++; rows%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		return t.row(l)
	}); err != nil {
		return err
	}
	if rows != f.Rows {
		return wrong("holds %d rows, the manifest says %d", rows, f.Rows)
	}
	t.head.parts[f.Name[strings.LastIndexByte(f.Name, '/')+1:]] = [32]byte(t.ids.Sum(nil))
	return nil
}

// metadata compares what the part says about itself with the record and with
// the parts before.
func (t *rowReader) metadata(f pipeline.Output, local string) error {
	kind, _, rows, kv, err := schemas.Inspect(local)
	if err != nil {
		return err
	}
	h, p, solve := t.head, t.record.Provenance, t.record.Job.Solve
	if kind != schemas.KindLabels || rows != f.Rows {
		return wrong("is a table of %s with %d rows, the manifest says labels with %d", kind, rows, f.Rows)
	}
	number := func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
	if err := compareMeta(kv, map[string]string{"sela.head": strconv.Itoa(h.number), "sela.clusters": strconv.Itoa(len(h.v))}); err != nil {
		return err
	}
	want := map[string]string{
		"labeller": solve.Method, "balance": solve.Balance,
		"model": p.Model, "preprocessing": p.Preprocessing, "library": p.Library, "processor": p.Processor, "code": p.Code,
		"listing": t.manifest.Listing,
	}
	if h.labelling == nil {
		want["lambda"], want["tolerance"], want["marginal_error_l1"] = number(solve.Lambda), number(h.certificate.Tol), number(h.certificate.MarginalL1)
	}
	if err := compareMeta(kv, want); err != nil {
		return err
	}
	if h.meta == nil {
		h.meta = kv
	}
	if !maps.Equal(h.meta, kv) {
		return wrong("its metadata are not those of the head's first part")
	}
	return nil
}

// row checks one label.
func (t *rowReader) row(l *schemas.Label) error {
	h := t.head
	clusters := int32(len(h.v))
	switch {
	case l.Row <= t.lastRow:
		return wrong("row %d after row %d", l.Row, t.lastRow)
	case l.Label < 0 || l.Label >= clusters:
		return wrong("row %d: label %d of %d clusters", l.Row, l.Label, clusters)
	case l.ModelLabel < 0 || l.ModelLabel >= clusters:
		return wrong("row %d: model_label %d of %d clusters", l.Row, l.ModelLabel, clusters)
	case l.Prob != nil && h.labelling != nil:
		return wrong("row %d: prob is %v, and labels by method %s have none", l.Row, *l.Prob, h.labelling.Method)
	case l.Prob != nil && !(*l.Prob > 0 && *l.Prob <= 1):
		return wrong("row %d: prob is %v", l.Row, *l.Prob)
	case !(l.ModelProb > 0 && l.ModelProb <= 1.001): // rounded from a logarithm
		return wrong("row %d: model_prob is %v", l.Row, l.ModelProb)
	case !isDigest(l.SHA256):
		return wrong("row %d: sha256 is %.70q", l.Row, l.SHA256)
	case len(l.TopK) > 0 && l.TopK[0].Label != l.Label:
		return wrong("row %d: top_k begins with %d, the label is %d", l.Row, l.TopK[0].Label, l.Label)
	}
	t.lastRow = l.Row
	if h.number == 0 {
		if err := t.unique(l); err != nil {
			return err
		}
	}
	if t.cover != nil {
		if err := t.cover.row(l.Row); err != nil {
			return err
		}
	}
	t.sampled(l)
	h.counts[l.Label]++
	h.rows++
	b := binary.LittleEndian.AppendUint64(t.scratch[:0], uint64(l.Row))
	for _, s := range []string{l.Key, l.Member, l.SHA256} {
		b = append(binary.LittleEndian.AppendUint64(b, uint64(len(s))), s...)
	}
	t.ids.Write(b)
	t.scratch = b
	return nil
}

// unique makes sure that no image has two rows. Keys ascend; within one, the
// members of a tar are in the order in which they lie there.
func (t *rowReader) unique(l *schemas.Label) error {
	if l.Key < t.lastKey {
		return wrong("row %d: key %q after %q", l.Row, l.Key, t.lastKey)
	}
	if l.Key != t.lastKey {
		t.lastKey = strings.Clone(l.Key)
		clear(t.members)
	}
	sum := sha256.Sum256([]byte(l.Member))
	if id := [16]byte(sum[:16]); t.members[id] {
		return wrong("row %d: image %q %q has two rows", l.Row, l.Key, l.Member)
	} else {
		t.members[id] = true
	}
	return nil
}

// sampled keeps what the table says about an image of the sample.
func (t *rowReader) sampled(l *schemas.Label) {
	if t.next == len(t.samples) || t.samples[t.next].ordinal != t.head.rows {
		return
	}
	s := t.samples[t.next]
	t.next++
	if t.head.number == 0 {
		s.row, s.key, s.member, s.sha = l.Row, strings.Clone(l.Key), strings.Clone(l.Member), strings.Clone(l.SHA256)
	}
	said := claim{row: l.Row, label: l.Label, model: l.ModelLabel}
	if l.Prob != nil {
		said.prob = *l.Prob
	}
	s.claims = append(s.claims, said)
}

// quarantined yields the row numbers in quarantine, ascending, or one error.
func (v *verifier) quarantined(ctx context.Context) iter.Seq2[int64, error] {
	var files []pipeline.Output
	for _, f := range v.manifest.Files {
		if strings.HasPrefix(f.Name, "quarantine/") {
			files = append(files, f)
		}
	}
	slices.SortStableFunc(files, func(a, b pipeline.Output) int { return len(a.Name) - len(b.Name) })
	return func(yield func(int64, error) bool) {
		stopped := wrong("stopped")
		for _, f := range files {
			rows := int64(0)
			err := v.open(ctx, f, func(local string) error {
				return schemas.ReadQuarantine(local, func(q schemas.Quarantine) error {
					rows++
					if q.Row != nil && !yield(*q.Row, nil) {
						return stopped
					}
					return nil
				})
			})
			if err == nil && rows != f.Rows {
				err = wrong("holds %d rows, the manifest says %d", rows, f.Rows)
			}
			if err == stopped {
				return
			}
			if err != nil {
				yield(0, fmt.Errorf("%s: %w", f.Name, err))
				return
			}
		}
	}
}

// coverage makes sure that label rows and quarantine rows together are all row
// numbers from 0, each once.
type coverage struct {
	next     func() (int64, error, bool)
	rejected int64 // the next row in quarantine, if more
	more     bool
	expected int64
}

func (c *coverage) advance() (err error) {
	c.rejected, err, c.more = c.next()
	return err
}

// row takes the next label row.
func (c *coverage) row(row int64) error {
	for c.expected < row {
		if err := c.skip(); err != nil {
			return err
		}
	}
	if c.more && c.rejected <= row {
		return wrong("row %d has a label and is in quarantine, too", c.rejected)
	}
	c.expected = row + 1
	return nil
}

// skip takes a row without a label.
func (c *coverage) skip() error {
	if !c.more || c.rejected > c.expected {
		return wrong("row %d has no label and is not in quarantine", c.expected)
	}
	if c.rejected < c.expected {
		return wrong("row %d is in quarantine, and labelled or there twice", c.rejected)
	}
	c.expected++
	return c.advance()
}

// end takes what is behind the last label row.
func (c *coverage) end() error {
	for c.more {
		if err := c.skip(); err != nil {
			return err
		}
	}
	return nil
}
