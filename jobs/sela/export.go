package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sela/pipeline"
	"sela/pipeline/bucket"
	exports "sela/stages/export"
	"sela/stages/publish"
	"sela/stages/train/builtin"
)

func (a *app) exportCommand() *cobra.Command {
	var o exports.Options
	var out string
	cmd := &cobra.Command{
		Use: "export URL|JOB --format FORMAT --out FOLDER", Short: "Write published labels in the form of other tools", Args: cobra.ExactArgs(1),
		Long: "Writes the labels of one head of a published run into a folder or bucket of its own. The run is named by the URL of a labels bucket (then the run that LATEST names, or --run-id) or of a run's folder in it; or by a job file (then the job's newest published run).\n\n" +
			"Formats:\n" +
			"  imagefolder   labels.csv: path,label,confidence\n" +
			"  webdataset    a tar of NAME.cls and NAME.json beside each tar of images, under the same key\n" +
			"  label-studio  tasks-*.json with the labels as predictions, and config.xml, the labelling interface\n" +
			"  torch         arrays that torch.from_file maps into memory: labels, probabilities, names; index.json\n\n" +
			"The export is complete when its _SUCCESS is there; one that was cut off goes on with the same command. An image whose name the format cannot hold ends it with an error that quotes the image.\n\n" + exitTable(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.Check(); err != nil {
				return err
			}
			if out == "" {
				return pipeline.BadUsage(errors.New("--out is required: name a folder or bucket for the export"))
			}
			return a.export(cmd.Context(), args[0], out, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Format, "format", "", strings.Join(exports.Formats(), ", "))
	f.StringVar(&out, "out", "", "folder or bucket URL for the export")
	f.StringVar(&o.Run, "run-id", "", "id of the published run; the newest if not given")
	f.IntVar(&o.Head, "head", 0, "head whose labels to write")
	f.Float64Var(&o.MinProb, "min-prob", 0, "leave out images whose label has a smaller probability")
	f.StringVar(&o.Images, "images", "", "what stands before a key in the URL of an image (label-studio), as in https://images.example/ or '/data/local-files/?d=images/'; if not given, the URL of the images' bucket")
	return cmd
}

func (a *app) export(ctx context.Context, where, out string, o exports.Options) (err error) {
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
	if o.Labels, err = bucket.Open(ctx, labels, bucketOptions(job)); err != nil {
		return pipeline.BadConfig(err)
	}
	defer func() { err = errors.Join(err, o.Labels.Close()) }()
	if o.Run == "" {
		name := ""
		if job.Labels.Bucket != "" { // it is that of a file
			name = job.Name
		}
		if o.Run, err = newestRun(ctx, o.Labels, name); err != nil {
			return err
		}
	}
	if out, err = folderURL(out); err != nil {
		return err
	}
	if o.Out, err = bucket.Open(ctx, creating(out), bucketOptions(job)); err != nil {
		return pipeline.BadConfig(fmt.Errorf("--out: %w", err))
	}
	defer func() { err = errors.Join(err, o.Out.Close()) }()
	if err := os.MkdirAll(job.Local.Dir, 0o700); err != nil {
		return pipeline.BadConfig(fmt.Errorf("local.dir: %w", err))
	}
	dir, release, err := pipeline.OwnFolder(job.Local.Dir)
	if err != nil {
		return pipeline.BadConfig(fmt.Errorf("local.dir: %w", err))
	}
	defer func() { err = errors.Join(err, release()) }()
	// Half for what is read, half for what is written.
	if o.Cache, err = builtin.LabelsCache(job); err != nil {
		return err
	}
	o.Dir, o.Bytes = dir, int64(job.Local.Bytes)/2
	report, err := exports.Export(ctx, o)
	if err != nil {
		return err
	}
	a.result = map[string]any{"command": "export", "run": report.Run, "head": report.Head, "format": report.Format, "out": report.Out,
		"images": report.Images, "left_out": report.LeftOut, "objects": report.Objects, "bytes": report.Bytes}
	return nil
}

// newestRun is the newest published run, of the job if it is named.
func newestRun(ctx context.Context, labels *bucket.Bucket, job string) (string, error) {
	var latest *publish.Latest
	var err error
	if job == "" {
		latest, err = publish.ReadLatest(ctx, labels)
	} else {
		latest, err = publish.Newest(ctx, labels, job)
	}
	if err != nil {
		return "", err
	}
	if latest == nil {
		return "", pipeline.BadData(fmt.Errorf("nothing is published in %s yet: run the job, or check that it is the labels' bucket", labels.URL()))
	}
	return latest.Run, nil
}
