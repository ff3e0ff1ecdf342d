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
	"time"

	"github.com/spf13/cobra"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/model"
)

func (a *app) modelCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "model", Short: "Make and describe networks", Args: cobra.NoArgs}
	cmd.AddCommand(a.modelNewCommand(), a.modelInspectCommand())
	return cmd
}

// modelNew is the command line of `sela model new`.
type modelNew struct {
	arch    string
	options model.NetworkOptions
	out     string

	calibrate, calibrateFor string // a bucket or folder of images, or a job file
	batches, batch          int
	images                  pipeline.Images
	preprocess              pipeline.Preprocess
	resize                  int
	mean, std               []float64
}

// ofImages are the flags that only --calibrate takes: a job has them itself.
var ofImages = []string{"prefix", "glob", "resize", "mean", "std"}

func (a *app) modelNewCommand() *cobra.Command {
	n := &modelNew{}
	cmd := &cobra.Command{
		Use: "new --out FILE", Short: "Write a network with seeded random weights as ONNX", Args: cobra.NoArgs,
		Long: "Writes a classifier of --heads heads, each a linear layer of --clusters outputs on one trunk, with random weights that are a function of --seed.\n\n" +
			"BatchNormalization layers of a fresh network hold statistics that describe nothing, so that its outputs mean nothing either. --calibrate or --calibrate-for sets them from a few batches of images, chosen by a hash of their keys. The images must be preprocessed as the runs will do it: --calibrate-for takes both images and preprocessing from the job; with --calibrate say it with --resize, --mean and --std, which stand for preprocess.resize, .mean and .std of the job. (preprocess.crop is the network's size.)\n\n" +
			"Equal options and images give an equal file, byte for byte; calibrated ones, on machines with the same kind of processor.\n\n" + exitTable(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := n.check(cmd); err != nil {
				return err
			}
			return a.makeModel(cmd.Context(), n)
		},
	}
	standard := pipeline.DefaultJob()
	f := cmd.Flags()
	f.StringVar(&n.arch, "arch", "resnet-s", "network: "+strings.Join(model.Networks(), ", "))
	f.IntVar(&n.options.Heads, "heads", 10, "T, label spaces")
	f.IntVar(&n.options.Clusters, "clusters", 128, "K, clusters of each head")
	f.IntVar(&n.options.ImageSize, "size", 0, "height and width of the input in pixels; 0 = the network's own (32 for resnet-s, 224 for resnet-18)")
	f.Uint64Var(&n.options.Seed, "seed", 1, "seed of the weights")
	f.StringVar(&n.out, "out", "", "file to write; required")
	f.StringVar(&n.calibrate, "calibrate", "", "folder or bucket URL of images to set BatchNormalization statistics from")
	f.StringVar(&n.calibrateFor, "calibrate-for", "", "job file whose images and preprocessing to calibrate with")
	f.IntVar(&n.batches, "batches", 8, "calibration batches")
	f.IntVar(&n.batch, "batch", 64, "images of a calibration batch")
	f.StringVar(&n.images.Prefix, "prefix", "", "calibrate on keys that begin with it, as images.prefix")
	f.StringVar(&n.images.Glob, "glob", "", "calibrate on keys that match it, as images.glob")
	f.IntVar(&n.resize, "resize", 0, fmt.Sprintf("pixels of the shorter side, 0 leaves images as they are; default: the network's size, or %d where that is %d", standard.Preprocess.Resize[0], standard.Preprocess.Crop[0]))
	f.Float64SliceVar(&n.mean, "mean", standard.Preprocess.Mean[:], "per channel RGB, on the scale 0 to 1")
	f.Float64SliceVar(&n.std, "std", standard.Preprocess.Std[:], "per channel RGB, on the scale 0 to 1")
	return cmd
}

// check refuses contradictions between flags, before any work.
func (n *modelNew) check(cmd *cobra.Command) error {
	bad := func(format string, args ...any) error {
		return pipeline.BadUsage(fmt.Errorf(format+" (see: %s --help)", append(args, cmd.CommandPath())...))
	}
	switch {
	case n.out == "":
		return bad("--out is required: name the file to write")
	case n.calibrate != "" && n.calibrateFor != "":
		return bad("--calibrate and --calibrate-for: give one of them")
	case len(n.mean) != 3 || len(n.std) != 3:
		return bad("--mean and --std: three numbers each, as in 0.5,0.5,0.5")
	case min(n.std[0], n.std[1], n.std[2]) <= 0:
		return bad("--std %v: must be positive", n.std)
	case n.resize < 0:
		return bad("--resize %d: must be 0 or more", n.resize)
	}
	for _, name := range ofImages {
		if cmd.Flags().Changed(name) && n.calibrate == "" {
			return bad("--%s goes with --calibrate", name)
		}
	}
	if n.calibrate == "" && n.calibrateFor == "" && (cmd.Flags().Changed("batches") || cmd.Flags().Changed("batch")) {
		return bad("--batches and --batch go with --calibrate or --calibrate-for")
	}
	if !cmd.Flags().Changed("resize") {
		n.resize = -1
	}
	return nil
}

func (a *app) makeModel(ctx context.Context, n *modelNew) error {
	graph, err := model.New(n.arch, n.options)
	if err != nil {
		return err
	}
	result := map[string]any{"command": "model new", "path": n.out, "arch": n.arch, "heads": n.options.Heads, "clusters": n.options.Clusters, "seed": n.options.Seed}
	if n.calibrate != "" || n.calibrateFor != "" {
		job, err := n.calibrationJob(graph)
		if err != nil {
			return err
		}
		done, err := n.apply(ctx, graph, job)
		if err != nil {
			return err
		}
		p := job.Preprocess
		result["calibration"] = done
		result["preprocess"] = map[string]any{"resize": p.Resize, "crop": p.Crop, "filter": p.Filter, "mean": p.Mean, "std": p.Std}
	}
	if err := model.Save(graph, n.out); err != nil {
		return err
	}
	d, err := model.Describe(ctx, n.out)
	if err != nil {
		return err
	}
	result["sha256"], result["parameters"] = d.SHA256, d.Parameters
	a.result = result
	return nil
}

// calibrationJob returns the job whose images and preprocessing are used: the
// one that was named, or one that says what the flags say.
func (n *modelNew) calibrationJob(graph *model.Graph) (*pipeline.Job, error) {
	if n.calibrateFor != "" {
		return pipeline.LoadJob(n.calibrateFor)
	}
	job := pipeline.DefaultJob()
	job.Images.Bucket = n.calibrate
	job.Images.Prefix, job.Images.Glob = n.images.Prefix, n.images.Glob
	if !strings.Contains(n.calibrate, "://") {
		folder, err := filepath.Abs(n.calibrate)
		if err != nil {
			return nil, pipeline.BadConfig(err)
		}
		job.Images.Bucket = (&url.URL{Scheme: "file", Path: folder}).String()
	}
	size := int(graph.Inputs()[0].Shape[2].Size)
	p := &job.Preprocess
	resize := n.resize
	switch {
	case resize < 0 && size == p.Crop[0]:
		resize = p.Resize[0]
	case resize < 0:
		resize = size
	}
	p.Resize, p.Crop = pipeline.Size{resize}, pipeline.Size{size}
	copy(p.Mean[:], n.mean)
	copy(p.Std[:], n.std)
	return job, nil
}

// apply calibrates graph with the job's images.
func (n *modelNew) apply(ctx context.Context, graph *model.Graph, job *pipeline.Job) (model.Calibrated, error) {
	library, err := findLibrary(job.Runtime.Library)
	if err != nil {
		return model.Calibrated{}, err
	}
	rt, err := model.OpenRuntime(library)
	if err != nil {
		return model.Calibrated{}, err
	}
	images, err := bucket.Open(ctx, job.Images.Bucket, bucket.Options{RequestTimeout: time.Duration(job.Timeouts.Request), Attempts: job.Retries.Request})
	if err != nil {
		return model.Calibrated{}, pipeline.BadConfig(err)
	}
	done, err := model.Calibration{Images: images, Select: job.Images, Preprocess: job.Preprocess, Batches: n.batches, Batch: n.batch}.
		Apply(ctx, rt, graph, scratchFolder(job))
	return done, errors.Join(err, images.Close())
}

// scratchFolder is a job's local.dir, or its default.
func scratchFolder(job *pipeline.Job) string {
	if job.Local.Dir != "" {
		return job.Local.Dir
	}
	return defaultScratch()
}

func (a *app) modelInspectCommand() *cobra.Command {
	return &cobra.Command{
		Use: "inspect FILE", Short: "Describe an ONNX model: inputs, outputs, operators, files", Args: cobra.ExactArgs(1),
		Long: "Describes the ONNX model in FILE, or at a bucket URL, without running it. Its digest covers external data too and is the model's identity in a run.\n\n" + exitTable(),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := model.Local(cmd.Context(), args[0], scratchFolder(pipeline.DefaultJob()))
			if err != nil {
				return err
			}
			d, err := model.Describe(cmd.Context(), path)
			if err != nil {
				return err
			}
			a.result = map[string]any{"command": "model inspect", "path": path, "model": d}
			return describeModel(d)
		},
	}
}

// describeModel prints a model's description as a table.
func describeModel(d *model.Description) error {
	table := tabwriter.NewWriter(os.Stderr, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(table, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("digest", "%s", d.SHA256)
	for i, f := range d.Files {
		name := "external data"
		if i == 0 {
			name = "file"
		}
		row(name, "%s %s", human(f.Bytes), f.Name)
	}
	row("producer", "%s", d.Producer)
	row("versions", "IR %d, operator sets %s", d.IRVersion, strings.TrimPrefix(fmt.Sprint(d.Opsets), "map"))
	for _, t := range d.Inputs {
		row("input", "%s %s %v", t.Name, t.Type, t.Shape)
	}
	for _, t := range d.Outputs {
		row("output", "%s %s %v", t.Name, t.Type, t.Shape)
	}
	row("parameters", "%d", d.Parameters)
	var ops []string
	for _, op := range d.Ops {
		ops = append(ops, fmt.Sprintf("%d %s", op.Count, op.Op))
	}
	row("operators", "%s", strings.Join(ops, ", "))
	row("metadata", "%s", strings.TrimPrefix(fmt.Sprint(d.Metadata), "map"))
	return table.Flush()
}
