package extract

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"sela/pipeline"
	"sela/stages/internal/imageio"
	"sela/stages/internal/onnx"
	"sela/stages/internal/ort"
)

// Head is one label space of the classifier.
type Head struct {
	Name     string `json:"name"`     // of the model's own output
	Clusters int    `json:"clusters"` // K
}

// Classifier is a job's model in a session: T heads of log-probabilities, and
// features where they are asked for. Its slots are the caller's.
type Classifier struct {
	Heads      []Head
	FeatureDim int // 0 without features
	Batch      int
	Spec       imageio.Spec // of what the model sees

	design  *Design
	session *ort.Session
	pre     *imageio.Preprocessor // to what the session takes
	black   struct {              // the tensor of a black image, in one of them
		f32 []float32
		f16 []uint16
		u8  []uint8
	}
	edited  string // folder of the model with log-probabilities appended
	rt      *ort.Runtime
	options ort.Options
}

// Open makes a classifier of the design: it appends what turns the model's
// outputs into log-probabilities to a copy of the graph under dir, prepends what
// normalises images where that is done on the device, and loads the copy. What is
// wrong with the model, the job or the installation, a head or cluster count
// other than the job's included, is an error of class Config.
func Open(ctx context.Context, rt *ort.Runtime, job *pipeline.Job, d *Design, dir string) (*Classifier, error) {
	c := &Classifier{Batch: d.Batch, Spec: d.Spec, design: d}
	if err := c.open(ctx, rt, job, dir); err != nil {
		return nil, badModel(errors.Join(fmt.Errorf("model %s: %w", job.Model.Path, err), c.Close()))
	}
	return c, nil
}

// badModel gives an error met on the way to the first outputs its class: Config,
// unless it came from a full disk or the like, or from the end of the context.
func badModel(err error) error {
	switch pipeline.ClassOf(err) {
	case pipeline.Transient, pipeline.Interrupted:
		return err
	}
	return pipeline.BadConfig(err)
}

func (c *Classifier) open(ctx context.Context, rt *ort.Runtime, job *pipeline.Job, dir string) (err error) {
	if c.pre, err = imageio.New(c.design.Fed()); err != nil {
		return err
	}
	c.black.f32, c.black.f16, c.black.u8 = c.pre.Black()
	model := c.design.Model.Clone()
	input, err := c.design.normalise(model)
	if err != nil {
		return err
	}
	heads, err := model.AppendLogProbs(onnx.HeadsSpec{Outputs: c.design.Outputs, Kind: c.design.Kind})
	if err != nil {
		return err
	}
	var outputs []string
	for _, h := range heads {
		outputs = append(outputs, h.Output)
		c.Heads = append(c.Heads, Head{Name: h.Source, Clusters: h.Clusters})
	}
	if c.design.Features != "" {
		v, err := model.AppendFeatures(c.design.Features)
		if err != nil {
			return fmt.Errorf("model.features: %w", err)
		}
		outputs = append(outputs, v.Name)
	}
	if err := c.load(rt, job, model, input, outputs, dir); err != nil {
		return err
	}
	return c.measure(ctx, job)
}

// load makes a session of the edited model.
func (c *Classifier) load(rt *ort.Runtime, job *pipeline.Job, model *onnx.Model, input string, outputs []string, dir string) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if c.edited, err = os.MkdirTemp(dir, "model-"); err != nil {
		return err
	}
	if err := model.SaveWithData(c.path()); err != nil {
		return err
	}
	options := ort.Options{Inputs: []string{input}, Outputs: outputs, Threads: 1, Arena: true, Precision: ort.Precision(job.Runtime.Precision)}
	for _, name := range job.Runtime.Providers {
		options.Providers = append(options.Providers, ort.Provider{Name: name, DeviceID: deviceOf(name, job.Runtime.Device)})
	}
	if c.session, err = rt.NewSession(c.path(), options); err != nil {
		return err
	}
	c.rt, c.options = rt, options
	return nil
}

func (c *Classifier) path() string { return filepath.Join(c.edited, "model.onnx") }

func deviceOf(provider string, device int) int {
	if provider == ort.CPU {
		return 0
	}
	return device
}

// measure takes head sizes from a real slot, where the model leaves them open,
// and holds them against the job.
func (c *Classifier) measure(ctx context.Context, job *pipeline.Job) error {
	slot, err := c.NewSlot(ctx)
	if err != nil {
		return err
	}
	defer slot.Close()
	if len(c.Heads) != job.Model.Heads && job.Model.Heads != 0 {
		return fmt.Errorf("has %d heads, model.heads is %d", len(c.Heads), job.Model.Heads)
	}
	for h := range c.Heads {
		dims := slot.Outputs[h].Dims
		if len(dims) != 2 || dims[0] != int64(c.Batch) {
			return fmt.Errorf("output %s: head %d is %v, not [%d, K]", c.Heads[h].Name, h, dims, c.Batch)
		}
		c.Heads[h].Clusters = int(dims[1])
		if k := job.Model.Clusters; k != 0 && int64(k) != dims[1] {
			return fmt.Errorf("output %s: head %d has %d clusters, model.clusters is %d", c.Heads[h].Name, h, dims[1], k)
		}
	}
	if len(slot.Outputs) > len(c.Heads) {
		dims := slot.Outputs[len(c.Heads)].Dims
		if len(dims) != 2 || dims[0] != int64(c.Batch) {
			return fmt.Errorf("model.features: %s is %v, not [%d, D]", c.design.Features, dims, c.Batch)
		}
		c.FeatureDim = int(dims[1])
	}
	return nil
}

// NewSlot makes the buffers of one batch.
func (c *Classifier) NewSlot(ctx context.Context) (*ort.Slot, error) {
	return c.session.NewSlot(ctx, c.inputDims())
}

func (c *Classifier) inputDims() []int64 {
	size, batch := c.Spec.Size(), int64(c.Batch)
	if c.pre.Spec().Layout == imageio.NHWC {
		return []int64{batch, int64(size.Height), int64(size.Width), 3}
	}
	return []int64{batch, 3, int64(size.Height), int64(size.Width)}
}

// preprocess writes an encoded image to its place in a slot. The place of an
// image that cannot be used, which is a [*reject], is left blank.
func (c *Classifier) preprocess(w *imageio.Worker, data []byte, s *ort.Slot, pos int) (err error) {
	n := c.pre.Len()
	in := s.Inputs[0]
	switch c.pre.Spec().DType {
	case imageio.Float16:
		err = w.Float16(data, in.Float16()[pos*n:(pos+1)*n])
	case imageio.Uint8:
		err = w.Uint8(data, in.Uint8()[pos*n:(pos+1)*n])
	default:
		err = w.Float32(data, in.Float32()[pos*n:(pos+1)*n])
	}
	if err != nil {
		c.blank(s, pos, pos+1)
		return asReject(err)
	}
	return nil
}

// blank blackens the places [from, to) of a slot's input: what stands in the
// place of no image must depend neither on the batch before nor on where images
// are normalised.
func (c *Classifier) blank(s *ort.Slot, from, to int) {
	n := c.pre.Len()
	in := s.Inputs[0]
	for pos := from; pos < to; pos++ {
		copy(part(in.Float32(), pos*n, (pos+1)*n), c.black.f32)
		copy(part(in.Float16(), pos*n, (pos+1)*n), c.black.f16)
		copy(part(in.Uint8(), pos*n, (pos+1)*n), c.black.u8)
	}
}

// examine refuses an image in whose outputs a head has NaN, +Inf, or nothing
// but −Inf: no assignment could use it. Features must be finite.
func (c *Classifier) examine(s *ort.Slot, pos int) *reject {
	for h, head := range c.Heads {
		best := math.Inf(-1)
		for _, x := range s.Outputs[h].Float32()[pos*head.Clusters : (pos+1)*head.Clusters] {
			if v := float64(x); v > best {
				best = v
			} else if v != v {
				best = v
				break
			}
		}
		if math.IsNaN(best) || math.IsInf(best, 0) {
			return &reject{"nan", fmt.Sprintf("head %d (%s): the largest log-probability that the model gives is %v", h, head.Name, best)}
		}
	}
	if c.FeatureDim == 0 {
		return nil
	}
	for _, x := range s.Outputs[len(c.Heads)].Float32()[pos*c.FeatureDim : (pos+1)*c.FeatureDim] {
		if v := float64(x); math.IsNaN(v) || math.IsInf(v, 0) {
			return &reject{"nan", fmt.Sprintf("the features that the model gives hold %v", v)}
		}
	}
	return nil
}

// part is s[from:to], or nothing where the tensor is of another type.
func part[T any](s []T, from, to int) []T {
	if s == nil {
		return nil
	}
	return s[from:to]
}

// Close ends the sessions and removes the edited model.
func (c *Classifier) Close() error {
	var errs []error
	if c.session != nil {
		errs = append(errs, c.session.Close())
	}
	if c.edited != "" {
		errs = append(errs, os.RemoveAll(c.edited))
	}
	return errors.Join(errs...)
}
