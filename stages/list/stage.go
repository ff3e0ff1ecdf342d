package list

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/internal/quarantine"
)

// Name is the stage's name.
const Name = "list"

// partRows is the number of rows of an images file: a multiple of the solver's
// chunk, and few enough for one file to be read into memory at once.
const partRows = 1 << 18

// Stage takes the snapshot of the images that everything after it is a function
// of. It is one task: rows are numbered densely over all keys.
type Stage struct {
	Images *bucket.Bucket
}

// Result is what the list commit records.
type Result struct {
	Digest   string `json:"digest"`   // see [Summary]
	Snapshot string `json:"snapshot"` // see [Summary]
	Images   int64  `json:"images"`
	Rejected int64  `json:"rejected"` // quarantined
	Skipped  int64  `json:"skipped"`  // no images, or not chosen
	Bytes    int64  `json:"bytes"`    // of the images
}

// Name implements [pipeline.Stage].
func (s *Stage) Name() string { return Name }

// Plan implements [pipeline.Stage].
func (s *Stage) Plan(context.Context, *pipeline.Run) ([]pipeline.Task, error) {
	return []pipeline.Task{task()}, nil
}

// task is the stage's only one. Its scratch is one images file at a time: names
// of ordinary length, and tags, which hardly compress.
func task() pipeline.Task { return pipeline.Task{ID: "snapshot", Scratch: partRows * 128} }

// Do implements [pipeline.Stage].
func (s *Stage) Do(ctx context.Context, _ pipeline.Task, a *pipeline.Attempt) error {
	spec := a.Run.Job.Images
	images := &imageParts{ctx: ctx, attempt: a}
	rejected := quarantine.New(a, Name)
	defer images.abort()
	defer rejected.Abort()
	summary, err := Scan(ctx, s.Images, options(spec), images.add, rejected.Add)
	if err != nil {
		return err
	}
	if err := images.finish(); err != nil {
		return err
	}
	if err := rejected.Finish(ctx); err != nil {
		return err
	}
	if summary.Rejected > 0 {
		a.Run.Notice(Name, "images were quarantined", "images", summary.Rejected, "why", rejected.Summary())
	}
	if err := quarantine.Check(summary.Rejected, summary.Images+summary.Rejected, spec.MaxRejected); err != nil {
		return fmt.Errorf("%w (%s)", err, rejected.Summary())
	}
	a.Count("images", summary.Images)
	a.Count("rejected", summary.Rejected)
	return a.Result(Result{Digest: summary.Digest, Snapshot: summary.Snapshot, Images: summary.Images, Rejected: summary.Rejected, Skipped: summary.Skipped, Bytes: summary.Bytes})
}

// imageParts writes the images table in files of partRows rows.
type imageParts struct {
	ctx     context.Context
	attempt *pipeline.Attempt
	w       *schemas.ImagesWriter
	path    string
	name    string
	rows    int64
	told    time.Time
	since   int64
}

func (p *imageParts) add(img schemas.Image) error {
	if p.w == nil {
		p.name = PartName(img.Row / partRows)
		p.path = filepath.Join(p.attempt.Dir, filepath.Base(p.name))
		w, err := schemas.CreateImages(p.path, schemas.ImagesMeta{FirstRow: img.Row})
		if err != nil {
			return err
		}
		p.w = w
	}
	if err := p.w.Write(img); err != nil {
		return err
	}
	p.rows++
	p.since++
	if p.since%1024 == 0 && time.Since(p.told) > 200*time.Millisecond {
		p.tell()
	}
	if p.rows%partRows == 0 {
		return p.finish()
	}
	return nil
}

// tell reports the images that were added since it was last called.
func (p *imageParts) tell() {
	p.attempt.Progress(p.since)
	p.since, p.told = 0, time.Now()
}

// finish uploads the file that was begun, if any, and makes room for the next.
func (p *imageParts) finish() error {
	if p.w == nil {
		return nil
	}
	p.tell()
	stats, err := p.w.Commit()
	p.w = nil
	if err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	if err := p.attempt.Upload(p.ctx, p.path, p.name, stats); err != nil {
		return err
	}
	return os.Remove(p.path)
}

func (p *imageParts) abort() {
	if p.w != nil {
		_ = p.w.Abort() // its folder is removed with the attempt
	}
}

// PartName is the logical name of the i-th file of the images table.
func PartName(i int64) string { return fmt.Sprintf("images/part-%05d.parquet", i) }

// Listing is a run's committed images table.
type Listing struct {
	Result
	run   *pipeline.Run
	parts []pipeline.Output
}

// Open reads the list stage's commit of a run.
func Open(ctx context.Context, run *pipeline.Run) (*Listing, error) {
	commits, err := run.Commits(ctx, Name, []pipeline.Task{task()})
	if err != nil {
		return nil, err
	}
	l := &Listing{run: run}
	if err := json.Unmarshal(commits[0].Result, &l.Result); err != nil {
		return nil, pipeline.BadData(fmt.Errorf("commit of stage list is damaged: %w", err))
	}
	var rows int64
	for i, o := range commits[0].Outputs {
		// Where a row lies follows from its number: every file but the last is full.
		if o.Name == PartName(int64(i)) && o.Rows == min(partRows, l.Images-rows) {
			l.parts = append(l.parts, o)
			rows += o.Rows
		}
	}
	if rows != l.Images {
		return nil, pipeline.BadData(fmt.Errorf("commit of stage list counts %d images, its files hold %d rows: damaged", l.Images, rows))
	}
	return l, nil
}

// Files returns the files of the images table, in row order. The caller must not
// change them.
func (l *Listing) Files() []pipeline.Output { return l.parts }

// Read calls fn for the images with row numbers in [from, to), in order.
func (l *Listing) Read(ctx context.Context, from, to int64, fn func(schemas.Image) error) error {
	to = min(to, l.Images)
	for from < to {
		part := from / partRows
		end := min(to, (part+1)*partRows)
		if err := l.readPart(ctx, l.parts[part], from, end, fn); err != nil {
			return err
		}
		from = end
	}
	return nil
}

func (l *Listing) readPart(ctx context.Context, o pipeline.Output, from, to int64, fn func(schemas.Image) error) error {
	local, release, err := l.run.Fetch(ctx, o)
	if err != nil {
		return err
	}
	defer release()
	if err := schemas.ReadImages(local, from, to, fn); err != nil {
		return fmt.Errorf("%s: %w", o.Name, err)
	}
	return ctx.Err()
}
