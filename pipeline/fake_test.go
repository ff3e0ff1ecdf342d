package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"sela/pipeline/bucket"
	"sela/pipeline/bucket/buckettest"
	"sela/schemas"
)

func memory(t testing.TB) *bucket.Bucket {
	t.Helper()
	b := bucket.New(memblob.OpenBucket(nil), "mem://", bucket.Options{})
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func folder(t testing.TB, dir string) *bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(t.Context(), (&url.URL{Scheme: "file", Path: dir, RawQuery: "create_dir=true"}).String(), bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// faulty is memory with faults, whose requests are not repeated.
func faulty(t testing.TB, inner *blob.Bucket, f *buckettest.Faults, attempts int) *bucket.Bucket {
	t.Helper()
	return bucket.New(buckettest.Faulty(inner, f), "mem://faulty", bucket.Options{Attempts: attempts, Backoff: time.Microsecond})
}

// both runs a test on both kinds of bucket.
func both(t *testing.T, test func(t *testing.T, work *bucket.Bucket)) {
	t.Run("memory", func(t *testing.T) { test(t, memory(t)) })
	t.Run("folder", func(t *testing.T) { test(t, folder(t, t.TempDir())) })
}

func testJob(t testing.TB) *Job {
	t.Helper()
	j, err := ParseJob([]byte(required), "/home/job")
	if err != nil {
		t.Fatal(err)
	}
	j.Local = Local{Dir: t.TempDir(), Bytes: 2 << 20}
	return j
}

var testProvenance = Provenance{Model: "model", Library: "library", LibraryBuild: "1.2.3", Preprocessing: "pre", Code: "code", Processor: "amd64"}

// log collects events.
type log struct {
	mu     sync.Mutex
	events []Event
}

func (l *log) Observe(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
}

func (l *log) count(k Kind) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, e := range l.events {
		if e.Kind == k {
			n++
		}
	}
	return n
}

func openRun(t testing.TB, work *bucket.Bucket, id string, change ...func(*Options)) (*Run, *log) {
	t.Helper()
	events := &log{}
	opt := Options{Job: testJob(t), Provenance: testProvenance, RunID: id, Observer: events}
	for _, f := range change {
		f(&opt)
	}
	run, err := Open(t.Context(), work, opt)
	if err != nil {
		t.Fatal(err)
	}
	return run, events
}

// fake is a stage of equal tasks.
type fake struct {
	name  string
	tasks []Task
	do    func(ctx context.Context, t Task, a *Attempt) error
}

func newFake(name string, n int, do func(ctx context.Context, t Task, a *Attempt) error) *fake {
	s := &fake{name: name, do: do}
	for i := range n {
		s.tasks = append(s.tasks, Task{ID: fmt.Sprintf("%05d", i), Index: i, Inputs: "inputs", Rows: 10, Scratch: 1 << 10})
	}
	return s
}

func (s *fake) Name() string                               { return s.name }
func (s *fake) Plan(context.Context, *Run) ([]Task, error) { return s.tasks, nil }
func (s *fake) Do(ctx context.Context, t Task, a *Attempt) error {
	if s.do != nil {
		if err := s.do(ctx, t, a); err != nil {
			return err
		}
	}
	return put(ctx, a, s.name+"/part-"+t.ID+".txt", "content of "+s.name+" "+t.ID)
}

// put writes a file and hands it to the attempt.
func put(ctx context.Context, a *Attempt, name, content string) error {
	local := filepath.Join(a.Dir, filepath.Base(name))
	if err := os.WriteFile(local, []byte(content), 0o666); err != nil {
		return err
	}
	return a.Upload(ctx, local, name, stats(content))
}

func stats(content string) schemas.FileStats {
	sum := sha256.Sum256([]byte(content))
	return schemas.FileStats{Rows: 1, Bytes: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
}

func keys(t testing.TB, b *bucket.Bucket, prefix string) []string {
	t.Helper()
	var out []string
	if err := b.List(t.Context(), prefix, func(o bucket.Object) error {
		out = append(out, o.Key)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// outputs reads what a run committed, by logical name, checking every digest.
func outputs(t testing.TB, run *Run) map[string]string {
	t.Helper()
	m, err := run.Manifest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, f := range m.Files {
		raw, err := run.Work.Get(t.Context(), run.Path(f.Path))
		if err != nil {
			t.Fatal(err)
		}
		if stats(string(raw)).SHA256 != f.SHA256 || int64(len(raw)) != f.Bytes {
			t.Errorf("%s is not what its commit says", f.Name)
		}
		if _, twice := out[f.Name]; twice {
			t.Errorf("%s is committed twice", f.Name)
		}
		out[f.Name] = string(raw)
	}
	return out
}

// scratchFiles lists what attempts have left on the local disk.
func scratchFiles(t testing.TB, job *Job) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(job.Local.Dir, "attempts", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}
