package export

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/label/published"
)

// Options say what to export, how and where to.
type Options struct {
	Labels *bucket.Bucket // that the run is published in
	Run    string
	Head   int
	Format string // one of Formats
	// MinProb leaves out images whose label has a smaller probability; 0 leaves
	// out none.
	MinProb float64
	// Images stands before each key in a URL of an image (label-studio); empty is
	// the URL of the bucket that the run's images were in.
	Images string
	Out    *bucket.Bucket
	// Dir is a folder of the caller's for at most Bytes bytes of scratch.
	Dir   string
	Bytes int64
	Cache *bucket.Cache // holds one file of the label table at a time
}

// Report is what an export wrote.
type Report struct {
	Run     string `json:"run"`
	Head    int    `json:"head"`
	Format  string `json:"format"`
	Images  int64  `json:"images"`
	LeftOut int64  `json:"left_out"` // below MinProb
	Out     string `json:"out"`      // URL
	Objects int    `json:"objects"`
	Bytes   int64  `json:"bytes"`
}

// format writes labels in one form. Rows come in the order of the table, which
// is that of their keys; a row is reused when add returns.
type format interface {
	add(ctx context.Context, l *schemas.Label) error
	end(ctx context.Context) error
}

// source is the head that is exported.
type source struct {
	Options
	run      *published.Run
	record   pipeline.Record
	clusters int
}

var formats = map[string]func(*source, *output) (format, error){
	"imagefolder": newImageFolder, "webdataset": newWebDataset, "label-studio": newLabelStudio, "torch": newTorchIndex,
}

// Formats returns the names of the formats.
func Formats() []string { return slices.Sorted(maps.Keys(formats)) }

// Check refuses options that contradict each other or the format ([pipeline.Usage]).
func (o *Options) Check() error {
	switch {
	case formats[o.Format] == nil:
		return pipeline.BadUsage(fmt.Errorf("--format %q: it is one of %s", o.Format, strings.Join(Formats(), ", ")))
	case o.Head < 0:
		return pipeline.BadUsage(fmt.Errorf("--head %d: heads are numbered from 0", o.Head))
	case !(o.MinProb >= 0 && o.MinProb <= 1):
		return pipeline.BadUsage(fmt.Errorf("--min-prob %g: it is a probability from 0 to 1", o.MinProb))
	case o.Images != "" && o.Format != "label-studio":
		return pipeline.BadUsage(fmt.Errorf("--images goes with --format label-studio"))
	}
	return nil
}

// Export writes the labels of a head of a published run. An image that the
// format cannot name is an error of class Data that quotes it, and so is an
// export of no image; a place that holds another export is one of class Config.
func Export(ctx context.Context, o Options) (*Report, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	report := &Report{Run: o.Run, Head: o.Head, Format: o.Format, Out: o.Out.URL()}
	if err := export(ctx, o, report); err != nil {
		return nil, fmt.Errorf("export head %d of run %s as %s: %w", o.Head, o.Run, o.Format, err)
	}
	return report, nil
}

func export(ctx context.Context, o Options, report *Report) error {
	s, err := open(ctx, o)
	if err != nil {
		return err
	}
	out := &output{to: o.Out, dir: o.Dir, limit: o.Bytes, claim: s.claim}
	defer out.discard()
	write, err := formats[o.Format](s, out)
	if err != nil {
		return err
	}
	rows := 0
	for _, f := range s.run.Files(o.Head) {
		err := s.read(ctx, f, func(l *schemas.Label) error {
			if rows++; rows%4096 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			if o.MinProb > 0 {
				if l.Prob == nil {
					return pipeline.BadUsage(fmt.Errorf("its labels (solve.method: %s) have no probabilities: leave out --min-prob", s.record.Job.Solve.Method))
				}
				if *l.Prob < float32(o.MinProb) {
					report.LeftOut++
					return nil
				}
			}
			report.Images++
			return write.add(ctx, l)
		})
		if err != nil {
			return err
		}
	}
	if report.Images == 0 {
		return pipeline.BadData(fmt.Errorf("none of its %d labels is left: lower --min-prob", report.LeftOut))
	}
	if err := write.end(ctx); err != nil {
		return err
	}
	report.Objects, report.Bytes = out.objects, out.bytes
	return create(ctx, o.Out, "_SUCCESS", nil)
}

// open finds the run and the head.
func open(ctx context.Context, o Options) (*source, error) {
	run, err := published.Open(ctx, o.Labels, o.Run)
	if err != nil {
		return nil, err
	}
	raw, err := o.Labels.Get(ctx, "runs/"+o.Run+"/run.json")
	if err != nil {
		return nil, err
	}
	record, err := pipeline.ParseRecord(raw, o.Run)
	if err != nil {
		return nil, err
	}
	s := &source{Options: o, run: run, record: record}
	files := run.Files(o.Head)
	if len(files) == 0 {
		return nil, pipeline.BadUsage(fmt.Errorf("--head %d: the run has %d heads, numbered from 0", o.Head, s.heads()))
	}
	err = s.fetch(ctx, files[0], func(local string) error {
		_, _, _, kv, err := schemas.Inspect(local)
		if err == nil {
			s.clusters, err = strconv.Atoi(kv["sela.clusters"])
		}
		return err
	})
	if err == nil && s.clusters < 1 {
		err = fmt.Errorf("%w: %s has %d clusters", schemas.ErrCorrupt, files[0].Name, s.clusters)
	}
	return s, err
}

func (s *source) heads() (n int) {
	for len(s.run.Files(n)) > 0 {
		n++
	}
	return n
}

// claim makes the place of the export this export's own.
func (s *source) claim(ctx context.Context) error {
	raw, err := json.MarshalIndent(struct {
		Run     string  `json:"run"`
		Digest  string  `json:"manifest_digest"`
		Head    int     `json:"head"`
		Format  string  `json:"format"`
		MinProb float64 `json:"min_prob"`
		Images  string  `json:"images,omitempty"`
	}{s.Run, s.run.Manifest.Digest, s.Head, s.Format, s.MinProb, s.Options.Images}, "", "  ")
	if err != nil {
		return err
	}
	return create(ctx, s.Out, "_export.json", append(raw, '\n'))
}

// create stores data under a key that must be free or hold the same already.
func create(ctx context.Context, b *bucket.Bucket, key string, data []byte) error {
	err := b.Create(ctx, key, data)
	if !errors.Is(err, bucket.ErrExists) {
		return err
	}
	there, err := b.Get(ctx, key)
	if err == nil && string(there) != string(data) {
		err = occupied(b, key)
	}
	return err
}

func occupied(b *bucket.Bucket, key string) error {
	return pipeline.BadConfig(fmt.Errorf("%s/%s exists with other contents, and an export needs a place of its own: give another --out, or remove what is there", b.URL(), key))
}

// fetch gives use a local copy of a label file, whose digest was checked.
func (s *source) fetch(ctx context.Context, f pipeline.Output, use func(local string) error) error {
	local, release, err := s.Cache.Fetch(ctx, s.Labels, "runs/"+s.Run+"/"+f.Path, f.SHA256, f.Bytes)
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	defer release()
	return use(local)
}

// read calls fn for each row of a label file.
func (s *source) read(ctx context.Context, f pipeline.Output, fn func(*schemas.Label) error) error {
	return s.fetch(ctx, f, func(local string) error { return schemas.ReadLabels(local, fn) })
}
