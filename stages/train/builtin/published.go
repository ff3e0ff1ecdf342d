package builtin

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/publish"
)

// Published is a published run whose manifest and record were read and checked.
type Published struct {
	Run      string
	Manifest *pipeline.Manifest
	Record   pipeline.Record // names the job, and so the images and the preprocessing

	labels *bucket.Bucket
}

// OpenPublished reads the manifest and the record of a run in a labels bucket,
// of the newest one if run is empty. A run that is not there, not complete or
// not what its manifest says is an error of class Data.
func OpenPublished(ctx context.Context, labels *bucket.Bucket, run string) (*Published, error) {
	p := &Published{Run: run, labels: labels}
	var latest *publish.Latest
	if run == "" {
		var err error
		if latest, err = publish.ReadLatest(ctx, labels); err != nil {
			return nil, err
		}
		if latest == nil {
			return nil, pipeline.BadData(fmt.Errorf("nothing is published in %s: it has no LATEST; is it the labels' bucket?", labels.URL()))
		}
		p.Run = latest.Run
	}
	if _, err := labels.Stat(ctx, p.key("_SUCCESS")); err != nil {
		return nil, fmt.Errorf("run %s is not published in %s, or not completely: %w", p.Run, labels.URL(), err)
	}
	raw, err := labels.Get(ctx, p.key("_manifest.json"))
	if err != nil {
		return nil, fmt.Errorf("labels of run %s: %w", p.Run, err)
	}
	if sum := sha256.Sum256(raw); latest != nil && latest.SHA256 != hex.EncodeToString(sum[:]) {
		return nil, p.wrong("_manifest.json has sha256 %x…, LATEST says %.12s", sum[:6], latest.SHA256)
	}
	if p.Manifest, err = pipeline.ParseManifest(raw); err != nil {
		return nil, err
	}
	if raw, err = labels.Get(ctx, p.key("run.json")); err != nil {
		return nil, fmt.Errorf("labels of run %s: %w", p.Run, err)
	}
	if p.Record, err = pipeline.ParseRecord(raw, p.Run); err != nil {
		return nil, err
	}
	if p.Manifest.Run != p.Run {
		return nil, p.wrong("_manifest.json is that of run %s", p.Manifest.Run)
	}
	return p, nil
}

func (p *Published) key(name string) string { return "runs/" + p.Run + "/" + name }

// wrong is an error of class Data about the published folder.
func (p *Published) wrong(format string, args ...any) error {
	return pipeline.BadData(fmt.Errorf("labels of run %s in %s: %w: run `sela verify`, or publish the run again", p.Run, p.labels.URL(), fmt.Errorf(format, args...)))
}

// Labels reads the label tables and finds their images in the listing. The
// cache holds a file at a time. Files that are not those of the manifest, tables
// that do not label the same images in every head, and images that the listing
// lacks or the tables have twice are errors of class Data.
func (p *Published) Labels(ctx context.Context, cache *bucket.Cache, listing Listing) (*Labels, error) {
	heads, err := p.heads()
	if err != nil {
		return nil, err
	}
	l := &Labels{Run: p.Run, Digest: p.Manifest.Digest, Heads: make([]int, len(heads)), checked: true}
	var rows int64
	for _, f := range heads[0] {
		rows += f.Rows
	}
	if rows == 0 {
		return nil, p.wrong("there are no rows in its label tables")
	}
	for h, files := range heads {
		r := &tableReader{Labels: l, head: h, last: -1}
		for _, f := range files {
			if err := p.read(ctx, cache, f, r); err != nil {
				return nil, err
			}
		}
		if r.at != len(l.rows) {
			return nil, p.wrong("head %d labels %d images, head 0 labels %d", h, r.at, len(l.rows))
		}
	}
	if err := l.join(ctx, listing); err != nil {
		return nil, fmt.Errorf("labels of run %s: %w", p.Run, err)
	}
	return l, nil
}

var labelPart = regexp.MustCompile(`^labels/head=(0|[1-9][0-9]{0,5})/part-[0-9]+\.parquet$`)

// heads returns the label files of each head, in row order.
func (p *Published) heads() ([][]pipeline.Output, error) {
	byHead := map[int][]pipeline.Output{}
	for _, f := range p.Manifest.Files {
		if m := labelPart.FindStringSubmatch(f.Name); m != nil {
			h, _ := strconv.Atoi(m[1]) // at most six digits
			byHead[h] = append(byHead[h], f)
		}
	}
	want := p.Record.Job.Model.Heads
	if want == 0 {
		want = len(byHead)
	}
	heads := make([][]pipeline.Output, want)
	for h := range heads {
		if heads[h] = byHead[h]; heads[h] == nil {
			return nil, p.wrong("head %d of %d has no label table", h, want)
		}
		slices.SortFunc(heads[h], func(a, b pipeline.Output) int {
			if d := len(a.Name) - len(b.Name); d != 0 {
				return d
			}
			return strings.Compare(a.Name, b.Name)
		})
	}
	if len(byHead) != want || want == 0 {
		return nil, p.wrong("there are label tables of %d heads, run.json says %d", len(byHead), want)
	}
	return heads, nil
}

// read reads one file, whose digest is checked before anything parses it.
func (p *Published) read(ctx context.Context, cache *bucket.Cache, f pipeline.Output, r *tableReader) error {
	local, release, err := cache.Fetch(ctx, p.labels, p.key(f.Path), f.SHA256, f.Bytes)
	if err != nil {
		return fmt.Errorf("labels of run %s: %s: %w", p.Run, f.Name, err)
	}
	defer release()
	kind, _, rows, kv, err := schemas.Inspect(local)
	if err != nil {
		return p.wrong("%s: %w", f.Name, err)
	}
	clusters, err := strconv.Atoi(kv["sela.clusters"])
	switch {
	case kind != schemas.KindLabels || kv["sela.head"] != strconv.Itoa(r.head):
		return p.wrong("%s is a table of %s of head %q", f.Name, kind, kv["sela.head"])
	case err != nil || clusters < 1 || r.Heads[r.head] != 0 && r.Heads[r.head] != clusters:
		return p.wrong("%s says that its head has %q clusters; head %d has %d", f.Name, kv["sela.clusters"], r.head, r.Heads[r.head])
	case rows != f.Rows:
		return p.wrong("%s holds %d rows, the manifest says %d", f.Name, rows, f.Rows)
	}
	r.Heads[r.head] = clusters
	before := r.at
	err = schemas.ReadLabels(local, func(label *schemas.Label) error {
		if r.at%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := r.row(label); err != nil {
			return p.wrong("%s: row %d: %w", f.Name, label.Row, err)
		}
		r.at++
		return nil
	})
	if err == nil && int64(r.at-before) != f.Rows {
		err = p.wrong("%s holds %d rows, the manifest says %d", f.Name, r.at-before, f.Rows)
	}
	return err
}

// tableReader reads the table of one head. Head 0 says which images there are,
// the others must have the same.
type tableReader struct {
	*Labels
	head    int
	at      int // rows read
	last    int64
	lastKey string
}

func (r *tableReader) row(label *schemas.Label) error {
	heads := len(r.Heads)
	switch {
	case label.Row <= r.last:
		return fmt.Errorf("it follows row %d: an image has two rows, or they are out of order", r.last)
	case label.Label < 0 || int(label.Label) >= r.Heads[r.head]:
		return fmt.Errorf("its label is %d of %d clusters", label.Label, r.Heads[r.head])
	}
	r.last = label.Row
	digest, err := hex.DecodeString(label.SHA256)
	if err != nil || len(digest) != sha256.Size {
		return fmt.Errorf("its sha256 is %.70q", label.SHA256)
	}
	sum := binary.BigEndian.Uint64(digest)
	if r.head == 0 {
		switch {
		case label.Key < r.lastKey:
			return fmt.Errorf("its key is %q, the one before has %q: rows must be in the order of their keys", label.Key, r.lastKey)
		case label.Key == "":
			return fmt.Errorf("it has no key")
		case label.Key == r.lastKey && label.Member == "":
			return fmt.Errorf("image %q has two rows", label.Key)
		}
		r.lastKey = label.Key
		r.add(label.Row, label.Key, label.Member, sum)
		r.labels = append(r.labels, make([]int32, heads)...)
	}
	if r.at >= len(r.rows) || r.rows[r.at].number != label.Row || r.rows[r.at].sum != sum ||
		!r.hasKey(r.at, label.Key) || !r.isMember(r.at, label.Member) {
		return fmt.Errorf("head 0 has another image there than %q %q", label.Key, label.Member)
	}
	r.labels[r.at*heads+r.head] = label.Label
	return nil
}
