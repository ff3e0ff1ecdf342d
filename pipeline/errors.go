package pipeline

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"

	"gocloud.dev/gcerrors"

	"sela/pipeline/bucket"
	"sela/schemas"
)

// Class says what a scheduler should do about an error. Every error that ends
// a command has exactly one class; [ExitCode] maps classes to exit codes.
type Class int

const (
	// Bug is an error nobody classified: a defect of this program (exit 70).
	Bug Class = iota
	// Transient is an error that the same command may not meet again: a
	// throttled store, a lost connection, a lease held by another run (75).
	Transient
	// Usage is a wrong command line (64).
	Usage
	// Data is input that cannot be used however often it is tried (65).
	Data
	// Config is a job, model, library or permission that must be changed (78).
	Config
	// NothingNew says that there is no work: a success a scheduler may want to
	// tell from a run that made labels (99).
	NothingNew
	// Interrupted is a cancelled context: a signal asked the process to stop.
	Interrupted
)

// String returns the class's name as it stands in logs and commit records.
func (c Class) String() string {
	return [...]string{"bug", "retryable", "usage", "data", "config", "nothing-new", "interrupted"}[c]
}

type classified struct {
	error
	class Class
}

func (c *classified) Unwrap() error { return c.error }

// Retryable marks err as one that may not happen again.
func Retryable(err error) error { return mark(err, Transient) }

// BadUsage marks err as a mistake on the command line.
func BadUsage(err error) error { return mark(err, Usage) }

// BadData marks err as unusable input.
func BadData(err error) error { return mark(err, Data) }

// BadConfig marks err as a mistake in the job, the model or the installation.
func BadConfig(err error) error { return mark(err, Config) }

// Nothing marks err as the absence of work.
func Nothing(err error) error { return mark(err, NothingNew) }

func mark(err error, c Class) error {
	if err == nil {
		return nil
	}
	return &classified{err, c}
}

// ClassOf returns the class of err: the outermost mark if there is one, else
// what the store's or the system's error code means.
func ClassOf(err error) Class {
	var c *classified
	if errors.As(err, &c) {
		return c.class
	}
	switch {
	case errors.Is(err, bucket.ErrCorrupt), errors.Is(err, bucket.ErrNotFound),
		errors.Is(err, schemas.ErrCorrupt), errors.Is(err, schemas.ErrKind):
		return Data
	case errors.Is(err, bucket.ErrOverwrites), errors.Is(err, bucket.ErrNoBucket), errors.Is(err, bucket.ErrDenied), errors.Is(err, bucket.ErrClock):
		return Config
	case errors.Is(err, bucket.ErrChanged), errors.Is(err, bucket.ErrExpired), errors.Is(err, bucket.ErrUnavailable):
		return Transient
	case errors.Is(err, context.Canceled):
		return Interrupted
	case errors.Is(err, context.DeadlineExceeded):
		return Transient
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return Transient
	case errors.Is(err, os.ErrPermission):
		return Config
	case errors.Is(err, os.ErrNotExist):
		return Data
	}
	switch gcerrors.Code(err) {
	case gcerrors.NotFound:
		return Data
	case gcerrors.PermissionDenied, gcerrors.InvalidArgument, gcerrors.Unimplemented:
		return Config
	case gcerrors.ResourceExhausted, gcerrors.DeadlineExceeded, gcerrors.FailedPrecondition, gcerrors.Internal:
		return Transient
	case gcerrors.Canceled:
		return Interrupted
	}
	return classOfSystem(err)
}

// classOfSystem is the part of ClassOf about the network and the operating
// system.
func classOfSystem(err error) Class {
	var slow interface{ Timeout() bool }
	if errors.As(err, &slow) && slow.Timeout() {
		return Transient
	}
	// The providers' own errors, whose types this package does not know.
	var answer interface{ HTTPStatusCode() int }
	if errors.As(err, &answer) {
		switch code := answer.HTTPStatusCode(); {
		case code == http.StatusNotFound, code == http.StatusGone:
			return Data
		case code >= 500, code == http.StatusRequestTimeout, code == http.StatusConflict,
			code == http.StatusTooEarly, code == http.StatusTooManyRequests:
			return Transient
		case code >= 400:
			return Config
		}
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		switch errno {
		case syscall.EROFS, syscall.ENOTDIR, syscall.EISDIR, syscall.ENAMETOOLONG, syscall.EINVAL, syscall.ELOOP, syscall.ENOEXEC:
			return Config
		default:
			return Transient
		}
	}
	var network *net.OpError
	var name *net.DNSError
	var request *url.Error
	if errors.As(err, &network) || errors.As(err, &name) || errors.As(err, &request) && request.Op != "parse" {
		return Transient
	}
	return Bug
}

// ExitCodes is the table of exit codes, in the order in which help prints it.
var ExitCodes = []struct {
	Code    int
	Meaning string
}{
	{0, "done, or already done"},
	{64, "usage: the command line is wrong; do not retry"},
	{65, "data: the input cannot be used; do not retry"},
	{70, "bug: an error this program does not know; report it"},
	{75, "retry: the same command may succeed later (throttled, lease held)"},
	{78, "config: the job, the model or the installation must be changed; do not retry"},
	{99, "nothing new: images, model and spec are those of the last published run"},
	{128, "128+n: ended by signal n; the same command resumes"},
}

// ExitCode maps an error to the process's exit code. It is the only place
// where that happens. signal is the number of the signal that cancelled the
// command, or 0.
func ExitCode(err error, signal int) int {
	if err == nil {
		return 0
	}
	switch ClassOf(err) {
	case Usage:
		return 64
	case Data:
		return 65
	case Transient:
		return 75
	case Config:
		return 78
	case NothingNew:
		return 99
	case Interrupted:
		if signal != 0 {
			return 128 + signal
		}
		return 75
	default:
		return 70
	}
}

// wrap adds the operation and its object to err and keeps its class.
func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}
