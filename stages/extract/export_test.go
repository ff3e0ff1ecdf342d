package extract

import (
	"context"

	"sela/pipeline"
	"sela/stages/internal/imageio"
	"sela/stages/internal/ort"
)

// What tests outside the package measure the stage against.

func (c *Classifier) RunSlot(ctx context.Context, s *ort.Slot) error { return c.session.Run(ctx, s) }

func (c *Classifier) NewWorker() *imageio.Worker { return c.pre.NewWorker() }

func (c *Classifier) Preprocess(w *imageio.Worker, data []byte, s *ort.Slot, pos int) error {
	return c.preprocess(w, data, s, pos)
}

// Idle returns how many batches are in the lane, and of how many, and whether
// any bytes of read-ahead or requests are taken.
func (s *Stage) Idle() (idle, all int, reading bool) {
	f := s.lane.fetch
	reading = len(f.slots) > 0 || !f.budget.TryAcquire(f.bytes)
	if !reading {
		f.budget.Release(f.bytes)
	}
	return len(s.lane.free), cap(s.lane.free), reading
}

// Workers returns how many goroutines the job's lane has.
func Workers(job *pipeline.Job) int { return len(workersOf(job)) }
