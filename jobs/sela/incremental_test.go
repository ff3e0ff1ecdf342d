package main

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sela/jobs/demo/letters"
	"sela/pipeline/bucket"
)

// TestOnlyNewImagesAreExtracted: a run after most images have been labelled
// extracts those that are new or have changed, and its labels are those of a run
// from scratch.
func TestOnlyNewImagesAreExtracted(t *testing.T) {
	r := newRig(t)
	images := "images: {bucket: " + r.path("mine") + "}"
	r.job(images)
	if err := os.CopyFS(r.path("mine"), os.DirFS(filepath.Join(fixture.dir, "images"))); err != nil {
		t.Fatal(err)
	}
	first := r.want(0, "run", "job.yaml", "--run-id", "first")
	if n := extracted(first, "taken_over"); n != 0 {
		t.Errorf("the first run took %v rows over", n)
	}

	all, err := filepath.Glob(r.path("mine/*/*"))
	if err != nil || len(all) != fixtureImages {
		t.Fatalf("%d images: %v", len(all), err)
	}
	for i := range 40 {
		var buf bytes.Buffer
		ext, _, err := letters.Encode(&buf, i, 77)
		if err == nil {
			path := r.path(fmt.Sprintf("mine/%d/n%03d%s", i%3, i, ext))
			if i < 10 {
				path = all[i*31] // changed
			}
			err = os.WriteFile(path, buf.Bytes(), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		if err := os.Remove(all[i*31+1]); err != nil {
			t.Fatal(err)
		}
	}
	second := r.want(0, "run", "job.yaml", "--run-id", "second")
	if n, want := extracted(second, "taken_over"), fixtureImages-15.; n != want || extracted(second, "images") != want+40 {
		t.Errorf("took %v rows over, want %v: %v", n, want, second.result["counts"])
	}
	if !strings.Contains(second.stderr, "in_run=first") {
		t.Errorf("does not say where rows come from:\n%s", second.stderr)
	}
	scratch := newRig(t, images, "keep: {logprobs: until_published}")
	scratch.want(0, "run", "job.yaml", "--run-id", "scratch")
	same(t, r.published("second"), scratch.published("scratch"))

	// A run that keeps no log-probabilities leaves nothing to take over.
	if err := os.Remove(all[100]); err != nil {
		t.Fatal(err)
	}
	next := scratch.want(0, "run", "job.yaml", "--run-id", "next")
	if n := extracted(next, "taken_over"); n != 0 || !strings.Contains(next.stderr, "are gone (keep.logprobs)") {
		t.Errorf("took %v rows over of a run that keeps none:\n%s", n, next.stderr)
	}
}

// TestStoreIncremental: the tags that a store gives when it lists tell what has
// changed, and rows are taken over through the cache.
func TestStoreIncremental(t *testing.T) {
	stores(t, func(t *testing.T, u *url.URL) {
		r := newRig(t)
		p := newPlace(t, u, 200)
		p.job(r, u, "mine")
		r.want(0, "run", "job.yaml", "--run-id", "first")
		var keys []string
		if err := p.root.List(t.Context(), "images/", func(o bucket.Object) error { keys = append(keys, o.Key); return nil }); err != nil {
			t.Fatal(err)
		}
		changed, err := p.root.Get(t.Context(), keys[7])
		for _, key := range []string{"images/new.png", keys[50]} {
			if err == nil {
				err = p.root.Put(t.Context(), key, changed)
			}
		}
		if err == nil {
			err = p.root.Delete(t.Context(), keys[120])
		}
		if err != nil {
			t.Fatal(err)
		}
		second := r.want(0, "run", "job.yaml", "--run-id", "second")
		if n := extracted(second, "taken_over"); n != 198 || extracted(second, "images") != 200 {
			t.Errorf("took %v rows over, want 198: %v\n%s", n, second.result["counts"], second.stderr)
		}
		p.job(r, u, "scratch")
		r.want(0, "run", "job.yaml", "--run-id", "scratch")
		same(t, p.published("mine", "second"), p.published("scratch", "scratch"))
	})
}

// extracted returns a count of the extract stage.
func extracted(o outcome, count string) float64 {
	counts, _ := o.result["counts"].(map[string]any)
	stage, _ := counts["extract"].(map[string]any)
	n, _ := stage[count].(float64)
	return n
}
