package buckettest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
	"sela/pipeline/bucket"
)

// Options says how hard [Run] tests.
type Options struct {
	// Keys is how many objects the listing test writes; above 1,000 a listing
	// takes several requests. Default: 1,050.
	Keys int
	// NoBackslash says that the store takes a backslash in a key for a slash.
	NoBackslash bool
	// Rounds is how many races for one key there are. Default: 8.
	Rounds int
	// ETag and Answer are the store's of [bucket.Options], or nil.
	ETag   func(as func(any) bool) string
	Answer func(err error) (status int, code string)
}

// Run runs the conformance suite. open returns an empty bucket, a new one for
// each call.
func Run(t *testing.T, open func(t *testing.T) *blob.Bucket, opts Options) {
	if opts.Keys == 0 {
		opts.Keys = 1050
	}
	if opts.Rounds == 0 {
		opts.Rounds = 8
	}
	s := suite{open, opts, new(atomic.Int64)}
	t.Run("Create", s.create)
	t.Run("CreateRace", s.createRace)
	t.Run("Probe", s.probe)
	t.Run("Put", s.put)
	t.Run("Upload", s.upload)
	t.Run("Ranges", s.ranges)
	t.Run("OddKeys", s.oddKeys)
	t.Run("List", s.list)
	t.Run("ListDirs", s.listDirs)
	t.Run("Missing", s.missing)
	t.Run("Cancelled", s.cancelled)
	t.Run("AnswerLost", s.answerLost)
	t.Run("Refusals", s.refusals)
	t.Run("BrokenReads", s.brokenReads)
	t.Run("StalledReads", s.stalledReads)
	t.Run("ChangedWhileRead", s.changedWhileRead)
}

type suite struct {
	open    func(t *testing.T) *blob.Bucket
	opts    Options
	retried *atomic.Int64
}

// bucket opens a bucket with faults, which may be nil. Waits are short.
func (s suite) bucket(t *testing.T, f *Faults) *bucket.Bucket {
	t.Helper()
	inner := s.open(t)
	if f != nil {
		inner = Faulty(inner, f)
	}
	b := bucket.New(inner, "test://bucket", bucket.Options{
		RequestTimeout: 20 * time.Second, Attempts: 5, Backoff: time.Millisecond, ETag: s.opts.ETag, Answer: s.opts.Answer,
		Retrying: func(error, time.Duration) { s.retried.Add(1) }})
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func noise(n int) []byte {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(data)
	return data
}

func check(t *testing.T, b *bucket.Bucket, key string, want []byte) {
	t.Helper()
	got, err := b.Get(t.Context(), key)
	if err != nil {
		t.Error(err)
	} else if !bytes.Equal(got, want) {
		t.Errorf("%q holds %d bytes that are not the %d written", key, len(got), len(want))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func keys(t *testing.T, b *bucket.Bucket, prefix string) []string {
	t.Helper()
	var keys []string
	must(t, b.List(t.Context(), prefix, func(o bucket.Object) error {
		keys = append(keys, o.Key)
		return nil
	}))
	return keys
}

func (s suite) create(t *testing.T) {
	b := s.bucket(t, nil)
	must(t, b.Create(t.Context(), "a/b.json", []byte("one")))
	for _, data := range []string{"two", "one"} {
		before := s.retried.Load()
		err := b.Create(t.Context(), "a/b.json", []byte(data))
		if data == "one" && s.retried.Load() > before {
			continue // a server that failed once may have stored it
		}
		if !errors.Is(err, bucket.ErrExists) {
			t.Errorf("creating an object again: %v", err)
		} else if !strings.Contains(err.Error(), "a/b.json") {
			t.Errorf("the error does not name the object: %v", err)
		}
	}
	check(t, b, "a/b.json", []byte("one"))
	must(t, b.Create(t.Context(), "empty", nil))
	check(t, b, "empty", nil)
}

func (s suite) createRace(t *testing.T) {
	const writers = 16
	b := s.bucket(t, nil)
	for round := range s.opts.Rounds {
		key := fmt.Sprintf("race/%d", round)
		errs := make([]error, writers)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				<-start
				errs[i] = b.Create(t.Context(), key, fmt.Appendf(nil, "writer %d", i))
			})
		}
		close(start)
		wg.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner >= 0:
				t.Errorf("round %d: writers %d and %d both created the object", round, winner, i)
			case err == nil:
				winner = i
			case !errors.Is(err, bucket.ErrExists):
				t.Error(err)
			}
		}
		if winner < 0 {
			t.Fatalf("round %d: nobody created the object", round)
		}
		check(t, b, key, fmt.Appendf(nil, "writer %d", winner))
	}
}

func (s suite) probe(t *testing.T) {
	b := s.bucket(t, nil)
	must(t, b.Probe(t.Context()))
	if left := keys(t, b, ""); len(left) > 0 {
		t.Errorf("the probe left %q", left)
	}
}

func (s suite) put(t *testing.T) {
	b := s.bucket(t, nil)
	for _, data := range []string{"a longer first version", "second", ""} {
		must(t, b.Put(t.Context(), "x/LATEST", []byte(data)))
		check(t, b, "x/LATEST", []byte(data))
	}
}

func (s suite) upload(t *testing.T) {
	b := s.bucket(t, nil)
	dir := t.TempDir()
	for _, size := range []int{0, 1, 12<<20 + 7} {
		path, key := filepath.Join(dir, "file"), fmt.Sprintf("up/%d.parquet", size)
		data := noise(size)
		must(t, os.WriteFile(path, data, 0o666))
		must(t, b.Upload(t.Context(), key, path))
		check(t, b, key, data)
		must(t, b.Upload(t.Context(), key, path))
		must(t, os.WriteFile(path, append([]byte("x"), data[:max(0, size-1)]...), 0o666))
		if err := b.Upload(t.Context(), key, path); !errors.Is(err, bucket.ErrExists) {
			t.Errorf("uploading other bytes to a key that is taken: %v", err)
		}
		check(t, b, key, data)
		o, err := b.Stat(t.Context(), key)
		must(t, err)
		if o.Size != int64(size) || o.ETag == "" || o.ModTime.IsZero() {
			t.Errorf("Stat returned %+v", o)
		}
		must(t, b.Copy(t.Context(), key, b, key+".copy"))
		check(t, b, key+".copy", data)
	}
	if err := b.Upload(t.Context(), "none", filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("uploading a file that is missing: %v", err)
	}
}

func (s suite) ranges(t *testing.T) {
	b := s.bucket(t, nil)
	data := noise(300_000)
	must(t, b.Create(t.Context(), "data", data))
	for _, r := range [][2]int{{0, 1}, {0, 300_000}, {299_999, 300_000}, {1000, 1000}, {65_535, 200_001}} {
		dst := make([]byte, r[1]-r[0])
		must(t, b.ReadRange(t.Context(), "data", int64(r[0]), dst))
		if !bytes.Equal(dst, data[r[0]:r[1]]) {
			t.Errorf("bytes %d to %d are not those written", r[0], r[1])
		}
	}
	for _, off := range []int64{299_999, 300_000, 1 << 40} {
		if err := b.ReadRange(t.Context(), "data", off, make([]byte, 2)); err == nil {
			t.Errorf("2 bytes were read from byte %d of %d", off, len(data))
		}
	}
	r, err := b.NewReader(t.Context(), "data", 299_000, -1)
	must(t, err)
	defer r.Close()
	tail, err := io.ReadAll(r)
	must(t, err)
	if !bytes.Equal(tail, data[299_000:]) {
		t.Error("the tail is not that written")
	}
	if o := r.Object(); o.Key != "data" || o.Size != 300_000 {
		t.Errorf("the reader reads %+v", o)
	}
}

// oddNames are names that real data sets have.
var oddNames = []string{
	"a b", "quote\"'`", "100%", "%41", "a%2Fb", "a+b", "tab\tname", "ünï—☺", "e\u0301", "back\\slash", "a?b#c&d=e",
	"a;b,c", "[x]{y}", "<a>|*", "-dash", ".hidden", "~tilde", "a__0x2f__z", "x.attrs", "CON", "dir.with.dots/a.b", "@:!$()",
}

func (s suite) oddKeys(t *testing.T) {
	b := s.bucket(t, nil)
	var want []string
	for _, name := range oddNames {
		if s.opts.NoBackslash && strings.Contains(name, `\`) {
			continue
		}
		key := "odd/" + name
		want = append(want, key)
		must(t, b.Create(t.Context(), key, []byte(key)))
		check(t, b, key, []byte(key))
		if _, err := b.Stat(t.Context(), key); err != nil {
			t.Error(err)
		}
	}
	slices.Sort(want)
	if got := keys(t, b, "odd/"); !slices.Equal(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
	for _, key := range want {
		must(t, b.Delete(t.Context(), key))
	}
	if left := keys(t, b, ""); len(left) > 0 {
		t.Errorf("%q could not be deleted", left)
	}
}

func (s suite) list(t *testing.T) {
	b := s.bucket(t, nil)
	var want []string
	for i := range s.opts.Keys {
		// "-" and "." sort before "/", so that folders and files interleave.
		want = append(want, fmt.Sprintf("l/%d%c%d", i%7, "/-."[i%3], i))
	}
	var wg sync.WaitGroup
	const writers = 32
	for w := range writers {
		wg.Go(func() {
			for i := w; i < len(want); i += writers {
				if err := b.Create(t.Context(), want[i], []byte(want[i])); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(want)
	must(t, b.Create(t.Context(), "elsewhere", nil))
	n, wrong := 0, 0
	before, most := liveHeap(), uint64(0)
	must(t, b.List(t.Context(), "l/", func(o bucket.Object) error {
		if n >= len(want) || o.Key != want[n] {
			wrong++
		}
		if n++; n%20_000 == 0 {
			most = max(most, liveHeap())
		}
		if o.IsDir || o.Size != int64(len(o.Key)) || o.ETag == "" || o.ModTime.IsZero() || !o.Readable() {
			t.Errorf("listed %+v", o)
		}
		return nil
	}))
	if n != len(want) || wrong > 0 {
		t.Errorf("listed %d keys, %d of them not those of the %d written, in order", n, wrong, len(want))
	}
	if most > before+listingHeap {
		t.Errorf("%d bytes are live during a listing of %d keys, %d before it", most, n, before)
	}
	stop := errors.New("enough")
	n = 0
	err := b.List(t.Context(), "l/", func(bucket.Object) error {
		if n++; n == 5 {
			return stop
		}
		return nil
	})
	if err != stop || n != 5 {
		t.Errorf("a listing stopped at object 5 went on to %d and returned %v", n, err)
	}
	if none := keys(t, b, "nothing/"); len(none) > 0 {
		t.Errorf("listed %q below a prefix without objects", none)
	}
}

// listingHeap bounds what a listing of any length may keep, in bytes: some pages
// of 1,000 objects.
const listingHeap = 16 << 20

func liveHeap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func (s suite) listDirs(t *testing.T) {
	b := s.bucket(t, nil)
	for _, key := range []string{"runs/r1/a", "runs/r1/b/c", "runs/r1-x/a", "runs/r1.y/a", "runs/r2/a", "runs/file", "runs0/a", "top"} {
		must(t, b.Create(t.Context(), key, nil))
	}
	for prefix, want := range map[string][]string{
		"":         {"runs/", "runs0/"},
		"runs/":    {"runs/r1-x/", "runs/r1.y/", "runs/r1/", "runs/r2/"},
		"runs/r1/": {"runs/r1/b/"},
		"none/":    nil,
	} {
		var got []string
		must(t, b.ListDirs(t.Context(), prefix, func(o bucket.Object) error {
			got = append(got, o.Key)
			if !o.IsDir {
				t.Errorf("%+v is no folder", o)
			}
			return nil
		}))
		if !slices.Equal(got, want) {
			t.Errorf("folders below %q: %q, want %q", prefix, got, want)
		}
	}
	must(t, b.Delete(t.Context(), "runs/r2/a"))
	must(t, b.ListDirs(t.Context(), "runs/", func(o bucket.Object) error {
		if o.Key == "runs/r2/" {
			t.Error("a folder without objects is listed")
		}
		return nil
	}))
}

func (s suite) missing(t *testing.T) {
	b := s.bucket(t, nil)
	_, statErr := b.Stat(t.Context(), "no/thing")
	_, getErr := b.Get(t.Context(), "no/thing")
	for _, err := range []error{statErr, getErr, b.ReadRange(t.Context(), "no/thing", 0, make([]byte, 1))} {
		if !errors.Is(err, bucket.ErrNotFound) || gcerrors.Code(err) != gcerrors.NotFound || !strings.Contains(err.Error(), "no/thing") {
			t.Errorf("a missing object: %v", err)
		}
	}
	must(t, b.Delete(t.Context(), "no/thing"))
}
