package report

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/extract"
	"sela/stages/label"
	"sela/stages/loop"
	"sela/stages/solve"
	"sela/stages/truth"
)

// Options say what is shown, and where it is written.
type Options struct {
	// Run has complete labels and can fetch objects. Only its record and its
	// committed objects are read.
	Run *pipeline.Run
	// Spec says how many images are shown.
	Spec pipeline.Report
	// Images is where the images lie; nil shows none.
	Images *bucket.Bucket
	// Truth tells the classes of images; nil where none are known.
	Truth *truth.Source
	// To receives the files, under keys that begin with Prefix, in the place of
	// an earlier report's.
	To     *bucket.Bucket
	Prefix string
}

// Folder is the report's folder below that of its run.
const Folder = "report/"

// Summary is what was written.
type Summary struct {
	Page    string // key of index.html
	Files   int
	Bytes   int64 // of all files
	First   int64 // bytes loaded before anybody looks further: index.html and the first head's data
	Images  int   // drawn
	Missing int   // chosen, but not to be had: a placeholder stands for each
}

// Write writes the report of a run. An image that is gone, has changed or
// cannot be decoded is no error.
func Write(ctx context.Context, o Options) (*Summary, error) {
	r := &reporter{Options: o, written: map[string]bool{}}
	for _, step := range []func(context.Context) error{r.open, r.readHeads, r.choose, r.locate, r.draw, r.describe, r.page, r.sweep} {
		if err := step(ctx); err != nil {
			return nil, fmt.Errorf("report of run %s: %w", o.Run.Run, err)
		}
	}
	return &r.summary, nil
}

// reporter is a report in the making.
type reporter struct {
	Options
	shards    *extract.Shards
	solutions []solve.Solution
	labels    []pipeline.Output
	commits   []*pipeline.Commit
	rounds    []*loop.Round // of the run's loop, up to the run itself

	classes classes
	heads   []*head
	side    int // pixels of a tile

	written map[string]bool // by key
	summary Summary
}

// open reads what the run's stages have committed.
func (r *reporter) open(ctx context.Context) (err error) {
	if r.shards, err = extract.OpenShards(ctx, r.Run); err != nil {
		return err
	}
	if r.solutions, err = solve.Solutions(ctx, r.Run, r.shards); err != nil {
		return err
	}
	if r.labels, err = label.Files(ctx, r.Run, r.shards, r.solutions); err != nil {
		return err
	}
	if r.commits, err = r.Run.AllCommits(ctx); err != nil {
		return err
	}
	return r.openRounds(ctx)
}

// openRounds reads the rounds of the loop that the run belongs to. Later ones
// are left out, so that a report made again says the same.
func (r *reporter) openRounds(ctx context.Context) error {
	if r.Run.Loop == "" {
		return nil
	}
	spec, _, err := loop.ReadSpec(ctx, r.Run.Work, r.Run.Loop)
	if errors.Is(err, bucket.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	rounds, err := loop.ReadRounds(ctx, r.Run.Work, spec)
	if err != nil {
		return err
	}
	for i, round := range rounds {
		if round.Run == r.Run.Run {
			r.rounds = rounds[:i+1]
		}
	}
	return nil
}

// round is the record of the run as a round of a loop; nil where it is none, or
// not recorded yet.
func (r *reporter) round() *loop.Round {
	if len(r.rounds) == 0 {
		return nil
	}
	return r.rounds[len(r.rounds)-1]
}

// put writes a file of the report.
func (r *reporter) put(ctx context.Context, name string, data []byte) error {
	key := r.Prefix + name
	if err := r.To.Put(ctx, key, data); err != nil {
		return err
	}
	r.written[key] = true
	r.summary.Files++
	r.summary.Bytes += int64(len(data))
	return nil
}

// page writes index.html, last, since it names the others.
func (r *reporter) page(ctx context.Context) error {
	var b bytes.Buffer
	p, err := r.model(ctx)
	if err != nil {
		return err
	}
	if err := pageTemplate.Execute(&b, p); err != nil {
		return err
	}
	r.summary.Page = r.Prefix + "index.html"
	r.summary.First += int64(b.Len())
	return r.put(ctx, "index.html", b.Bytes())
}

// sweep removes what an earlier report left that this one has not written.
func (r *reporter) sweep(ctx context.Context) error {
	var old []string
	err := r.To.List(ctx, r.Prefix+"data/", func(o bucket.Object) error {
		if !r.written[o.Key] && ours(strings.TrimPrefix(o.Key, r.Prefix)) {
			old = append(old, o.Key)
		}
		return nil
	})
	for _, key := range old {
		err = cmp.Or(err, r.To.Delete(ctx, key))
	}
	return err
}
