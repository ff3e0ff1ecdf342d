package label_test

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gocloud.dev/blob"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/pipeline/bucket/buckettest"
	"sela/stages/extract"
	"sela/stages/internal/runtest"
	"sela/stages/publish"
	"sela/stages/train"
)

// complete takes a run through all its stages, four tasks at a time where they
// can be, and returns its published label files by name.
func complete(t *testing.T, r *runtest.Run, run *pipeline.Run) map[string]string {
	t.Helper()
	stages := append(r.Stages(), &publish.Stage{Labels: r.Labels}, &train.Stage{Labels: r.Labels, Trigger: train.None{}})
	for _, stage := range stages {
		runner := runtest.Runner()
		if stage.Name() == "label" {
			runner.Parallel = 4
		}
		_, err := runner.Run(t.Context(), run, stage)
		if e, ok := stage.(*extract.Stage); ok {
			e.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := run.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for key, data := range runtest.Objects(t, r.Labels, "runs/"+run.Run+"/labels/") {
		files[strings.TrimPrefix(key, "runs/"+run.Run+"/")] = data
	}
	return files
}

// pack puts all images but the last few into one tar, which comes before them.
func pack(t *testing.T, r *runtest.Run, images map[string][]byte, loose int) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	names := slices.Sorted(maps.Keys(images))
	for _, name := range names[:len(names)-loose] {
		err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(images[name]))})
		if err == nil {
			_, err = w.Write(images[name])
		}
		if err = errors.Join(err, os.Remove(filepath.Join(r.Dir, "images", "img", name))); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), os.WriteFile(filepath.Join(r.Dir, "images", "img", "0.tar"), b.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// checkReal holds a run's labels against the images themselves: each one once
// for each head, and none besides.
func checkReal(t *testing.T, run *pipeline.Run, images map[string][]byte, heads int) {
	t.Helper()
	files := labelFiles(t, run)
	for h := range heads {
		all := rows(t, run, files, h)
		if len(all) != len(images) {
			t.Errorf("head %d has %d rows, want %d", h, len(all), len(images))
		}
		last := ""
		for _, l := range all {
			name := cmp.Or(l.Member, path.Base(l.Key))
			data, ok := images[name]
			if sum := sha256.Sum256(data); !ok || l.SHA256 != hex.EncodeToString(sum[:]) {
				t.Fatalf("head %d, %s %s: sha256 %s, want %x", h, l.Key, l.Member, l.SHA256, sum)
			}
			if name <= last {
				t.Fatalf("head %d: row %d, %s, after %s", h, l.Row, name, last)
			}
			last = name
		}
	}
}

// TestRemoteRun makes the same labels from images, work and labels in S3 as in
// folders, also over a store that loses requests, answers and connections.
func TestRemoteRun(t *testing.T) {
	const images, heads = 1100, 2 // more than one shard and part
	local := runtest.New(t, runtest.Options{Images: images, Heads: heads, Broken: 3})
	content := runtest.Images(images, 0)
	pack(t, local, content, 60)
	want := complete(t, local, local.Run)
	if len(want) != 2*heads {
		t.Fatalf("published %d label files, want %d", len(want), 2*heads)
	}
	checkReal(t, local.Run, content, heads)
	for name, faults := range map[string]*buckettest.Faults{
		"sound":  {},
		"faulty": {Refuse: 11, Applied: 3, Break: 4, BreakAfter: 40},
	} {
		t.Run(name, func(t *testing.T) {
			remote := *local
			job := *local.Job
			job.Local.Dir = t.TempDir()
			job.Retries.Task = 5
			remote.Job = &job
			remote.Images, remote.Work, remote.Labels = s3(t, "images", faults), s3(t, "work", faults), s3(t, "labels", faults)
			for key, data := range runtest.Objects(t, local.Images, "") {
				if err := remote.Images.Put(t.Context(), key, []byte(data)); err != nil {
					t.Fatal(err)
				}
			}
			run := remote.Open(t, "run-1")
			got := complete(t, &remote, run)
			if faults.Refuse > 0 && faults.Injected() < 100 {
				t.Errorf("%d faults", faults.Injected())
			}
			if !maps.Equal(got, want) {
				t.Errorf("label files %q differ from those of the local run", slices.Sorted(maps.Keys(got)))
			}

			if faults.Refuse > 0 {
				return
			}
			before := runtest.Objects(t, remote.Work, "")
			published := runtest.Objects(t, remote.Labels, "")
			complete(t, &remote, remote.Open(t, "run-1"))
			if !maps.Equal(before, runtest.Objects(t, remote.Work, "")) || !maps.Equal(published, runtest.Objects(t, remote.Labels, "")) {
				t.Error("a repetition changed something")
			}
			again := complete(t, &remote, remote.Open(t, "run-2"))
			if len(again) != len(want) {
				t.Errorf("a second run has %d label files", len(again))
			}
			for name, data := range again {
				if published["runs/run-1/"+name] != data {
					t.Errorf("%s of a second run differs", name)
				}
			}
		})
	}
}

// s3 opens an empty bucket on a server of its own, behind the faults.
func s3(t *testing.T, name string, faults *buckettest.Faults) *bucket.Bucket {
	t.Helper()
	b, err := blob.OpenBucket(t.Context(), buckettest.S3(t, name).String())
	if err != nil {
		t.Fatal(err)
	}
	opened := bucket.New(buckettest.Faulty(b, faults), "s3://"+name, bucket.Options{Attempts: 8, Backoff: time.Millisecond, ETag: buckettest.S3ETag})
	t.Cleanup(func() { opened.Close() })
	return opened
}
