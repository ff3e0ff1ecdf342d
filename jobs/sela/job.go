package main

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"sela/pipeline"
)

func (a *app) jobCommand() *cobra.Command {
	job := &cobra.Command{Use: "job", Short: "Write and check job files", Args: cobra.NoArgs}
	job.AddCommand(&cobra.Command{
		Use: "init", Short: "Print a commented job file with every field and its default", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			j := pipeline.DefaultJob()
			j.Name = "my-labels"
			j.Images.Bucket, j.Work.Bucket, j.Labels.Bucket, j.Model.Path = "images", "work", "labels", "model.onnx"
			fmt.Print(pipeline.JobTemplate(j))
			return nil
		},
	}, &cobra.Command{
		Use: "check JOB", Short: "Check a job file and print its digest", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			j, err := pipeline.LoadJob(args[0])
			if err != nil {
				return err
			}
			a.result = map[string]any{"command": "job check", "job": j.Name, "job_digest": j.Digest()}
			return nil
		},
	})
	return job
}

// creating asks for a folder bucket's folder to be made: sela makes its own
// work and labels folders, but never the images'.
func creating(bucketURL string) string {
	u, err := url.Parse(bucketURL)
	if err != nil || u.Scheme != "file" {
		return bucketURL
	}
	q := u.Query()
	q.Set("create_dir", "true")
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
	return u.String()
}
