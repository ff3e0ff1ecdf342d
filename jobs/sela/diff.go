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
	"sela/stages/diff"
	"sela/stages/label/published"
	"sela/stages/publish"
)

func (a *app) diffCommand() *cobra.Command {
	var where string
	var moved int
	cmd := &cobra.Command{
		Use: "diff RUN1 RUN2", Short: "Compare the labels of two published runs", Args: cobra.ExactArgs(2),
		Long: "Says, by head, how many labels of RUN2 are others than in RUN1, the earlier one (churn), how many once each cluster of RUN1 is matched with the cluster of RUN2 that most of its images are in, one to one (churn, matched), how well the two clusterings agree whatever their numbers (NMI), and which clusters most images left. Images that only one of the runs labels are counted apart.\n\n" +
			"RUN is the URL or the folder of a published run (…/runs/<id>), or a run's id, to be found where --labels says. Both tables are read once, in order of keys; nothing is written.\n\n" + exitTable(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if moved < 0 {
				return pipeline.BadUsage(fmt.Errorf("--moved %d: it is a number of clusters, or 0", moved))
			}
			return a.diff(cmd.Context(), args, where, moved)
		},
	}
	cmd.Flags().StringVar(&where, "labels", "", "where runs that are given by their id are published: URL or folder of the labels bucket, or the job file")
	cmd.Flags().IntVar(&moved, "moved", 10, "clusters to name, of each head, that most images left")
	return cmd
}

// diff compares two published runs.
func (a *app) diff(ctx context.Context, runs []string, where string, moved int) (err error) {
	job := pipeline.DefaultJob()
	fallback := ""
	if where != "" {
		var named string
		if job, fallback, named, err = locateLabels(where); err != nil {
			return err
		}
		if named != "" {
			return pipeline.BadUsage(fmt.Errorf("--labels names run %s: give the bucket that it is in, or that folder in place of RUN", named))
		}
	}
	if job.Local.Dir == "" {
		job.Local.Dir = defaultScratch()
	}
	dir, release, err := pipeline.OwnFolder(job.Local.Dir)
	if err != nil {
		return pipeline.BadConfig(fmt.Errorf("local.dir: %w", err))
	}
	defer func() { err = errors.Join(err, release()) }()
	// A copy kept from an earlier time would hide what has become of the object.
	cache, err := bucket.NewCache(dir, int64(job.Local.Bytes))
	if err != nil {
		return pipeline.BadConfig(fmt.Errorf("local.bytes: %w", err))
	}
	var sides [2]side
	for i, run := range runs {
		sides[i], err = openSide(ctx, run, fallback, job)
		if b := sides[i].labels; b != nil {
			defer func() { err = errors.Join(err, b.Close()) }()
		}
		if err != nil {
			return err
		}
	}
	by := cacheFetcher{cache}
	after, err := diff.Tables(sides[1].run, by)
	if err != nil {
		return err
	}
	found, err := diff.Runs(ctx, sides[0].run, by, after, diff.Options{Memory: int64(job.Solve.Memory), Cache: int64(job.Local.Bytes), Moved: moved})
	if err != nil {
		return err
	}
	heads := [2]int{sides[0].run.Heads(), sides[1].run.Heads()}
	described := make([]map[string]any, 2)
	for i, s := range sides {
		described[i] = map[string]any{"run": s.run.Manifest.Run, "job": s.run.Manifest.Job, "created": s.run.Manifest.Created,
			"labels": s.labels.URL() + "/runs/" + s.run.Manifest.Run + "/", "manifest_digest": s.run.Manifest.Digest, "heads": heads[i]}
	}
	a.result = map[string]any{"command": "diff", "runs": described, "same": sides[0].run.Manifest.Digest == sides[1].run.Manifest.Digest,
		"churn": found.Churn, "churn_matched": found.Matched, "nmi": found.NMI, "heads": found.Heads}
	if heads[0] != heads[1] {
		fmt.Fprintf(os.Stderr, "run %s has %d heads, run %s %d: those that both have are compared\n", sides[0].run.Manifest.Run, heads[0], sides[1].run.Manifest.Run, heads[1])
	}
	return printDiff(found)
}

// side is one of the runs to compare.
type side struct {
	labels *bucket.Bucket // the caller's to close, if not nil
	run    *published.Run
}

// openSide opens the run that an argument names: by the URL or path of its
// folder, or by its id in the bucket fallback.
func openSide(ctx context.Context, arg, fallback string, job *pipeline.Job) (s side, err error) {
	from, run := fallback, arg
	info, statErr := os.Stat(arg)
	switch {
	case strings.Contains(arg, "://") || strings.HasPrefix(arg, "file:"):
		from, run, err = publish.SplitURL(arg)
	case statErr == nil && info.IsDir() && (fallback == "" || strings.ContainsRune(arg, filepath.Separator)):
		folder, absErr := filepath.Abs(arg)
		if absErr != nil {
			return s, absErr
		}
		from, run, err = publish.SplitURL((&url.URL{Scheme: "file", Path: folder}).String())
	case fallback == "":
		return s, pipeline.BadUsage(fmt.Errorf("run %q: it is neither a URL nor a folder; --labels says where runs are found by their id", arg))
	}
	if err != nil {
		return s, err
	}
	if strings.ContainsAny(run, `/\`) {
		return s, pipeline.BadUsage(fmt.Errorf("run %q: it is neither a folder nor a run's id", run))
	}
	if run == "" {
		return s, pipeline.BadUsage(errors.New("an argument names no run: give the run's folder (…/runs/<id>), or its id and --labels"))
	}
	if s.labels, err = bucket.Open(ctx, from, bucketOptions(job)); err != nil {
		return s, pipeline.BadConfig(err)
	}
	s.run, err = published.Open(ctx, s.labels, run)
	return s, err
}

// cacheFetcher makes a [published.Fetcher] of a cache.
type cacheFetcher struct{ cache *bucket.Cache }

// FetchFrom implements [published.Fetcher].
func (f cacheFetcher) FetchFrom(ctx context.Context, from *bucket.Bucket, key string, o pipeline.Output) (string, func(), error) {
	return f.cache.Fetch(ctx, from, key, o.SHA256, o.Bytes)
}

// printDiff shows a comparison as tables for people.
func printDiff(c *diff.Comparison) error {
	optional := func(x *float64) string {
		if x == nil {
			return "-"
		}
		return fmt.Sprintf("%.4f", *x)
	}
	table := tabwriter.NewWriter(os.Stderr, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "HEAD\tCLUSTERS\tIMAGES\tONLY IN RUN1\tONLY IN RUN2\tCHURN\tMATCHED\tNMI\tRENUMBERED")
	for _, h := range c.Heads {
		clusters := fmt.Sprint(h.Clusters[0])
		if h.Clusters[0] != h.Clusters[1] {
			clusters = fmt.Sprintf("%d, %d", h.Clusters[0], h.Clusters[1])
		}
		fmt.Fprintf(table, "%d\t%s\t%d\t%d\t%d\t%s\t%s\t%s\t%d\n", h.Head, clusters, h.Images, h.Earlier, h.Later, optional(h.Churn), optional(h.Matched), optional(h.NMI), h.Renumbered)
	}
	if len(c.Heads) > 1 {
		fmt.Fprintf(table, "mean\t\t\t\t\t%s\t%s\t%s\t\n", optional(c.Churn), optional(c.Matched), optional(c.NMI))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	table = tabwriter.NewWriter(os.Stderr, 0, 0, 2, ' ', 0)
	rows := 0
	for _, h := range c.Heads {
		for _, m := range h.Moved {
			if rows++; rows == 1 {
				fmt.Fprintln(table, "\nHEAD\tCLUSTER\tIS NOW\tIMAGES\tLEFT IT\tMOST OF THEM TO")
			}
			now, to := "gone", "-"
			if m.Match >= 0 {
				now = fmt.Sprint(m.Match)
			}
			if m.To >= 0 {
				to = fmt.Sprintf("%d (%d)", m.To, m.Went)
			}
			fmt.Fprintf(table, "%d\t%d\t%s\t%d\t%d\t%s\n", h.Head, m.Cluster, now, m.Images, m.Images-m.Stayed, to)
		}
	}
	return table.Flush()
}
