package extract

import (
	"context"

	"sela/stages/internal/imageio"
	"sela/stages/internal/ort"
)

// What tests outside the package measure the stage against.

func (c *Classifier) RunSlot(ctx context.Context, s *ort.Slot) error { return c.session.Run(ctx, s) }

func (c *Classifier) NewWorker() *imageio.Worker { return c.pre.NewWorker() }

func (c *Classifier) Preprocess(w *imageio.Worker, data []byte, s *ort.Slot, pos int) error {
	return c.preprocess(w, data, s, pos)
}

// Idle returns how many batches are in the lane, and of how many.
func (s *Stage) Idle() (idle, all int) { return len(s.lane.free), cap(s.lane.free) }
