package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/list"
	"sela/stages/loop"
	"sela/stages/publish"
	"sela/stages/train"
	"sela/stages/train/builtin"
)

// round does round r, of which any part may be done already.
func (l *looping) round(ctx context.Context, r int) (err error) {
	var before *loop.Round
	if r > 0 {
		before = l.rounds[r-1]
	}
	s, err := l.app.sessionOf(ctx, l.spec.RoundJob(r, l.first, before, l.place))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	s.loop = l.spec.Loop
	if err := s.openRun(ctx, l.spec.Run(r), false); err != nil {
		return err
	}
	s.run.Notice("", "round", "round", r, "of", l.spec.Rounds, "run", s.run.Run, "epoch", l.spec.Epoch(r))
	if err := s.makeLabels(ctx, func(ctx context.Context) error { return l.listed(ctx, s.run) }); err != nil {
		return err
	}
	done := &loop.Round{Version: 1, Loop: l.spec.Loop, Round: r, Run: s.run.Run, Parent: s.run.Parent, Epoch: l.spec.Epoch(r), Last: r == l.spec.Rounds}
	if done.Heads, done.Images, err = loop.Measure(ctx, s.run, l.truth); err != nil {
		return err
	}
	done.Agreement = loop.Mean(done.Heads)
	if before != nil && before.Training != nil && done.Churn != nil && !done.Last && l.spec.Settled(r, *done.Churn, before.Training.Rate) {
		done.Last, done.Settled = true, true
		s.job.Train.Type = "none" // these labels are not trained on
		s.run.Notice("", "the labels have settled", "churn", *done.Churn, "rate", before.Training.Rate)
	}
	if _, err := s.do(ctx, train.Name, 0, 1); err != nil {
		return err
	}
	trained, err := l.describe(ctx, s, done)
	if err != nil {
		return err
	}
	if err := l.record(ctx, done); err != nil {
		return err
	}
	if err := s.run.Finish(ctx); err != nil {
		return err
	}
	if s.show(ctx); s.shown != "" {
		l.shown = s.shown
	}
	if err := s.retain(ctx); err != nil {
		return err
	}
	return forget(s.job, trained)
}

// listed checks what only the listing tells: that the images are those of the
// first round, that the truth knows them and that there are enough of them.
func (l *looping) listed(ctx context.Context, run *pipeline.Run) error {
	listing, err := list.Open(ctx, run)
	if err != nil {
		return err
	}
	if len(l.rounds) > 0 {
		if first := l.rounds[0]; listing.Digest != first.Listing {
			return pipeline.BadData(fmt.Errorf("the images are not those that the loop began with (%d now): put them back, or begin another loop", listing.Images))
		}
		return nil
	}
	if err := l.spec.Fits(listing.Images); err != nil || l.truth == nil {
		return err
	}
	return loop.CheckTruth(ctx, listing, l.truth)
}

// describe completes the record of a round from what its stages committed, and
// returns the local folder of its training, if it was made here.
func (l *looping) describe(ctx context.Context, s *session, r *loop.Round) (trained string, err error) {
	commits, err := s.run.AllCommits(ctx)
	if err != nil {
		return "", err
	}
	damaged := func(c *pipeline.Commit, err error) error {
		return pipeline.BadData(fmt.Errorf("commit of stage %s is damaged: %w", c.Stage, err))
	}
	r.Seconds = map[string]float64{}
	for _, c := range commits {
		r.Seconds[c.Stage] += c.Seconds
		switch c.Stage {
		case list.Name:
			r.Listing = pipeline.Listing(c)
		case publish.Name:
			var p publish.Result
			if err := json.Unmarshal(c.Result, &p); err != nil {
				return "", damaged(c, err)
			}
			r.Labels, r.Manifest = p.Folder, p.Digest
		case train.Name:
			var outcome struct {
				Report *struct {
					Dir  string          `json:"dir"`
					Last builtin.Metrics `json:"last"`
				} `json:"report"`
			}
			if err := json.Unmarshal(c.Result, &outcome); err != nil {
				return "", damaged(c, err)
			}
			if outcome.Report != nil {
				r.Training, trained = &outcome.Report.Last, outcome.Report.Dir
			}
			for _, o := range c.Outputs {
				file := &loop.File{Key: s.run.Path(o.Path), SHA256: o.SHA256}
				switch o.Name {
				case train.ModelName:
					r.Model = file
				case builtin.CheckpointName:
					r.Checkpoint = file
				}
			}
		}
	}
	for stage, t := range s.totals {
		if t.Skipped == 0 {
			r.Seconds[stage] = t.Elapsed.Seconds() // tasks may have run side by side
		}
	}
	if !r.Last && r.Model == nil {
		return "", pipeline.BadConfig(fmt.Errorf("train.type %s left no network for the next round to go on with: a command writes it to {trained_model}; mend it, and begin another loop", s.job.Train.Type))
	}
	return trained, nil
}

// record makes a round done, and says so.
func (l *looping) record(ctx context.Context, r *loop.Round) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := l.work.Create(ctx, l.path(loop.RoundName(r.Round)), append(raw, '\n')); err != nil && !errors.Is(err, bucket.ErrExists) {
		return err
	}
	l.rounds = append(l.rounds, r)
	pairs := []any{"round", r.Round, "run", r.Run}
	if r.Churn != nil {
		pairs = append(pairs, "churn", rounded(*r.Churn), "nmi_previous", rounded(*r.Previous))
	}
	if t := r.Truth; t != nil {
		pairs = append(pairs, "nmi", rounded(t.NMI), "by_chance", rounded(t.NMIChance))
	}
	if t := r.Training; t != nil {
		pairs = append(pairs, "loss", rounded(t.Train.Loss), "rate", rounded(t.Rate), "images/s", rounded(t.ImagesPerSecond))
	}
	l.notice("round done", pairs...)
	return nil
}

// forget removes the local folder of a training whose results lie in the work
// bucket.
func forget(job *pipeline.Job, dir string) error {
	if dir == "" || filepath.Dir(dir) != filepath.Join(job.Local.Dir, "train") {
		return nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return pipeline.BadConfig(fmt.Errorf("local.dir: %w", err))
	}
	return nil
}
