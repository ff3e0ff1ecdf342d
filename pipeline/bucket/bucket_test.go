package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"
	"gocloud.dev/gcerrors"
)

func mustOpen(t *testing.T, url string) *Bucket {
	t.Helper()
	b, err := Open(t.Context(), url, Options{Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	b := mustOpen(t, "file://"+dir+"/new%20one?create_dir=true")
	if b.URL() != "file://"+dir+"/new%20one" || !b.Local() {
		t.Errorf("URL is %s, local: %v", b.URL(), b.Local())
	}
	if m := mustOpen(t, "mem://"); m.URL() != "mem://" || m.Local() {
		t.Errorf("URL is %s, local: %v", m.URL(), m.Local())
	}
	for raw, want := range map[string]string{
		"/data/images":          "file:/data/images",
		"images":                "file:images",
		"ftp://host/x":          "knows file, mem",
		"file://relative/path":  "file:relative/path",
		"file:" + dir + "/none": "none",
		"s3://%zz:hidden":       "is no URL",
	} {
		_, err := Open(t.Context(), raw, Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q): %v, want %q in it", raw, err, want)
		}
	}
	if _, err := Open(t.Context(), "file:"+dir+"/none", Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing folder: %v", err)
	}
}

// leaky is a provider whose errors quote its URL.
type leaky struct{ opened []string }

func (l *leaky) OpenBucketURL(_ context.Context, u *url.URL) (*blob.Bucket, error) {
	l.opened = append(l.opened, u.String())
	if u.Host == "bad" {
		return nil, fmt.Errorf("open bucket %v: %w", u, fs.ErrPermission)
	}
	return memblob.OpenBucket(nil), nil
}

func TestRemoteURLs(t *testing.T) {
	l := new(leaky)
	blob.DefaultURLMux().RegisterBucket("leaky", l)
	_, err := Open(t.Context(), "leaky://user:pa%2Fss@bad/pre/fix?secret_key=abc%2Bdef&region=eu&endpoint=http%3A%2F%2Fwho%3Awhy%40host", Options{})
	for _, secret := range []string{"user", "pa/ss", "pa%2F", "abc+def", "abc%2B", "who", "why"} {
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%q is in: %v", secret, err)
		}
	}
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "leaky://bad/pre/fix") {
		t.Errorf("the error lost its cause or its bucket: %v", err)
	}
	b := mustOpen(t, "leaky://user:pass@good/pre/fix/?token=abc")
	if b.URL() != "leaky://good/pre/fix" {
		t.Errorf("URL is %s", b.URL())
	}
	if got := l.opened[len(l.opened)-1]; strings.Contains(got, "/pre") {
		t.Errorf("the driver got the prefix: %s", got)
	}
	if err := b.Create(t.Context(), "k", nil); err != nil {
		t.Fatal(err)
	}
	if ok, err := b.blob.Exists(t.Context(), "k"); !ok {
		t.Error(err)
	}
	if _, err := Open(t.Context(), "leaky://good/a?prefix=b", Options{}); err == nil {
		t.Error("a path and a prefix were taken together")
	}
}

func TestLocal(t *testing.T) {
	dir := t.TempDir()
	b := mustOpen(t, "file://"+dir)
	if err := b.Create(t.Context(), "a/b c%20", []byte("x")); err != nil {
		t.Fatal(err)
	}
	path, ok := b.LocalPath("a/b c%20")
	if got, err := os.ReadFile(path); !ok || string(got) != "x" {
		t.Errorf("the file at %s holds %q, %v", path, got, err)
	}
	for _, key := range []string{"../x", "a//b", "a/", "nul\x00", ""} {
		if path, ok := b.LocalPath(key); ok {
			t.Errorf("LocalPath(%q) = %s", key, path)
		}
		if err := b.Create(t.Context(), key, nil); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Create(%q): %v", key, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bad\xff.jpg"), []byte("x"), 0o666); err != nil {
		t.Skipf("this file system has no names that are not UTF-8: %v", err)
	}
	readable := map[string]bool{}
	err := b.List(t.Context(), "", func(o Object) error {
		readable[o.Key] = o.Readable()
		return nil
	})
	if err != nil || len(readable) != 2 || readable["bad\xff.jpg"] || !readable["a/b c%20"] {
		t.Errorf("listed %v, %v", readable, err)
	}
	if _, err := b.Get(t.Context(), "bad\xff.jpg"); gcerrors.Code(err) != gcerrors.InvalidArgument {
		t.Errorf("reading a key that is not UTF-8: %v", err)
	}
	// The tags of listing, stat and reader are the same.
	o, err := b.Stat(t.Context(), "a/b c%20")
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.NewReader(t.Context(), "a/b c%20", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	err = b.List(t.Context(), "a/", func(listed Object) error {
		if listed.ETag != o.ETag || r.Object().ETag != o.ETag {
			t.Errorf("tags %s, %s, %s", listed.ETag, o.ETag, r.Object().ETag)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

type apiError struct {
	code   string
	status int
}

func (e apiError) Error() string       { return e.code }
func (e apiError) ErrorCode() string   { return e.code }
func (e apiError) HTTPStatusCode() int { return e.status }

func TestTransient(t *testing.T) {
	b := mustOpen(t, "mem://")
	for _, c := range []struct {
		err  error
		want bool
	}{
		{apiError{"SlowDown", 503}, true},
		{apiError{"InternalError", 500}, true},
		{apiError{"TooManyRequests", 429}, true},
		{apiError{"ConditionalRequestConflict", 409}, true},
		{apiError{"RequestTimeout", 400}, true},
		{apiError{"ExpiredToken", 400}, false},
		{apiError{"InvalidRange", 416}, false},
		{apiError{"SignatureDoesNotMatch", 403}, false},
		{apiError{"NotImplemented", 501}, false},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, true},
		{&net.DNSError{IsTimeout: true}, true},
		{io.ErrUnexpectedEOF, true},
		{&stalledError{}, true},
		{&rangeError{}, false},
		{fmt.Errorf("%w: %w", ErrExists, apiError{"BlobAlreadyExists", 409}), false},
		{fmt.Errorf("%w: %w", ErrExists, errTaken), false},
		{fmt.Errorf("%w: %w", errSource, io.ErrUnexpectedEOF), false},
		{&fs.PathError{Err: syscall.ENOSPC}, false},
		{&fs.PathError{Err: syscall.EACCES}, false},
		{&fs.PathError{Err: syscall.EROFS}, false},
		{&fs.PathError{Err: syscall.EMFILE}, true},
		{&fs.PathError{Err: syscall.ESTALE}, true},
	} {
		if got := b.transient(c.err); got != c.want {
			t.Errorf("transient(%T %v) = %v", c.err, c.err, got)
		}
	}
}

func TestUploadOfAChangingFile(t *testing.T) {
	b := mustOpen(t, "mem://")
	for size, claimed := range map[string]int64{"grown": 3, "shrunk": 9} {
		src := memory([]byte("12345"))
		src.size = claimed
		if err := b.write(t.Context(), "upload", size, src, true, true); !errors.Is(err, errSource) {
			t.Errorf("a file that has %s: %v", size, err)
		}
		if _, err := b.Stat(t.Context(), size); !errors.Is(err, ErrNotFound) {
			t.Errorf("a file that has %s left an object: %v", size, err)
		}
	}
}
