package extract_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"sela/pipeline"
	"sela/schemas"
	"sela/stages/extract"
	"sela/stages/internal/runtest"
	"sela/stages/list"
)

// after extracts a run that may take over rows of another, and returns how many
// it took and what it noticed.
func after(t testing.TB, r *runtest.Run, id, earlier string, parallel int) (run *pipeline.Run, took int64, notices string) {
	t.Helper()
	ctx := context.Background()
	run, err := pipeline.Open(ctx, r.Work, pipeline.Options{Job: r.Job, Provenance: r.Provenance, RunID: id, Observer: pipeline.ObserverFunc(func(e pipeline.Event) {
		if e.Kind == pipeline.Notice {
			notices += e.Task + fmt.Sprintln(e.Attrs)
		}
	})})
	if err != nil {
		t.Fatal(err)
	}
	r.Through(t, run, list.Name)
	stage := r.Stages()[1].(*extract.Stage)
	defer stage.Close()
	stage.Earlier = func(ctx context.Context) (*pipeline.Run, error) { return run.Other(ctx, earlier) }
	runner := runtest.Runner()
	runner.Parallel = parallel
	if _, err := runner.Run(ctx, run, stage); err != nil {
		t.Fatal(err)
	}
	return run, takenOver(t, run), notices
}

func takenOver(t testing.TB, run *pipeline.Run) (n int64) {
	t.Helper()
	commits, err := run.AllCommits(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commits {
		n += c.Counts["taken_over"]
	}
	return n
}

// edit adds, removes, replaces and mends files.
func edit(t testing.TB, r *runtest.Run, files map[string][]byte, random *rand.Rand, share float64) {
	t.Helper()
	folder := filepath.Join(r.Dir, "mine")
	for _, key := range slices.Sorted(maps.Keys(files)) {
		if random.Float64() >= share {
			continue
		}
		path := filepath.Join(folder, filepath.FromSlash(key))
		switch random.IntN(4) {
		case 0:
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		case 1:
			put(t, folder, map[string][]byte{key + ".new.png": pngOf(t, random.Uint64N(97))})
		case 2:
			if strings.HasSuffix(key, ".tar") {
				put(t, folder, map[string][]byte{key: tarOf(t, member{"000.jpg", pngOf(t, 3)}, member{"new.png", pngOf(t, 4)})})
				continue
			}
			fallthrough
		default:
			put(t, folder, map[string][]byte{key: append(slices.Clone(pngOf(t, random.Uint64N(97))), 0)})
		}
	}
}

// unchanged counts the images of a run that have a row in an earlier one and are
// what they were then, by a look-up of whole images.
func unchanged(t testing.TB, now, before *pipeline.Run) (n int64) {
	t.Helper()
	has := map[int64]bool{}
	for _, row := range read(t, before, "logprobs/head-0").numbers {
		has[row] = true
	}
	was := map[string]bool{}
	place := func(i schemas.Image) string {
		return fmt.Sprintf("%q %q %d %d %q", i.Key, i.Member, i.Offset, i.Size, i.ETag)
	}
	for _, img := range listed(t, before) {
		was[place(img)] = has[img.Row]
	}
	for _, img := range listed(t, now) {
		if was[place(img)] {
			n++
		}
	}
	return n
}

// TestTakesOverWhatDidNotChange: after random edits of the images, a run that
// takes over rows writes the bytes of a run from scratch, and takes over every
// row that it can.
func TestTakesOverWhatDidNotChange(t *testing.T) {
	for i, c := range []struct {
		stored   string
		share    float64
		shard    int64 // of the later runs
		parallel int
	}{{"float32", 0.02, 1024, 1}, {"float32", 0.4, 2048, 2}, {"uint16", 0.1, 1024, 2}, {"uint16", 0, 1024, 1}, {"float32", 1, 1024, 1}} {
		t.Run(fmt.Sprintf("%s-%v", c.stored, c.share), func(t *testing.T) {
			t.Parallel()
			files := mixed(t)
			r := world(t, files, classifierOfTwo, func(j *pipeline.Job) { withFeatures(j); j.Extract.Stored = c.stored })
			r.Through(t, r.Run, extract.Name)
			edit(t, r, files, rand.New(rand.NewPCG(uint64(i), 3)), c.share)
			r.Job.Extract.ShardRows = c.shard
			scratch := r.Open(t, "scratch")
			r.Through(t, scratch, extract.Name)
			run, took, notices := after(t, r, "later", "run-1", c.parallel)
			same(t, digests(t, run), digests(t, scratch))
			// Where images are fewer, those that join a sample are extracted.
			want := unchanged(t, run, r.Run)
			if fewer := len(listed(t, run)) < len(listed(t, r.Run)); took > want || took < want*9/10 || took < want && !fewer || want == 0 && c.share < 1 {
				t.Errorf("took %d rows over of %d: %s", took, want, notices)
			}
			// And on: what was taken over can be taken over.
			again, took, _ := after(t, r, "again", "later", 1)
			same(t, digests(t, again), digests(t, scratch))
			if want := int64(len(read(t, scratch, "logprobs/head-0").numbers)); took != want {
				t.Errorf("took %d rows over of %d", took, want)
			}
		})
	}
}

// TestTakeoverWithALargerSample: where images are fewer, a sample is a larger
// share of them, and some that were not in it are now.
func TestTakeoverWithALargerSample(t *testing.T) {
	files := pictures(t, 700)
	model := classifierOfTwo
	model.Clusters = []int{2, 3} // samples of 60 rows a cluster: less than a quarter
	r := world(t, files, model, func(j *pipeline.Job) { j.Extract.Stored = "uint16" })
	r.Through(t, r.Run, extract.Name)
	for i := range 200 {
		if err := os.Remove(filepath.Join(r.Dir, "mine", fmt.Sprintf("%03d.png", i*3))); err != nil {
			t.Fatal(err)
		}
	}
	scratch := r.Open(t, "scratch")
	r.Through(t, scratch, extract.Name)
	run, took, _ := after(t, r, "later", "run-1", 1)
	same(t, digests(t, run), digests(t, scratch))
	if took < 400 || took == 500 {
		t.Errorf("took %d rows over of 500: all but those that join a sample should be", took)
	}
}

// TestTakeoverFallsBack: an earlier run that was made otherwise, or whose rows
// cannot be read, costs time and nothing else, and the run says why.
func TestTakeoverFallsBack(t *testing.T) {
	r := world(t, mixed(t), classifierOfTwo, withFeatures)
	r.Through(t, r.Run, extract.Name)
	want := digests(t, r.Run)
	paths := map[string]string{}
	for _, o := range outputs(t, r.Run) {
		paths[o.Name] = filepath.Join(r.Dir, "work", filepath.FromSlash(r.Path(o.Path)))
	}
	held := map[string][]byte{}
	for name, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		held[name] = data
	}
	first, second := int64(0), int64(0)
	commits, err := r.AllCommits(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commits {
		if c.Stage == extract.Name {
			first, second = second, c.Counts["images"]-c.Counts["rejected"]
		}
	}
	for i, c := range []struct {
		name   string
		change func()
		takes  int64
		says   string
	}{
		{"all there", func() {}, first + second, "keep the rows"},
		{"gone", func() { os.Remove(paths["logprobs/head-0/part-00000.parquet"]) }, 0, "are gone (keep.logprobs)"},
		{"a sample gone", func() { os.Remove(paths["sample/head-1/part-00001.parquet"]) }, first, "rows of the earlier run cannot be read"},
		{"damaged", func() {
			if err := os.WriteFile(paths["logprobs/head-1/part-00000.parquet"], make([]byte, len(held["logprobs/head-1/part-00000.parquet"])), 0o600); err != nil {
				t.Error(err)
			}
		}, second, "rows of the earlier run cannot be read"},
		{"told not to", func() { r.Job.Extract.Reuse = "none" }, 0, ""},
		{"another model", func() { r.Provenance.Model = strings.Repeat("0", 64) }, 0, "model digest"},
		{"another library", func() { r.Provenance.Library = strings.Repeat("0", 64) }, 0, "runtime library"},
		{"another decoder", func() { r.Provenance.Preprocessing = strings.Repeat("0", 64) }, 0, "preprocessing"},
		{"another program", func() { r.Provenance.Code = "other" }, 0, "code version"},
		{"another processor", func() { r.Provenance.Processor = "other" }, 0, "processor class"},
		{"another precision", func() { r.Job.Extract.Stored = "uint16" }, 0, "extract.stored"},
		{"other outputs", func() { r.Job.Model.Kind = "probabilities" }, 0, "model.kind"},
	} {
		job, provenance := *r.Job, r.Provenance
		c.change()
		run, took, notices := after(t, r, fmt.Sprintf("later-%d", i), "run-1", 1)
		if took != c.takes || !strings.Contains(notices, c.says) {
			t.Errorf("%s: took %d rows over, want %d, and said %q, want %q", c.name, took, c.takes, notices, c.says)
		}
		if *r.Job, r.Provenance = job, provenance; len(notices) > 0 && !strings.Contains(notices, "made otherwise") && i < 5 {
			same(t, digests(t, run), want)
		}
		for name, path := range paths {
			if err := os.WriteFile(path, held[name], 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestTakeoverKilledAndRepeated: a run that takes over rows can be killed at any
// point, and goes on to the same bytes.
func TestTakeoverKilledAndRepeated(t *testing.T) {
	files := mixed(t)
	r := world(t, files, classifierOfTwo, withFeatures)
	r.Through(t, r.Run, extract.Name)
	edit(t, r, files, rand.New(rand.NewPCG(9, 9)), 0.1)
	scratch := r.Open(t, "scratch")
	r.Through(t, scratch, extract.Name)
	r.Through(t, r.Open(t, "killed"), list.Name)
	for _, limit := range []int64{1, 300, 1100} {
		ctx, cancel := context.WithCancel(context.Background())
		var rows atomic.Int64
		run, err := pipeline.Open(ctx, r.Work, pipeline.Options{Job: r.Job, Provenance: r.Provenance, RunID: "killed", Observer: pipeline.ObserverFunc(func(e pipeline.Event) {
			if e.Kind == pipeline.RowsDone && rows.Add(e.Rows) >= limit {
				cancel()
			}
		})})
		if err != nil {
			t.Fatal(err)
		}
		stage := r.Stages()[1].(*extract.Stage)
		stage.Earlier = func(ctx context.Context) (*pipeline.Run, error) { return run.Other(ctx, "run-1") }
		if _, err := runtest.Runner().Run(ctx, run, stage); !errors.Is(err, context.Canceled) {
			t.Errorf("after %d rows: %v", limit, err)
		}
		if err := stage.Close(); err != nil {
			t.Error(err)
		}
	}
	run, took, _ := after(t, r, "killed", "run-1", 1)
	same(t, digests(t, run), digests(t, scratch))
	if took == 0 {
		t.Error("took nothing over")
	}
}
