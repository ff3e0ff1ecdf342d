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
