// Package train triggers what comes after a published label set. It is a small
// interface with the built-in ways behind it; a trigger fires at least once for
// a manifest, with the manifest's digest as a stable idempotency key, and never
// again once its success is recorded.
package train

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/publish"
)

// Name is the stage's name.
const Name = "train"

// Trigger starts the next training for a label set and returns what came of it.
// Fire may be called again for the same event after a failure, or after a
// success that could not be recorded.
type Trigger interface {
	Fire(ctx context.Context, e Event) (*Outcome, error)
}

// Event is what a trigger is told.
type Event struct {
	Run      string // id of the run
	Labels   string // URL of the published folder
	URL      string // of the manifest
	Model    string // the model that made the labels, as the job names it
	Digest   string // of the manifest: the idempotency key
	Manifest []byte // the published manifest, JSON
	Dir      string // local folder that is removed when the attempt ends
}

// Outcome is what a trigger did, as the commit records it.
type Outcome struct {
	Type   string `json:"type"`
	Detail string `json:"detail,omitempty"`
	// Model is the local file of the trained model, if the trigger waited for
	// one; the stage uploads it to the run's folder as [ModelName].
	Model string `json:"-"`
	// Files are further local files, by the logical name under which the stage
	// uploads them.
	Files map[string]string `json:"-"`
	// Report is anything else, for the commit and for who reads it.
	Report any `json:"report,omitempty"`
}

// ModelName is the logical name of the model that a trigger trained.
const ModelName = "model/trained.onnx"

// None is the trigger of a job whose labels are fetched by others.
type None struct{}

// Fire implements [Trigger] by doing nothing.
func (None) Fire(context.Context, Event) (*Outcome, error) { return &Outcome{Type: "none"}, nil }

// Stage fires the job's trigger in one task.
type Stage struct {
	Labels  *bucket.Bucket
	Trigger Trigger

	published *publish.Result
}

// Name implements [pipeline.Stage].
func (s *Stage) Name() string { return Name }

// Plan implements [pipeline.Stage].
func (s *Stage) Plan(ctx context.Context, run *pipeline.Run) ([]pipeline.Task, error) {
	published, err := publish.Open(ctx, run)
	if err != nil {
		return nil, err
	}
	s.published = published
	task := pipeline.Task{ID: "trigger", Inputs: published.Digest}
	if train := run.Job.Train; train.Type == "builtin" {
		// A training may take days, and none of it is lost when it ends.
		task.Timeout = cmp.Or(time.Duration(train.Timeout), -1)
	}
	return []pipeline.Task{task}, nil
}

// Do implements [pipeline.Stage].
func (s *Stage) Do(ctx context.Context, _ pipeline.Task, a *pipeline.Attempt) error {
	manifest, err := s.Labels.Get(ctx, s.published.Manifest)
	if err != nil {
		return fmt.Errorf("read the published manifest: %w", err)
	}
	if sum := sha256.Sum256(manifest); hex.EncodeToString(sum[:]) != s.published.SHA256 {
		return pipeline.BadData(fmt.Errorf("published manifest of run %s has sha256 %x, its commit says %s: verify the data set", a.Run.Run, sum[:6], s.published.SHA256))
	}
	outcome, err := s.Trigger.Fire(ctx, Event{Run: a.Run.Run, Labels: s.published.Folder,
		URL: s.Labels.URL() + "/" + s.published.Manifest, Model: a.Run.Job.Model.Path,
		Digest: s.published.Digest, Manifest: manifest, Dir: a.Dir})
	if err != nil {
		return err
	}
	files := maps.Clone(outcome.Files)
	if outcome.Model != "" {
		if files == nil {
			files = map[string]string{}
		}
		files[ModelName] = outcome.Model
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		stats, err := digestFile(files[name])
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := a.Upload(ctx, files[name], name, stats); err != nil {
			return err
		}
	}
	return a.Result(outcome)
}

func digestFile(path string) (schemas.FileStats, error) {
	f, err := os.Open(path)
	if err != nil {
		return schemas.FileStats{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return schemas.FileStats{Bytes: n, SHA256: hex.EncodeToString(h.Sum(nil))}, err
}
