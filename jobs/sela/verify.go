package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/publish"
)

func (a *app) verifyCommand() *cobra.Command {
	var o publish.VerifyOptions
	var noModel bool
	cmd := &cobra.Command{
		Use: "verify URL|JOB", Short: "Check a published data set end to end", Args: cobra.ExactArgs(1),
		Long: "Checks a published data set from its URL: that of a labels bucket (then the run that LATEST names, or --run-id) or of a run's folder in it; or the labels bucket of a job file.\n\n" +
			"Looks at the digest of every file, at the tables against each other and against the solver's certificates, and runs a sample of images through the model again. " +
			"Model, images and library are taken from where the run had them; a job file given instead of the URL says where model and library are now.\n\n" + exitTable(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.Sample < 0 {
				return pipeline.BadUsage(fmt.Errorf("--sample %d: it is a number of images, or 0", o.Sample))
			}
			if noModel {
				o.Sample = 0
			}
			return a.verify(cmd.Context(), args[0], o)
		},
	}
	cmd.Flags().StringVar(&o.Run, "run-id", "", "id of the published run; the newest if not given")
	cmd.Flags().IntVar(&o.Sample, "sample", 64, "images to run through the model again")
	cmd.Flags().Uint64Var(&o.Seed, "seed", 1, "of the choice of these images")
	cmd.Flags().BoolVar(&noModel, "no-model", false, "run no image through the model: neither model nor images are needed")
	return cmd
}

func (a *app) verify(ctx context.Context, where string, o publish.VerifyOptions) (err error) {
	job, labels, run, err := locateLabels(where)
	if err != nil {
		return err
	}
	if run != "" && o.Run != "" && run != o.Run {
		return pipeline.BadUsage(fmt.Errorf("the URL names run %s, --run-id names %s: give one of them", run, o.Run))
	}
	if run != "" {
		o.Run = run
	}
	requests := bucketOptions(job)
	if o.Labels, err = bucket.Open(ctx, labels, requests); err != nil {
		return pipeline.BadConfig(err)
	}
	defer func() { err = errors.Join(err, o.Labels.Close()) }()
	o.Dir, o.Bytes = job.Local.Dir, int64(job.Local.Bytes)
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return pipeline.BadConfig(fmt.Errorf("local.dir: %w", err))
	}
	s := &session{app: a}
	var model *publish.Model
	defer func() {
		if model != nil {
			err = errors.Join(err, model.Classifier.Close())
		}
		err = errors.Join(err, s.close())
	}()
	o.Model = func(ctx context.Context, r *pipeline.Record) (*publish.Model, error) {
		var err error
		model, err = s.modelOf(ctx, r, job)
		return model, err
	}
	report, err := publish.Verify(ctx, o)
	if tableErr := a.printReport(report); err == nil {
		err = tableErr
	}
	return err
}

// locateLabels finds the labels bucket that the command names, and what a job
// file says about this machine. The job of a URL has defaults only.
func locateLabels(where string) (job *pipeline.Job, labels, run string, err error) {
	job = pipeline.DefaultJob()
	info, statErr := os.Stat(where)
	switch {
	case strings.Contains(where, "://") || strings.HasPrefix(where, "file:"):
		labels, run, err = publish.SplitURL(where)
	case statErr == nil && info.IsDir():
		folder, absErr := filepath.Abs(where)
		if absErr != nil {
			return nil, "", "", absErr
		}
		labels, run, err = publish.SplitURL((&url.URL{Scheme: "file", Path: folder}).String())
	default:
		if job, err = pipeline.LoadJob(where); err == nil {
			labels = job.Labels.Bucket
		}
	}
	if err == nil && job.Local.Dir == "" {
		job.Local.Dir = defaultScratch()
	}
	return job, labels, run, err
}

// modelOf opens what made the labels of a record. Where the job is that of a
// file, it says where library and model are now; where a round of a loop has its
// network from, only its record says.
func (s *session) modelOf(ctx context.Context, r *pipeline.Record, job *pipeline.Job) (*publish.Model, error) {
	then := *r.Job
	then.Train = pipeline.Train{Type: "none"} // nothing is trained here
	then.Local, then.Timeouts, then.Retries, then.Limits = job.Local, job.Timeouts, job.Retries, job.Limits
	then.Runtime.Library, then.Runtime.Device = job.Runtime.Library, job.Runtime.Device
	if job.Model.Path != "" && r.Loop == "" { // a loop's job names the network it began with
		then.Model.Path = job.Model.Path
	}
	s.job = &then
	var err error
	requests := bucketOptions(&then)
	if s.images, err = bucket.Open(ctx, then.Images.Bucket, requests); err != nil {
		return nil, pipeline.BadConfig(fmt.Errorf("images of run %s: %w (--no-model needs none)", r.Run, err))
	}
	if err := s.openModel(ctx); err != nil {
		return nil, fmt.Errorf("model of run %s: %w (--no-model needs none)", r.Run, err)
	}
	classifier, err := s.openClassifier(ctx)
	if err != nil {
		return nil, err
	}
	return &publish.Model{Classifier: classifier, Images: s.images, Provenance: s.provenance}, nil
}

// printReport shows the checks as a table and keeps them for the result.
func (a *app) printReport(r *publish.Report) error {
	table := tabwriter.NewWriter(os.Stderr, 0, 0, 2, ' ', 0)
	for _, c := range r.Checks {
		state := "ok"
		if !c.OK {
			state = "FAILED"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", c.Name, state, c.Detail)
	}
	status := "verified"
	if r.Err() != nil {
		status = "failed"
	}
	a.result = map[string]any{"command": "verify", "run": r.Run, "labels": r.Folder, "manifest_digest": r.Digest, "status": status,
		"heads": r.Heads, "images": r.Images, "rows": r.Labels, "bytes": r.Bytes, "checks": r.Checks}
	return table.Flush()
}
