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
	a.result = map[string]any{"command": "status", "job": job.Name, "runs": rows, "loops": loops}
	return err
}

// runStatus shows how far a run is.
func (a *app) runStatus(ctx context.Context, job *pipeline.Job, work *bucket.Bucket, id string) error {
	run, err := pipeline.Read(ctx, work, id)
	if err != nil {
		return err
	}
	commits, err := run.AllCommits(ctx)
	if err != nil {
		return err
	}
	type stage struct {
		Tasks   int              `json:"tasks"`
		Seconds float64          `json:"task_seconds"`
		Bytes   int64            `json:"bytes"`
		Counts  map[string]int64 `json:"counts"`
	}
	stages := map[string]*stage{}
	for _, c := range commits {
		s := stages[c.Stage]
		if s == nil {
			s = &stage{Counts: map[string]int64{}}
			stages[c.Stage] = s
		}
		s.Tasks++
		s.Seconds += c.Seconds
		for _, o := range c.Outputs {
			s.Bytes += o.Bytes
		}
		for k, n := range c.Counts {
			s.Counts[k] += n
		}
	}
	holder, err := pipeline.LeaseHolder(ctx, work, job.Name)
	if err != nil {
		return err
	}
	state := "unfinished"
	switch {
	case run.Finished:
		state = "finished"
	case holder != nil && holder.Holds(&run.Record):
		state = fmt.Sprintf("running (process %d on %s)", holder.Holder.PID, holder.Holder.Host)
	}
	fmt.Fprintf(os.Stderr, "run %s of job %s, created %s: %s\n", run.Run, run.Job.Name, run.Created.Format(time.RFC3339), state)
	table := tabwriter.NewWriter(os.Stderr, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "STAGE\tTASKS DONE\tTASK TIME\tBYTES\tCOUNTS")
	for _, name := range stageOrder {
		if s := stages[name]; s != nil {
			fmt.Fprintf(table, "%s\t%d\t%.1f s\t%s\t%v\n", name, s.Tasks, s.Seconds, human(s.Bytes), s.Counts)
		} else {
			fmt.Fprintf(table, "%s\t-\t\t\t\n", name)
		}
	}
	a.result = map[string]any{"command": "status", "job": job.Name, "run": id, "state": state, "stages": stages}
	return table.Flush()
}
