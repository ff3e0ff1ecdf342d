package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/extract"
	"sela/stages/label"
	"sela/stages/label/published"
	"sela/stages/list"
	"sela/stages/publish"
	"sela/stages/solve"
	"sela/stages/train"
)

// stageOrder is a run from its first stage to its last.
var stageOrder = []string{list.Name, extract.Name, solve.Name, label.Name, publish.Name, train.Name}

// codeVersion is set by the linker.
var codeVersion = ""

func version() string {
	if codeVersion != "" {
		return codeVersion
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value[:min(12, len(s.Value))]
			}
		}
	}
	return "devel"
}

func (a *app) runCommand() *cobra.Command {
	var id string
	cmd := &cobra.Command{
		Use:   "run JOB",
		Short: "List, extract, solve, label, publish and trigger training: one run of a job",
		Long: "One run of a job, from a listing of the images to published label tables and a triggered training.\n\n" +
			"With --run-id: that run, resumed if it is unfinished. Without: the job's newest unfinished run, else a new one; exit code 99 when nothing has changed since the last published run.\n\n" + exitTable(),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkRunID(cmd, id); err != nil {
				return err
			}
			return a.withSession(cmd, args[0], func(ctx context.Context, s *session) error { return s.runAll(ctx, id) })
		},
	}
	cmd.Flags().StringVar(&id, "run-id", "", "id of the run to start or to resume")
	cmd.Flags().BoolVar(&a.nothingNewOK, "nothing-new-ok", false, "exit with 0, not 99, when there is nothing new (for schedulers that know only success and failure)")
	return cmd
}

// checkRunID refuses --run-id "": a scheduler's variable that is not set must
// not be taken for no --run-id.
func checkRunID(cmd *cobra.Command, id string) error {
	if id == "" && cmd.Flags().Changed("run-id") {
		return pipeline.BadUsage(errors.New("--run-id is empty: leave it out, or name a run"))
	}
	return nil
}

// runAll takes a run through all stages.
func (s *session) runAll(ctx context.Context, id string) error {
	if err := s.openRun(ctx, id, false); err != nil {
		return err
	}
	if s.run.Finished {
		s.run.Notice("", "run is finished; nothing to do", "run", s.run.Run)
		return s.report(ctx, "run", true)
	}
	s.run.Notice("", "run", "run", s.run.Run, "job", s.job.Name, "code", version())
	lease, err := s.run.Acquire(ctx, id == "")
	if err != nil {
		return err
	}
	err = s.locked(ctx, id == "")
	return errors.Join(err, lease.Release(context.WithoutCancel(ctx)))
}

// locked is runAll under the lease.
func (s *session) locked(ctx context.Context, anonymous bool) error {
	err := s.makeLabels(ctx, func(ctx context.Context) error {
		if anonymous {
			return s.nothingNew(ctx)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if _, err := s.do(ctx, train.Name, 0, 1); err != nil {
		return err
	}
	if err := s.run.Finish(ctx); err != nil {
		return err
	}
	s.show(ctx)
	if err := s.retain(ctx); err != nil {
		return err
	}
	return s.report(ctx, "run", false)
}

// makeLabels takes a run to published labels. It calls listed after the first
// stage, and ends with its error.
func (s *session) makeLabels(ctx context.Context, listed func(context.Context) error) error {
	if err := s.probe(ctx); err != nil {
		return err
	}
	if err := s.references(ctx, s.run.Parent); err != nil {
		return err
	}
	if err := s.preflight(ctx); err != nil {
		return err
	}
	for _, name := range stageOrder {
		if name == train.Name {
			break
		}
		if _, err := s.do(ctx, name, 0, 1); err != nil {
			return err
		}
		if name != list.Name {
			continue
		}
		if err := listed(ctx); err != nil {
			return err
		}
		if err := s.fits(ctx); err != nil {
			return err
		}
	}
	return nil
}

// probe refuses stores on which no commit can be relied on.
func (s *session) probe(ctx context.Context) error {
	for _, b := range []*bucket.Bucket{s.work, s.labels} {
		if err := b.Probe(ctx); err != nil {
			return fmt.Errorf("%s cannot hold runs: %w", b.URL(), err)
		}
	}
	return nil
}

// references makes sure that the published runs that the job builds on are
// there, before hours of extraction.
func (s *session) references(ctx context.Context, parent string) error {
	for _, r := range []struct{ field, run string }{{"label.previous", parent}, {"solve.from", s.job.Solve.From}} {
		if r.run == "" {
			continue
		}
		if _, err := published.Open(ctx, s.labels, r.run); err != nil {
			return fmt.Errorf("%s: %w", r.field, err)
		}
	}
	return nil
}

// preflight runs the first batch before any task starts, unless extract has
// begun: then an earlier attempt has.
func (s *session) preflight(ctx context.Context) error {
	done, err := s.run.Committed(ctx, extract.Name)
	if err != nil || len(done) > 0 {
		return err
	}
	start := time.Now()
	batch := s.design.Batch
	candidates, err := list.First(ctx, s.images, s.job.Images, max(2*batch, 64))
	if err != nil {
		return err
	}
	p, err := s.extract.Preflight(ctx, candidates)
	if err != nil {
		return err
	}
	c := s.extract.Classifier()
	heads := make([]int, len(c.Heads))
	for i, h := range c.Heads {
		heads[i] = h.Clusters
	}
	s.run.Notice("", "first batch is as the job says", "images", p.Images, "heads", len(heads), "clusters", slices.Compact(heads),
		"bitwise_deterministic", p.Probe.Bitwise(), "elapsed", time.Since(start).Round(time.Millisecond))
	return nil
}

// do performs one stage.
func (s *session) do(ctx context.Context, name string, shard, shards int) (pipeline.Totals, error) {
	stage, err := s.stage(name)
	if err != nil {
		return pipeline.Totals{}, err
	}
	t, err := s.runner(name, shard, shards).Run(ctx, s.run, stage)
	s.totals[name] = t
	return t, err
}

// nothingNew ends a run that would make the labels of the last published one
// again. The run is discarded, so that the next schedule lists afresh.
func (s *session) nothingNew(ctx context.Context) error {
	latest, err := publish.Newest(ctx, s.labels, s.job.Name)
	if err != nil || latest == nil || latest.Run == s.run.Run {
		return err
	}
	before, err := published.Open(ctx, s.labels, latest.Run)
	if pipeline.ClassOf(err) == pipeline.Config {
		return nil // somebody removed that run: nothing to compare with
	}
	if err != nil {
		return err
	}
	raw, err := s.labels.Get(ctx, "runs/"+latest.Run+"/run.json")
	if err != nil {
		return err
	}
	record, err := pipeline.ParseRecord(raw, latest.Run)
	if err != nil {
		return err
	}
	listing, err := list.Open(ctx, s.run)
	if err != nil {
		return err
	}
	p := s.run.Provenance
	if listing.Snapshot != before.Manifest.Snapshot || s.run.JobDigest != record.JobDigest ||
		p.Model != record.Provenance.Model || p.Truth != record.Provenance.Truth || p.Preprocessing != record.Provenance.Preprocessing {
		return nil
	}
	if err := s.run.Discard(ctx); err != nil {
		return err
	}
	s.app.result = map[string]any{"run": latest.Run, "job": s.job.Name, "status": "nothing new", "images": listing.Images,
		"labels": s.labels.URL() + "/runs/" + latest.Run + "/", "manifest": s.labels.URL() + "/" + latest.Manifest, "manifest_digest": before.Manifest.Digest}
	return pipeline.Nothing(fmt.Errorf("nothing new: images, model and spec are those of run %s; to label them again, name a run with --run-id", latest.Run))
}

// retain applies the job's retention.
func (s *session) retain(ctx context.Context) error {
	garbage, err := pipeline.FindGarbage(ctx, s.work, s.job, false)
	if err != nil {
		return err
	}
	for _, g := range garbage {
		if err := g.Delete(ctx, s.work); err != nil {
			return err
		}
		s.notice("retention removed objects", "of_run", g.Run, "why", g.Reason, "objects", g.Objects, "bytes", pipeline.Bytes(g.Bytes))
	}
	return nil
}

// notice reports something that belongs to no stage, with key-value pairs.
func (s *session) notice(message string, pairs ...any) {
	e := pipeline.Event{Kind: pipeline.Notice, Task: message}
	for i := 0; i+1 < len(pairs); i += 2 {
		e.Attrs = append(e.Attrs, slog.Any(fmt.Sprint(pairs[i]), pairs[i+1]))
	}
	s.app.progress.Observe(e)
}

// report fills the result that is printed at the end.
func (s *session) report(ctx context.Context, command string, before bool) error {
	status := "done"
	if before {
		status = "done before"
	}
	out := map[string]any{"command": command, "run": s.run.Run, "job": s.job.Name, "status": status, "work": s.work.URL() + "/" + strings.TrimSuffix(s.run.Path(""), "/")}
	commits, err := s.run.AllCommits(ctx)
	if err != nil {
		return err
	}
	counts := map[string]map[string]int64{}
	var made publish.Result
	seconds := map[string]float64{} // of committed tasks, which may have run side by side
	for _, c := range commits {
		if counts[c.Stage] == nil {
			counts[c.Stage] = map[string]int64{}
		}
		counts[c.Stage]["tasks"]++
		seconds[c.Stage] += c.Seconds
		for k, n := range c.Counts {
			counts[c.Stage][k] += n
		}
		if c.Stage == publish.Name {
			if err := json.Unmarshal(c.Result, &made); err != nil {
				return pipeline.BadData(fmt.Errorf("commit of stage publish is damaged: %w", err))
			}
			out["labels"], out["manifest"] = made.Folder, s.labels.URL()+"/"+made.Manifest
			out["manifest_sha256"], out["manifest_digest"] = made.SHA256, made.Digest
			if c := made.Compared; c != nil {
				out["compared"] = map[string]any{"run": c.Run, "churn": c.Churn, "churn_matched": c.Matched, "nmi": c.NMI}
			}
		}
		if c.Stage == train.Name {
			out["train"] = c.Result
		}
	}
	for stage, s := range seconds {
		seconds[stage] = math.Round(1000*s) / 1000
	}
	out["counts"], out["task_seconds"] = counts, seconds
	if t := sumExtract(commits); t != nil {
		out["extract_time"] = t
	}
	s.app.remember(command, commits, made)
	if s.shown != "" {
		out["report"] = s.shown
	}
	s.app.result = out
	return nil
}
