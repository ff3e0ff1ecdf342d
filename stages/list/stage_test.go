package list

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/blob/memblob"
	"gocloud.dev/gcerrors"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
)

// many lists objects that exist only in its listing, as many as one likes.
type many struct {
	driver.Bucket
	n    int
	page func() // called before each page
}

func (m *many) key(i int) string { return fmt.Sprintf("img/%07d.jpg", i) }

func (m *many) ListPaged(_ context.Context, opts *driver.ListOptions) (*driver.ListPage, error) {
	m.page()
	from, _ := strconv.Atoi(string(opts.PageToken))
	page := &driver.ListPage{}
	for i := from; i < min(from+1000, m.n); i++ {
		page.Objects = append(page.Objects, &driver.ListObject{Key: m.key(i), Size: int64(i%9 + 1), MD5: []byte{byte(i), byte(i >> 8)}})
	}
	if from+1000 < m.n {
		page.NextPageToken = []byte(strconv.Itoa(from + 1000))
	}
	return page, nil
}

func (m *many) As(any) bool                        { return false }
func (m *many) ErrorAs(error, any) bool            { return false }
func (m *many) ErrorCode(error) gcerrors.ErrorCode { return gcerrors.Unknown }
func (m *many) Close() error                       { return nil }

func open(t *testing.T, b *blob.Bucket) *bucket.Bucket {
	t.Helper()
	opened := bucket.New(b, "mem://bucket", bucket.Options{})
	t.Cleanup(func() { opened.Close() })
	return opened
}

// put makes a bucket of objects, each with its key as content unless it ends in
// "empty.jpg".
func put(t *testing.T, keys ...string) *bucket.Bucket {
	t.Helper()
	b := open(t, memblob.OpenBucket(nil))
	for _, key := range keys {
		data := []byte(key)
		if strings.HasSuffix(key, "empty.jpg") {
			data = nil
		}
		if err := b.Put(t.Context(), key, data); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// newRun opens a run with a work bucket in memory.
func newRun(t *testing.T, change func(*pipeline.Images)) *pipeline.Run {
	t.Helper()
	job := pipeline.DefaultJob()
	job.Local = pipeline.Local{Dir: t.TempDir(), Bytes: 128 << 20}
	change(&job.Images)
	run, err := pipeline.Open(t.Context(), open(t, memblob.OpenBucket(nil)), pipeline.Options{Job: job, RunID: "run-1"})
	if err != nil {
		t.Fatal(err)
	}
	return run
}

func perform(t *testing.T, run *pipeline.Run, images *bucket.Bucket) error {
	t.Helper()
	_, err := (&pipeline.Runner{Pause: time.Millisecond}).Run(t.Context(), run, &Stage{Images: images})
	return err
}

// commitOf reads the stage's commit.
func commitOf(t *testing.T, run *pipeline.Run) *pipeline.Commit {
	t.Helper()
	c, err := run.Commit(t.Context(), Name, task())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// contents are the names, rows and digests of a commit's outputs.
func contents(c *pipeline.Commit) (all []string) {
	for _, o := range c.Outputs {
		all = append(all, fmt.Sprint(o.Name, " ", o.Rows, " ", o.SHA256))
	}
	return all
}

func nothing(*pipeline.Images) {}

func TestImagesTable(t *testing.T) {
	const n = partRows + 5
	run := newRun(t, nothing)
	scratch, most := filepath.Join(run.Job.Local.Dir, "attempts", "*", "*", "*"), 0
	names := &many{n: n, page: func() {
		files, _ := filepath.Glob(scratch)
		most = max(most, len(files))
	}}
	images := open(t, blob.NewBucket(names))
	if err := perform(t, run, images); err != nil {
		t.Fatal(err)
	}
	if most != 1 {
		t.Errorf("up to %d scratch files at a time, want one", most)
	}

	listing, err := Open(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	var bytes int64
	for i := range int64(n) {
		bytes += i%9 + 1
	}
	if listing.Images != n || listing.Bytes != bytes || listing.Rejected != 0 || listing.Skipped != 0 {
		t.Errorf("listing %+v, want %d images of %d bytes", listing.Result, n, bytes)
	}
	files := listing.Files()
	if len(files) != 2 || files[0].Name != "images/part-00000.parquet" || files[0].Rows != partRows || files[1].Name != "images/part-00001.parquet" || files[1].Rows != 5 {
		t.Errorf("files %+v", files)
	}

	for _, r := range [][2]int64{{0, 3}, {partRows - 2, partRows + 2}, {partRows, partRows + 1}, {partRows + 3, n + 100}, {n, n + 1}, {5, 5}} {
		var got []schemas.Image
		err := listing.Read(t.Context(), r[0], r[1], func(img schemas.Image) error {
			got = append(got, img)
			return nil
		})
		want := max(0, min(r[1], n)-r[0])
		if err != nil || int64(len(got)) != want {
			t.Fatalf("rows %v: %d of %d, %v", r, len(got), want, err)
		}
		for i, img := range got {
			row := r[0] + int64(i)
			if img.Row != row || img.Key != names.key(int(row)) || img.Size != row%9+1 || img.ETag != fmt.Sprintf(`"%02x%02x"`, byte(row), byte(row>>8)) {
				t.Fatalf("row %d is %+v", row, img)
			}
		}
	}
	enough := errors.New("enough")
	calls := 0
	err = listing.Read(t.Context(), 0, n, func(schemas.Image) error { calls++; return enough })
	if !errors.Is(err, enough) || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := listing.Read(cancelled, 0, n, func(schemas.Image) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}

	// A second attempt makes the same bytes under other names.
	first := commitOf(t, run)
	if err := run.Work.Delete(t.Context(), run.Path("commits/list/snapshot.json")); err != nil {
		t.Fatal(err)
	}
	if err := perform(t, run, images); err != nil {
		t.Fatal(err)
	}
	second := commitOf(t, run)
	if !slices.Equal(contents(second), contents(first)) || string(second.Result) != string(first.Result) || second.Outputs[0].Path == first.Outputs[0].Path {
		t.Errorf("second attempt\n%+v, first\n%+v", second, first)
	}
}

func TestQuarantineAndThreshold(t *testing.T) {
	images := put(t, "a.jpg", "b/empty.jpg", "c.png", "d.tar.gz", "e.txt", "f.jpg", "g.jpg")
	run := newRun(t, func(i *pipeline.Images) { i.MaxRejected = 2.0 / 6 })
	if err := perform(t, run, images); err != nil {
		t.Fatal(err)
	}
	listing, err := Open(t.Context(), run)
	if err != nil || listing.Images != 4 || listing.Rejected != 2 || listing.Skipped != 1 {
		t.Fatalf("%+v, %v", listing, err)
	}
	count, err := Count(t.Context(), images, run.Job.Images)
	if err != nil || count != (Summary{Images: 4, Rejected: 2, Skipped: 1, Bytes: listing.Bytes, Digest: listing.Digest, Snapshot: listing.Snapshot}) {
		t.Errorf("a count says %+v, %v; the listing %+v", count, err, listing.Result)
	}
	c := commitOf(t, run)
	last := c.Outputs[len(c.Outputs)-1]
	if len(c.Outputs) != 2 || last.Name != "quarantine/part-list.parquet" || c.Counts["images"] != 4 || c.Counts["rejected"] != 2 {
		t.Fatalf("commit %+v", c)
	}
	path, release, err := run.Fetch(t.Context(), last)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	var rows []string
	err = schemas.ReadQuarantine(path, func(q schemas.Quarantine) error {
		rows = append(rows, fmt.Sprintf("%t %s %s %s", q.Row == nil, q.Key, q.Stage, q.Class))
		return nil
	})
	if want := []string{"true b/empty.jpg list empty", "true d.tar.gz list unsupported"}; err != nil || !slices.Equal(rows, want) {
		t.Errorf("quarantine %q, %v", rows, err)
	}

	run = newRun(t, func(i *pipeline.Images) { i.MaxRejected = 0.33 })
	if err := perform(t, run, images); pipeline.ClassOf(err) != pipeline.Data || !strings.Contains(err.Error(), "images.max_rejected") {
		t.Errorf("over the threshold: %v", err)
	}
	if _, err := Open(t.Context(), run); pipeline.ClassOf(err) != pipeline.Transient || !strings.Contains(err.Error(), "sela list") {
		t.Errorf("open without a commit: %v", err)
	}
}

func TestLimitAndSample(t *testing.T) {
	var keys []string
	for i := range 200 {
		keys = append(keys, fmt.Sprintf("%03d.jpg", i))
	}
	images := put(t, keys...)
	listed := func(change func(*pipeline.Images)) (got []string) {
		run := newRun(t, change)
		if err := perform(t, run, images); err != nil {
			t.Fatal(err)
		}
		listing, err := Open(t.Context(), run)
		if err != nil {
			t.Fatal(err)
		}
		if err := listing.Read(t.Context(), 0, 1000, func(img schemas.Image) error {
			got = append(got, img.Key)
			return nil
		}); err != nil || int64(len(got)) != listing.Images {
			t.Fatalf("%d of %d, %v", len(got), listing.Images, err)
		}
		return got
	}
	sample := listed(func(i *pipeline.Images) { i.Sample = 0.3 })
	if len(sample) < 30 || len(sample) > 90 {
		t.Errorf("a sample of 0.3 of 200 has %d images", len(sample))
	}
	if got := listed(func(i *pipeline.Images) { i.Sample, i.Limit = 0.3, 12 }); !slices.Equal(got, sample[:12]) {
		t.Errorf("limit 12 of the sample: %q, want %q", got, sample[:12])
	}
	if got := listed(func(i *pipeline.Images) { i.Prefix, i.Glob = "1", "*5.jpg" }); len(got) != 10 || got[0] != "105.jpg" {
		t.Errorf("prefix and glob: %q", got)
	}
	first, err := First(t.Context(), images, pipeline.Images{Sample: 0.3}, 5)
	if err != nil || len(first) != 5 || first[4].Key != sample[4] || first[4].Row != 4 {
		t.Errorf("first 5: %+v, %v", first, err)
	}
	if all, err := First(t.Context(), images, pipeline.Images{}, 1000); err != nil || len(all) != 200 {
		t.Errorf("first 1000: %d, %v", len(all), err)
	}
}

func TestNothingToList(t *testing.T) {
	for name, keys := range map[string][]string{"empty": nil, "no images": {"a.txt", "b/readme"}, "only rejected": {"empty.jpg"}} {
		run := newRun(t, func(i *pipeline.Images) { i.MaxRejected = 1 })
		err := perform(t, run, put(t, keys...))
		if pipeline.ClassOf(err) != pipeline.Data || !strings.Contains(err.Error(), "no images") {
			t.Errorf("%s: %v", name, err)
		}
		if left, _ := filepath.Glob(filepath.Join(run.Job.Local.Dir, "attempts", "*", "*")); len(left) > 0 {
			t.Errorf("%s: %q are left", name, left)
		}
	}
	missing := open(t, memblob.OpenBucket(nil))
	if err := missing.Close(); err != nil {
		t.Fatal(err)
	}
	if err := perform(t, newRun(t, nothing), missing); err == nil {
		t.Error("a closed bucket was listed")
	}
}

func TestDamagedListing(t *testing.T) {
	images := put(t, "a.jpg", "b.jpg", "c.jpg")
	for name, change := range map[string][2]string{
		"result":     {`"images": 3`, `"images": "3"`},
		"more rows":  {`"images": 3,`, `"images": 4,`},
		"other part": {`"images/part-00000.parquet"`, `"images/part-00001.parquet"`},
		"json":       {`{`, `[`},
	} {
		run := newRun(t, nothing)
		if err := perform(t, run, images); err != nil {
			t.Fatal(err)
		}
		key := run.Path("commits/list/snapshot.json")
		raw, err := run.Work.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		damaged := strings.Replace(string(raw), change[0], change[1], -1)
		if damaged == string(raw) {
			t.Fatalf("%s: %s has no %s", name, raw, change[0])
		}
		if err := run.Work.Put(t.Context(), key, []byte(damaged)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), run); pipeline.ClassOf(err) != pipeline.Data {
			t.Errorf("%s: %v", name, err)
		}
	}

	run := newRun(t, nothing)
	if err := perform(t, run, images); err != nil {
		t.Fatal(err)
	}
	listing, err := Open(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	key := run.Path(listing.Files()[0].Path)
	raw, err := run.Work.Get(t.Context(), key)
	if err == nil {
		raw[len(raw)/2] ^= 1
		err = run.Work.Put(t.Context(), key, raw)
	}
	if err != nil {
		t.Fatal(err)
	}
	err = listing.Read(t.Context(), 0, 3, func(schemas.Image) error { return nil })
	if pipeline.ClassOf(err) != pipeline.Data || !strings.Contains(err.Error(), "images/part-00000.parquet") {
		t.Errorf("a flipped bit: %v", err)
	}
}
