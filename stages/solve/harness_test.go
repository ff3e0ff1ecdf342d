package solve_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gocloud.dev/blob/memblob"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/extract"
	"sela/stages/internal/onnx/onnxtest"
	"sela/stages/internal/runtest"
	"sela/stages/list"
	"sela/stages/solve"
)

// clusters of the two heads of every run here.
var clusters = []int{3, 7}

// extracted is a run with log-probabilities: so many images, of which those for
// which bad is true cannot be used. Unless remote, its work bucket is a folder.
func extracted(t testing.TB, images int, bad func(i int) bool, remote bool, change func(*pipeline.Job)) *runtest.Run {
	t.Helper()
	dir := t.TempDir()
	r := runtest.New(t, runtest.Options{Images: 1, Dir: dir, Job: func(j *pipeline.Job) {
		j.Model.Path = onnxtest.Write(t, t.TempDir(), "classifier.onnx", onnxtest.Classifier{Size: runtest.Size, Clusters: clusters})
		j.Images.MaxRejected = 0.9
		if change != nil {
			change(j)
		}
	}})
	var content [][]byte
	for _, data := range runtest.Images(50, 3) {
		content = append(content, data)
	}
	slices.SortFunc(content, slices.Compare)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range images {
		data := content[i%50]
		if bad != nil && bad(i) {
			data = []byte("not an image")
		}
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("%05d.png", i), Mode: 0o600, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), os.RemoveAll(filepath.Join(dir, "images", "img")), os.WriteFile(filepath.Join(dir, "images", "all.tar"), b.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	if remote {
		r.Work = bucket.New(memblob.OpenBucket(nil), "mem://work", bucket.Options{Backoff: time.Millisecond})
		t.Cleanup(func() { r.Work.Close() })
		r.Run = r.Open(t, "run-1")
	}
	r.Through(t, r.Run, extract.Name)
	return r
}

// gaps leaves images out here and there, and the whole second shard.
func gaps(i int) bool { return i%13 == 5 || i >= 1024 && i < 2048 }

func shards(t testing.TB, run *pipeline.Run) *extract.Shards {
	t.Helper()
	s, err := extract.OpenShards(context.Background(), run)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// do performs the solve stage.
func do(t testing.TB, r *runtest.Run, run *pipeline.Run) error {
	t.Helper()
	_, err := runtest.Runner().Run(context.Background(), run, &solve.Stage{Labels: r.Labels, Runtime: r.Runtime})
	return err
}

// potentials returns the committed potentials' sha256, by head.
func potentials(t testing.TB, run *pipeline.Run) []string {
	t.Helper()
	solutions, err := solve.Solutions(context.Background(), run, shards(t, run))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for h, s := range solutions {
		if s.Head != h || s.Potentials.Name != solve.PotentialsName(h) {
			t.Errorf("solution %d is of head %d in %s", h, s.Head, s.Potentials.Name)
		}
		all = append(all, s.Potentials.SHA256)
	}
	return all
}

// table is a head's rows as they lie in the files, in order.
type table struct {
	numbers []int64
	values  []float32
}

func whole(t testing.TB, run *pipeline.Run, head int) table {
	t.Helper()
	files, err := shards(t, run).LogProbs(head)
	if err != nil {
		t.Fatal(err)
	}
	return readTables(t, run, files, clusters[head])
}

// readTables returns the rows of block tables in turn.
func readTables(t testing.TB, run *pipeline.Run, files []pipeline.Output, k int) (all table) {
	t.Helper()
	for _, f := range files {
		local, release, err := run.Fetch(context.Background(), f)
		if err != nil {
			t.Fatal(err)
		}
		b, err := schemas.OpenBlocks(local)
		if err != nil {
			t.Fatal(err)
		}
		numbers, values := make([]int64, f.Rows), make([]float32, f.Rows*int64(k))
		if n, err := b.ReadRows(0, 1<<40, numbers, values); err != nil || int64(n) != f.Rows {
			t.Fatalf("%d of %d rows: %v", n, f.Rows, err)
		}
		b.Close()
		release()
		all.numbers, all.values = append(all.numbers, numbers...), append(all.values, values...)
	}
	return all
}

// fails checks the class of an error and that it says what it should.
func fails(t testing.TB, err error, class pipeline.Class, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one of class %s with %q", class, words)
	}
	if got := pipeline.ClassOf(err); got != class {
		t.Errorf("class %s, want %s: %v", got, class, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in: %v", w, err)
		}
	}
}

// shardOf returns a shard's place in the commit of its extract task.
func shardOf(t testing.TB, run *pipeline.Run, head, shard int) pipeline.Output {
	t.Helper()
	files, err := shards(t, run).LogProbs(head)
	if err != nil {
		t.Fatal(err)
	}
	return files[shard]
}

// replace puts other bytes in the place of a shard and has its commit say so.
func replace(t testing.TB, run *pipeline.Run, was pipeline.Output, data []byte, stats schemas.FileStats) {
	t.Helper()
	ctx := context.Background()
	if err := run.Work.Put(ctx, run.Path(was.Path), data); err != nil {
		t.Fatal(err)
	}
	commits, err := run.AllCommits(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commits {
		for i := range c.Outputs {
			if c.Stage != extract.Name || c.Outputs[i].Path != was.Path {
				continue
			}
			c.Outputs[i].FileStats = stats
			raw, err := json.Marshal(c)
			if err == nil {
				err = run.Work.Put(ctx, run.Path("commits/extract/"+c.Task+".json"), raw)
			}
			if err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("no commit has %s", was.Path)
}

// withoutSamples makes the extract commits those of a program that knew no
// samples.
func withoutSamples(t testing.TB, run *pipeline.Run) {
	t.Helper()
	ctx := context.Background()
	commits, err := run.AllCommits(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commits {
		if c.Stage != extract.Name {
			continue
		}
		c.Outputs = slices.DeleteFunc(c.Outputs, func(o pipeline.Output) bool { return strings.HasPrefix(o.Name, "sample/") })
		raw, err := json.Marshal(c)
		if err == nil {
			err = run.Work.Put(ctx, run.Path("commits/extract/"+c.Task+".json"), raw)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// listed returns a run's images.
func listed(t testing.TB, run *pipeline.Run) (images []schemas.Image) {
	t.Helper()
	listing, err := list.Open(context.Background(), run)
	if err == nil {
		err = listing.Read(context.Background(), 0, listing.Images, func(img schemas.Image) error {
			images = append(images, img)
			return nil
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return images
}
