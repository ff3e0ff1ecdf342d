package extract

import (
	"context"
	"errors"
	"fmt"
	"math"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/internal/imageio"
	"sela/stages/internal/onnx"
	"sela/stages/internal/ort"
)

// Reader runs a job's network in evaluation mode over images and hands on what
// its tensors hold, in memory: the machinery of a task, without its tables.
// One [Reader.Read] may be under way at a time.
type Reader struct {
	// Heads are those whose log-probabilities are read, empty where they were not
	// asked for.
	Heads []Head
	// Shapes are those of the tensors asked for, of one image.
	Shapes [][]int

	classifier *Classifier
	lane       *lane
}

// Batch is what a network says of some images. It is the reader's again when
// the function it was given to returns.
type Batch struct {
	First  int             // index of the first of them
	Images []schemas.Image // all of the batch
	// Bad tells of each image why it cannot be used, nil where it can.
	Bad []error
	// Heads and Tensors are row-major [len(Images), …], in the order of the
	// reader's Heads and Shapes. Rows of bad images mean nothing.
	Heads, Tensors [][]float32
}

// FindTensors checks, from the model alone, that the tensors are there, and
// returns the name of the one that the heads read in the place of each "".
// Errors are of class Config and name similar tensors.
func (d *Design) FindTensors(tensors []string) ([]string, error) {
	probe, found := d.Model.Clone(), make([]string, len(tensors))
	for i, name := range tensors {
		if name == "" {
			v, err := probe.Features("")
			if err != nil {
				return nil, pipeline.BadConfig(err)
			}
			name = v.Name
		}
		if _, err := probe.Expose(name); err != nil {
			return nil, pipeline.BadConfig(err)
		}
		found[i] = name
	}
	return found, nil
}

// OpenReader makes a reader of the named tensors, and of the heads' log-
// probabilities if heads is true. The tensor named as the design's input is the
// preprocessed image. The copy of the model lies under dir until [Reader.Close].
// What is wrong with the model or the installation is an error of class Config.
func OpenReader(ctx context.Context, rt *ort.Runtime, job *pipeline.Job, d *Design, tensors []string, heads bool, dir string) (*Reader, error) {
	r := &Reader{classifier: &Classifier{Batch: d.Batch, Spec: d.Spec, design: d}}
	if err := r.open(ctx, rt, job, tensors, heads, dir); err != nil {
		return nil, badModel(errors.Join(fmt.Errorf("model %s: %w", job.Model.Path, err), r.Close()))
	}
	return r, nil
}

func (r *Reader) open(ctx context.Context, rt *ort.Runtime, job *pipeline.Job, tensors []string, heads bool, dir string) (err error) {
	c := r.classifier
	if c.pre, err = imageio.New(c.design.Fed()); err != nil {
		return err
	}
	c.black.f32, c.black.f16, c.black.u8 = c.pre.Black()
	model := c.design.Model.Clone()
	input, err := c.design.normalise(model)
	if err != nil {
		return err
	}
	var outputs []string
	if heads {
		found, err := model.AppendLogProbs(onnx.HeadsSpec{Outputs: c.design.Outputs, Kind: c.design.Kind})
		if err != nil {
			return err
		}
		for _, h := range found {
			outputs = append(outputs, h.Output)
			c.Heads = append(c.Heads, Head{Name: h.Source, Clusters: h.Clusters})
		}
	}
	for _, name := range tensors {
		v, err := model.Expose(name)
		if err != nil {
			return err
		}
		outputs = append(outputs, v.Name)
	}
	if err := c.load(rt, job, model, input, outputs, dir); err != nil {
		return err
	}
	slot, err := c.NewSlot(ctx)
	if err != nil {
		return err
	}
	defer slot.Close()
	for i, out := range slot.Outputs {
		if len(out.Dims) < 2 || out.Dims[0] != int64(c.Batch) {
			return fmt.Errorf("tensor %s is %v, not a batch of %d images", out.Name, out.Dims, c.Batch)
		}
		if i < len(c.Heads) {
			c.Heads[i].Clusters = int(out.Dims[1])
			continue
		}
		var shape []int
		for _, d := range out.Dims[1:] {
			shape = append(shape, int(d))
		}
		r.Shapes = append(r.Shapes, shape)
	}
	r.Heads = c.Heads
	r.lane, err = newLane(ctx, c, job)
	return err
}

// Read runs the network over the images, which are in row order, and hands every
// batch, in order, to fn, one at a time. An image that cannot be used is bad and
// does not stop it; neither does one for which the network gives NaN or an
// infinity. An error of fn, of the store or of the runtime does.
func (r *Reader) Read(ctx context.Context, images *bucket.Bucket, list []schemas.Image, fn func(*Batch) error) error {
	return newFlow(r.lane, images, &handler{Reader: r, fn: fn}).run(ctx, list)
}

// handler makes the batches of a flow public.
type handler struct {
	*Reader
	fn    func(*Batch) error
	batch Batch
}

func (h *handler) write(b *batch) error {
	out := &h.batch
	out.First, out.Images = int(b.index)*h.classifier.Batch, b.images
	out.Bad, out.Heads, out.Tensors = out.Bad[:0], out.Heads[:0], out.Tensors[:0]
	for i, t := range b.slot.Outputs {
		values := t.Float32()[:len(b.images)*(len(t.Float32())/h.classifier.Batch)]
		if i < len(h.Heads) {
			out.Heads = append(out.Heads, values)
		} else {
			out.Tensors = append(out.Tensors, values)
		}
	}
	for pos := range b.images {
		out.Bad = append(out.Bad, nil)
		if bad := b.rejects[pos]; bad != nil {
			out.Bad[pos] = bad
		} else if bad := h.classifier.examine(b.slot, pos); bad != nil {
			out.Bad[pos] = bad
		} else if !finite(out.Tensors, pos, len(b.images)) {
			out.Bad[pos] = &reject{"nan", "a tensor of the network holds NaN or an infinity"}
		}
	}
	return h.fn(out)
}

// finite looks at the pos-th of n rows of each tensor.
func finite(tensors [][]float32, pos, n int) bool {
	for _, t := range tensors {
		width := len(t) / n
		for _, x := range t[pos*width : (pos+1)*width] {
			if v := float64(x); math.IsNaN(v) || math.IsInf(v, 0) {
				return false
			}
		}
	}
	return true
}

// Close gives the batches and the session back.
func (r *Reader) Close() error {
	if r.lane != nil {
		r.lane.close()
		r.lane = nil
	}
	return r.classifier.Close()
}
