package builtin

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/extract"
	"sela/stages/list"
	"sela/stages/model"
	"sela/stages/train"
)

// Name is the trigger's type in a job.
const Name = "builtin"

// The logical names of what a training adds to a run, beside [train.ModelName].
const (
	TrunkName   = "model/trunk.onnx"
	MetricsName = "model/metrics.csv"
	// CheckpointName is that of a part of a longer training, train.builtin.after
	// of the next one.
	CheckpointName = "model/checkpoint.sela"
)

// Trigger trains the job's network on each published label set. Checkpoints lie
// in the job's local.dir and, after each epoch, in the run's folder of the work
// bucket, so that another machine can go on; those of other settings are left
// alone.
type Trigger struct {
	Run     *pipeline.Run // open, of the job
	Images  *bucket.Bucket
	Labels  *bucket.Bucket
	Design  *extract.Design
	Runtime func() (*model.Runtime, error)
	Memory  int64           // bytes of this machine; 0: not known
	Stop    <-chan struct{} // as in [Config]
	Limit   time.Duration   // of one attempt; 0 is none
}

// Fire implements [train.Trigger].
func (t Trigger) Fire(ctx context.Context, e train.Event) (*train.Outcome, error) {
	if t.Limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.Limit)
		defer cancel()
	}
	rt, err := t.Runtime()
	if err != nil {
		return nil, err
	}
	job := t.Run.Job
	labels, err := t.labels(ctx, e)
	if err != nil {
		return nil, err
	}
	c := Config{Job: job, Design: t.Design, Digest: t.Run.Provenance.Model, Runtime: rt, Images: t.Images, Labels: labels,
		Scratch: e.Dir, Memory: t.Memory, Stop: t.Stop, Observe: t.Run.Observe}
	from, err := c.begin(ctx, t.Design.Model.Clone())
	if err != nil {
		return nil, err
	}
	id := from.identity
	all := filepath.Join(job.Local.Dir, "train")
	c.Dir = filepath.Join(all, id.key())
	if err := prune(all, c.Dir); err != nil {
		return nil, pipeline.BadConfig(fmt.Errorf("local.dir: %w", err))
	}
	remote := backup{run: t.Run, prefix: t.Run.Path("checkpoints/train/" + id.key() + "/")}
	if err := remote.fetch(ctx, filepath.Join(c.Dir, CheckpointFile)); err != nil {
		return nil, err
	}
	c.Saved = remote.save
	report, err := Train(ctx, c)
	if err != nil {
		return nil, err
	}
	o := &train.Outcome{Type: Name, Model: report.Model, Files: map[string]string{MetricsName: filepath.Join(c.Dir, MetricsFile)}, Report: report}
	o.Detail = fmt.Sprintf("trained for %g epochs", round(report.Epochs))
	if report.Last.HeldOut != nil {
		o.Detail += fmt.Sprintf("; held-out accuracy %.4f", report.Last.HeldOut.Accuracy)
	}
	if b := job.Train.Builtin; b.After != "" || b.Until != 0 {
		o.Files[CheckpointName] = filepath.Join(c.Dir, CheckpointFile)
	}
	if report.Trunk != "" {
		o.Files[TrunkName] = report.Trunk
	}
	return o, nil
}

// labels reads the published label tables of the event.
func (t Trigger) labels(ctx context.Context, e train.Event) (*Labels, error) {
	published, err := OpenPublished(ctx, t.Labels, e.Run)
	if err != nil {
		return nil, err
	}
	if published.Manifest.Digest != e.Digest {
		return nil, pipeline.BadData(fmt.Errorf("the published manifest of run %s has digest %.12s, its commit says %.12s: verify the data set", e.Run, published.Manifest.Digest, e.Digest))
	}
	listing, err := list.Open(ctx, t.Run)
	if err != nil {
		return nil, err
	}
	cache, err := LabelsCache(t.Run.Job)
	if err != nil {
		return nil, err
	}
	return published.Labels(ctx, cache, RunListing(listing))
}

// LabelsCache is where label tables pass through on a job's machine.
func LabelsCache(job *pipeline.Job) (*bucket.Cache, error) {
	cache, err := bucket.NewCache(filepath.Join(job.Local.Dir, "cache"), int64(job.Local.Bytes)/2)
	if err != nil {
		return nil, pipeline.BadConfig(fmt.Errorf("local.dir: %w", err))
	}
	return cache, nil
}

// prune makes the folder dir in all, marks it as used and removes those that
// nobody used for long.
func prune(all, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	now := time.Now()
	if err := os.Chtimes(dir, now, now); err != nil {
		return err
	}
	return model.Prune(all)
}

// backup keeps the newest checkpoint in the work bucket. When the run is
// finished, retention removes it.
type backup struct {
	run    *pipeline.Run
	prefix string
}

// fetch puts the newest checkpoint of the bucket at path, unless there is one.
func (b backup) fetch(ctx context.Context, path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	keys, err := b.keys(ctx)
	if err != nil || len(keys) == 0 {
		return err
	}
	key := keys[len(keys)-1]
	object, err := b.run.Work.Stat(ctx, key)
	if err != nil {
		return err
	}
	r, err := b.run.Work.NewReader(ctx, key, 0, object.Size)
	if err != nil {
		return err
	}
	defer r.Close()
	return replace(path, func(w io.Writer) error {
		_, err := io.Copy(w, r)
		return err
	})
}

// keys lists the checkpoints, that of the last epoch last.
func (b backup) keys(ctx context.Context) (keys []string, err error) {
	err = b.run.Work.List(ctx, b.prefix, func(o bucket.Object) error {
		if strings.HasSuffix(o.Key, ".sela") {
			keys = append(keys, o.Key)
		}
		return nil
	})
	return keys, err
}

// save uploads a checkpoint and removes those before it. A store that fails
// costs the copy, not the training.
func (b backup) save(ctx context.Context, path string, epoch int) error {
	key := fmt.Sprintf("%sepoch-%06d.sela", b.prefix, epoch)
	before, err := b.keys(ctx)
	for _, k := range before {
		if err == nil && k >= key { // of an attempt that went further and lost its disk
			err = b.run.Work.Delete(ctx, k)
		}
	}
	if err == nil {
		err = b.run.Work.Upload(ctx, key, path)
	}
	for _, k := range before {
		if err == nil && k < key {
			err = b.run.Work.Delete(ctx, k)
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		b.run.Notice(progressStage, "the checkpoint could not be copied to the work bucket", "error", err.Error())
	}
	return nil
}
