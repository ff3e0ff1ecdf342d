package export

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gocloud.dev/gcerrors"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/pipeline/bucket/buckettest"
	"sela/pipeline/bucket/filedriver"
	"sela/schemas"
	"sela/stages/internal/runtest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// goldens are exports whose objects are kept in testdata/<name>.
var goldens = []struct {
	name, format, images string
	rows                 func() []schemas.Label
	change               func(*Options)
}{
	{"imagefolder", "imagefolder", "", func() []schemas.Label { return rows(loosely()...) }, nil},
	{"imagefolder-without-probs", "imagefolder", "", func() []schemas.Label { return withoutProbs(rows(loosely()...)) }, nil},
	{"webdataset", "webdataset", "", func() []schemas.Label { return rows(inTars()...) }, nil},
	{"webdataset-topk", "webdataset", "", func() []schemas.Label { return withTopK(rows(inTars()...)) }, func(o *Options) { o.MinProb = 0.5 }},
	{"label-studio-s3", "label-studio", "s3://bucket/images?region=eu", func() []schemas.Label { return rows("a/1.jpg", "a/2 b.png", `a/"3",4.jpg`) }, nil},
	{"label-studio-web", "label-studio", "", func() []schemas.Label { return rows(loosely()...) }, func(o *Options) { o.Images = "https://images.example/all" }},
	{"label-studio-local", "label-studio", "", func() []schemas.Label { return withoutProbs(rows(loosely()...)) }, func(o *Options) { o.Images = "/data/local-files/?d=all/" }},
	{"torch", "torch", "", func() []schemas.Label { return rows(append(loosely(), inTars()...)...) }, nil},
	{"torch-without-probs", "torch", "", func() []schemas.Label { return withoutProbs(rows("a.jpg")) }, nil},
}

func TestGolden(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.name, func(t *testing.T) {
			images := g.images
			if images == "" {
				images = "file:///images"
			}
			o := options(t, publish(t, images, g.rows()), g.format)
			if g.change != nil {
				g.change(&o)
			}
			report, got, err := run(t, o)
			if err != nil {
				t.Fatal(err)
			}
			kept := g.rows()
			if o.MinProb > 0 {
				kept = slices.DeleteFunc(kept, func(l schemas.Label) bool { return *l.Prob < float32(o.MinProb) })
			}
			var bytes int64
			for key, data := range got {
				if key != "_SUCCESS" && key != "_export.json" {
					bytes += int64(len(data))
				}
			}
			if report.Images != int64(len(kept)) || report.Images+report.LeftOut != int64(len(g.rows())) || report.Objects != len(got)-2 || report.Bytes != bytes {
				t.Errorf("%+v; %d images, %d objects, %d bytes", report, len(kept), len(got)-2, bytes)
			}
			dir := filepath.Join("testdata", g.name)
			if *update {
				write(t, dir, got)
			}
			want := runtest.Objects(t, fileBucket(t, abs(t, dir)), "")
			if !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))) {
				t.Fatalf("objects %q, want %q", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
			}
			for key := range want {
				if got[key] != want[key] {
					t.Errorf("%s is\n%s\nwant\n%s", key, got[key], want[key])
				}
			}
			// Given again it finds everything done.
			if again, now, err := run(t, o); err != nil || *again != *report || !maps.Equal(now, got) {
				t.Errorf("given again: %+v, %v", again, err)
			}
		})
	}
}

func abs(t *testing.T, path string) string {
	t.Helper()
	a, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func write(t *testing.T, dir string, objects map[string]string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for key, data := range objects {
		path := filepath.Join(dir, key)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRefusals: what cannot be exported is refused with a class, and the place
// never looks complete.
func TestRefusals(t *testing.T) {
	plain := func() []schemas.Label { return rows("a.jpg", "b.jpg", "c.jpg") }
	for name, c := range map[string]struct {
		rows   func() []schemas.Label
		format string
		change func(*Options)
		class  pipeline.Class
		says   string
	}{
		"unknown format":     {plain, "coco", nil, pipeline.Usage, "imagefolder, label-studio, torch, webdataset"},
		"negative head":      {plain, "torch", func(o *Options) { o.Head = -1 }, pipeline.Usage, "from 0"},
		"head that is not":   {plain, "torch", func(o *Options) { o.Head = 2 }, pipeline.Usage, "has 2 heads"},
		"no run":             {plain, "torch", func(o *Options) { o.Run = "run-2" }, pipeline.Config, "run-2 is not published"},
		"min-prob above 1":   {plain, "torch", func(o *Options) { o.MinProb = 1.5 }, pipeline.Usage, "--min-prob"},
		"no probabilities":   {func() []schemas.Label { return withoutProbs(plain()) }, "torch", func(o *Options) { o.MinProb = 0.1 }, pipeline.Usage, "kmeans"},
		"nothing left":       {func() []schemas.Label { return lower(plain()) }, "torch", func(o *Options) { o.MinProb = 0.5 }, pipeline.Data, "none of its 3"},
		"images elsewhere":   {plain, "imagefolder", func(o *Options) { o.Images = "https://x" }, pipeline.Usage, "label-studio"},
		"images of a folder": {plain, "label-studio", nil, pipeline.Usage, "--images"},
		"little scratch":     {plain, "imagefolder", func(o *Options) { o.Bytes = 30 }, pipeline.Config, "local.bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t, publish(t, "file:///images", c.rows()), c.format)
			if c.change != nil {
				c.change(&o)
			}
			_, got, err := run(t, o)
			if pipeline.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.says) {
				t.Errorf("class %s, %v", pipeline.ClassOf(err), err)
			}
			if _, ok := got["_SUCCESS"]; ok {
				t.Error("there is a _SUCCESS")
			}
		})
	}
}

func lower(rows []schemas.Label) []schemas.Label {
	low := float32(0.49)
	for i := range rows {
		rows[i].Prob = &low
	}
	return rows
}

// TestMinProb: the bound is a float32 like the column, so that an image whose
// probability is the bound stays.
func TestMinProb(t *testing.T) {
	all := rows("a.jpg", "b.jpg", "c.jpg")
	for i, p := range []float32{0.9, 0.8999999, 0.95} {
		all[i].Prob = &p
	}
	o := options(t, publish(t, "file:///images", all), "imagefolder")
	o.MinProb = 0.9
	report, got, err := run(t, o)
	if err != nil || report.Images != 2 || report.LeftOut != 1 || strings.Contains(got["labels.csv"], "b.jpg") {
		t.Errorf("%+v, %v\n%s", report, err, got["labels.csv"])
	}
}

// TestPlaceOfItsOwn: where another export lies nothing is written or changed.
func TestPlaceOfItsOwn(t *testing.T) {
	labels := publish(t, "file:///images", rows("a.jpg", "b.jpg"))
	o := options(t, labels, "imagefolder")
	_, want, err := run(t, o)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Options){
		"format": func(o *Options) { o.Format = "torch" }, "head": func(o *Options) { o.Head = 0 }, "min-prob": func(o *Options) { o.MinProb = 0.001 },
	} {
		other := options(t, labels, "imagefolder")
		other.Out = o.Out
		change(&other)
		if _, got, err := run(t, other); pipeline.ClassOf(err) != pipeline.Config || !maps.Equal(got, want) {
			t.Errorf("another %s: %v, %q", name, err, slices.Sorted(maps.Keys(got)))
		}
	}
	// A bucket that holds such objects already, say the images themselves.
	tars := publish(t, "file:///images", rows("x.tar|1.jpg"))
	o = options(t, tars, "webdataset")
	if err := o.Out.Put(t.Context(), "x.tar", []byte("images")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := run(t, o); pipeline.ClassOf(err) != pipeline.Config || got["x.tar"] != "images" {
		t.Errorf("%v, x.tar is %q", err, got["x.tar"])
	}
}

// TestCutOff: an export that is cut off at any request leaves whole objects only
// and no _SUCCESS before all are there, and goes on when it is given again.
func TestCutOff(t *testing.T) {
	labels := publish(t, "s3://bucket", rows(inTars()...))
	loose := publish(t, "s3://bucket", rows("a.jpg", "b.jpg", "c.jpg"))
	for format, labels := range map[string]*bucket.Bucket{"webdataset": labels, "torch": labels, "label-studio": loose, "imagefolder": loose} {
		t.Run(format, func(t *testing.T) {
			_, want, err := run(t, options(t, labels, format))
			if err != nil {
				t.Fatal(err)
			}
			for n := 1; ; n++ {
				for _, applied := range []bool{false, true} {
					dir, f := t.TempDir(), &buckettest.Faults{Refuse: n, Code: gcerrors.PermissionDenied}
					if applied {
						f.Refuse, f.Applied = 0, n
					}
					b, err := filedriver.Open(dir, filedriver.Options{})
					if err != nil {
						t.Fatal(err)
					}
					o := options(t, labels, format)
					o.Out = bucket.New(buckettest.Faulty(b, f), "faulty://", bucket.Options{Attempts: 1})
					_, exportErr := Export(t.Context(), o)
					o.Out = fileBucket(t, dir)
					got := runtest.Objects(t, o.Out, "")
					if f.Injected() == 0 {
						if exportErr != nil || !maps.Equal(got, want) {
							t.Fatalf("undisturbed: %v", exportErr)
						}
						if !applied && n > len(want) { // more calls than objects were refused before
							return
						}
						continue
					}
					if exportErr == nil {
						t.Fatalf("fault %d went unnoticed", n)
					}
					_, success := got["_SUCCESS"]
					for key, data := range want {
						if there, ok := got[key]; ok && there != data || success && !ok {
							t.Errorf("fault %d: a reader sees %s with %d bytes, %d are right; _SUCCESS is there: %v", n, key, len(there), len(data), success)
						}
					}
					if _, got, err := run(t, o); err != nil || !maps.Equal(got, want) {
						t.Fatalf("given again after fault %d: %v", n, err)
					}
				}
			}
		})
	}
}

// TestDamagedTable: a label file that is not the manifest's is not exported.
func TestDamagedTable(t *testing.T) {
	labels := publish(t, "file:///images", rows("a.jpg", "b.jpg", "c.jpg"))
	key := "runs/run-1/labels/head=1/part-00001.parquet"
	raw, err := labels.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	if err := labels.Put(t.Context(), key, raw); err != nil {
		t.Fatal(err)
	}
	_, got, err := run(t, options(t, labels, "imagefolder"))
	if _, ok := got["labels.csv"]; ok || pipeline.ClassOf(err) != pipeline.Data {
		t.Errorf("%v, %q", err, slices.Sorted(maps.Keys(got)))
	}
}
