package ort_test

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sela/stages/internal/ort"
)

// endless returns a slot whose run multiplies matrices for many hours.
func endless(t *testing.T, s *ort.Session) *ort.Slot {
	slot := newSlot(t, s, []int64{64, 64}, []int64{1})
	slot.Inputs[0].Float32()[0] = 1
	slot.Inputs[1].Float32()[0] = 1e12
	return slot
}

func TestCancelledRunReturnsAndSlotServesAgain(t *testing.T) {
	s := open(t, "loop.onnx", ort.Options{})
	slot := endless(t, s)
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		err := s.Run(ctx, slot)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ort.ErrRun) {
			t.Fatalf("error %v", err)
		}
	}
	slot.Inputs[1].Float32()[0] = 5
	if err := s.Run(t.Context(), slot); err != nil {
		t.Fatalf("after a cancelled run: %v", err)
	}
	var norm float64 // rotations keep the length of the row
	for _, v := range slot.Outputs[0].Float32() {
		norm += float64(v) * float64(v)
	}
	if norm < 0.999 || norm > 1.001 {
		t.Errorf("squared length %v, want 1", norm)
	}
}

func TestCancelledBeforeRun(t *testing.T) {
	s := open(t, "loop.onnx", ort.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx, endless(t, s)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	s = open(t, "free.onnx", ort.Options{Outputs: []string{"flat"}})
	if _, err := s.NewSlot(ctx, []int64{1, 1, 1, 1}); !errors.Is(err, context.Canceled) || errors.Is(err, ort.ErrModel) {
		t.Errorf("slot that needs a run: error %v", err)
	}
}

// Cancelling just as runs end must neither leak the request into a later run
// nor touch freed memory.
func TestCancellationRaces(t *testing.T) {
	s := open(t, "loop.onnx", ort.Options{})
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			slot, err := s.NewSlot(context.Background(), []int64{64, 64}, []int64{1})
			if err != nil {
				t.Error(err)
				return
			}
			defer slot.Close()
			slot.Inputs[1].Float32()[0] = 20
			for i := range 100 {
				ctx, cancel := context.WithCancel(context.Background())
				timer := time.AfterFunc(time.Duration((i*7+worker*3)%200)*time.Microsecond, cancel)
				if err := s.Run(ctx, slot); err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				timer.Stop()
				cancel()
				if err := s.Run(context.Background(), slot); err != nil {
					t.Errorf("the run after a cancelled one: %v", err)
				}
			}
		})
	}
	all.Wait()
}

func TestBusySlotIsRefusedAndCloseWaits(t *testing.T) {
	s := open(t, "loop.onnx", ort.Options{})
	slot := endless(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// Of two runs of one slot, one is refused and the other goes on.
	ended := make(chan error, 2)
	for range 2 {
		go func() { ended <- s.Run(ctx, slot) }()
	}
	if err := <-ended; !errors.Is(err, ort.ErrBusy) {
		t.Fatalf("a second run of a busy slot: %v", err)
	}
	closed := make(chan error, 2)
	go func() { closed <- slot.Close() }()
	go func() { closed <- s.Close() }()
	select {
	case <-closed:
		t.Fatal("closed under a run in flight")
	case <-time.After(20 * time.Millisecond):
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("run ended with %v", err)
	}
	for range 2 {
		if err := <-closed; err != nil {
			t.Error(err)
		}
	}
}

// Coarse: a leak of one batch, or of 1 kB, per run would show.
func TestResidentMemoryDoesNotGrow(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("skipped: reads /proc")
	}
	s := open(t, "linear.onnx", ort.Options{})
	slot := newSlot(t, s, []int64{16, 3, 4, 4})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	run := func(n int) {
		for range n {
			if err := s.Run(ctx, slot); err != nil {
				t.Fatal(err)
			}
		}
	}
	run(10000) // fills the allocators, and the race detector's own memory
	before := residentBytes(t)
	run(10000)
	if grown := residentBytes(t) - before; grown > 8<<20 {
		t.Errorf("resident memory grew by %d bytes in 10,000 runs", grown)
	}
}

func residentBytes(t *testing.T) int64 {
	t.Helper()
	runtime.GC()
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(data))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
