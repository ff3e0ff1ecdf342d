package export

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/internal/runtest"
	"sela/stages/label"
)

const clusters = 5

// rows are labels of images with the given names, a key or a tar's key, a bar
// and the member, in this order.
func rows(names ...string) []schemas.Label {
	r := rand.New(rand.NewPCG(1, 2))
	all := make([]schemas.Label, len(names))
	for i, name := range names {
		key, member, _ := strings.Cut(name, "|")
		sum := sha256.Sum256([]byte(name))
		prob := float32(r.IntN(1000)+1) / 1000
		all[i] = schemas.Label{Row: int64(3 * i), Key: key, Member: member, SHA256: hex.EncodeToString(sum[:]),
			Label: r.Int32N(clusters), Prob: &prob, ModelLabel: r.Int32N(clusters), ModelProb: r.Float32()}
		if i%3 == 1 {
			prev := r.Int32N(clusters)
			all[i].PrevLabel = &prev
		}
	}
	return all
}

// withoutProbs are labels as k-means gives them.
func withoutProbs(rows []schemas.Label) []schemas.Label {
	for i := range rows {
		rows[i].Prob = nil
	}
	return rows
}

// publish makes a published run "run-1" of head 1 alone, in parts of two rows,
// and of a head 0 that no test exports.
func publish(t testing.TB, images string, rows []schemas.Label) *bucket.Bucket {
	t.Helper()
	ctx, labels := context.Background(), folder(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	job := pipeline.DefaultJob()
	job.Name, job.Images.Bucket, job.Solve.Method = "letters", images, "kmeans"
	record := pipeline.Record{Version: 1, Run: "run-1", Job: job, Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	var files []pipeline.Output
	for head := range 2 {
		for part, group := range slices.Collect(slices.Chunk(rows, 2)) {
			path := filepath.Join(t.TempDir(), "part")
			w, err := schemas.CreateLabels(path, schemas.LabelsMeta{Head: head, Clusters: clusters, TopK: len(rows[0].TopK) > 0})
			must(err)
			for i := range group {
				must(w.Write(&group[i]))
			}
			stats, err := w.Commit()
			must(err)
			name := label.PartName(head, part)
			files = append(files, pipeline.Output{Name: name, Path: name, FileStats: stats})
			must(labels.Upload(ctx, "runs/run-1/"+name, path))
		}
	}
	raw, err := json.Marshal(record)
	must(err)
	must(labels.Create(ctx, "runs/run-1/run.json", raw))
	manifest, err := pipeline.NewManifest(&record, "listing", files).Encode()
	must(err)
	must(labels.Create(ctx, "runs/run-1/_manifest.json", manifest))
	must(labels.Create(ctx, "runs/run-1/_SUCCESS", nil))
	return labels
}

func folder(t testing.TB) *bucket.Bucket {
	t.Helper()
	return fileBucket(t, t.TempDir())
}

// fileBucket opens the bucket of a folder, in whose name a test's may be.
func fileBucket(t testing.TB, dir string) *bucket.Bucket {
	t.Helper()
	return runtest.Bucket(t, (&url.URL{Scheme: "file", Path: dir}).String())
}

// options are those of an export of head 1 into a folder of its own.
func options(t testing.TB, labels *bucket.Bucket, format string) Options {
	t.Helper()
	cache, err := bucket.NewCache(t.TempDir(), 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	return Options{Labels: labels, Run: "run-1", Head: 1, Format: format, Out: folder(t), Dir: t.TempDir(), Bytes: 64 << 20, Cache: cache}
}

// run exports and returns the objects; scratch must be empty behind it.
func run(t testing.TB, o Options) (*Report, map[string]string, error) {
	t.Helper()
	report, err := Export(context.Background(), o)
	left, dirErr := os.ReadDir(o.Dir)
	if dirErr != nil || len(left) > 0 {
		t.Errorf("scratch holds %v, %v", left, dirErr)
	}
	return report, runtest.Objects(t, o.Out, ""), err
}

// loosely and inTars are the names of images that have some of everything that
// is legal.
func loosely() []string {
	return []string{"a/1.jpg", "a/2 b.png", `a/"3",4.jpg`, "a/5%20&<6>.jpg", "b/größe #7?.webp", "b/=cmd.jpg", "c:8.jpg"}
}

func inTars() []string {
	return []string{"x/s-000.tar|./0001.jpg", "x/s-000.tar|./0002.left.png", "x/s-000.tar|d.v1/0001.jpg", "x/s-001.tar|größe.jpg",
		"x/s-001.tar|" + strings.Repeat("long/", 60) + `"q" <&>.jpeg`, "y.tar|0001.jpg"}
}

func withTopK(rows []schemas.Label) []schemas.Label {
	for i := range rows {
		rows[i].TopK = []schemas.TopK{{Label: rows[i].Label, Prob: *rows[i].Prob}, {Label: (rows[i].Label + 1) % clusters, Prob: 0.001}}
	}
	return rows
}

func name(l *schemas.Label) string { return fmt.Sprintf("%q|%q", l.Key, l.Member) }
