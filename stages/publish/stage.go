// Package publish makes a run's labels available to others: a folder of
// committed objects only, complete when its _SUCCESS is there, and a pointer to
// the newest such folder that never moves backwards.
//
//	<labels>/runs/<run>/labels/head=<h>/part-*.parquet
//	<labels>/runs/<run>/potentials/, quarantine/
//	<labels>/runs/<run>/run.json, README.md, croissant.json, _manifest.json, then _SUCCESS
//	<labels>/published/<created>-<run>.json     one per published run
//	<labels>/LATEST                             {run, manifest, sha256}
package publish

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/diff"
	"sela/stages/extract"
	"sela/stages/label"
	"sela/stages/list"
	"sela/stages/solve"
)

// Name is the stage's name.
const Name = "publish"

// Stage publishes the run in one task.
type Stage struct {
	Labels *bucket.Bucket

	shards    *extract.Shards
	solutions []solve.Solution
	files     []pipeline.Output
}

// Result is what a publish commit records.
type Result struct {
	Folder   string `json:"folder"`   // URL of the published run
	Manifest string `json:"manifest"` // key of the manifest in the labels bucket
	SHA256   string `json:"sha256"`   // of the manifest file
	Digest   string `json:"digest"`   // of what it lists, the same for equal label sets
	Labels   int64  `json:"labels"`   // rows of all heads
	// Compared says how labels changed since the run before, where the job's gate
	// asked for it.
	Compared *diff.Comparison `json:"compared,omitempty"`
}

// Name implements [pipeline.Stage].
func (s *Stage) Name() string { return Name }

// Plan implements [pipeline.Stage].
func (s *Stage) Plan(ctx context.Context, run *pipeline.Run) ([]pipeline.Task, error) {
	var err error
	if s.shards, err = extract.OpenShards(ctx, run); err != nil {
		return nil, err
	}
	if s.solutions, err = solve.Solutions(ctx, run, s.shards); err != nil {
		return nil, err
	}
	if s.files, err = label.Files(ctx, run, s.shards, s.solutions); err != nil {
		return nil, err
	}
	for _, sol := range s.solutions {
		s.files = append(s.files, sol.Potentials)
	}
	commits, err := run.AllCommits(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range commits {
		for _, o := range c.Outputs {
			if (c.Stage == list.Name || c.Stage == extract.Name) && strings.HasPrefix(o.Name, "quarantine/") {
				s.files = append(s.files, o)
			}
		}
	}
	return []pipeline.Task{task(run, s.shards, s.files)}, nil
}

func task(run *pipeline.Run, shards *extract.Shards, files []pipeline.Output) pipeline.Task {
	m := pipeline.NewManifest(&run.Record, shards.Listing.Digest, append([]pipeline.Output(nil), files...))
	var scratch int64
	for _, f := range files {
		scratch = max(scratch, f.Bytes)
	}
	return pipeline.Task{ID: "labels", Inputs: m.Digest, Rows: int64(len(files)), Scratch: scratch}
}

// Do implements [pipeline.Stage].
func (s *Stage) Do(ctx context.Context, t pipeline.Task, a *pipeline.Attempt) error {
	run := a.Run
	compared, err := s.gate(ctx, run)
	if err != nil {
		return err
	}
	prefix := "runs/" + run.Run + "/"
	published := make([]pipeline.Output, len(s.files))
	var labels int64
	for i, f := range s.files {
		if err := s.copy(ctx, run, f, prefix+f.Name); err != nil {
			return err
		}
		published[i] = pipeline.Output{Name: f.Name, Path: f.Name, FileStats: f.FileStats}
		if strings.HasPrefix(f.Name, "labels/") {
			labels += f.Rows
		}
		a.Progress(1)
	}
	manifest := pipeline.NewManifest(&run.Record, s.shards.Listing.Digest, published)
	manifest.Snapshot = s.shards.Listing.Snapshot
	raw, err := manifest.Encode()
	if err != nil {
		return err
	}
	record, err := publicRecord(ctx, run)
	if err != nil {
		return err
	}
	described, err := croissant(run, manifest, len(s.solutions))
	if err != nil {
		return err
	}
	// _SUCCESS is last: until it is there, readers see no data set.
	for _, o := range []struct {
		name string
		data []byte
	}{{"run.json", record}, {"README.md", s.card(run, manifest)}, {croissantName, described}, {"_manifest.json", raw}, {"_SUCCESS", nil}} {
		if err := create(ctx, s.Labels, prefix+o.name, o.data); err != nil {
			return fmt.Errorf("publish %s: %w", o.name, err)
		}
	}
	sum := sha256.Sum256(raw)
	latest := Latest{Run: run.Run, Manifest: prefix + "_manifest.json", SHA256: hex.EncodeToString(sum[:]), Created: run.Created, Job: run.Job.Name}
	if err := advance(ctx, s.Labels, latest); err != nil {
		return err
	}
	a.Count("labels", labels)
	return a.Result(Result{Folder: s.Labels.URL() + "/" + prefix, Manifest: latest.Manifest, SHA256: latest.SHA256, Digest: manifest.Digest, Labels: labels, Compared: compared})
}

// publicRecord is the run's record as it was written at its start, so that it
// is the same for every attempt, without what the trigger is told: a webhook's
// URL or a command line may hold a secret.
func publicRecord(ctx context.Context, run *pipeline.Run) ([]byte, error) {
	raw, err := run.Work.Get(ctx, run.Path("run.json"))
	if err != nil {
		return nil, fmt.Errorf("read run.json: %w", err)
	}
	record, err := pipeline.ParseRecord(raw, run.Run)
	if err != nil {
		return nil, err
	}
	record.Job.Train = pipeline.Train{Type: record.Job.Train.Type}
	return json.MarshalIndent(record, "", "  ")
}

// sound refuses label sets that are not what they claim to be.
func (s *Stage) sound(run *pipeline.Run) error {
	limit := run.Job.Label.MaxCountRatio
	for h, sol := range s.solutions {
		if sol.Labelling != nil {
			continue // it promises no shares
		}
		c := sol.Certificate
		if err := c.Status.Err(); err != nil {
			return pipeline.BadData(fmt.Errorf("head %d: %w", h, err))
		}
		if c.MaxCountRatio > limit {
			return pipeline.BadData(fmt.Errorf("head %d: its largest cluster holds %d images, %.2f times its share; label.max_count_ratio allows %.2f: raise it and run the same command again, or raise solve.lambda or train the network further in a new run", h, c.LargestCount, c.MaxCountRatio, limit))
		}
	}
	return nil
}

// copy sends a committed object to the labels bucket. An object that is there
// already is left by an earlier attempt and must be the same.
func (s *Stage) copy(ctx context.Context, run *pipeline.Run, f pipeline.Output, key string) error {
	local, release, err := run.Fetch(ctx, f)
	if err != nil {
		return err
	}
	defer release()
	if err = s.Labels.Upload(ctx, key, local); errors.Is(err, bucket.ErrExists) {
		err = occupied(s.Labels, key)
	}
	if err != nil {
		return fmt.Errorf("publish %s: %w", f.Name, err)
	}
	return nil
}

// Open reads the publish stage's commit of a run.
func Open(ctx context.Context, run *pipeline.Run) (*Result, error) {
	s := &Stage{}
	tasks, err := s.Plan(ctx, run)
	if err != nil {
		return nil, err
	}
	commits, err := run.Commits(ctx, Name, tasks)
	if err != nil {
		return nil, err
	}
	var r Result
	if err := json.Unmarshal(commits[0].Result, &r); err != nil {
		return nil, pipeline.BadData(fmt.Errorf("commit of stage publish is damaged: %w", err))
	}
	return &r, nil
}
