package builtin

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/extract"
	"sela/stages/internal/imageio"
	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/grad"
	"sela/stages/internal/ort"
	"sela/stages/model"
)

// Config is one training: a network, images, and their labels.
type Config struct {
	// Job says how: its train.builtin, runtime, images.max_rejected, extract and
	// local.
	Job     *pipeline.Job
	Design  *extract.Design // the network and how it is fed; not changed
	Digest  string          // of the network's files
	Runtime *model.Runtime
	Images  *bucket.Bucket
	Labels  *Labels
	Dir     string // keeps checkpoint, metrics and results; made if missing
	Scratch string // an existing folder of this process's own
	Memory  int64  // bytes of this machine; 0: not known
	// Stop, when closed, ends the training after the step at hand (on a device,
	// the run of several), with a checkpoint and [pipeline.ErrStopped]; nil never does.
	Stop    <-chan struct{}
	Observe func(pipeline.Event)
	// Saved is called with the checkpoint's file at the end of each epoch, and an
	// error of it ends the training; nil: nothing is.
	Saved func(ctx context.Context, path string, epoch int) error
}

// Train trains the network from the checkpoint in Dir, if there is one, or from
// the beginning (of a part of a training: from the checkpoint train.builtin.after),
// and writes the results into Dir: [ModelFile] in evaluation mode with its heads,
// [TrunkFile] without them, [MetricsFile].
//
// On a CPU the results are the same to the bit however often it was ended and
// began again, on one kind of processor and one build of ONNX Runtime: the forms
// of the gradients, which are chosen by measurement for this machine and kept in
// the job's local.dir, are those the training began with. A cancelled ctx ends
// it within a step, with a checkpoint too.
//
// A network whose heads are not those of the labels, that cannot be
// differentiated or needs more memory than there is, a checkpoint of another
// training or network, a part that ends where it begins and a loss that is not
// finite are errors of class Config.
func Train(ctx context.Context, c Config) (*Report, error) {
	b := c.Job.Train.Builtin
	if err := b.Check(); err != nil {
		return nil, pipeline.BadConfig(err)
	}
	if c.Labels.Classes != nil && b.RotationHead {
		return nil, pipeline.BadConfig(errors.New("train.builtin.rotation_head is for labels of clusters"))
	}
	if err := checkKind(c.Design); err != nil {
		return nil, err
	}
	graph := c.Design.Model.Clone()
	from, err := c.begin(ctx, graph)
	if err != nil {
		return nil, err
	}
	taken := from.taken
	if taken != nil {
		c.notice("the trunk starts from another model's", slog.Int("tensors", taken.Tensors), slog.Int("of", taken.Of))
	}
	var loader *Loader
	t := &trainer{
		runtime: c.Runtime, options: runtimeOptions(c.Job), model: graph, input: c.Design.Input, heads: c.Design.Outputs, clusters: c.Labels.Heads, classes: len(c.Labels.Classes),
		spec: b, identity: from.identity, after: from.after, dir: c.Dir, scratch: c.Scratch, memory: c.Memory, stop: c.Stop, observe: c.Observe, saved: c.Saved,
	}
	if t.spec.Forms == "measured" {
		t.choose = newFormChooser(c.Runtime, t.options, filepath.Join(c.Job.Local.Dir, "forms"), c.Scratch).choose
	} else if !onlyCPU(t.options.Providers) {
		t.choose = everywhere
	}
	t.open = func(masks []grad.Mask) (source, error) {
		l, err := NewLoader(c.Images, c.Labels, c.loaderOptions(masks))
		if err != nil {
			return nil, err
		}
		loader = l
		return l, nil
	}
	report, err := t.run(ctx)
	if loader == nil {
		return nil, err
	}
	if report != nil {
		report.Images, report.HeldOut = loader.Images()
		report.Rejected, report.Taken = loader.Rejected(), taken
	}
	for _, r := range loader.Rejections() {
		c.notice("an image could not be used", slog.Int64("row", r.Row), slog.String("key", r.Key), slog.String("member", r.Member), slog.String("why", r.Reason))
	}
	return report, errors.Join(err, loader.Close())
}

// Check refuses a job whose network the built-in trainer cannot train, before
// hours of work on the labels. Errors are of class Config.
func Check(job *pipeline.Job, d *extract.Design) error {
	t := &trainer{model: d.Model, input: d.Input, heads: d.Outputs, spec: job.Train.Builtin}
	err := checkKind(d)
	if err == nil {
		_, err = t.inputDims()
	}
	if err == nil {
		err = t.differentiate(nil)
	}
	if err == nil && t.spec.ResetHeads {
		_, err = headParameters(t.model)
	}
	if err != nil {
		return fmt.Errorf("train.type builtin: %w", err)
	}
	return nil
}

func checkKind(d *extract.Design) error {
	if d.Kind == onnx.Probabilities {
		return pipeline.BadConfig(errors.New("model.kind is probabilities: train a network that puts out logits, or replace the heads (sela model heads, sela train --replace-heads)"))
	}
	return nil
}

func (c *Config) notice(message string, attrs ...slog.Attr) {
	c.Observe(pipeline.Event{Kind: pipeline.Notice, Stage: progressStage, Task: message, Attrs: attrs})
}

// beginning is what a training starts from.
type beginning struct {
	identity Identity
	taken    *Taken // of train.builtin.init; nil: none
	after    string // local file of train.builtin.after
}

// begin puts the parameters of train.builtin.init into graph and says what
// training this is.
func (c *Config) begin(ctx context.Context, graph *onnx.Model) (beginning, error) {
	b := &c.Job.Train.Builtin
	from := beginning{identity: Identity{Network: c.Digest, Labels: c.Labels.Digest, Preprocessing: c.Design.Spec.Fingerprint(), Spec: digest(*b)}}
	var err error
	if b.After != "" {
		from.after, err = model.LocalFile(ctx, "train.builtin.after", b.After, c.Job.Local.Dir)
		if err == nil {
			_, from.identity.After, err = partBefore(from.after)
		}
		return from, err
	}
	if b.Init == "" {
		return from, nil
	}
	path, err := model.Local(ctx, b.Init, c.Job.Local.Dir)
	if err != nil {
		return from, err
	}
	other, sum, err := model.Load(ctx, path)
	if err != nil {
		return from, err
	}
	t, err := onnx.InitFrom(graph, other)
	if err != nil {
		return from, pipeline.BadConfig(fmt.Errorf("start from %s: %w", filepath.Base(path), err))
	}
	from.identity.Init, from.taken = sum, &Taken{len(t.Taken), len(t.Taken) + len(t.Kept)}
	return from, nil
}

// key names an identity.
func (i Identity) key() string {
	raw, err := json.Marshal(i)
	if err != nil {
		panic(err) // strings
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:8])
}

// runtimeOptions are those of the job, with the threads of a step.
func runtimeOptions(job *pipeline.Job) ort.Options {
	o := ort.Options{Threads: cmp.Or(job.Train.Builtin.Threads, runtime.GOMAXPROCS(0)), Arena: true, Precision: ort.Precision(job.Runtime.Precision)}
	for _, name := range job.Runtime.Providers {
		p := ort.Provider{Name: name}
		if name != ort.CPU {
			p.DeviceID = job.Runtime.Device
		}
		o.Providers = append(o.Providers, p)
	}
	return o
}

// Shares of the machine that images may fill between their uses.
const (
	memoryShare   = 8         // one in so many bytes of the memory
	unknownMemory = 256 << 20 // where it is not known
)

func (c *Config) loaderOptions(masks []grad.Mask) LoaderOptions {
	b := &c.Job.Train.Builtin
	spec := c.Design.Spec
	spec.DType = imageio.Float32
	o := LoaderOptions{Batch: b.Batch, Seed: uint64(b.Seed), HeldOut: b.HeldOut, Preprocess: spec, Augment: augmentation(b, spec), Rotations: b.RotationHead,
		Masks: masks, Workers: c.Job.Extract.Decoders, CacheDir: c.Scratch, CacheBytes: int64(c.Job.Local.Bytes) / 2, MemoryBytes: c.Memory / memoryShare,
		Requests: c.Job.Extract.Requests, ReadAhead: int64(c.Job.Extract.ReadAhead), MaxRejected: c.Job.Images.MaxRejected}
	if o.MemoryBytes == 0 {
		o.MemoryBytes = unknownMemory
	}
	return o
}
