package solve_test

import (
	"context"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/stages/extract"
)

// TestOtherPixels: log-probabilities of images that were decoded or resized
// otherwise, be it by another decoder alone, never meet in one solve.
func TestOtherPixels(t *testing.T) {
	ctx := context.Background()
	r := extracted(t, images, nil, false, nil)
	mine := shardOf(t, r.Run, 0, 1)
	sound, err := r.Run.Work.Get(ctx, r.Path(mine.Path))
	if err != nil {
		t.Fatal(err)
	}
	r.Provenance.Preprocessing = strings.Repeat("2", 64)
	foreign := r.Open(t, "of-another-decoder")
	r.Through(t, foreign, extract.Name)
	theirs := shardOf(t, foreign, 0, 1)
	data, err := foreign.Work.Get(ctx, foreign.Path(theirs.Path))
	if err != nil {
		t.Fatal(err)
	}
	if theirs.SHA256 == mine.SHA256 {
		t.Fatal("the shard does not name its preprocessing")
	}
	replace(t, r.Run, mine, data, theirs.FileStats)
	// Which shard is opened first, and so which is the foreign one, is chance.
	fails(t, do(t, r, r.Run), pipeline.Data, "logprobs/head-0/part-0000", "another model, preprocessing or listing", "start a new run")

	replace(t, r.Run, mine, sound, mine.FileStats)
	if err := do(t, r, r.Run); err != nil {
		t.Errorf("once it is repaired: %v", err)
	}
}
