package ort_test

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"

	"sela/stages/internal/ort"
	"sela/stages/internal/ort/orttest"
)

func TestKeepSignalsRestores(t *testing.T) {
	before, err := ort.ReadSignals()
	if err != nil {
		t.Fatal(err)
	}
	sentinel := errors.New("sentinel")
	const ignore = 1 // SIG_IGN
	for _, want := range []error{nil, sentinel} {
		got := ort.KeepSignals(func() error {
			for _, sig := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE} {
				if err := ort.SetHandler(int(sig), ignore, 0); err != nil {
					t.Error(err)
				}
			}
			changed, err := ort.ReadSignals()
			if err != nil || *changed == *before {
				t.Error("the handlers did not change: this test shows nothing", err)
			}
			return want
		})
		if got != want {
			t.Errorf("returned %v, want %v", got, want)
		}
		after, err := ort.ReadSignals()
		if err != nil {
			t.Fatal(err)
		}
		if *after != *before {
			t.Error("handlers were not put back")
		}
	}
}

func TestSessionKeepsSignalHandlers(t *testing.T) {
	rt := orttest.Open(t)
	before, err := ort.ReadSignals()
	if err != nil {
		t.Fatal(err)
	}
	s, err := rt.NewSession(filepath.Join("testdata", "linear.onnx"), ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	rt.Providers()
	slot := newSlot(t, s, []int64{4, 3, 4, 4})
	if err := s.Run(t.Context(), slot); err != nil {
		t.Fatal(err)
	}
	after, err := ort.ReadSignals()
	if err != nil {
		t.Fatal(err)
	}
	if *after != *before {
		t.Error("signal handlers changed")
	}
}
