package extract_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/extract"
	"sela/stages/internal/onnx/onnxtest"
	"sela/stages/internal/runtest"
	"sela/stages/list"
)

// world makes a run over files, by key, and a classifier; no stage has been
// performed. It has no other images.
func world(t testing.TB, files map[string][]byte, model onnxtest.Classifier, change func(*pipeline.Job)) *runtest.Run {
	t.Helper()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "mine"), files)
	return runtest.New(t, runtest.Options{Images: 1, Dir: dir, Job: func(j *pipeline.Job) {
		j.Images.Bucket = "file://" + filepath.Join(dir, "mine")
		j.Model.Path = onnxtest.Write(t, t.TempDir(), "classifier.onnx", model)
		if change != nil {
			change(j)
		}
	}})
}

// put writes files below a folder.
func put(t testing.TB, folder string, files map[string][]byte) {
	t.Helper()
	for key, data := range files {
		path := filepath.Join(folder, filepath.FromSlash(key))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// remake replaces the file of an image.
func remake(t testing.TB, r *runtest.Run, key string, data []byte) {
	t.Helper()
	put(t, filepath.Join(r.Dir, "mine"), map[string][]byte{key: data})
}

// member is a file inside a tar shard.
type member struct {
	name string
	data []byte
}

func tarOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		if err := w.WriteHeader(&tar.Header{Name: m.name, Mode: 0o600, Size: int64(len(m.data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// picture is a square of seeded noise.
func picture(seed uint64, side int) image.Image {
	random := rand.New(rand.NewPCG(seed, 7))
	img := image.NewNRGBA(image.Rect(0, 0, side, side))
	for p := range side * side {
		img.SetNRGBA(p%side, p/side, color.NRGBA{uint8(random.Uint32()), uint8(random.Uint32()), uint8(random.Uint32()), 255})
	}
	return img
}

func encode(t testing.TB, format string, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	err := png.Encode(&b, img)
	if format == "jpg" {
		b.Reset()
		err = jpeg.Encode(&b, img, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// pngOf is a picture of the model's size as a file, made once. It must not be
// written to.
func pngOf(t testing.TB, seed uint64) []byte {
	t.Helper()
	if data, ok := made.Load(seed); ok {
		return data.([]byte)
	}
	data := encode(t, "png", picture(seed, runtest.Size))
	made.Store(seed, data)
	return data
}

var made sync.Map

// black is an image all of whose samples are 0.
func black(t testing.TB) []byte {
	t.Helper()
	img := image.NewNRGBA(image.Rect(0, 0, runtest.Size, runtest.Size))
	for i := 3; i < len(img.Pix); i += 4 {
		img.Pix[i] = 255
	}
	return encode(t, "png", img)
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

// rows is what a block table holds, all shards together.
type rows struct {
	numbers []int64
	values  []float32
	sums    map[int64][32]byte
}

// read returns a complete run's table of the given folder.
func read(t testing.TB, run *pipeline.Run, folder string) rows {
	t.Helper()
	all := rows{sums: map[int64][32]byte{}}
	for _, o := range outputs(t, run) {
		if !strings.HasPrefix(o.Name, folder+"/") {
			continue
		}
		local, release, err := run.Fetch(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		b, err := schemas.OpenBlocks(local)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		numbers, values := make([]int64, b.NumRows()), make([]float32, int(b.NumRows())*b.Meta().Width)
		if n, err := b.ReadRows(0, 1<<40, numbers, values); err != nil || int64(n) != o.Rows {
			t.Fatalf("%s: %d rows of %d: %v", o.Name, n, o.Rows, err)
		}
		all.numbers, all.values = append(all.numbers, numbers...), append(all.values, values...)
		if !b.Meta().WithSHA256 {
			continue
		}
		if err := b.SHA256s(0, 1<<40, func(row int64, sum [32]byte) error { all.sums[row] = sum; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// outputs returns the committed objects of the extract stage, by name.
func outputs(t testing.TB, run *pipeline.Run) (all []pipeline.Output) {
	t.Helper()
	commits, err := run.AllCommits(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commits {
		if c.Stage == extract.Name {
			all = append(all, c.Outputs...)
		}
	}
	slices.SortFunc(all, func(a, b pipeline.Output) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// digests returns name and sha256 of what extract committed.
func digests(t testing.TB, run *pipeline.Run) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, o := range outputs(t, run) {
		all[o.Name] = o.SHA256
	}
	return all
}

// same holds the committed bytes of two runs against each other.
func same(t testing.TB, got, want map[string]string) {
	t.Helper()
	if len(want) == 0 {
		t.Error("nothing to compare with")
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s has sha256 %.12s, want %.12s", name, got[name], want[name])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d files, want %d", len(got), len(want))
	}
}

// quarantined returns the quarantine rows of a run, of listing and of extract.
func quarantined(t testing.TB, run *pipeline.Run) (all []schemas.Quarantine) {
	t.Helper()
	commits, err := run.AllCommits(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commits {
		for _, o := range c.Outputs {
			if !strings.HasPrefix(o.Name, "quarantine/") {
				continue
			}
			local, release, err := run.Fetch(context.Background(), o)
			if err != nil {
				t.Fatal(err)
			}
			defer release()
			if err := schemas.ReadQuarantine(local, func(q schemas.Quarantine) error { all = append(all, q); return nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
	return all
}

// attempt lists and extracts, and returns extract's error.
func attempt(ctx context.Context, t testing.TB, r *runtest.Run, run *pipeline.Run) error {
	t.Helper()
	r.Through(t, run, list.Name)
	stage := r.Stages()[1].(*extract.Stage)
	_, err := runtest.Runner().Run(ctx, run, stage)
	return errors.Join(err, stage.Close())
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

// get reads an image from where the listing says it lies.
func get(t testing.TB, b *bucket.Bucket, img schemas.Image) []byte {
	t.Helper()
	data := make([]byte, img.Size)
	if err := b.ReadRange(context.Background(), img.Key, img.Offset, data); err != nil {
		t.Fatal(err)
	}
	return data
}
