package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/model"
)

// calibrateFlags are the flags that say from which images BatchNormalization
// statistics are taken.
type calibrateFlags struct {
	from, job      string // a bucket or folder of images, or a job file
	batches, batch int
	images         pipeline.Images
	resize         int // −1: not given
	mean, std      []float64
}

// ofImages are the flags that only --calibrate takes: a job has them itself.
var ofImages = []string{"prefix", "glob", "resize", "mean", "std"}

// calibrationHelp explains the flags.
const calibrationHelp = "The images must be preprocessed as the runs will do it: --calibrate-for takes both images and preprocessing from the job; with --calibrate say it with --resize, --mean and --std, which stand for preprocess.resize, .mean and .std of the job. (preprocess.crop is the network's size.)"

// addFlags adds the flags to a command.
func (c *calibrateFlags) addFlags(cmd *cobra.Command) {
	standard := pipeline.DefaultJob()
	f := cmd.Flags()
	f.StringVar(&c.from, "calibrate", "", "folder or bucket URL of images to set BatchNormalization statistics from")
	f.StringVar(&c.job, "calibrate-for", "", "job file whose images and preprocessing to calibrate with")
	f.IntVar(&c.batches, "batches", 8, "calibration batches")
	f.IntVar(&c.batch, "batch", 64, "images of a calibration batch")
	f.StringVar(&c.images.Prefix, "prefix", "", "calibrate on keys that begin with it, as images.prefix")
	f.StringVar(&c.images.Glob, "glob", "", "calibrate on keys that match it, as images.glob")
	f.IntVar(&c.resize, "resize", 0, fmt.Sprintf("pixels of the shorter side, 0 leaves images as they are; default: the network's size, or %d where that is %d", standard.Preprocess.Resize[0], standard.Preprocess.Crop[0]))
	f.Float64SliceVar(&c.mean, "mean", standard.Preprocess.Mean[:], "per channel RGB, on the scale 0 to 1")
	f.Float64SliceVar(&c.std, "std", standard.Preprocess.Std[:], "per channel RGB, on the scale 0 to 1")
}

// wanted says whether the command line asks for a calibration.
func (c *calibrateFlags) wanted() bool { return c.from != "" || c.job != "" }

// check refuses contradictions between flags, before any work.
func (c *calibrateFlags) check(cmd *cobra.Command) error {
	switch {
	case c.from != "" && c.job != "":
		return badFlags(cmd, "--calibrate and --calibrate-for: give one of them")
	case len(c.mean) != 3 || len(c.std) != 3:
		return badFlags(cmd, "--mean and --std: three numbers each, as in 0.5,0.5,0.5")
	case min(c.std[0], c.std[1], c.std[2]) <= 0:
		return badFlags(cmd, "--std %v: must be positive", c.std)
	case c.resize < 0:
		return badFlags(cmd, "--resize %d: must be 0 or more", c.resize)
	}
	for _, name := range ofImages {
		if cmd.Flags().Changed(name) && c.from == "" {
			return badFlags(cmd, "--%s goes with --calibrate", name)
		}
	}
	if !c.wanted() && (cmd.Flags().Changed("batches") || cmd.Flags().Changed("batch")) {
		return badFlags(cmd, "--batches and --batch go with --calibrate or --calibrate-for")
	}
	if !cmd.Flags().Changed("resize") {
		c.resize = -1
	}
	return nil
}

// badFlags is an error about a command line.
func badFlags(cmd *cobra.Command, format string, args ...any) error {
	return pipeline.BadUsage(fmt.Errorf(format+" (see: %s --help)", append(args, cmd.CommandPath())...))
}

// apply calibrates graph, or only its heads, and adds to the result what was
// used. Where no calibration is wanted it does nothing.
func (c *calibrateFlags) apply(ctx context.Context, graph *model.Graph, headsOnly bool, result map[string]any) error {
	if !c.wanted() {
		return nil
	}
	job, err := c.forGraph(graph)
	if err != nil {
		return err
	}
	rt, err := openRuntime(job)
	if err != nil {
		return err
	}
	images, err := bucket.Open(ctx, job.Images.Bucket, bucketOptions(job))
	if err != nil {
		return pipeline.BadConfig(err)
	}
	done, err := model.Calibration{Images: images, Select: job.Images, Preprocess: job.Preprocess, Batches: c.batches, Batch: c.batch, HeadsOnly: headsOnly}.
		Apply(ctx, rt, graph, scratchFolder(job))
	if err = errors.Join(err, images.Close()); err != nil {
		return err
	}
	p := job.Preprocess
	result["calibration"] = done
	result["preprocess"] = map[string]any{"resize": p.Resize, "crop": p.Crop, "filter": p.Filter, "mean": p.Mean, "std": p.Std}
	return nil
}

// openRuntime opens the ONNX Runtime that a job names.
func openRuntime(job *pipeline.Job) (*model.Runtime, error) {
	library, err := findLibrary(job.Runtime.Library)
	if err != nil {
		return nil, err
	}
	return model.OpenRuntime(library)
}

// forGraph returns the job whose images and preprocessing are used: the
// one that was named, or one that says what the flags say.
func (c *calibrateFlags) forGraph(graph *model.Graph) (*pipeline.Job, error) {
	if c.job != "" {
		return pipeline.LoadJob(c.job)
	}
	job := pipeline.DefaultJob()
	job.Images.Bucket = c.from
	job.Images.Prefix, job.Images.Glob = c.images.Prefix, c.images.Glob
	if !strings.Contains(c.from, "://") {
		folder, err := filepath.Abs(c.from)
		if err != nil {
			return nil, pipeline.BadConfig(err)
		}
		job.Images.Bucket = (&url.URL{Scheme: "file", Path: folder}).String()
	}
	size, err := inputSize(graph)
	if err != nil {
		return nil, err
	}
	p := &job.Preprocess
	resize := c.resize
	switch {
	case resize < 0 && size == p.Crop[0]:
		resize = p.Resize[0]
	case resize < 0:
		resize = size
	}
	p.Resize, p.Crop = pipeline.Size{resize}, pipeline.Size{size}
	copy(p.Mean[:], c.mean)
	copy(p.Std[:], c.std)
	return job, nil
}

// inputSize returns the height and width in pixels of the images that a network
// takes.
func inputSize(graph *model.Graph) (int, error) {
	inputs := graph.Inputs()
	if len(inputs) != 1 {
		return 0, pipeline.BadConfig(fmt.Errorf("calibrate: the model has %d inputs: use --calibrate-for with a job that names one", len(inputs)))
	}
	in := inputs[0]
	if len(in.Shape) == 4 {
		sides := in.Shape[2:]
		if in.Shape[3].Size == 3 { // channels last
			sides = in.Shape[1:3]
		}
		if size := sides[0].Size; size > 0 && sides[1].Size == size {
			return int(size), nil
		}
	}
	return 0, pipeline.BadConfig(fmt.Errorf("calibrate: input %s states no square size of images: use --calibrate-for with a job that has preprocess.crop", in))
}

// scratchFolder is a job's local.dir, or its default.
func scratchFolder(job *pipeline.Job) string {
	if job.Local.Dir != "" {
		return job.Local.Dir
	}
	return defaultScratch()
}
