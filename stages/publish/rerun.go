package publish

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/sinkhorn"
	"sela/stages/extract"
	"sela/stages/internal/imageio"
	"sela/stages/list"
)

// Model is what a sample of images is run through again.
type Model struct {
	Classifier *extract.Classifier
	Images     *bucket.Bucket
	Provenance pipeline.Provenance // of the classifier, on this machine
}

// sample is an image that is run through the model again.
type sample struct {
	ordinal          int64 // among the label rows of a head
	row              int64
	key, member, sha string
	claims           []claim // by head
}

// claim is what a label table says about a sample.
type claim struct {
	row          int64
	label, model int32
	prob         float32
}

// tolerated is the share of labels that may differ where the arithmetic is not
// the same to the bit: another library build, another class of processor.
const tolerated = 0.01

// choose draws the sample from what the manifest counts, each image with the
// same probability (Floyd's algorithm), in order.
func (v *verifier) choose() {
	var rows int64
	for _, f := range v.heads[0].files {
		rows += f.Rows
	}
	random := rand.New(rand.NewPCG(v.Seed, 0))
	chosen := map[int64]bool{}
	for i := max(0, rows-int64(v.Sample)); i < rows && v.Model != nil; i++ {
		at := random.Int64N(i + 1)
		if chosen[at] {
			at = i
		}
		chosen[at] = true
		v.samples = append(v.samples, &sample{ordinal: at})
	}
	slices.SortFunc(v.samples, func(a, b *sample) int { return int(min(max(a.ordinal-b.ordinal, -1), 1)) })
}

// rerun runs the sample through the model and compares labels.
func (v *verifier) rerun(ctx context.Context) error {
	if len(v.samples) == 0 {
		return nil
	}
	c := v.begin("model")
	if slices.ContainsFunc(v.heads, func(h *head) bool { return h.broken || h.v == nil }) {
		c.fail("not run: the tables cannot be read")
		return nil
	}
	m, err := v.Model(ctx, v.record)
	if err != nil {
		return err
	}
	was, is := v.record.Provenance, m.Provenance
	if was.Model != is.Model || was.Preprocessing != is.Preprocessing {
		c.fail("the model at hand has digest %.12s and preprocessing %.12s; the labels were made with %.12s and %.12s", is.Model, is.Preprocessing, was.Model, was.Preprocessing)
		return nil
	}
	if heads := m.Classifier.Heads; len(heads) != len(v.heads) {
		c.fail("the model has %d heads, the labels %d", len(heads), len(v.heads))
		return nil
	}
	images, err := v.locate(ctx, c, m.Images)
	if err != nil {
		return err
	}
	same := was.Library == is.Library && was.Processor == is.Processor
	return v.compare(ctx, c, m, images, same)
}

// compare runs the images, which are those of the samples, through the model.
func (v *verifier) compare(ctx context.Context, c *Check, m *Model, images []schemas.Image, same bool) error {
	var differ, all int
	var first string
	assignment := make([]sinkhorn.Assignment, 1)
	bitwise, err := m.Classifier.Rerun(ctx, m.Images, images, func(i int, r *extract.Rerun) error {
		s := v.samples[i]
		switch got := hex.EncodeToString(r.SHA256[:]); {
		case r.LogProbs == nil && r.SHA256 == [32]byte{}:
			c.fail("row %d: image %q %q cannot be fetched: %v", s.row, s.key, s.member, r.Rejected)
			return nil
		case got != s.sha:
			c.fail("row %d: image %q %q has sha256 %.12s now, the labels say %.12s", s.row, s.key, s.member, got, s.sha)
			return nil
		case r.Rejected != nil:
			c.fail("row %d: image %q %q cannot be used: %v", s.row, s.key, s.member, r.Rejected)
			return nil
		}
		for h, said := range s.claims {
			if said.row != s.row || len(r.LogProbs[h]) != len(v.heads[h].v) {
				continue // told by the checks of the tables and of the model
			}
			all++
			err := v.assign(assignment, h, s.row, r.LogProbs[h], said.label)
			is := claim{row: s.row, label: assignment[0].Label, model: assignment[0].ModelLabel, prob: float32(assignment[0].Prob)}
			if err == nil && is.label == said.label && is.model == said.model && (!same || said.prob == 0 || is.prob == said.prob) {
				continue
			}
			if differ++; first == "" {
				first = fmt.Sprintf("the first: head %d, row %d, image %q %q: label %d (prob %g, model's own %d), the table says %d (%g, %d)",
					h, s.row, s.key, s.member, is.label, is.prob, is.model, said.label, said.prob, said.model)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	compared := "labels"
	if v.heads[0].labelling != nil {
		compared = "labels of the model's own"
	}
	switch exact := same && bitwise; {
	case all == 0 && c.problems == 0:
		c.fail("none of %d images could be compared", len(v.samples))
	case exact && differ > 0:
		c.fail("%d of %d labels differ from what the model gives; %s", differ, all, first)
	case float64(differ) > tolerated*float64(all):
		c.fail("%d of %d labels differ from what the model gives, more than %g %%; %s", differ, all, 100*tolerated, first)
	case exact:
		c.done("%d images, %d %s: all are what the model gives", len(v.samples), all, compared)
	default:
		c.done("%d images, %d %s: %d differ (library or processor are not those of the run, or the model's bits depend on the batch)", len(v.samples), all, compared, differ)
	}
	return nil
}

// tieShare is how much smaller than a row's largest share that of its label may
// be where clusters have exact counts: rows that tie were parted, and
// potentials are found to within rounding.
const tieShare = 1e-6

// assign labels a row as the run did: in the precision in which it stored
// rows, and, where clusters have exact counts, with the label that the table
// says if the row's potentials leave it open. Labels that no potentials stand
// behind are taken as the table says: only the model's own can be found again.
func (v *verifier) assign(dst []sinkhorn.Assignment, head int, row int64, x []float32, said int32) error {
	job, potentials := v.record.Job, v.heads[head].v
	if job.Extract.Stored == "uint16" {
		if err := schemas.RoundTrip(x, make([]uint16, len(x))); err != nil {
			return err
		}
	}
	block := sinkhorn.Block{Rows: []int64{row}, X: x}
	if v.heads[head].labelling != nil {
		err := sinkhorn.NewAssigner(1, potentials).Block(dst, &block)
		dst[0].Label = said
		return err
	}
	if err := sinkhorn.NewAssigner(job.Solve.Lambda, potentials).Block(dst, &block); err != nil {
		return err
	}
	if v.heads[head].certificate.Exactly != nil && said >= 0 && int(said) < len(x) {
		if share := sinkhorn.Share(x, job.Solve.Lambda, potentials, said); share > dst[0].Prob-tieShare {
			dst[0].Label, dst[0].Prob = said, share
		}
	}
	return nil
}

// locate finds where the samples' bytes lie; the label tables do not say. An
// image that cannot be found keeps no size and is not run.
func (v *verifier) locate(ctx context.Context, c *Check, images *bucket.Bucket) ([]schemas.Image, error) {
	found := make([]schemas.Image, 0, len(v.samples))
	kept := v.samples[:0:0]
	for i := 0; i < len(v.samples); {
		end := i + 1
		for end < len(v.samples) && v.samples[end].key == v.samples[i].key {
			end++
		}
		members, err := locateIn(ctx, images, v.samples[i:end])
		if err != nil {
			if err := c.judge(err); err != nil {
				return nil, err
			}
		}
		for _, s := range v.samples[i:end] {
			if img, ok := members[s.member]; ok {
				img.Row = s.row
				found, kept = append(found, img), append(kept, s)
			} else if err == nil {
				c.fail("row %d: image %q %q is not there any more", s.row, s.key, s.member)
			}
		}
		i = end
	}
	v.samples = kept
	return found, nil
}

// locateIn finds the images of one key by member. The members of a tar are
// found as the list stage finds them.
func locateIn(ctx context.Context, images *bucket.Bucket, samples []*sample) (map[string]schemas.Image, error) {
	key := samples[0].key
	if samples[0].member == "" {
		o, err := images.Stat(ctx, key)
		if err != nil {
			return nil, err
		}
		return map[string]schemas.Image{"": {Key: key, Size: o.Size}}, nil
	}
	enough := errors.New("enough")
	wanted, found := map[string]bool{}, map[string]schemas.Image{}
	for _, s := range samples {
		wanted[s.member] = true
	}
	_, err := list.Scan(ctx, images, list.Options{Prefix: key, Extensions: imageio.Extensions, Concurrency: 1}, func(img schemas.Image) error {
		if img.Key == key && wanted[img.Member] {
			found[img.Member] = img
		}
		if len(found) == len(wanted) || img.Key != key {
			return enough
		}
		return nil
	}, func(schemas.Quarantine) error { return nil })
	if err != nil && !errors.Is(err, enough) {
		return nil, err
	}
	return found, nil
}
