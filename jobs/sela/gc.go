package main

import (
	"context"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sela/pipeline"
	"sela/pipeline/bucket"
)

func (a *app) gcCommand() *cobra.Command {
	var remove, abandoned bool
	cmd := &cobra.Command{
		Use: "gc JOB", Short: "Remove what retention lets go of; shows it first", Args: cobra.ExactArgs(1),
		Long: "Lists what the job's keep.logprobs lets go of in finished runs, with checkpoints and objects of attempts that were never committed. Removes it only with --delete.\n\n" + exitTable(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withWork(cmd.Context(), args[0], func(ctx context.Context, job *pipeline.Job, work *bucket.Bucket) error {
				return a.collect(ctx, job, work, remove, abandoned)
			})
		},
	}
	cmd.Flags().BoolVar(&remove, "delete", false, "remove what is listed")
	cmd.Flags().BoolVar(&abandoned, "abandoned", false, "list unfinished runs older than a finished one too")
	return cmd
}

func (a *app) collect(ctx context.Context, job *pipeline.Job, work *bucket.Bucket, remove, abandoned bool) error {
	holder, err := pipeline.LeaseHolder(ctx, work, job.Name)
	if err != nil {
		return err
	}
	if holder != nil && (remove || abandoned) {
		return pipeline.Retryable(fmt.Errorf("job %s is held by %s (process %d on %s): collect when it is done", job.Name, holder.Name(), holder.Holder.PID, holder.Holder.Host))
	}
	garbage, err := pipeline.FindGarbage(ctx, work, job, abandoned)
	if err != nil {
		return err
	}
	if garbage == nil {
		garbage = []pipeline.Garbage{} // JSON: [], not null
	}
	table := tabwriter.NewWriter(os.Stderr, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "RUN\tOBJECTS\tBYTES\tWHY")
	var objects int
	var bytes int64
	for _, g := range garbage {
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\n", g.Run, g.Objects, human(g.Bytes), g.Reason)
		objects += g.Objects
		bytes += g.Bytes
		if remove {
			if err := g.Delete(ctx, work); err != nil {
				return err
			}
		}
	}
	verb := "would be removed (give --delete)"
	if remove {
		verb = "removed"
	}
	fmt.Fprintf(table, "total\t%d\t%s\t%s\n", objects, human(bytes), verb)
	a.result = map[string]any{"command": "gc", "job": job.Name, "deleted": remove, "objects": objects, "bytes": bytes, "runs": garbage}
	return table.Flush()
}
