package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sela/pipeline"
	"sela/stages/extract"
	"sela/stages/label"
	"sela/stages/list"
	"sela/stages/publish"
	"sela/stages/solve"
	"sela/stages/train"
)

// stageCommands returns a command for each stage alone, for schedulers that run
// them as tasks of their own.
func (a *app) stageCommands() []*cobra.Command {
	about := map[string]string{
		list.Name:    "Take a snapshot of the images: begins a run",
		extract.Name: "Run the model over the images of a run",
		solve.Name:   "Find the labels of each head: the balanced assignment, or those of another method",
		label.Name:   "Write the label tables",
		publish.Name: "Publish the label tables and move LATEST",
		train.Name:   "Trigger training and finish the run",
	}
	more := map[string]string{
		list.Name: "\n\nWithout --run-id and without an unfinished run it begins a new one, or ends with 99 when nothing has changed since the last published run.",
	}
	var all []*cobra.Command
	for _, name := range stageOrder {
		var id, share string
		cmd := &cobra.Command{
			Use: name + " JOB", Short: about[name], Args: cobra.ExactArgs(1),
			Long: about[name] + ".\n\nWithout --run-id it goes on with the job's newest unfinished run. Tasks that are committed are skipped, so that the same command can be given again after any failure." + more[name] + "\n\n" + exitTable(),
			RunE: func(cmd *cobra.Command, args []string) error {
				shard, shards, err := parseShard(share)
				if err != nil {
					return err
				}
				if err := checkRunID(cmd, id); err != nil {
					return err
				}
				return a.withSession(cmd, args[0], func(ctx context.Context, s *session) error {
					return s.runStage(ctx, name, id, shard, shards)
				})
			},
		}
		cmd.Flags().StringVar(&id, "run-id", "", "id of the run")
		if name == extract.Name || name == label.Name {
			cmd.Flags().StringVar(&share, "shard", "", "i/n, i from 0: do only every n-th task, so that n machines can share the stage")
		}
		if name == train.Name {
			a.addTransfer(cmd)
		}
		all = append(all, a.watched(cmd))
	}
	return all
}

func parseShard(s string) (shard, shards int, err error) {
	if s == "" {
		return 0, 1, nil
	}
	var rest string
	if n, _ := fmt.Sscanf(s+" .", "%d/%d %s", &shard, &shards, &rest); n != 3 || rest != "." || shard < 0 || shard >= shards || strings.ContainsAny(s, "+ ") {
		return 0, 0, pipeline.BadUsage(fmt.Errorf("--shard %q: use i/n with i from 0 to n-1, as in 0/4", s))
	}
	return shard, shards, nil
}

// runStage performs one stage of a run, under the run's lease.
func (s *session) runStage(ctx context.Context, name, id string, shard, shards int) error {
	if err := s.openRun(ctx, id, name != list.Name); err != nil {
		return err
	}
	if s.run.Finished {
		return s.report(ctx, name, true)
	}
	lease, err := s.run.Acquire(ctx, false)
	if err != nil {
		return err
	}
	err = s.stageLocked(ctx, name, shard, shards)
	if err == nil && name == list.Name && id == "" {
		err = s.nothingNew(ctx)
	}
	return errors.Join(err, lease.Release(context.WithoutCancel(ctx)))
}

func (s *session) stageLocked(ctx context.Context, name string, shard, shards int) error {
	switch name {
	case list.Name:
		if err := s.probe(ctx); err != nil {
			return err
		}
		if err := s.references(ctx, s.run.Parent); err != nil {
			return err
		}
		if err := s.preflight(ctx); err != nil {
			return err
		}
	case extract.Name:
		if err := s.fits(ctx); err != nil {
			return err
		}
		if err := s.preflight(ctx); err != nil {
			return err
		}
	}
	if _, err := s.do(ctx, name, shard, shards); err != nil {
		return err
	}
	if name == train.Name {
		if err := s.run.Finish(ctx); err != nil {
			return err
		}
		s.show(ctx)
		if err := s.retain(ctx); err != nil {
			return err
		}
	}
	return s.report(ctx, name, false)
}
