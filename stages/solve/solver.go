package solve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"sela/pipeline"
	"sela/sinkhorn"
	"sela/stages/internal/ort"
	"sela/stages/solve/device"
)

// solver is what one solve works with.
type solver struct {
	source    *Source
	evaluator sinkhorn.Evaluator
	options   sinkhorn.Options
	sample    sinkhorn.Source // all of it, in the precision of the model; nil where there is none
	trace     trace
	close     []func()
}

func (s *solver) Close() {
	for i := len(s.close) - 1; i >= 0; i-- {
		s.close[i]()
	}
}

// Shares of solve.memory: the sample that is solved takes most, lists about 10
// of 3,000 entries a row.
const (
	sampleMemory = 3
	listMemory   = 1
)

// sampleRows is the number of sampled rows per cluster that a part of the
// sample is to have.
const sampleRows = 20

// halfSample is the size in bytes up to which half of the sample is solved;
// of a larger one as little as is enough.
const halfSample = 512 << 20

// open prepares the solve of a head.
func (s *Stage) open(ctx context.Context, t pipeline.Task, a *pipeline.Attempt) (_ *solver, err error) {
	head, spec := t.Index, a.Run.Job.Solve
	v, kept := new(solver), s.checkpoint(t, a)
	defer func() {
		if err != nil {
			v.Close()
		}
	}()
	if v.source, err = OpenSource(a.Run, s.shards, head, 0); err != nil {
		return nil, err
	}
	v.close = append(v.close, v.source.Close)
	v.options = sinkhorn.Options{
		Method: sinkhorn.Method(spec.Method), Lambda: spec.Lambda, Tol: spec.Tolerance, MaxIterations: spec.MaxIterations,
		Anneal: spec.Anneal, Workers: cmp.Or(spec.Workers, runtime.GOMAXPROCS(0)),
		Recorder:   &recorder{a, &v.trace},
		Checkpoint: &kept,
	}
	if v.options.Marginals, err = Marginals(&spec, s.shards.Heads[head].Clusters); err != nil {
		return nil, err
	}
	memory := int64(spec.Memory) / (sampleMemory + listMemory)
	v.options.Memory = listMemory * memory
	if err := v.openSpill(a, spillBytes(a.Run.Job, s.shards.Usable(), s.shards.Heads[head].Clusters)); err != nil {
		return nil, err
	}
	switch v.options.Method {
	case sinkhorn.MethodFixed:
		if v.options.Potentials, err = s.fixed(ctx, a, head); err != nil {
			return nil, err
		}
	case sinkhorn.MethodLists, sinkhorn.MethodLBFGS:
		if err := s.openIterating(ctx, v, head, a, sampleMemory*memory); err != nil {
			return nil, err
		}
	}
	v.evaluator = sinkhorn.NewCPU(v.source, v.options.Workers)
	if spec.Device == ort.CUDA {
		return v, s.openDevice(ctx, v, a)
	}
	return v, nil
}

// Check finds what a solve of heads with so many clusters would refuse, so that
// a wrong job fails before the images are read. Errors are of class Config.
func Check(job *pipeline.Job, clusters []int, rt *ort.Runtime) error {
	for h, k := range clusters {
		if _, err := Marginals(&job.Solve, k); err != nil {
			return fmt.Errorf("head %d: %w", h, err)
		}
	}
	if job.Solve.Device != ort.CUDA {
		return nil
	}
	for _, p := range rt.Providers() {
		if p.Name == ort.CUDA && p.Err != nil {
			return pipeline.BadConfig(fmt.Errorf("solve.device: %w", p.Err))
		}
	}
	return nil
}

// Marginals returns the shares that the job wants, nil for equal ones.
func Marginals(spec *pipeline.Solve, clusters int) ([]float64, error) {
	switch {
	case len(spec.Marginals) > 0 && len(spec.Marginals) != clusters:
		return nil, pipeline.BadConfig(fmt.Errorf("solve.marginals has %d shares, the head %d clusters", len(spec.Marginals), clusters))
	case len(spec.Marginals) > 0:
		return spec.Marginals, nil
	case spec.Power > 0:
		return sinkhorn.PowerMarginals(clusters, spec.Power), nil
	}
	return nil, nil
}

// openSpill makes the file for lists that exceed the memory, of up to so many
// bytes.
func (v *solver) openSpill(a *pipeline.Attempt, limit int64) error {
	if limit == 0 {
		return nil
	}
	file, err := os.Create(filepath.Join(a.Dir, "lists"))
	if err != nil {
		return fmt.Errorf("spill file: %w", err)
	}
	v.close = append(v.close, func() { _ = file.Close(); _ = os.Remove(file.Name()) }) // scratch
	v.options.Spill = &spillFile{file, limit}
	return nil
}

// openIterating adds what methods lists and lbfgs can start from: potentials,
// and the sample, of which so many bytes may be held in memory.
func (s *Stage) openIterating(ctx context.Context, v *solver, head int, a *pipeline.Attempt, memory int64) (err error) {
	spec, clusters := a.Run.Job.Solve, s.shards.Heads[head].Clusters
	if spec.Start != "" {
		if v.options.Start, err = s.start(ctx, a, head); err != nil {
			return err
		}
	}
	sample, err := OpenSample(ctx, a.Run, s.shards, head, memory)
	if errors.Is(err, ErrNoSample) {
		return nil
	}
	if err != nil {
		return err
	}
	v.close = append(v.close, sample.Close)
	// Not a matter of solve.memory, which may change nothing about the labels.
	parts := 2
	if 2*int64(clusters)*sample.Rows() > halfSample {
		share := int64(sampleRows * clusters)
		parts = int(min(3, max(2, (sample.Rows()+share/2)/share)))
	}
	var solve, judge sinkhorn.Source
	for i, part := range []*sinkhorn.Source{&solve, &judge} {
		*part, err = sample.Part(ctx, i, parts)
		if errors.Is(err, ErrNoSample) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	v.options.Sample = &sinkhorn.Sample{Solve: solve, Judge: judge}
	v.sample = judge
	return nil
}

// openDevice puts the rows on a GPU.
func (s *Stage) openDevice(ctx context.Context, v *solver, a *pipeline.Attempt) error {
	if s.Runtime == nil {
		return errors.New("solve.device: cuda: this stage was started without ONNX Runtime")
	}
	rt, err := s.Runtime()
	if err != nil {
		return err
	}
	ev, err := device.New(ctx, rt, v.source, device.Options{Provider: ort.CUDA, DeviceID: a.Run.Job.Runtime.Device, Scratch: a.Dir})
	if err != nil {
		if errors.Is(err, ort.ErrProvider) {
			err = pipeline.BadConfig(fmt.Errorf("solve.device: %w", err))
		}
		return err
	}
	v.evaluator = ev
	v.close = append(v.close, func() { _ = ev.Close() }) // only read
	return nil
}

// spillBytes bounds the file that lists go to: what lists may have at most
// where they pay, and a quarter of the local disk's budget.
func spillBytes(job *pipeline.Job, rows int64, clusters int) int64 {
	if s := job.Solve; s.Method != "lists" && s.Balance != "exact" {
		return 0
	}
	return min(12*rows+rows*int64(clusters), int64(job.Local.Bytes)/4)
}

// spillFile is a scratch file of bounded size.
type spillFile struct {
	*os.File
	limit int64
}

// WriteAt implements [io.WriterAt].
func (f *spillFile) WriteAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.limit {
		return 0, fmt.Errorf("%w: local.bytes leaves %s for them", sinkhorn.ErrListsFull, pipeline.Bytes(f.limit))
	}
	return f.File.WriteAt(p, off)
}

// stored measures on the sample what the compact form changes; nil where rows
// are stored as they are, or there is no sample.
func (v *solver) stored(ctx context.Context, job *pipeline.Job, potentials []float64) (*Stored, error) {
	if job.Extract.Stored == "float32" || v.sample == nil {
		return nil, nil
	}
	flips, rows, err := Flips(ctx, v.sample, job.Solve.Lambda, potentials)
	if err != nil {
		return nil, err
	}
	return &Stored{job.Extract.Stored, flips, rows}, nil
}
