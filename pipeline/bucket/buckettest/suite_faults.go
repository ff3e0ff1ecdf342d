package buckettest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
	"sela/pipeline/bucket"
)

func (s suite) cancelled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, noise(9<<20), 0o666))
	b := s.bucket(t, &Faults{Latency: 5 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	for name, err := range map[string]error{
		"create": b.Create(ctx, "c", []byte("x")),
		"upload": b.Upload(ctx, "u", path),
		"list":   b.List(ctx, "", func(bucket.Object) error { return nil }),
	} {
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a context that ended: %v", name, err)
		}
	}
	// A source that fails in the middle must not leave a shorter object, in one
	// part or in several.
	inner := s.open(t)
	defer inner.Close()
	for _, size := range []int64{0, 1000, 9 << 20} {
		half, stop := context.WithCancel(t.Context())
		source := io.MultiReader(io.LimitReader(rand.NewChaCha8([32]byte{}), size), readerFunc(func([]byte) (int, error) {
			stop()
			return 0, half.Err()
		}))
		key := fmt.Sprint("half", size)
		if err := inner.Upload(half, key, source, &blob.WriterOptions{ContentType: "text/plain"}); err == nil {
			t.Errorf("an upload whose source failed after %d bytes succeeded", size)
		}
		if ok, _ := inner.Exists(t.Context(), key); ok {
			t.Errorf("an upload whose source failed after %d bytes left an object", size)
		}
		stop()
	}
	if left := keys(t, b, ""); len(left) > 0 {
		t.Errorf("cancelled writes left %q", left)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func (s suite) answerLost(t *testing.T) {
	f := &Faults{Applied: 2}
	b := s.bucket(t, f)
	path := filepath.Join(t.TempDir(), "file")
	data := noise(600_000)
	must(t, os.WriteFile(path, data, 0o666))
	for i := range 6 {
		key := fmt.Sprint("k", i)
		must(t, b.Create(t.Context(), key, []byte(key)))
		check(t, b, key, []byte(key))
		if err := b.Create(t.Context(), key, []byte("another's")); !errors.Is(err, bucket.ErrExists) {
			t.Errorf("creating an object again: %v", err)
		}
		check(t, b, key, []byte(key))
		must(t, b.Put(t.Context(), key, []byte("put")))
		check(t, b, key, []byte("put"))
		must(t, b.Upload(t.Context(), "up"+key, path))
		check(t, b, "up"+key, data)
		must(t, b.Delete(t.Context(), key))
	}
	if f.Injected() == 0 {
		t.Error("no fault was injected")
	}
}

func (s suite) refusals(t *testing.T) {
	f := &Faults{Refuse: 2}
	b := s.bucket(t, f)
	for i := range 5 {
		key := fmt.Sprint("k", i)
		must(t, b.Create(t.Context(), key, []byte(key)))
		check(t, b, key, []byte(key))
		if _, err := b.Stat(t.Context(), key); err != nil {
			t.Error(err)
		}
	}
	if got := keys(t, b, ""); len(got) != 5 {
		t.Errorf("listed %q", got)
	}
	if f.Injected() < 5 {
		t.Errorf("only %d faults were injected", f.Injected())
	}
	// What cannot pass is not tried again, what does not pass not for ever.
	for code, most := range map[gcerrors.ErrorCode]int{gcerrors.PermissionDenied: 1, gcerrors.Internal: 5} {
		f := &Faults{Refuse: 1, Code: code}
		b := s.bucket(t, f)
		err := b.Put(t.Context(), "k", nil)
		if gcerrors.Code(err) != code || f.Calls() != most {
			t.Errorf("a store that always answers %v: %v after %d calls, want %d", code, err, f.Calls(), most)
		}
	}
}

func (s suite) brokenReads(t *testing.T) {
	// Every reader breaks: only if progress renews the budget of attempts does
	// a read of twenty times BreakAfter bytes succeed.
	f := &Faults{Break: 1, BreakAfter: 10_000}
	b := s.bucket(t, f)
	data := noise(200_000)
	must(t, b.Create(t.Context(), "data", data))
	check(t, b, "data", data)
	if f.Injected() < 20 {
		t.Errorf("only %d faults were injected", f.Injected())
	}
}

func (s suite) stalledReads(t *testing.T) {
	f := &Faults{Stall: 2}
	b := bucket.New(Faulty(s.open(t), f), "test://bucket", bucket.Options{
		RequestTimeout: 300 * time.Millisecond, Backoff: time.Millisecond, ETag: s.opts.ETag, Answer: s.opts.Answer})
	defer b.Close()
	data := noise(50_000)
	must(t, b.Put(t.Context(), "data", data))
	check(t, b, "data", data)
	check(t, b, "data", data)
	if f.Injected() == 0 {
		t.Error("no fault was injected")
	}
}

func (s suite) changedWhileRead(t *testing.T) {
	f := &Faults{Break: 1, BreakAfter: 1000}
	b := s.bucket(t, f)
	must(t, b.Put(t.Context(), "data", noise(5000)))
	r, err := b.NewReader(t.Context(), "data", 0, -1)
	must(t, err)
	defer r.Close()
	must(t, b.Put(t.Context(), "data", noise(5001)))
	if n, err := io.Copy(io.Discard, r); !errors.Is(err, bucket.ErrChanged) {
		t.Errorf("an object that was replaced while it was read gave %d bytes and %v", n, err)
	}
}
