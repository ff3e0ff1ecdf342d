package ort

import (
	"fmt"
	"sync"

	binding "github.com/yalue/onnxruntime_go"
)

// Runtime is the process's ONNX Runtime. There is at most one; [Open] hands it
// out. Its methods are safe for concurrent use.
type Runtime struct {
	lib    Library
	users  int  // open sessions and slots, calls in progress; guarded by current.Mutex
	closed bool // guarded by current.Mutex
}

// current guards the one environment that the library allows per process.
var current struct {
	sync.Mutex
	runtime *Runtime
}

// Open loads lib and starts ONNX Runtime with its own logging turned down to
// fatal errors: every other error comes back as a Go error. A second Open of
// the same library returns the same Runtime; of another library it is an
// error, because a process holds one. Errors are [ErrLibrary].
func Open(lib Library) (*Runtime, error) {
	current.Lock()
	defer current.Unlock()
	if rt := current.runtime; rt != nil {
		if rt.lib.SHA256 != lib.SHA256 {
			return nil, fmt.Errorf("%w %s: this process already runs %s (version %s)", ErrLibrary, lib.Path, rt.lib.Path, rt.lib.Version)
		}
		return rt, nil
	}
	if err := checkVersion(lib.Version); err != nil {
		return nil, fmt.Errorf("%w %s: %w; %s", ErrLibrary, lib.Path, err, remedy)
	}
	binding.SetSharedLibraryPath(lib.Path)
	err := keepSignals(func() error {
		if err := binding.InitializeEnvironment(binding.WithLogLevelFatal()); err != nil {
			return err
		}
		return binding.DisableTelemetry()
	})
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w; %s", ErrLibrary, lib.Path, err, remedy)
	}
	lib.Version = binding.GetVersion()
	current.runtime = &Runtime{lib: lib}
	return current.runtime, nil
}

// Library returns the library in use, its version as the library itself says.
func (rt *Runtime) Library() Library { return rt.lib }

// Close ends ONNX Runtime and unloads the library. It is an error while
// sessions or slots are open. A program that ends anyway need not call it.
// Closing twice does nothing.
func (rt *Runtime) Close() error {
	current.Lock()
	defer current.Unlock()
	if rt.closed {
		return nil
	}
	if rt.users > 0 {
		return fmt.Errorf("close ONNX Runtime: sessions or slots still open: %d", rt.users)
	}
	if err := binding.DestroyEnvironment(); err != nil {
		return fmt.Errorf("close ONNX Runtime: %w", err)
	}
	rt.closed = true
	current.runtime = nil
	return nil
}

// hold counts a user of the library in; release counts it out.
func (rt *Runtime) hold() error {
	current.Lock()
	defer current.Unlock()
	if rt.closed {
		return fmt.Errorf("%w %s: closed", ErrLibrary, rt.lib.Path)
	}
	rt.users++
	return nil
}

func (rt *Runtime) release() {
	current.Lock()
	defer current.Unlock()
	rt.users--
}
