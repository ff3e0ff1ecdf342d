package pipeline

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"

	"sela/pipeline/bucket"
)

// Provenance names by digest what the labels of a run are made with, beside
// the job and the images. All of it is part of the run's identity.
type Provenance struct {
	Model         string `json:"model"`         // sha256 of the ONNX file and its external data
	Library       string `json:"library"`       // sha256 of the ONNX Runtime library
	LibraryBuild  string `json:"library_build"` // version it reports
	Preprocessing string `json:"preprocessing"` // fingerprint of decoder, resampling, normalisation
	Code          string `json:"code"`          // version of this program
	Processor     string `json:"processor"`     // class of processor, which may decide the last bit of a float
	// Truth is the sha256 of the table whose classes solve.method truth copies,
	// "folders" where they are names of folders; else empty.
	Truth string `json:"truth,omitempty"`
}

// Record is run.json: what a run is. It is written first and never changes.
type Record struct {
	Version    int        `json:"version"`
	Run        string     `json:"run"`
	Job        *Job       `json:"job"`
	JobDigest  string     `json:"job_digest"`
	Provenance Provenance `json:"provenance"`
	Created    time.Time  `json:"created"`
	Parent     string     `json:"parent,omitempty"` // run whose labels or potentials this one starts from
	Loop       string     `json:"loop,omitempty"`   // the loop that this run is a round of
}

// Run is an open run: its record and the bucket its state lies in. Its methods
// may be called concurrently.
type Run struct {
	Record
	Work     *bucket.Bucket
	Finished bool // _SUCCESS was there when the run was opened
	observer Observer
	scratch  *scratch
}

// Options say which run to open and how.
type Options struct {
	Job        *Job
	Provenance Provenance
	// RunID names the run: resumed if it exists, created if not. Empty resumes
	// the job's newest unfinished run of the same identity, or creates one.
	RunID string
	// MustExist refuses to create a run.
	MustExist bool
	Parent    string
	// Loop is the loop that the run is a round of; "" for a run of its own, which
	// never resumes a round.
	Loop     string
	Observer Observer
	Now      func() time.Time // nil is time.Now
}

var runID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// Open opens or creates a run. A run whose record differs from the job or the
// provenance is refused with the difference ([Config]).
func Open(ctx context.Context, work *bucket.Bucket, opt Options) (*Run, error) {
	now := time.Now
	if opt.Now != nil {
		now = opt.Now
	}
	scratch, err := newScratch(opt.Job.Local)
	if err != nil {
		return nil, BadConfig(fmt.Errorf("local.dir: %w", err))
	}
	run := &Run{Work: work, observer: opt.Observer, scratch: scratch}
	if run.observer == nil {
		run.observer = ObserverFunc(func(Event) {})
	}
	id := opt.RunID
	if id == "" {
		records, err := Records(ctx, work)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			if r.Job.Name != opt.Job.Name || r.Loop != opt.Loop || r.finished {
				continue
			}
			if len(r.difference(opt)) > 0 {
				run.Notice("", "left an unfinished run of another job spec, model or library behind", "run", r.Run)
				continue
			}
			id = r.Run
			break
		}
	}
	if id == "" {
		if opt.MustExist {
			return nil, BadConfig(fmt.Errorf("job %s has no unfinished run with this spec, model and library: start one with `sela run` or `sela list`, or name one with --run-id", opt.Job.Name))
		}
		id = NewID(now())
	}
	if !runID.MatchString(id) {
		return nil, BadUsage(fmt.Errorf("run id %q: use letters, digits, dot, dash and underscore, at most 128", id))
	}
	run.Record = Record{Version: 1, Run: id, Job: opt.Job, JobDigest: opt.Job.Digest(), Provenance: opt.Provenance,
		Created: now().UTC().Truncate(time.Microsecond), Parent: opt.Parent, Loop: opt.Loop}
	if err := run.establish(ctx, opt); err != nil {
		return nil, err
	}
	return run, nil
}

// establish creates run.json, or reads and compares the one that is there.
func (r *Run) establish(ctx context.Context, opt Options) error {
	raw, err := json.MarshalIndent(r.Record, "", "  ")
	if err != nil {
		return err
	}
	if opt.MustExist {
		err = bucket.ErrExists
	} else {
		err = r.Work.Create(ctx, r.Path("run.json"), append(raw, '\n'))
	}
	if err == nil {
		return nil
	}
	if !errors.Is(err, bucket.ErrExists) {
		return wrap(err, "create run %s", r.Run)
	}
	existing, err := readRecord(ctx, r.Work, r.Run)
	if errors.Is(err, bucket.ErrNotFound) {
		return BadConfig(fmt.Errorf("run %s does not exist in %s", r.Run, r.Work.URL()))
	}
	if err != nil {
		return err
	}
	if diff := existing.difference(opt); len(diff) > 0 {
		return BadConfig(fmt.Errorf("run %s was started with another spec; use another --run-id, or go back: %s", r.Run, strings.Join(diff, "; ")))
	}
	r.Record = existing
	r.Record.Job = opt.Job // its free fields are this process's
	r.Finished, err = exists(ctx, r.Work, r.Path("_SUCCESS"))
	return err
}

// difference lists what in opt would make another run of r.
func (r *Record) difference(opt Options) []string {
	diff := r.Job.Difference(opt.Job)
	sameJob := len(diff) == 0
	compare := func(name, mine, theirs string) {
		if mine != theirs {
			diff = append(diff, fmt.Sprintf("%s: %.19s → %.19s", name, mine, theirs))
		}
	}
	p, q := r.Provenance, opt.Provenance
	compare("model digest", p.Model, q.Model)
	compare("runtime library digest", p.Library, q.Library)
	compare("preprocessing fingerprint", p.Preprocessing, q.Preprocessing)
	if sameJob && p.Preprocessing != q.Preprocessing {
		diff = append(diff, "this build decodes or resizes images otherwise (sela doctor names its decoder): use the build that began the run")
	}
	compare("digest of solve.truth", p.Truth, q.Truth)
	compare("code version", p.Code, q.Code)
	if r.Loop != opt.Loop {
		diff = append(diff, fmt.Sprintf("it is a round of loop %q, not of %q (sela loop --loop-id goes on with a loop)", r.Loop, opt.Loop))
	}
	compare("processor class", p.Processor, q.Processor)
	return diff
}

// Summary is a run as [Records] finds it.
type Summary struct {
	Record
	finished bool
}

// Finished tells whether the run is complete, its training stage included.
func (s *Summary) Finished() bool { return s.finished }

// Records returns the runs of a work bucket, newest first.
func Records(ctx context.Context, work *bucket.Bucket) ([]Summary, error) {
	var ids []string
	err := work.ListDirs(ctx, "runs/", func(o bucket.Object) error {
		ids = append(ids, strings.TrimSuffix(strings.TrimPrefix(o.Key, "runs/"), "/"))
		return nil
	})
	if err != nil {
		return nil, wrap(err, "list runs of %s", work.URL())
	}
	found := make([]Summary, len(ids))
	err = each(ctx, len(ids), func(ctx context.Context, i int) error {
		rec, err := readRecord(ctx, work, ids[i])
		if errors.Is(err, bucket.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		done, err := exists(ctx, work, "runs/"+ids[i]+"/_SUCCESS")
		found[i] = Summary{rec, done}
		return err
	})
	if err != nil {
		return nil, err
	}
	out := slices.DeleteFunc(found, func(s Summary) bool { return s.Job == nil })
	sort.Slice(out, func(i, j int) bool { return out[i].Newer(&out[j].Record) })
	return out, nil
}

// Newer tells whether r was created after s; the run id breaks ties.
func (r *Record) Newer(s *Record) bool {
	if !r.Created.Equal(s.Created) {
		return r.Created.After(s.Created)
	}
	return r.Run > s.Run
}

func readRecord(ctx context.Context, work *bucket.Bucket, id string) (Record, error) {
	var rec Record
	raw, err := work.Get(ctx, "runs/"+id+"/run.json")
	if err != nil {
		return rec, wrap(err, "read run %s", id)
	}
	return ParseRecord(raw, id)
}

// ParseRecord reads a run.json.
func ParseRecord(raw []byte, id string) (Record, error) {
	var rec Record
	if err := json.Unmarshal(raw, &rec); err != nil {
		return rec, BadData(fmt.Errorf("run %s: run.json is damaged: %w", id, err))
	}
	if rec.Version != 1 {
		return rec, BadConfig(fmt.Errorf("run %s was written by another version of sela (record version %d)", id, rec.Version))
	}
	if rec.Job == nil || rec.Run != id {
		return rec, BadData(fmt.Errorf("run %s: run.json is damaged: it is that of run %q", id, rec.Run))
	}
	return rec, nil
}

// Path returns the key of an object of the run.
func (r *Run) Path(name string) string { return "runs/" + r.Run + "/" + name }

// Finish writes the manifest of everything the run committed and then
// _SUCCESS, the mark that makes a repeated command a no-op.
func (r *Run) Finish(ctx context.Context) error {
	m, err := r.Manifest(ctx)
	if err != nil {
		return err
	}
	raw, err := m.Encode()
	if err != nil {
		return err
	}
	err = r.Work.Put(ctx, r.Path("_manifest.json"), raw)
	if err == nil {
		err = r.Work.Put(ctx, r.Path("_SUCCESS"), nil)
	}
	if err != nil {
		return wrap(err, "finish run %s", r.Run)
	}
	r.Finished = true
	return nil
}

// Discard deletes the run. One that was cut off leaves an unfinished run that
// can be resumed or discarded again.
func (r *Run) Discard(ctx context.Context) error {
	objects, err := deletionOrder(ctx, r.Work, r.Run)
	for _, o := range objects {
		if err != nil {
			break
		}
		err = r.Work.Delete(ctx, o.Key)
	}
	return wrap(err, "discard run %s", r.Run)
}

// deletionOrder lists a run's objects in an order in which they can be deleted
// so that what is left at any moment is a run that was cut off earlier: the
// marks of completion, then the commits from the newest to the oldest (which
// are those of later stages before those of earlier ones), then what the
// commits named, and run.json last, so that no object ever belongs to nobody.
func deletionOrder(ctx context.Context, work *bucket.Bucket, id string) ([]bucket.Object, error) {
	prefix := "runs/" + id + "/"
	rank := func(key string) int {
		switch name := strings.TrimPrefix(key, prefix); {
		case name == "_SUCCESS":
			return 0
		case name == "_manifest.json":
			return 1
		case strings.HasPrefix(name, "commits/"):
			return 2
		case name == "run.json":
			return 4
		default:
			return 3
		}
	}
	var objects []bucket.Object
	err := work.List(ctx, prefix, func(o bucket.Object) error {
		objects = append(objects, o)
		return nil
	})
	sort.SliceStable(objects, func(i, j int) bool {
		a, b := rank(objects[i].Key), rank(objects[j].Key)
		if a != b {
			return a < b
		}
		return a == 2 && objects[i].ModTime.After(objects[j].ModTime)
	})
	return objects, err
}

// Observe reports an event to the run's observer.
func (r *Run) Observe(e Event) { r.observer.Observe(e) }

// Notice reports something a person may want to know, with key-value pairs.
func (r *Run) Notice(stage, message string, pairs ...any) {
	r.observer.Observe(Event{Kind: Notice, Stage: stage, Task: message, Attrs: attrs(pairs)})
}

// NewID makes the id of a run or a loop begun at t.
func NewID(t time.Time) string {
	return t.UTC().Format("20060102t150405z") + "-" + randomHex(3)
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // crypto/rand.Read never fails
	return hex.EncodeToString(b)
}

func exists(ctx context.Context, b *bucket.Bucket, key string) (bool, error) {
	_, err := b.Stat(ctx, key)
	if errors.Is(err, bucket.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}
