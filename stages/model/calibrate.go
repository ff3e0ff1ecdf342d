package model

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/extract"
	"sela/stages/internal/imageio"
	"sela/stages/internal/onnx"
	"sela/stages/internal/ort"
)

// Calibration says from which images a network's BatchNormalization statistics
// are taken.
//
// The images are those whose key and member have the smallest hashes: a sample
// that no order or grouping of the keys can bias, and that an added image
// changes by one image at most. The same images, options and network give the
// same statistics, to the bit, under one build of ONNX Runtime on one class of
// processor; the number of cores does not count.
type Calibration struct {
	Images *bucket.Bucket
	// Select says which of the bucket's images are drawn from; its bucket is not
	// opened.
	Select pipeline.Images
	// Preprocess must be what the network's jobs use: statistics of other inputs
	// describe another network.
	Preprocess pipeline.Preprocess
	// Batches is how many batches there are at most and Batch how many images
	// each has at most; of fewer images the batches are smaller. In a batch each
	// layer is normalised by the batch's own statistics, so it should be large.
	Batches, Batch int
	// HeadsOnly leaves the layers before the network's features as they are: for
	// new heads on a trained trunk.
	HeadsOnly bool
}

// ErrNoBatchNorm is wrapped by the error about a network that has no
// BatchNormalization, and so needs no calibration.
var ErrNoBatchNorm = onnx.ErrNoBatchNorm

// Calibrated is what a calibration used.
type Calibrated struct {
	Images        int    `json:"images"`
	Rejected      int    `json:"rejected"` // images passed over, because they could not be used
	Batches       int    `json:"batches"`
	Preprocessing string `json:"preprocessing"` // fingerprint, as a run's provenance has it
}

// The keys under which a calibrated model records how that was done.
const (
	metaImages        = "sela.calibration_images"
	metaPreprocessing = "sela.calibration_preprocessing"
)

// Apply runs g over the images as in training and writes the statistics of its
// BatchNormalization layers into g. Its scratch file is made in dir. Memory is
// one batch and what ONNX Runtime needs for it.
//
// A network without BatchNormalization or a preprocessing that does not make
// its input is an error of class Config; a bucket without a usable image, one of
// class Data.
func (c Calibration) Apply(ctx context.Context, rt *Runtime, g *Graph, dir string) (Calibrated, error) {
	if c.Batches < 1 || c.Batch < 2 {
		return Calibrated{}, pipeline.BadUsage(fmt.Errorf("calibrate: %d batches of %d images: at least 1 of 2 are needed", c.Batches, c.Batch))
	}
	design, err := c.design(g)
	if err != nil {
		return Calibrated{}, fmt.Errorf("calibrate: %w", err)
	}
	prepare := onnx.NewCalibration
	if c.HeadsOnly {
		prepare = onnx.NewHeadCalibration
	}
	statistics, err := prepare(g)
	if err != nil {
		return Calibrated{}, pipeline.BadConfig(err)
	}
	// A quarter more than needed stands by for images that cannot be used.
	wanted := c.Batches * c.Batch
	candidates, err := draw(ctx, c.Images, c.Select, wanted+wanted/4+16)
	if err != nil {
		return Calibrated{}, fmt.Errorf("calibrate: %w", err)
	}
	wanted = min(wanted, len(candidates))
	batches := (wanted + c.Batch - 1) / c.Batch

	s, err := openStatistics(rt, statistics, design, dir)
	if err != nil {
		return Calibrated{}, fmt.Errorf("calibrate: %w", err)
	}
	done, err := s.run(ctx, c.Images, candidates, batches, wanted/batches)
	if err = errors.Join(err, s.close()); err != nil {
		return Calibrated{}, fmt.Errorf("calibrate: %w", err)
	}
	if err := statistics.Apply(g); err != nil {
		return Calibrated{}, err
	}
	done.Preprocessing = design.Spec.Fingerprint()
	b := onnx.Edit(g)
	b.SetMetadata(metaImages, strconv.Itoa(done.Images))
	b.SetMetadata(metaPreprocessing, done.Preprocessing)
	return done, nil
}

// Preprocessing returns the fingerprint of the preprocessing that g was last
// calibrated with, or "" if it does not say.
func Preprocessing(g *Graph) string {
	for _, kv := range g.Proto.GetMetadataProps() {
		if kv.GetKey() == metaPreprocessing {
			return kv.GetValue()
		}
	}
	return ""
}

// design is how a job with this preprocessing would feed g.
func (c Calibration) design(g *Graph) (*extract.Design, error) {
	job := pipeline.DefaultJob()
	job.Preprocess, job.Model.Path = c.Preprocess, g.Proto.GetGraph().GetName()
	design, err := extract.NewDesign(job, g)
	if err == nil && design.Spec.DType != imageio.Float32 {
		err = pipeline.BadConfig(fmt.Errorf("input %s is %s; calibration feeds float32", design.Input, design.Spec.DType))
	}
	return design, err
}

// statisticsRun is a session on the graph that puts out batch statistics.
type statisticsRun struct {
	calibration *onnx.Calibration
	pre         *imageio.Preprocessor
	design      *extract.Design
	folder      string
	session     *ort.Session
}

func openStatistics(rt *Runtime, c *onnx.Calibration, d *extract.Design, dir string) (s *statisticsRun, err error) {
	s = &statisticsRun{calibration: c, design: d}
	defer func() {
		if err != nil {
			err = errors.Join(pipeline.BadConfig(err), s.close())
		}
	}()
	if s.pre, err = imageio.New(d.Spec); err != nil {
		return s, err
	}
	if err = os.MkdirAll(dir, 0o755); err != nil {
		return s, err
	}
	if s.folder, err = os.MkdirTemp(dir, "calibration-"); err != nil {
		return s, err
	}
	file := filepath.Join(s.folder, "model.onnx")
	if err = c.Graph.SaveWithData(file); err != nil {
		return s, err
	}
	// One thread, because sums over a batch must not depend on the cores.
	s.session, err = rt.NewSession(file, ort.Options{Inputs: []string{d.Input}, Outputs: []string{c.Output}, Threads: 1})
	return s, err
}

func (s *statisticsRun) close() error {
	var errs []error
	if s.session != nil {
		errs = append(errs, s.session.Close())
	}
	if s.folder != "" {
		errs = append(errs, os.RemoveAll(s.folder))
	}
	return errors.Join(errs...)
}

// run adds the statistics of so many batches, for which it takes candidates in
// order. A batch that remains incomplete, since too many images cannot be used,
// counts only if it is the only one.
func (s *statisticsRun) run(ctx context.Context, images *bucket.Bucket, candidates []schemas.Image, batches, size int) (Calibrated, error) {
	var done Calibrated
	slot, err := s.slot(ctx, size)
	if err != nil {
		return done, err
	}
	defer func() { slot.Close() }()
	loader := newLoader(images, s.pre)
	for done.Batches < batches {
		filled, rest, err := loader.fill(ctx, candidates, slot.Inputs[0].Float32())
		if err != nil {
			return done, err
		}
		candidates = rest
		if filled < size && done.Batches > 0 {
			break
		}
		if filled < size {
			if filled == 0 {
				return done, pipeline.BadData(fmt.Errorf("none of %d images can be used; the first one: %w", loader.rejected, loader.first))
			}
			if slot, err = s.shrink(ctx, slot, filled); err != nil {
				return done, err
			}
			batches = 1
		}
		if err := s.session.Run(ctx, slot); err != nil {
			return done, err
		}
		if err := s.calibration.Add(slot.Outputs[0].Float32()); err != nil {
			return done, pipeline.BadData(err)
		}
		done.Batches++
		done.Images += filled
	}
	done.Rejected = loader.rejected
	return done, nil
}

func (s *statisticsRun) slot(ctx context.Context, batch int) (*ort.Slot, error) {
	size := s.design.Spec.Size()
	dims := []int64{int64(batch), 3, int64(size.Height), int64(size.Width)}
	if s.design.Spec.Layout == imageio.NHWC {
		dims = []int64{int64(batch), int64(size.Height), int64(size.Width), 3}
	}
	slot, err := s.session.NewSlot(ctx, dims)
	if err != nil && ctx.Err() == nil {
		err = pipeline.BadConfig(err)
	}
	return slot, err
}

// shrink returns a slot of the first images of another one, which it closes.
func (s *statisticsRun) shrink(ctx context.Context, from *ort.Slot, images int) (*ort.Slot, error) {
	to, err := s.slot(ctx, images)
	if err != nil {
		return from, err
	}
	copy(to.Inputs[0].Float32(), from.Inputs[0].Float32())
	return to, from.Close()
}
