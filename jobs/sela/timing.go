package main

import (
	"encoding/json"

	"sela/pipeline"
	"sela/stages/extract"
)

// extractTime says how the time of extract's tasks went: what to give more of.
// Tasks take turns, so that their wall times sum up; busy times are of all
// threads.
type extractTime struct {
	Wall      float64 `json:"wall_seconds"`
	Store     float64 `json:"waited_for_store"` // share of the wall time: more requests, or a nearer store
	Model     float64 `json:"waited_for_model"` // share of the wall time: more cores, a GPU
	Decode    float64 `json:"decode_seconds"`
	Inference float64 `json:"inference_seconds"`
	Write     float64 `json:"write_seconds"`
	Finish    float64 `json:"finish_seconds"` // checking and uploading
}

// sumExtract adds up what the commits of extract say; nil where there are none,
// or none that tell.
func sumExtract(commits []*pipeline.Commit) *extractTime {
	var sum extractTime
	for _, c := range commits {
		var r extract.Result
		if c.Stage != extract.Name || json.Unmarshal(c.Result, &r) != nil || r.Timing == nil {
			continue
		}
		t := r.Timing
		for _, f := range []struct {
			to   *float64
			from *extract.Nanos
		}{{&sum.Wall, &t.Wall}, {&sum.Store, &t.Fetch}, {&sum.Model, &t.Slot}, {&sum.Decode, &t.Decode}, {&sum.Inference, &t.Inference}, {&sum.Write, &t.Write}, {&sum.Finish, &t.Finish}} {
			*f.to += float64(f.from.Load()) / 1e9
		}
	}
	if sum.Wall <= 0 {
		return nil
	}
	sum.Store, sum.Model = sum.Store/sum.Wall, sum.Model/sum.Wall
	for _, x := range []*float64{&sum.Wall, &sum.Store, &sum.Model, &sum.Decode, &sum.Inference, &sum.Write, &sum.Finish} {
		*x = rounded(*x)
	}
	return &sum
}
