package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/train/builtin"
)

// material is what a network is trained on when no job says it.
type material struct {
	*transfer
	job     *pipeline.Job // how
	images  *bucket.Bucket
	labels  *builtin.Labels
	from    string // where the labels lie
	closers []func() error
}

// fromLabels takes everything from a published run.
func (m *material) fromLabels(ctx context.Context) error {
	where, run, err := publishedAt(m.transfer.labels)
	if err != nil {
		return err
	}
	labels, err := m.open(ctx, "--labels", where)
	if err != nil {
		return err
	}
	published, err := builtin.OpenPublished(ctx, labels, run)
	if err != nil {
		return err
	}
	m.from = labels.URL() + "/runs/" + published.Run + "/"
	if err := m.settle(ctx, published.Record.Job); err != nil {
		return err
	}
	cache, err := builtin.LabelsCache(m.job)
	if err != nil {
		return err
	}
	m.labels, err = published.Labels(ctx, cache, builtin.ScanListing(m.images, m.job.Images))
	return err
}

// fromTargets reads a multi-label table.
func (m *material) fromTargets(ctx context.Context) error {
	m.from = m.targets
	if err := m.settle(ctx, pipeline.DefaultJob()); err != nil {
		return err
	}
	f, err := os.Open(m.targets)
	if err != nil {
		return pipeline.BadConfig(fmt.Errorf("--targets: %w", err))
	}
	m.labels, err = builtin.ReadTargets(ctx, f, m.targets, builtin.ScanListing(m.images, m.job.Images))
	return errors.Join(err, f.Close())
}

// settle makes the job of the flags from the one that made the labels, of which
// it keeps the images and the preprocessing, and opens the images.
func (m *material) settle(ctx context.Context, of *pipeline.Job) (err error) {
	job, standard := *of, pipeline.DefaultJob()
	job.Model = pipeline.Model{Path: m.arch + m.file, Kind: "logits"}
	job.Runtime, job.Extract, job.Local = standard.Runtime, standard.Extract, standard.Local
	job.Timeouts, job.Retries = standard.Timeouts, standard.Retries
	job.Images.MaxRejected = standard.Images.MaxRejected
	job.Runtime.Providers, job.Runtime.Device, job.Local.Dir = m.providers, m.device, m.local
	job.Preprocess.Layout = standard.Preprocess.Layout
	job.Train = pipeline.Train{Type: builtin.Name, Builtin: m.spec}
	m.job = &job
	if m.transfer.images != "" {
		if job.Images.Bucket, err = folderURL(m.transfer.images); err != nil {
			return err
		}
	}
	m.images, err = m.open(ctx, "--images", job.Images.Bucket)
	return err
}

func (m *material) open(ctx context.Context, flag, where string) (*bucket.Bucket, error) {
	b, err := bucket.Open(ctx, where, bucketOptions(pipeline.DefaultJob()))
	if err != nil {
		return nil, pipeline.BadConfig(fmt.Errorf("%s: %w", flag, err))
	}
	m.closers = append(m.closers, b.Close)
	return b, nil
}

func (m *material) close() error {
	var errs []error
	for _, c := range slices.Backward(m.closers) {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// folderURL returns the bucket URL of a folder, and of a URL itself.
func folderURL(folder string) (string, error) {
	if strings.Contains(folder, "://") {
		return folder, nil
	}
	path, err := filepath.Abs(folder)
	if err != nil {
		return "", pipeline.BadConfig(err)
	}
	return (&url.URL{Scheme: "file", Path: path}).String(), nil
}
