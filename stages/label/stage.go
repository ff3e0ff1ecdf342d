// Package label writes the label tables: one row per usable image and head, in
// row order, in files cut at fixed row numbers. The tables are what downstream
// teams read; their contract is [schemas.Label].
package label

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strconv"

	"golang.org/x/sync/semaphore"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/sinkhorn"
	"sela/stages/extract"
	"sela/stages/label/published"
	"sela/stages/solve"
)

// Name is the stage's name.
const Name = "label"

// Stage writes one part of one head per task. Tasks are independent and may run
// at the same time.
type Stage struct {
	// Labels is where the run's parent, whose labels become prev_label, was
	// published.
	Labels *bucket.Bucket

	shards    *extract.Shards
	solutions []solve.Solution
	previous  *published.Run
	room      *semaphore.Weighted // of the cache, in bytes
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
	if run.Parent != "" {
		if s.previous, err = published.Open(ctx, s.Labels, run.Parent); err != nil {
			return nil, fmt.Errorf("label.previous: %w", err)
		}
	}
	s.room = semaphore.NewWeighted(run.CacheBytes())
	return tasks(run.Job, s.shards, s.solutions)
}

func tasks(job *pipeline.Job, shards *extract.Shards, solutions []solve.Solution) ([]pipeline.Task, error) {
	rows := shards.Listing.Images
	parts := int((rows + job.Label.PartRows - 1) / job.Label.PartRows)
	var all []pipeline.Task
	for h, solution := range solutions {
		files, err := shards.LogProbs(h)
		if err != nil {
			return nil, err
		}
		sum := sha256.New()
		fmt.Fprintln(sum, solution.Potentials.SHA256)
		for _, f := range files {
			fmt.Fprintln(sum, f.SHA256)
		}
		for p := range parts {
			from, to := partRange(job, rows, p)
			inputs := hex.EncodeToString(sum.Sum(nil))
			if solution.Assignments != nil {
				inputs += " " + solution.Assignments[p].SHA256
			}
			all = append(all, pipeline.Task{ID: fmt.Sprintf("head-%d-part-%05d", h, p), Index: len(all),
				Inputs: inputs, Rows: to - from, Scratch: scratchBytes(job, to-from)})
		}
	}
	return all, nil
}

// scratchBytes bounds a label file: names of ordinary length, and numbers,
// which hardly compress.
func scratchBytes(job *pipeline.Job, rows int64) int64 {
	return 1<<20 + rows*(512+8*int64(job.Label.TopK))
}

func partRange(job *pipeline.Job, rows int64, part int) (from, to int64) {
	from = int64(part) * job.Label.PartRows
	return from, min(from+job.Label.PartRows, rows)
}

// PartName is the logical name of a label file, in hive layout.
func PartName(head, part int) string {
	return fmt.Sprintf("labels/head=%d/part-%05d.parquet", head, part)
}

// Do implements [pipeline.Stage].
func (s *Stage) Do(ctx context.Context, t pipeline.Task, a *pipeline.Attempt) error {
	job := a.Run.Job
	rows := s.shards.Listing.Images
	parts := int((rows + job.Label.PartRows - 1) / job.Label.PartRows)
	head, part := t.Index/parts, t.Index%parts
	from, to := partRange(job, rows, part)

	held := s.held(a.Run, head)
	if limit := a.Run.CacheBytes(); held > limit {
		return pipeline.BadConfig(fmt.Errorf("needs %s of fetched files at once, but local.bytes leaves %s for them: raise local.bytes to %s or lower extract.shard_rows",
			pipeline.Bytes(held), pipeline.Bytes(limit), pipeline.Bytes(2*held)))
	}
	if err := s.room.Acquire(ctx, held); err != nil {
		return err
	}
	defer s.room.Release(held)

	labeller, err := s.labeller(ctx, a.Run, head, part)
	if err != nil {
		return err
	}
	defer labeller.close()
	path := filepath.Join(a.Dir, "labels.parquet")
	w, err := schemas.CreateLabels(path, schemas.LabelsMeta{Head: head, Clusters: len(labeller.v), TopK: len(labeller.top) > 0, KV: s.metadata(a.Run, head)})
	if err != nil {
		return err
	}
	written, err := labeller.write(ctx, a, w, from, to)
	if err != nil || written == 0 {
		_ = w.Abort() // its folder is removed with the attempt
		return err
	}
	stats, err := w.Commit()
	if err != nil {
		return fmt.Errorf("%s: %w", PartName(head, part), err)
	}
	a.Count("labels", written)
	return a.Upload(ctx, path, PartName(head, part), stats)
}

// held bounds the bytes of fetched files that a task pins in the cache at a
// time: of the images table, of the head's shards, of the shards with the
// digests and of the previous labels one file each. A task that waits for room
// with some of them in hand could wait for ever for another that does the same,
// so that a task begins only when there is room for all.
func (s *Stage) held(run *pipeline.Run, head int) int64 {
	largest := func(files []pipeline.Output) (bytes int64) {
		for _, f := range files {
			bytes = max(bytes, f.Bytes)
		}
		return bytes
	}
	var held int64
	if !run.Work.Local() {
		shards, _ := s.shards.LogProbs(head) // planned before: they are there
		digests, _ := s.shards.LogProbs(0)
		held = largest(s.shards.Listing.Files()) + max(largest(shards)+largest(digests), s.solutions[head].Potentials.Bytes)
	}
	if s.previous != nil && !s.Labels.Local() {
		held += largest(s.previous.Files(head))
	}
	return held
}

func (s *Stage) labeller(ctx context.Context, run *pipeline.Run, head, part int) (*labeller, error) {
	solution := &s.solutions[head]
	file := solution.Potentials
	local, release, err := run.Fetch(ctx, file)
	if err != nil {
		return nil, err
	}
	defer release()
	v, _, err := schemas.ReadPotentials(local)
	if err != nil {
		return nil, pipeline.BadData(fmt.Errorf("%s: %w", file.Name, err))
	}
	l := &labeller{listing: s.shards.Listing, lambda: solution.Certificate.Lambda, v: v, assignments: make([]sinkhorn.Assignment, sinkhorn.ChunkRows)}
	if solution.Labelling != nil {
		// No probability stands behind the labels; the model's own are those of λ = 1.
		l.lambda, l.certain = 1, true
	} else {
		l.top = make([]sinkhorn.Candidate, min(run.Job.Label.TopK, len(v)))
	}
	l.assigner = sinkhorn.NewAssigner(l.lambda, v)
	if l.balanced, err = openBalanced(ctx, run, solution, part); err != nil {
		return nil, err
	}
	if l.source, err = solve.OpenSource(run, s.shards, head, 1); err != nil {
		return nil, err
	}
	if l.digests, err = solve.OpenSource(run, s.shards, 0, 1); err != nil {
		l.close()
		return nil, err
	}
	if s.previous != nil {
		l.previous = s.previous.Labels(ctx, run, head)
	}
	return l, nil
}

// metadata describes what made the labels. Nothing here varies between runs
// that make the same labels.
func (s *Stage) metadata(run *pipeline.Run, head int) map[string]string {
	p := run.Provenance
	meta := map[string]string{
		"labeller": run.Job.Solve.Method, "balance": run.Job.Solve.Balance,
		"model": p.Model, "preprocessing": p.Preprocessing, "library": p.Library, "processor": p.Processor,
		"listing": s.shards.Listing.Digest, "code": p.Code, "head_output": s.shards.Heads[head].Name,
	}
	if solution := s.solutions[head]; solution.Labelling == nil {
		c := solution.Certificate
		meta["lambda"], meta["tolerance"], meta["marginal_error_l1"] = number(c.Lambda), number(c.Tol), number(c.MarginalL1)
	}
	return meta
}

func number(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }

// Files returns the label files of a complete label stage, by head and part.
func Files(ctx context.Context, run *pipeline.Run, shards *extract.Shards, solutions []solve.Solution) ([]pipeline.Output, error) {
	all, err := tasks(run.Job, shards, solutions)
	if err != nil {
		return nil, err
	}
	commits, err := run.Commits(ctx, Name, all)
	if err != nil {
		return nil, err
	}
	var files []pipeline.Output
	for _, c := range commits {
		files = append(files, c.Outputs...)
	}
	return files, nil
}
