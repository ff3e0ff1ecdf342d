package ort

import (
	"fmt"
	"syscall"
	"unsafe"
)

// sigaction is the kernel's struct on amd64 and arm64.
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// Signals 1 to 64; SIGKILL and SIGSTOP have no handler to read.
const signals = 64

type dispositions [signals + 1]sigaction

// keepSignals calls fn and puts back every signal handler that it changed.
// Libraries of the CUDA provider install handlers that know nothing of Go's
// signal stacks. A signal.Notify in another goroutine during the call may be
// undone: sessions are made before or after a program sets up its signals.
func keepSignals(fn func() error) error {
	before, err := readSignals()
	if err != nil {
		return err
	}
	fnErr := fn()
	if err := before.restore(); fnErr == nil {
		return err
	}
	return fnErr
}

func readSignals() (*dispositions, error) {
	var all dispositions
	for sig := 1; sig <= signals; sig++ {
		if err := rtSigaction(sig, nil, &all[sig]); err != nil {
			return nil, err
		}
	}
	return &all, nil
}

// restore writes only what differs, so that an untouched process stays so.
func (before *dispositions) restore() error {
	after, err := readSignals()
	if err != nil {
		return err
	}
	for sig := 1; sig <= signals; sig++ {
		if after[sig] == before[sig] {
			continue
		}
		if err := rtSigaction(sig, &before[sig], nil); err != nil {
			return err
		}
	}
	return nil
}

func rtSigaction(sig int, set, get *sigaction) error {
	if sig == int(syscall.SIGKILL) || sig == int(syscall.SIGSTOP) {
		return nil
	}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig),
		uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(get)), unsafe.Sizeof(uint64(0)), 0, 0)
	if errno != 0 {
		return fmt.Errorf("signal handler of signal %d: %w", sig, errno)
	}
	return nil
}
