package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"sela/jobs/observe"
	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/loop"
	"sela/stages/model"
)

// calibrationBatch is the number of images of a calibration batch: as large as a
// training's by default.
const calibrationBatch = 128

// calibrate makes the network that the first labels are those of: the job's with
// BatchNormalization statistics of its images, unless it has no such layers or
// the job wants none. It is made once and stays in the work bucket.
func (l *looping) calibrate(ctx context.Context) error {
	l.first = l.job.Model.Path
	images := l.job.Loop.Calibrate
	if images == 0 {
		return nil
	}
	key := l.path("model.onnx")
	_, err := l.work.Stat(ctx, key)
	if err == nil {
		l.first = l.place(key)
		return nil
	}
	if !errors.Is(err, bucket.ErrNotFound) {
		return err
	}
	path, err := model.Local(ctx, l.job.Model.Path, l.job.Local.Dir)
	if err != nil {
		return err
	}
	graph, _, err := model.Load(ctx, path)
	if err != nil {
		return err
	}
	rt, err := model.OpenRuntime(l.library)
	if err != nil {
		return err
	}
	dir, release, err := pipeline.OwnFolder(l.job.Local.Dir)
	if err != nil {
		return pipeline.BadConfig(fmt.Errorf("local.dir: %w", err))
	}
	defer func() { _ = release() }() // scratch, which the next process removes else
	batch := min(max(images, 2), calibrationBatch)
	done, err := model.Calibration{Images: l.images, Select: l.job.Images, Preprocess: l.job.Preprocess, Batches: max(images/batch, 1), Batch: batch}.
		Apply(ctx, rt, graph, dir)
	if errors.Is(err, model.ErrNoBatchNorm) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("loop.calibrate: %w", err)
	}
	file := filepath.Join(dir, "model.onnx")
	if err := model.Save(graph, file); err != nil {
		return err
	}
	// The model itself comes last: where it is, all of it is.
	files, err := graph.ExternalFiles()
	if err != nil {
		return pipeline.BadConfig(err)
	}
	for _, name := range files {
		if err := l.work.Upload(ctx, l.path(name), filepath.Join(dir, filepath.FromSlash(name))); err != nil {
			return err
		}
	}
	if err := l.work.Upload(ctx, key, file); err != nil {
		return err
	}
	l.notice("calibrated the network", "images", done.Images, "batches", done.Batches)
	l.first = l.place(key)
	return nil
}

// complete writes the table of the rounds, and then the mark that makes a
// repeated command a no-op.
func (l *looping) complete(ctx context.Context) error {
	if err := l.retain(ctx); err != nil { // the last round may have been cut off before it
		return err
	}
	var table bytes.Buffer
	if err := loop.WriteCSV(&table, l.rounds); err != nil {
		return err
	}
	if err := l.work.Put(ctx, l.path("rounds.csv"), table.Bytes()); err != nil {
		return err
	}
	return l.work.Put(ctx, l.path("_SUCCESS"), nil)
}

// end prints the rounds for people and makes them the command's result.
func (l *looping) end(status string) error {
	url := func(key string) string { return l.work.URL() + "/" + key }
	last := l.rounds[len(l.rounds)-1]
	l.app.made = observe.Outcome{Labels: last.Labels, Manifest: last.Manifest, Images: last.Images, Rows: last.Images * int64(len(last.Heads))}
	out := map[string]any{"command": "loop", "loop": l.spec.Loop, "job": l.job.Name, "status": status, "rounds": last.Round, "settled": last.Settled,
		"run": last.Run, "labels": last.Labels, "table": url(l.path("rounds.csv"))}
	rows := make([]loop.Round, len(l.rounds))
	for i, r := range l.rounds {
		rows[i] = *r
		rows[i].Heads = nil
		if r.Model != nil {
			out["model"], out["model_sha256"] = url(r.Model.Key), r.Model.SHA256
		}
	}
	out["rows"] = rows
	if l.shown != "" {
		out["report"] = l.shown
	}
	l.app.result = out
	l.app.progress.close() // what follows is for people too
	fmt.Fprintln(os.Stderr)
	return loop.WriteTable(os.Stderr, l.rounds)
}

// objectURL is the URL of an object of the bucket with the given URL.
func objectURL(bucketURL, key string) string {
	u, err := url.Parse(bucketURL)
	if err != nil {
		return bucketURL // it was opened: it can be parsed
	}
	return u.JoinPath(key).String()
}

// rounded keeps four digits, for people.
func rounded(x float64) float64 {
	r, _ := strconv.ParseFloat(strconv.FormatFloat(x, 'g', 4, 64), 64)
	return r
}
