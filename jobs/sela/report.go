package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/report"
	"sela/stages/truth"
)

func (a *app) reportCommand() *cobra.Command {
	var id, out, source string
	cmd := &cobra.Command{
		Use: "report JOB", Short: "Write the page that shows a run", Args: cobra.ExactArgs(1),
		Long: "Writes the page that shows a run, in the place of the one that the run's end wrote: its clusters by their most confident images, balance, confidence, convergence, rounds, quarantine, times and provenance. " +
			"It is a folder of files that a browser opens from the disk, without network or server, and lies in the run's folder of the work bucket, or in --out. " +
			"The section report: of the job says how many images it shows, loop.truth or --truth what they are compared with.\n\n" + exitTable(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkRunID(cmd, id); err != nil {
				return err
			}
			return a.report(cmd.Context(), args[0], id, out, source)
		},
	}
	cmd.Flags().StringVar(&id, "run-id", "", "id of the run; the job's newest finished one if not given")
	cmd.Flags().StringVar(&out, "out", "", "folder to write to in the place of the run's, made if it is missing")
	cmd.Flags().StringVar(&source, "truth", "", "classes to compare with: folders, or a CSV file (header key,member,class); loop.truth if not given")
	return cmd
}

// report writes the report of a run that has labels, whether it is finished or
// not. Neither model nor library is needed.
func (a *app) report(ctx context.Context, jobPath, id, out, source string) error {
	job, err := pipeline.LoadJob(jobPath)
	if err != nil {
		return err
	}
	if job.Local.Dir == "" {
		job.Local.Dir = defaultScratch()
	}
	if source != "" {
		job.Loop.Truth = source
	}
	s := &session{app: a, job: job}
	return errors.Join(s.reportAgain(ctx, id, out), s.close())
}

func (s *session) reportAgain(ctx context.Context, id, out string) error {
	var err error
	if s.work, err = bucket.Open(ctx, s.job.Work.Bucket, bucketOptions(s.job)); err != nil {
		return pipeline.BadConfig(fmt.Errorf("work.bucket: %w", err))
	}
	if s.images, err = bucket.Open(ctx, s.job.Images.Bucket, bucketOptions(s.job)); err != nil {
		s.app.progress.log.Warn("the report shows no images", "error", err.Error())
	}
	if id == "" {
		if id, err = newestFinished(ctx, s.work, s.job.Name); err != nil {
			return err
		}
	}
	run, err := pipeline.ReadFetching(ctx, s.work, id, s.job.Local)
	if err != nil {
		return err
	}
	s.run = run
	to, prefix := s.work, run.Path(report.Folder)
	if out != "" {
		folder, err := filepath.Abs(out)
		if err != nil {
			return pipeline.BadUsage(fmt.Errorf("--out: %w", err))
		}
		if to, err = bucket.Open(ctx, creating("file://"+filepath.ToSlash(folder)), bucket.Options{}); err != nil {
			return pipeline.BadConfig(fmt.Errorf("--out: %w", err))
		}
		defer to.Close()
		prefix = ""
	}
	start := time.Now()
	sum, err := s.writeReport(ctx, to, prefix)
	if err != nil {
		return err
	}
	s.app.result = map[string]any{"command": "report", "job": s.job.Name, "run": id, "report": to.URL() + "/" + sum.Page, "files": sum.Files, "bytes": sum.Bytes, "first_bytes": sum.First,
		"images": sum.Images, "missing": sum.Missing, "seconds": rounded(time.Since(start).Seconds())}
	return nil
}

// newestFinished is the id of the job's newest finished run.
func newestFinished(ctx context.Context, work *bucket.Bucket, job string) (string, error) {
	records, err := pipeline.Records(ctx, work)
	if err != nil {
		return "", err
	}
	for _, r := range records {
		if r.Job.Name == job && r.Finished() {
			return r.Run, nil
		}
	}
	return "", pipeline.BadConfig(fmt.Errorf("job %s has no finished run in %s: run it first, or name a run with --run-id", job, work.URL()))
}

// show writes the report of a run that is done, as its job wants it. The labels
// are published: whatever goes wrong here is told, and fails nothing.
func (s *session) show(ctx context.Context) {
	if !s.job.Report.Write {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.job.Timeouts.Task))
	defer cancel()
	start := time.Now()
	sum, err := s.writeReport(ctx, s.work, s.run.Path(report.Folder))
	if err != nil {
		s.app.progress.log.Warn("no report was written; the labels are not affected", "run", s.run.Run, "error", err.Error(), "remedy", "sela report --run-id "+s.run.Run)
		return
	}
	s.shown = s.work.URL() + "/" + sum.Page
	s.notice("report", "page", s.shown, "images", sum.Images, "missing", sum.Missing, "bytes", sum.Bytes, "elapsed", time.Since(start).Round(time.Millisecond))
}

// writeReport writes the report of the session's run.
func (s *session) writeReport(ctx context.Context, to *bucket.Bucket, prefix string) (_ *report.Summary, err error) {
	o := report.Options{Run: s.run, Spec: s.job.Report, Images: s.images, To: to, Prefix: prefix}
	if source := s.job.Loop.Truth; source != "" {
		if o.Truth, err = truth.Open(ctx, source); err != nil {
			return nil, fmt.Errorf("loop.truth: %w", err)
		}
	}
	defer func() { // a decoder or a reader that panics must not end a run that is done
		if p := recover(); p != nil {
			err = fmt.Errorf("the report panicked: %v", p)
		}
	}()
	return report.Write(ctx, o)
}
