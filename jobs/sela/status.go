package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sela/pipeline"
	"sela/pipeline/bucket"
)

func (a *app) statusCommand() *cobra.Command {
	var id string
	cmd := &cobra.Command{
		Use: "status JOB", Short: "Show a job's runs and loops, or one run in detail", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withWork(cmd.Context(), args[0], func(ctx context.Context, job *pipeline.Job, work *bucket.Bucket) error {
				if id != "" {
					return a.runStatus(ctx, job, work, id)
				}
				return a.jobStatus(ctx, job, work)
			})
		},
	}
	cmd.Flags().StringVar(&id, "run-id", "", "id of the run")
	return cmd
}

// withWork opens the job's work bucket and nothing else: what needs no model
// must not fail for want of one.
func (a *app) withWork(ctx context.Context, jobPath string, f func(context.Context, *pipeline.Job, *bucket.Bucket) error) error {
	job, err := pipeline.LoadJob(jobPath)
	if err != nil {
		return err
	}
	work, err := bucket.Open(ctx, creating(job.Work.Bucket), bucketOptions(job))
	if err != nil {
		return pipeline.BadConfig(fmt.Errorf("work.bucket: %w", err))
	}
	return errors.Join(f(ctx, job, work), work.Close())
}

// jobStatus lists the job's runs, newest first.
func (a *app) jobStatus(ctx context.Context, job *pipeline.Job, work *bucket.Bucket) error {
	records, err := pipeline.Records(ctx, work)
	if err != nil {
		return err
	}
	type row struct {
		Run      string    `json:"run"`
		Created  time.Time `json:"created"`
		Finished bool      `json:"finished"`
		Changed  int       `json:"changed_fields"` // against the job file as it is now
	}
	rows := []row{}
	table := tabwriter.NewWriter(os.Stderr, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "RUN\tCREATED\tSTATE\tSPEC")
	for _, r := range records {
		if r.Job.Name != job.Name {
			continue
		}
		state, spec := "unfinished", "same"
		if r.Finished() {
			state = "finished"
		}
		changed := len(r.Job.Difference(job))
		switch {
		case r.Loop != "":
			spec = "round of loop " + r.Loop
		case changed > 0:
			spec = fmt.Sprintf("%d fields differ", changed)
		}
		rows = append(rows, row{r.Run, r.Created, r.Finished(), changed})
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", r.Run, r.Created.Format(time.RFC3339), state, spec)
	}
	if len(rows) == 0 {
		fmt.Fprintf(table, "(none of job %s in %s)\n", job.Name, work.URL())
	}
	if err := table.Flush(); err != nil {
		return err
	}
	loops, err := loopStatus(ctx, job, work)
	if err != nil {
		return err
	}
	a.result = map[string]any{"command": "status", "job": job.Name, "runs": rows, "loops": loops}
	holder, err := pipeline.LeaseHolder(ctx, work, job.Name)
	if err == nil && holder != nil {
		fmt.Fprintf(os.Stderr, "\nthe job is held by %s (process %d on %s)\n", holder.Name(), holder.Holder.PID, holder.Holder.Host)
		a.result["holder"] = map[string]any{"run": holder.Name(), "pid": holder.Holder.PID, "host": holder.Holder.Host}
	}
	return err
}
