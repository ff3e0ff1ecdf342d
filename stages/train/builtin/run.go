package builtin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"sela/pipeline"
	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/grad"
	"sela/stages/internal/ort"
)

// The files of a training in its folder.
const (
	CheckpointFile = "checkpoint.sela"
	MetricsFile    = "metrics.csv"
	ModelFile      = "model.onnx"
	TrunkFile      = "trunk.onnx"
)

// feedsInTurn is how many batches are filled, waiting or computed on at once.
const feedsInTurn = 3

// progressStage is the name under which progress is reported.
const progressStage = "training"

// source gives batches: a [Loader], or what a test puts in its place.
type source interface {
	// Steps is the number of steps of an epoch.
	Steps() int
	// Run fills slots in the order of the steps and returns after the last.
	Run(ctx context.Context, epoch, fromStep int, free <-chan *Slot, ready chan<- *Slot) error
	// HeldOut fills slots with the held-out images, as they are.
	HeldOut(ctx context.Context, free <-chan *Slot, ready chan<- *Slot) error
}

// trainer is one training run.
type trainer struct {
	runtime  *ort.Runtime
	options  ort.Options // providers, precision and threads
	model    *onnx.Model // the network to train; not changed
	input    string
	heads    []string // outputs with label tables
	clusters []int    // K of each, as the label tables have it
	classes  int      // of multi-label targets, which one head is for; 0 for labels of clusters
	spec     pipeline.Builtin
	identity Identity
	// choose picks the forms of the gradients of a training that begins; nil:
	// the defaults.
	choose  func(ctx context.Context, problems []grad.Problem, observe func(done int, p grad.Problem)) (grad.Forms, error)
	open    func(masks []grad.Mask) (source, error)
	after   string // file of the checkpoint that the part before ended with; "": none
	dir     string // of checkpoint, metrics and results
	scratch string // of graphs that are loaded
	memory  int64  // bytes of this machine; 0: unknown
	inRun   int    // steps of a run of the graph; 0: as suits the provider
	stop    <-chan struct{}
	observe func(pipeline.Event)
	// saved is called after the checkpoint of an epoch; nil: nothing is.
	saved func(ctx context.Context, path string, epoch int) error

	// Made by start.
	shaped    *onnx.Model // model, with the rotation head if there is one
	step      *grad.Step
	forms     grad.Forms // of its gradients
	estimate  memory
	evaluator evaluator
	source    source
	stepper   *ort.Stepper
	loop      *grad.Loop // of the step, where a run takes several; else nil
	places    map[*Slot]place
	slots     []*Slot // in the order of their places
	schedule  schedule
	end       int64       // step of the whole training at which this part of it ends
	values    [][]float32 // of the states, when asked for
	header    header
	rows      int64     // trained on by this process
	last      time.Time // of the last checkpoint
}

// run trains from the last checkpoint, or from the beginning, to the last step
// and writes the results.
func (t *trainer) run(ctx context.Context) (_ *Report, err error) {
	defer func() {
		if t.stepper != nil {
			err = errors.Join(err, t.stepper.Close())
		}
	}()
	if err := t.start(ctx); err != nil {
		return nil, err
	}
	t.notice("training", "parameters", t.parameters(), "heads", describe(t.clusters), "batch", t.spec.Batch, "steps_per_epoch", t.source.Steps(),
		"memory_about", mebibytes(t.estimate.total()))
	done, steps := t.header.Epoch, int64(t.source.Steps())
	tasks := int((t.end + steps - 1) / steps)
	t.observe(pipeline.Event{Kind: pipeline.StageStarted, Stage: progressStage, Tasks: tasks, Skipped: done, Total: (t.end - t.position()) * int64(t.spec.Batch)})
	start := time.Now()
	for t.position() < t.end || t.header.Sums.Rows > 0 {
		if err := t.epoch(ctx); err != nil {
			return nil, err
		}
	}
	t.observe(pipeline.Event{Kind: pipeline.StageDone, Stage: progressStage, Rows: t.rows, Tasks: tasks, Skipped: done, Elapsed: time.Since(start)})
	return t.export()
}

// state returns the current values of all states.
func (t *trainer) state() [][]float32 {
	t.values = t.values[:0]
	for i := range t.step.State {
		t.values = append(t.values, t.stepper.State(i))
	}
	return t.values
}

// epoch does what is left of the epoch at hand, or of this part's share of it,
// measures the held-out images and makes a checkpoint.
func (t *trainer) epoch(ctx context.Context) error {
	h, steps := &t.header, t.source.Steps()
	to := int(min(int64(steps), t.end-int64(h.Epoch)*int64(steps)))
	if err := t.steps(ctx, to); err != nil {
		return err
	}
	if h.Sums.Rows == 0 {
		return pipeline.BadData(fmt.Errorf("epoch %d had no image to train on", h.Epoch+1))
	}
	m := Metrics{Epoch: h.Epoch + 1, Step: t.position(), Train: h.Sums.scores(len(t.heads)),
		ImagesPerSecond: h.Sums.Rows / h.Sums.Seconds, Waiting: h.Sums.Waited / h.Sums.Seconds, Seconds: h.Sums.Seconds}
	m.Rate = t.schedule.rate(m.Step - 1)
	model, err := t.trained()
	if err == nil {
		m.HeldOut, err = t.evaluator.scores(ctx, model, t.source.HeldOut)
	}
	if err == nil && m.HeldOut != nil && !finite(m.HeldOut.Loss) {
		err = pipeline.BadConfig(fmt.Errorf("the loss of the held-out images is %v after epoch %d: lower train.builtin.rate, or set warmup or clip; %s", m.HeldOut.Loss, m.Epoch, t.kept()))
	}
	if err != nil && ctx.Err() != nil {
		err = errors.Join(ctx.Err(), t.checkpoint())
	}
	if err != nil {
		return err
	}
	h.Metrics = append(h.Metrics, m)
	h.Sums = newSums(t.outputs())
	ended := to == steps
	if ended {
		h.Epoch, h.Step = h.Epoch+1, 0
	}
	pairs := []any{"epoch", m.Epoch, "of", t.spec.Epochs, "loss", round(m.Train.Loss), "accuracy", round(m.Train.Accuracy)}
	if m.HeldOut != nil {
		pairs = append(pairs, "held_out_loss", round(m.HeldOut.Loss), "held_out_accuracy", round(m.HeldOut.Accuracy))
		if t.classes > 0 {
			pairs = append(pairs, "held_out_mean_ap", round(m.HeldOut.MeanAP))
		}
	}
	what := "epoch done"
	if !ended {
		what = "part of an epoch done"
		pairs = append(pairs, "step", m.Step)
	}
	t.notice(what, append(pairs, "rate", m.Rate, "images/s", round(m.ImagesPerSecond), "waiting", round(m.Waiting))...)
	if err := t.checkpoint(); err != nil {
		return err
	}
	if t.saved != nil && ended {
		return t.saved(ctx, filepath.Join(t.dir, CheckpointFile), h.Epoch)
	}
	return nil
}

// steps takes the steps of the epoch up to the given one. Where it is asked to
// stop it makes a checkpoint first.
func (t *trainer) steps(ctx context.Context, to int) error {
	h := &t.header
	epoch, from := h.Epoch, h.Step
	if from == to {
		return nil // only the held-out images are left
	}
	feeding := feed(ctx, t.slots, func(ctx context.Context, free <-chan *Slot, ready chan<- *Slot) error {
		return t.source.Run(ctx, epoch, from, free, ready)
	})
	defer feeding.stop()
	for h.Step < to {
		if t.stopped() {
			return errors.Join(pipeline.ErrStopped, t.checkpoint())
		}
		start := time.Now()
		slots, err := feeding.several(min(t.inRun, to-h.Step))
		if err == nil && len(slots) == 0 {
			err = fmt.Errorf("the loader ended before step %d of %d", h.Step+1, to)
		}
		waited := time.Since(start)
		if err == nil {
			err = t.take(ctx, slots)
		}
		if err != nil {
			if ctx.Err() != nil { // the steps were not taken
				err = errors.Join(ctx.Err(), t.checkpoint())
			}
			return err
		}
		h.Sums.Seconds += time.Since(start).Seconds()
		h.Sums.Waited += waited.Seconds()
		for _, s := range slots {
			feeding.free <- s
		}
		if time.Since(t.last) >= time.Duration(t.spec.Checkpoint) && h.Step < to {
			if err := t.checkpoint(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *trainer) stopped() bool {
	select {
	case <-t.stop:
		return true
	default:
		return false
	}
}

// kept says what is left after training went wrong.
func (t *trainer) kept() string {
	path := filepath.Join(t.dir, CheckpointFile)
	if _, err := os.Stat(path); err != nil {
		return "no checkpoint had been made"
	}
	return "the last good checkpoint is " + path
}

// checkpoint saves where the run is, and the metrics so far.
func (t *trainer) checkpoint() error {
	err := save(filepath.Join(t.dir, CheckpointFile), t.header, t.state())
	if err != nil {
		return fmt.Errorf("checkpoint at step %d of epoch %d: %w; %s", t.header.Step, t.header.Epoch+1, err, t.kept())
	}
	t.last = time.Now()
	return t.writeMetrics()
}

func (t *trainer) writeMetrics() error {
	rows := metricsTable(t.header.Metrics, len(t.heads))
	return replace(filepath.Join(t.dir, MetricsFile), func(w io.Writer) error {
		_, err := w.Write(rows)
		return err
	})
}

// trained returns the network in evaluation mode with the current parameters and
// statistics, without the rotation head.
func (t *trainer) trained() (*onnx.Model, error) {
	values := map[string][]float32{}
	for i, s := range t.step.State {
		if s.Kind != grad.Momentum {
			values[s.Name] = t.stepper.State(i)
		}
	}
	m := t.shaped.Clone()
	if err := t.step.Apply(m, values); err != nil {
		return nil, err
	}
	if t.spec.RotationHead {
		dropRotationHead(m)
	}
	return m, nil
}

func (t *trainer) notice(message string, pairs ...any) {
	e := pipeline.Event{Kind: pipeline.Notice, Stage: progressStage, Task: message}
	for i := 0; i+1 < len(pairs); i += 2 {
		e.Attrs = append(e.Attrs, slog.Any(pairs[i].(string), pairs[i+1]))
	}
	t.observe(e)
}

// round keeps four digits, for people.
func round(x float64) float64 {
	r, _ := strconv.ParseFloat(strconv.FormatFloat(x, 'g', 4, 64), 64)
	return r
}
