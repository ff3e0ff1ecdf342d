package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/loop"
	"sela/stages/truth"
)

func (a *app) loopCommand() *cobra.Command {
	var id string
	var rounds int
	cmd := &cobra.Command{
		Use:   "loop JOB --rounds R",
		Short: "Rounds of labels and training: labels of the untrained network, train on them, label again",
		Long: "Labels the images, trains the job's network on the labels for train.builtin.epochs, labels again with what it has become, and so on: R parts of one training of R times as many epochs, whose labels change between them, and the labels of the network at its end. Learning rate, warm-up and milestones stretch over the whole training (milestones are given as for one round). " +
			"Each round is a run, LOOP-r000 to LOOP-rR, whose parent is the one before. First of all the untrained network's BatchNormalization statistics are set from loop.calibrate images. The section loop: of the job says the rest.\n\n" +
			"With --loop-id: that loop, gone on with if it is unfinished. Without: the job's newest unfinished loop of so many rounds and this spec, else a new one. Killed anywhere, the same command goes on and comes to the same labels and network.\n\n" + exitTable(),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if id == "" && cmd.Flags().Changed("loop-id") {
				return pipeline.BadUsage(errors.New("--loop-id is empty: leave it out, or name a loop"))
			}
			if rounds == 0 {
				return pipeline.BadUsage(errors.New("--rounds is required: how many parts the training has"))
			}
			return a.withSession(cmd, args[0], func(ctx context.Context, s *session) error { return s.runLoop(ctx, id, rounds) })
		},
	}
	cmd.Flags().StringVar(&id, "loop-id", "", "id of the loop to start or to go on with")
	cmd.Flags().IntVar(&rounds, "rounds", 0, "R, parts of the training; labels are made R+1 times")
	return cmd
}

// looping is a loop that this process works on.
type looping struct {
	*session // of the loop's job; each round has its own
	spec     *loop.Spec
	truth    *truth.Source // nil: unknown
	first    string        // where the network lies that no part has trained yet
	rounds   []*loop.Round // done
}

// runLoop takes a loop through all its rounds.
func (s *session) runLoop(ctx context.Context, id string, rounds int) error {
	now := time.Now()
	l := &looping{session: s, spec: &loop.Spec{Version: 1, Loop: id, Rounds: rounds, Job: s.job, Provenance: s.provenance, Created: now.UTC().Truncate(time.Microsecond)}}
	if id == "" {
		if err := l.findUnfinished(ctx); err != nil {
			return err
		}
	}
	if err := l.spec.Check(); err != nil {
		return err
	}
	lease, err := pipeline.AcquireLoop(ctx, s.work, s.job.Name, l.spec.Loop)
	if err != nil {
		return err
	}
	if err = l.all(ctx); err != nil {
		err = fmt.Errorf("loop %s: %w", l.spec.Loop, err)
	}
	return errors.Join(err, lease.Release(context.WithoutCancel(ctx)))
}

// findUnfinished names the loop to go on with, or a new one.
func (l *looping) findUnfinished(ctx context.Context) error {
	found, err := loop.Specs(ctx, l.work)
	if err != nil {
		return err
	}
	for _, f := range found {
		if f.Job.Name != l.job.Name || f.Finished {
			continue
		}
		if len(f.Difference(l.spec)) > 0 {
			l.notice("left an unfinished loop of another spec, model or library behind", "loop", f.Loop)
			continue
		}
		l.spec.Loop = f.Loop
		return nil
	}
	l.spec.Loop = pipeline.NewID(l.spec.Created)
	return nil
}

func (l *looping) path(name string) string { return pipeline.LoopPath(l.spec.Loop, name) }

// place is the URL of an object of the work bucket, to be opened with.
func (l *looping) place(key string) string { return objectURL(l.job.Work.Bucket, key) }

// all is runLoop under the lease.
func (l *looping) all(ctx context.Context) error {
	if err := l.probe(ctx); err != nil {
		return err
	}
	finished, err := l.establish(ctx)
	if err != nil {
		return err
	}
	if err := l.recall(ctx); err != nil {
		return err
	}
	if finished {
		l.notice("loop is finished; nothing to do", "loop", l.spec.Loop)
		return l.end("done before")
	}
	l.notice("loop", "loop", l.spec.Loop, "job", l.job.Name, "rounds", l.spec.Rounds, "done_before", len(l.rounds), "code", version())
	if l.job.Loop.Truth != "" {
		if l.truth, err = truth.Open(ctx, l.job.Loop.Truth); err != nil {
			return fmt.Errorf("loop.truth: %w", err)
		}
	}
	if err := l.calibrate(ctx); err != nil {
		return err
	}
	for len(l.rounds) == 0 || !l.rounds[len(l.rounds)-1].Last {
		r := len(l.rounds)
		if err := l.round(ctx, r); err != nil {
			return fmt.Errorf("round %d (run %s): %w", r, l.spec.Run(r), err)
		}
	}
	if err := l.complete(ctx); err != nil {
		return err
	}
	return l.end("done")
}

// establish creates loop.json, or compares the one that is there.
func (l *looping) establish(ctx context.Context) (finished bool, err error) {
	raw, err := json.MarshalIndent(l.spec, "", "  ")
	if err != nil {
		return false, err
	}
	err = l.work.Create(ctx, l.path("loop.json"), append(raw, '\n'))
	if !errors.Is(err, bucket.ErrExists) {
		return false, err
	}
	existing, finished, err := loop.ReadSpec(ctx, l.work, l.spec.Loop)
	if err != nil {
		return false, err
	}
	if diff := existing.Difference(l.spec); len(diff) > 0 {
		return false, pipeline.BadConfig(fmt.Errorf("it was started with another spec; use another --loop-id, or go back: %s", strings.Join(diff, "; ")))
	}
	l.spec.Created = existing.Created
	return finished, nil
}

// recall reads the rounds that are done. One whose run was cut off between its
// record and its end is ended.
func (l *looping) recall(ctx context.Context) (err error) {
	if l.rounds, err = loop.ReadRounds(ctx, l.work, l.spec); err != nil || len(l.rounds) == 0 {
		return err
	}
	run, err := pipeline.Read(ctx, l.work, l.rounds[len(l.rounds)-1].Run)
	if err != nil || run.Finished {
		return err
	}
	return run.Finish(ctx)
}
