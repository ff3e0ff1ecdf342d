package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/extract"
	"sela/stages/list"
)

func (a *app) planCommand() *cobra.Command {
	var images int64
	cmd := &cobra.Command{
		Use:   "plan JOB",
		Short: "Say what a run would do, and refuse what cannot fit",
		Long:  "Lists the images and loads the model, writes nothing, and prints what a run would make: images, shards, bytes, memory, passes. What cannot fit is an error. With --images it lists nothing: for images that are not there yet.\n\n" + exitTable(),
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if images < 0 || images == 0 && cmd.Flags().Changed("images") {
				return pipeline.BadUsage(fmt.Errorf("--images is %d: how many images are to be labelled", images))
			}
			return a.withSession(cmd, args[0], func(ctx context.Context, s *session) error { return s.plan(ctx, images) })
		},
	}
	cmd.Flags().Int64Var(&images, "images", 0, "plan for so many images instead of listing them")
	return cmd
}

func (s *session) plan(ctx context.Context, images int64) error {
	parent, err := s.parent(ctx)
	if err != nil {
		return err
	}
	if err := s.references(ctx, parent); err != nil {
		return err
	}
	summary := list.Summary{Images: images}
	if images == 0 {
		if summary, err = list.Count(ctx, s.images, s.job.Images); err != nil {
			return err
		}
	}
	c, err := s.openClassifier(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	e := extract.NewEstimate(s.job, c, summary.Images)
	clusters := make([]int, len(c.Heads))
	largest := 0
	for i, h := range c.Heads {
		clusters[i] = h.Clusters
		largest = max(largest, h.Clusters)
	}
	parts := (summary.Images + s.job.Label.PartRows - 1) / s.job.Label.PartRows
	if images > 0 {
		fmt.Fprintf(os.Stderr, "images          %d, as --images says\n", images)
	} else {
		fmt.Fprintf(os.Stderr, "images          %d (%s), %d quarantined at listing, %d other objects skipped\n", summary.Images, human(summary.Bytes), summary.Rejected, summary.Skipped)
	}
	fmt.Fprintf(os.Stderr, "model           %d heads of %v clusters, input %d×%d, batch %d\n", len(c.Heads), describeClusters(clusters), c.Spec.Size().Height, c.Spec.Size().Width, c.Batch)
	fmt.Fprintf(os.Stderr, "extract         %d tasks of up to %d images\n", e.Shards, s.job.Extract.ShardRows)
	fmt.Fprintf(os.Stderr, "log-probs       %s per head, %s in all, in %s\n", human(e.HeadBytes), human(e.TotalBytes), s.work.URL())
	fmt.Fprintf(os.Stderr, "scratch         %s per task (local.bytes is %s)\n", human(e.ScratchBytes), s.job.Local.Bytes)
	fmt.Fprintf(os.Stderr, "memory          about %s, and what ONNX Runtime needs for the model; up to %s more while images as large as preprocess.max_pixels are decoded\n",
		human(e.MemoryBytes), human(e.DecodeBytes))
	passes, reads := s.reads()
	fmt.Fprintf(os.Stderr, "solve           %d heads, one after another; method %s reads %s\n", len(c.Heads), s.job.Solve.Method, reads)
	fmt.Fprintf(os.Stderr, "label           %d files of up to %d rows\n", parts*int64(len(c.Heads)), s.job.Label.PartRows)
	s.app.result = map[string]any{"command": "plan", "job": s.job.Name, "images": summary.Images, "image_bytes": summary.Bytes, "rejected": summary.Rejected,
		"heads": len(c.Heads), "clusters": clusters, "estimate": e, "label_files": parts * int64(len(c.Heads)), "max_passes_per_head": passes}
	return s.check(c, e, summary.Images, largest)
}

// reads says what of a head a solve reads, and at most how often that is all of
// its log-probabilities.
func (s *session) reads() (passes int, what string) {
	passes = s.job.Solve.MaxIterations
	usually := "1 to 3 times where rows are peaked, 5 to 40 times where they are flat"
	switch s.job.Solve.Method {
	case "random", "truth":
		return 0, "the listing alone"
	case "kmeans", "deepcluster":
		return 0, fmt.Sprintf("the features once, or about 25 times where they are larger than solve.memory (%s)", s.job.Solve.Memory)
	case "fixed":
		passes, usually = 1, "once"
	case "sinkhorn":
		passes, usually = passes+1, "tens to hundreds of times"
	case "lbfgs":
		usually = "10 to 50 times"
	}
	return passes, fmt.Sprintf("a head's log-probs %s, at most %d times", usually, passes)
}

// fits checks, once the images are listed, that the run can be made here.
func (s *session) fits(ctx context.Context) error {
	c := s.extract.Classifier()
	if c == nil {
		return nil // extract was begun by an earlier attempt
	}
	listing, err := list.Open(ctx, s.run)
	if err != nil {
		return err
	}
	largest := 0
	for _, h := range c.Heads {
		largest = max(largest, h.Clusters)
	}
	return s.check(c, extract.NewEstimate(s.job, c, listing.Images), listing.Images, largest)
}

// check refuses what cannot fit.
func (s *session) check(c *extract.Classifier, e extract.Estimate, images int64, clusters int) error {
	var errs []error
	if images < int64(clusters) {
		errs = append(errs, pipeline.BadData(fmt.Errorf("%d images cannot fill %d clusters evenly: use a model with fewer, or more images", images, clusters)))
	}
	if half := int64(s.job.Local.Bytes) / 2; e.ScratchBytes > half {
		errs = append(errs, pipeline.BadConfig(fmt.Errorf("a task needs %s of scratch, local.bytes leaves %s: raise it or lower extract.shard_rows", human(e.ScratchBytes), human(half))))
	}
	if total := memoryLimit(); total > 0 && e.MemoryBytes > total {
		errs = append(errs, pipeline.BadConfig(fmt.Errorf("needs about %s of memory, this machine has %s: lower runtime.batch or runtime.threads", human(e.MemoryBytes), human(total))))
	}
	for _, place := range []struct {
		path string
		need int64
	}{{localFolder(s.work), e.TotalBytes}, {s.job.Local.Dir, e.ScratchBytes}} {
		if free, ok := freeBytes(place.path); ok && free < place.need {
			errs = append(errs, pipeline.BadConfig(fmt.Errorf("%s has %s free, the run needs %s there", place.path, human(free), human(place.need))))
		}
	}
	return errors.Join(errs...)
}

func describeClusters(k []int) any {
	for _, other := range k {
		if other != k[0] {
			return k
		}
	}
	return k[0]
}

func localFolder(b *bucket.Bucket) string {
	path, _ := b.LocalPath("x")
	return filepath.Dir(path)
}

// freeBytes returns what is free where path is, or will be.
func freeBytes(path string) (int64, bool) {
	for path != "" && path != "." {
		var st unix.Statfs_t
		if unix.Statfs(path, &st) == nil {
			return int64(st.Bavail) * int64(st.Bsize), true
		}
		if path == "/" {
			break
		}
		path = filepath.Dir(path)
	}
	return 0, false
}

// human writes bytes with three digits and a binary unit.
func human(n int64) string {
	value, unit := float64(n), "B"
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if value < 1000 {
			break
		}
		value, unit = value/1024, u
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.3g %s", value, unit)
}
