package pipeline

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gocloud.dev/blob/memblob"
	"gocloud.dev/gcerrors"

	"sela/pipeline/bucket"
	"sela/pipeline/bucket/buckettest"
)

func TestExitCodes(t *testing.T) {
	known := map[int]bool{}
	for _, c := range ExitCodes {
		if known[c.Code] || c.Meaning == "" {
			t.Errorf("code %d stands twice or means nothing", c.Code)
		}
		known[c.Code] = true
	}
	plain := errors.New("x")
	for _, c := range []struct {
		err    error
		signal int
		class  Class
		name   string
		code   int
	}{
		{plain, 0, Bug, "bug", 70},
		{Retryable(plain), 0, Transient, "retryable", 75},
		{BadUsage(plain), 0, Usage, "usage", 64},
		{BadData(plain), 0, Data, "data", 65},
		{BadConfig(plain), 0, Config, "config", 78},
		{Nothing(plain), 0, NothingNew, "nothing-new", 99},
		{context.Canceled, 15, Interrupted, "interrupted", 143},
		{context.Canceled, 2, Interrupted, "interrupted", 130},
		{context.Canceled, 0, Interrupted, "interrupted", 75},
		{ErrStopped, 15, Interrupted, "interrupted", 143},
		{BadData(plain), 15, Data, "data", 65}, // a signal does not hide an error
	} {
		class := ClassOf(c.err)
		if class != c.class || class.String() != c.name || ExitCode(c.err, c.signal) != c.code {
			t.Errorf("%v: class %v, code %d; want %v, %d", c.err, class, ExitCode(c.err, c.signal), c.class, c.code)
		}
		if c.code < 128 && !known[c.code] {
			t.Errorf("code %d is not in the table", c.code)
		}
	}
	if ExitCode(nil, 0) != 0 || ExitCode(nil, 15) != 0 || !known[0] {
		t.Error("success is not 0")
	}
	for _, mark := range []func(error) error{Retryable, BadUsage, BadData, BadConfig, Nothing} {
		if mark(nil) != nil {
			t.Error("a mark makes an error of nil")
		}
		if err := mark(plain); !errors.Is(err, plain) || err.Error() != "x" {
			t.Errorf("a mark changes %v to %v", plain, err)
		}
	}
	if wrap(nil, "x") != nil {
		t.Error("wrap makes an error of nil")
	}
}

type httpError int

func (e httpError) Error() string       { return fmt.Sprint("status ", int(e)) }
func (e httpError) HTTPStatusCode() int { return int(e) }

func TestClassOf(t *testing.T) {
	plain := errors.New("x")
	_, missing := os.Open(filepath.Join(t.TempDir(), "absent"))
	_, folder := os.ReadFile(t.TempDir())
	_, unparsed := url.Parse("http://[::1")
	pathError := func(e syscall.Errno) error { return &os.PathError{Op: "write", Path: "x", Err: e} }
	for _, c := range []struct {
		err  error
		want Class
	}{
		// marks: the outermost counts, through wrapping and joining
		{BadConfig(BadData(plain)), Config},
		{BadData(fmt.Errorf("a: %w", Retryable(plain))), Data},
		{fmt.Errorf("a: %w", fmt.Errorf("b: %w", BadData(plain))), Data},
		{errors.Join(BadData(plain), Retryable(plain)), Data},
		{errors.Join(plain, BadUsage(plain)), Usage},
		{BadData(context.Canceled), Data},
		{wrap(Nothing(plain), "run %s", "r"), NothingNew},
		// the store
		{fmt.Errorf("a: %w", bucket.ErrCorrupt), Data},
		{fmt.Errorf("a: %w", bucket.ErrNotFound), Data},
		{bucket.ErrOverwrites, Config},
		{bucket.ErrChanged, Transient},
		{bucket.ErrNoBucket, Config},
		{bucket.ErrDenied, Config},
		{bucket.ErrClock, Config},
		{bucket.ErrExpired, Transient},
		{fmt.Errorf("%w: %w", bucket.ErrUnavailable, os.ErrNotExist), Transient},
		// the context
		{fmt.Errorf("a: %w", context.Canceled), Interrupted},
		{fmt.Errorf("a: %w", context.DeadlineExceeded), Transient},
		// the operating system
		{missing, Data},
		{folder, Config},
		{pathError(syscall.ENOSPC), Transient},
		{pathError(syscall.EDQUOT), Transient},
		{pathError(syscall.EIO), Transient},
		{pathError(syscall.EMFILE), Transient},
		{pathError(syscall.EACCES), Config},
		{pathError(syscall.EROFS), Config},
		{pathError(syscall.ENAMETOOLONG), Config},
		{os.ErrDeadlineExceeded, Transient},
		// the network
		{&url.Error{Op: "Post", URL: "http://x", Err: errors.New("server closed idle connection")}, Transient},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, Transient},
		{&net.DNSError{Err: "no such host", IsNotFound: true}, Transient},
		{unparsed, Bug},
		{httpError(503), Transient},
		{httpError(429), Transient},
		{httpError(401), Config},
		{httpError(404), Data},
		{fmt.Errorf("a: %w", httpError(500)), Transient},
		{plain, Bug},
	} {
		if got := ClassOf(c.err); got != c.want {
			t.Errorf("%v is %v, want %v", c.err, got, c.want)
		}
	}
}

// TestStoreCodes makes a store fail with each code.
func TestStoreCodes(t *testing.T) {
	for code, want := range map[gcerrors.ErrorCode]Class{
		gcerrors.NotFound: Data, gcerrors.PermissionDenied: Config, gcerrors.InvalidArgument: Config, gcerrors.Unimplemented: Config,
		gcerrors.ResourceExhausted: Transient, gcerrors.DeadlineExceeded: Transient, gcerrors.FailedPrecondition: Transient,
		gcerrors.Internal: Transient, gcerrors.Canceled: Interrupted,
	} {
		work := faulty(t, memblob.OpenBucket(nil), &buckettest.Faults{Refuse: 1, Code: code}, 2)
		_, err := work.Get(t.Context(), "key")
		if got := ClassOf(wrap(err, "read")); got != want {
			t.Errorf("%v: class %v, want %v", err, got, want)
		}
		_, err = Open(t.Context(), work, Options{Job: testJob(t), RunID: "r"})
		if code != gcerrors.NotFound && (ClassOf(err) != want || !strings.Contains(err.Error(), "run r")) {
			t.Errorf("%v: class %v, want %v", err, ClassOf(err), want)
		}
	}
}
