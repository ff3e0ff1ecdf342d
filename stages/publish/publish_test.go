package publish

import (
	"context"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/pipeline/bucket/buckettest"
	"sela/pipeline/bucket/filedriver"
	"sela/schemas"
	"sela/stages/internal/runtest"
	"sela/stages/label"
)

// labelled makes a run that has come as far as its label tables.
func labelled(t *testing.T, o runtest.Options) *runtest.Run {
	t.Helper()
	r := runtest.New(t, o)
	r.Through(t, r.Run, label.Name)
	return r
}

// publishTo performs the stage afresh, as a process that knows of no commit.
func publishTo(t *testing.T, r *runtest.Run, labels *bucket.Bucket) error {
	t.Helper()
	r.Forget(t, Name)
	_, err := runtest.Runner().Run(context.Background(), r.Run, &Stage{Labels: labels})
	return err
}

func folder(t *testing.T) *bucket.Bucket {
	t.Helper()
	return runtest.Bucket(t, "file://"+t.TempDir())
}

func TestPublish(t *testing.T) {
	ctx := context.Background()
	r := labelled(t, runtest.Options{Broken: 2})
	reference := folder(t)
	if err := publishTo(t, r, reference); err != nil {
		t.Fatal(err)
	}
	want := runtest.Objects(t, reference, "")

	t.Run("names", func(t *testing.T) {
		marker := markers + r.Created.Format("20060102T150405.000000Z") + "-run-1.json"
		names := []string{"LATEST", marker}
		for _, name := range []string{"README.md", "_SUCCESS", "_manifest.json", "croissant.json", "labels/head=0/part-00000.parquet", "labels/head=1/part-00000.parquet",
			"potentials/head-0.parquet", "potentials/head-1.parquet", "quarantine/part-extract-00000.parquet", "run.json"} {
			names = append(names, "runs/run-1/"+name)
		}
		slices.Sort(names)
		if got := slices.Sorted(maps.Keys(want)); !slices.Equal(got, names) {
			t.Errorf("published\n%q\nwant\n%q", got, names)
		}
		if want[marker] != want["LATEST"] {
			t.Errorf("LATEST is %q, the run's marker %q", want["LATEST"], want[marker])
		}
		open, err := Open(ctx, r.Run)
		if err != nil || open.Labels != 120 || open.Folder != reference.URL()+"/runs/run-1/" {
			t.Errorf("%+v, %v", open, err)
		}
	})

	t.Run("again", func(t *testing.T) {
		if err := publishTo(t, r, reference); err != nil {
			t.Fatal(err)
		}
		if got := runtest.Objects(t, reference, ""); !maps.Equal(got, want) {
			t.Error("a second publication changed something")
		}
	})

	t.Run("same labels from another run", func(t *testing.T) {
		other := r.Open(t, "run-2")
		r.Through(t, other, label.Name)
		labels := folder(t)
		if _, err := runtest.Runner().Run(ctx, other, &Stage{Labels: labels}); err != nil {
			t.Fatal(err)
		}
		for key, data := range runtest.Objects(t, labels, "runs/run-2/labels/") {
			if want[strings.Replace(key, "run-2", "run-1", 1)] != data {
				t.Errorf("%s differs from that of run-1", key)
			}
		}
		a, err := Open(ctx, r.Run)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := Open(ctx, other); err != nil || a.Digest != b.Digest {
			t.Errorf("manifest digests %s and %s, %v", a.Digest, b.Digest, err)
		}
	})

	t.Run("gate", func(t *testing.T) {
		limit := r.Run.Job.Label.MaxCountRatio
		defer func() { r.Run.Job.Label.MaxCountRatio = limit }()
		r.Run.Job.Label.MaxCountRatio = 1
		labels := folder(t)
		err := publishTo(t, r, labels)
		if pipeline.ClassOf(err) != pipeline.Data || !strings.Contains(err.Error(), "label.max_count_ratio") {
			t.Errorf("error %v", err)
		}
		if got := runtest.Objects(t, labels, ""); len(got) != 0 {
			t.Errorf("it wrote %q", slices.Collect(maps.Keys(got)))
		}
	})

	t.Run("existing objects", func(t *testing.T) {
		for _, name := range []string{"labels/head=1/part-00000.parquet", "potentials/head-0.parquet", "run.json", "README.md", "croissant.json", "_manifest.json"} {
			labels := folder(t)
			if err := labels.Put(ctx, "runs/run-1/"+name, []byte("another")); err != nil {
				t.Fatal(err)
			}
			err := publishTo(t, r, labels)
			if pipeline.ClassOf(err) != pipeline.Data || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: error %v", name, err)
			}
			got := runtest.Objects(t, labels, "")
			if got["runs/run-1/"+name] != "another" || got["LATEST"] != "" {
				t.Errorf("%s: it was overwritten, or LATEST written", name)
			}
			if _, ok := got["runs/run-1/_SUCCESS"]; ok {
				t.Errorf("%s: there is a _SUCCESS", name)
			}
		}
	})

	for name, faults := range map[string]func(n int) *buckettest.Faults{
		"killed before call":  func(n int) *buckettest.Faults { return &buckettest.Faults{Refuse: n} },
		"killed after writes": func(n int) *buckettest.Faults { return &buckettest.Faults{Applied: n} },
	} {
		t.Run(name, func(t *testing.T) {
			for n := 1; ; n++ {
				dir, f := t.TempDir(), faults(n)
				f.Code = gcerrors.PermissionDenied // never tried again: the process is gone
				err := publishTo(t, r, bucket.New(buckettest.Faulty(fileBucket(t, dir), f), "faulty://", bucket.Options{Attempts: 1}))
				if f.Injected() == 0 {
					if err != nil || n < 10 {
						t.Fatalf("only %d faults, then %v", n-1, err)
					}
					return
				}
				if err == nil {
					t.Fatalf("fault %d went unnoticed", n)
				}
				labels := runtest.Bucket(t, "file://"+dir)
				lookAsReader(t, labels, want)
				if err := publishTo(t, r, labels); err != nil {
					t.Fatalf("resume after fault %d: %v", n, err)
				}
				if got := runtest.Objects(t, labels, ""); !maps.Equal(got, want) {
					t.Fatalf("resumed after fault %d: not the bytes of an undisturbed run", n)
				}
			}
		})
	}

	t.Run("card", func(t *testing.T) {
		text := want["runs/run-1/README.md"]
		parts := strings.SplitN(text, "---\n", 3)
		if len(parts) != 3 || parts[0] != "" {
			t.Fatalf("no front matter in %.200q", text)
		}
		checkFront(t, parts[1], 60, false)
		for _, must := range []string{"run-1", "60 images", "2 more", r.Provenance.Model, "| 1 | 3 | 60 |"} {
			if !strings.Contains(parts[2], must) {
				t.Errorf("the card does not say %q", must)
			}
		}
	})
}

// checkFront reads a card's front matter: a configuration of each of two heads,
// with so many images and the types of the label table.
func checkFront(t *testing.T, text string, images int64, topK bool) {
	t.Helper()
	type feature struct {
		Name, Dtype string
		List        []struct{ Name, Dtype string }
	}
	var front struct {
		Configs []struct {
			Name  string                         `yaml:"config_name"`
			Files []struct{ Split, Path string } `yaml:"data_files"`
		}
		Info []struct {
			Name     string `yaml:"config_name"`
			Features []feature
			Splits   []struct {
				Name   string
				Images int64 `yaml:"num_examples"`
				Bytes  int64 `yaml:"num_bytes"`
			}
		} `yaml:"dataset_info"`
		Tags []string
	}
	if err := yaml.UnmarshalWithOptions([]byte(text), &front, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if len(front.Configs) != 2 || len(front.Info) != 2 || len(front.Tags) == 0 {
		t.Fatalf("%+v", front)
	}
	var want []feature
	for _, c := range schemas.LabelColumns(topK) {
		f := feature{Name: c.Name, Dtype: c.Type}
		for _, inner := range c.Fields {
			f.Dtype = ""
			f.List = append(f.List, struct{ Name, Dtype string }{inner.Name, inner.Type})
		}
		want = append(want, f)
	}
	for h, c := range front.Configs {
		name, file := fmt.Sprintf("head%d", h), fmt.Sprintf("labels/head=%d/part-00000.parquet", h)
		if ok, err := path.Match(c.Files[0].Path, file); !ok || err != nil || c.Name != name || c.Files[0].Split != "train" {
			t.Errorf("%+v does not match %s", c, file)
		}
		info := front.Info[h]
		if info.Name != name || len(info.Splits) != 1 || info.Splits[0].Name != "train" || info.Splits[0].Images != images || info.Splits[0].Bytes < images {
			t.Errorf("%+v is not that of %d images", info, images)
		}
		if !reflect.DeepEqual(info.Features, want) {
			t.Errorf("features %+v, want %+v", info.Features, want)
		}
	}
}

func fileBucket(t *testing.T, dir string) *blob.Bucket {
	t.Helper()
	b, err := filedriver.Open(dir, filedriver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// lookAsReader reads as downstream does: what has a _SUCCESS, and what LATEST
// names, must be whole.
func lookAsReader(t *testing.T, labels *bucket.Bucket, want map[string]string) {
	t.Helper()
	got := runtest.Objects(t, labels, "")
	_, success := got["runs/run-1/_SUCCESS"]
	if !success {
		for key := range got {
			if !strings.HasPrefix(key, "runs/run-1/") {
				t.Errorf("%s is there before _SUCCESS", key)
			}
		}
	}
	for key, data := range want {
		if there, ok := got[key]; success && strings.HasPrefix(key, "runs/") && !ok || ok && there != data {
			t.Errorf("a reader sees %s with %d bytes, %d are right", key, len(there), len(data))
		}
	}
}

func latest(i int) Latest {
	run := fmt.Sprintf("run-%02d", i)
	return Latest{Run: run, Manifest: "runs/" + run + "/_manifest.json", SHA256: strings.Repeat("0", 64), Created: time.Date(2026, 1, 1, 0, 0, i/2, 0, time.UTC)}
}

func TestLatestNeverMovesBackwards(t *testing.T) {
	ctx, labels := context.Background(), folder(t)
	if l, err := ReadLatest(ctx, labels); l != nil || err != nil {
		t.Fatal(l, err)
	}
	newest := 0
	// Two runs of each second: the run's id decides between them.
	for _, i := range []int{4, 2, 5, 3, 9, 8, 1, 9} {
		if err := advance(ctx, labels, latest(i)); err != nil {
			t.Fatal(err)
		}
		newest = max(newest, i)
		if l, err := ReadLatest(ctx, labels); err != nil || l.Run != latest(newest).Run {
			t.Fatalf("after run %d LATEST is %+v, want run %d, %v", i, l, newest, err)
		}
	}
}

func TestConcurrentPublishers(t *testing.T) {
	ctx := context.Background()
	for range 5 {
		labels := folder(t)
		var all sync.WaitGroup
		for i := range 16 {
			all.Go(func() {
				if err := advance(ctx, labels, latest(i)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if l, err := ReadLatest(ctx, labels); err != nil || l.Run != "run-15" {
			t.Fatalf("LATEST is %+v, %v", l, err)
		}
	}
}

func TestDamagedLatest(t *testing.T) {
	ctx, labels := context.Background(), folder(t)
	for _, text := range []string{"", "{", "null", "[]", `{"run": 7}`, "\x00\xff"} {
		if err := labels.Put(ctx, "LATEST", []byte(text)); err != nil {
			t.Fatal(err)
		}
		if l, err := ReadLatest(ctx, labels); l != nil || pipeline.ClassOf(err) != pipeline.Data {
			t.Errorf("%q: %+v, %v", text, l, err)
		}
	}
}

func TestMarkersOrderAsRunsDo(t *testing.T) {
	base := time.Date(2026, 9, 30, 23, 59, 59, 999_999_000, time.UTC)
	for i, step := range []time.Duration{time.Microsecond, time.Second, time.Hour, 24 * time.Hour, 400 * 24 * time.Hour} {
		a, b := Latest{Run: "zz", Created: base}, Latest{Run: "aa", Created: base.Add(step).In(time.FixedZone("", 3600*i))}
		if a.marker() >= b.marker() {
			t.Errorf("%s is not before %s", a.marker(), b.marker())
		}
	}
}
