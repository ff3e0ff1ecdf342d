package ort

import (
	"context"
	"errors"
	"fmt"

	binding "github.com/yalue/onnxruntime_go"
)

// ErrRun is in the chain of every error of a run other than a cancellation: a
// shape that the graph refuses, memory or a device that gave out.
var ErrRun = errors.New("run model")

// ErrBusy says that a slot was given to two runs at once.
var ErrBusy = errors.New("slot is in use by another run")

// Run computes the slot's outputs from its inputs. Any number of runs may be
// in flight on distinct slots. When ctx is cancelled, Run asks ONNX Runtime to
// stop, waits until it has, and returns ctx's error; the slot can then be used
// again. After an error the outputs mean nothing. Other errors are [ErrRun].
func (s *Session) Run(ctx context.Context, slot *Slot) error {
	if slot.session != s {
		return fmt.Errorf("%w %s: the slot belongs to another session", ErrRun, s.path)
	}
	if !slot.busy.TryLock() {
		return fmt.Errorf("%w %s: %w", ErrRun, s.path, ErrBusy)
	}
	defer slot.busy.Unlock()
	if slot.released {
		return fmt.Errorf("%w %s: the slot is closed", ErrRun, s.path)
	}
	if err := s.run(ctx, slot.in, slot.out, slot.options); err != nil {
		return err
	}
	for _, t := range slot.Outputs {
		if t.Type == Float16 {
			DecodeFloat16(t.f32, t.f16)
		}
	}
	return nil
}

// run makes one call into ONNX Runtime and returns after it has returned.
// Values that are nil in out are allocated.
func (s *Session) run(ctx context.Context, in, out []binding.Value, options *binding.RunOptions) error {
	if ctx.Err() != nil {
		return s.cancelled(ctx)
	}
	s.running.RLock()
	defer s.running.RUnlock()
	if s.closed {
		return fmt.Errorf("%w %s: the session is closed", ErrRun, s.path)
	}
	terminated := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { terminated <- options.Terminate() })
	err := s.dynamic.RunWithOptions(in, out, options)
	if !stop() {
		// The request to stop has been made or is being made: it must be over
		// before it is reset, lest it hit the slot's next run.
		resetErr := errors.Join(<-terminated, options.UnsetTerminate())
		if err != nil {
			return s.cancelled(ctx)
		}
		err = resetErr
	}
	if err != nil {
		return fmt.Errorf("%w %s: %w", ErrRun, s.path, err)
	}
	return nil
}

func (s *Session) cancelled(ctx context.Context) error {
	return fmt.Errorf("run model %s: %w", s.path, ctx.Err())
}
