package publish

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
)

// VerifyOptions say what to verify and with what.
type VerifyOptions struct {
	Labels *bucket.Bucket
	Run    string // empty is the run that LATEST names
	// Dir is where copies of remote files are kept meanwhile, in a folder of
	// their own of at most Bytes bytes; the largest published file must fit.
	Dir   string
	Bytes int64
	// Sample is the number of images that are run through the model again, the
	// same ones for the same Seed; 0 is none.
	Sample int
	Seed   uint64
	// Model opens the model of a record and the bucket of its images. Both stay
	// the caller's to close, after Verify. It is called if Sample is not 0.
	Model func(ctx context.Context, r *pipeline.Record) (*Model, error)
}

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"check"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"` // what was found, or what is wrong and where

	problems int
}

// Report is what a verification found.
type Report struct {
	Run    string   `json:"run"`
	Folder string   `json:"labels"`          // URL
	Digest string   `json:"manifest_digest"` // of the manifest
	Heads  int      `json:"heads"`
	Images int64    `json:"images"` // labelled, in each head
	Labels int64    `json:"rows"`   // of all label tables
	Bytes  int64    `json:"bytes"`  // of all files read
	Checks []*Check `json:"checks"`
}

// Err returns nil if every check is fine, else an error of class Data with the
// detail of the first that is not: the others often follow from it.
func (r *Report) Err() error {
	var names []string
	detail := ""
	for _, c := range r.Checks {
		if !c.OK {
			if detail == "" {
				detail = c.Detail
			}
			names = append(names, c.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return pipeline.BadData(fmt.Errorf("verify %s: %d of %d checks failed (%s): %s", r.Folder, len(names), len(r.Checks), strings.Join(names, ", "), detail))
}

// maxProblems bounds how many problems a check quotes.
const maxProblems = 5

// fail notes a problem.
func (c *Check) fail(format string, args ...any) {
	c.OK = false
	c.problems++
	switch text := fmt.Sprintf(format, args...); {
	case c.problems == 1:
		c.Detail = text
	case c.problems <= maxProblems:
		c.Detail += "; " + text
	case c.problems == maxProblems+1:
		c.Detail += "; and more"
	}
}

// done ends a check: it is fine if there was no problem.
func (c *Check) done(format string, args ...any) {
	if c.problems == 0 {
		c.OK, c.Detail = true, fmt.Sprintf(format, args...)
	}
}

// judge notes err as a problem if it says that the data are wrong. Any other
// error, such as a store out of reach, says nothing about them and is returned.
func (c *Check) judge(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, schemas.ErrCorrupt) || errors.Is(err, schemas.ErrKind) || pipeline.ClassOf(err) == pipeline.Data {
		c.fail("%v", err)
		return nil
	}
	return err
}

// verifier is a verification under way. Its memory is that of one row group,
// the potentials, and the counts of one head.
type verifier struct {
	VerifyOptions
	cache    *bucket.Cache
	report   *Report
	prefix   string // of the run's folder
	latest   *Latest
	manifest *pipeline.Manifest
	record   *pipeline.Record
	digests  *Check
	opened   map[string]bool // files, by name
	heads    []*head
	samples  []*sample
}

func (v *verifier) begin(name string) *Check {
	c := &Check{Name: name, Detail: "not completed"}
	v.report.Checks = append(v.report.Checks, c)
	return c
}

// Verify checks a published data set end to end from the labels bucket alone:
// pointer, manifest, the digest of every file (before anything parses it), the
// tables against each other and against the certificates of the potentials, and
// a sample of images against the model. It returns the report with [Report.Err].
//
// An error that says nothing about the data, such as a store out of reach or a
// model that is gone, ends the verification; it is returned as it is, with the
// report so far.
func Verify(ctx context.Context, o VerifyOptions) (*Report, error) {
	v := &verifier{VerifyOptions: o, report: &Report{Folder: o.Labels.URL()}, opened: map[string]bool{}}
	// A copy kept from an earlier time would hide what has become of the object.
	dir, err := os.MkdirTemp(o.Dir, "verify-")
	if err != nil {
		return v.report, fmt.Errorf("verify: %w", err)
	}
	defer os.RemoveAll(dir)
	if v.cache, err = bucket.NewCache(dir, o.Bytes); err != nil {
		return v.report, pipeline.BadConfig(fmt.Errorf("verify: %w", err))
	}
	for _, step := range []func(context.Context) error{v.readLatest, v.readManifest, v.readRecord, v.listObjects, v.readTables, v.rerun} {
		err := step(ctx)
		if errors.Is(err, errEnd) {
			break
		}
		if err != nil {
			return v.report, fmt.Errorf("verify %s: %w", v.Labels.URL(), err)
		}
	}
	return v.report, v.report.Err()
}

// errEnd ends a verification that has nothing to go on with: without manifest or
// record nobody knows what the rest should be.
var errEnd = errors.New("end")

// end notes err as a problem that ends the verification.
func (c *Check) end(err error) error {
	if err := c.judge(err); err != nil {
		return err
	}
	return errEnd
}

// SplitURL takes the URL of a labels bucket, or of a run's folder in it
// (…/runs/<run>/), apart into the bucket's URL and the run, which may be empty.
func SplitURL(raw string) (labels, run string, err error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", "", pipeline.BadUsage(errors.New("the URL of the labels cannot be parsed"))
	}
	path := strings.TrimRight(u.Path, "/")
	if at := strings.LastIndex(path, "/runs/"); at >= 0 && !strings.Contains(path[at+len("/runs/"):], "/") {
		run, u.Path, u.RawPath = path[at+len("/runs/"):], path[:at], ""
	}
	return u.String(), run, nil
}

// readLatest finds the run to verify.
func (v *verifier) readLatest(ctx context.Context) error {
	if v.Run == "" {
		c := v.begin("latest")
		latest, err := ReadLatest(ctx, v.Labels)
		if err != nil {
			return c.end(err)
		}
		if latest == nil {
			c.fail("nothing is published in %s: it has no LATEST", v.Labels.URL())
			return errEnd
		}
		v.latest, v.Run = latest, latest.Run
		newest, err := newestMarker(ctx, v.Labels)
		if err != nil {
			return err
		}
		if mine := latest.marker(); mine != newest {
			c.fail("LATEST names %s, the newest published run is %s: publish that run again", mine, newest)
		}
		if want := "runs/" + latest.Run + "/_manifest.json"; latest.Manifest != want {
			c.fail("LATEST names the manifest %q, that of its run is %q", latest.Manifest, want)
		}
		c.done("LATEST names run %s, the newest published", latest.Run)
	}
	v.prefix = "runs/" + v.Run + "/"
	v.report.Run, v.report.Folder = v.Run, v.Labels.URL()+"/"+v.prefix
	return nil
}

// readManifest reads the manifest and compares it with those who name it.
func (v *verifier) readManifest(ctx context.Context) error {
	c := v.begin("complete")
	if _, err := v.Labels.Stat(ctx, v.prefix+"_SUCCESS"); err != nil {
		if err := c.judge(err); err != nil {
			return err
		}
	}
	c.done("_SUCCESS is there")

	c = v.begin("manifest")
	raw, err := v.Labels.Get(ctx, v.prefix+"_manifest.json")
	if err != nil {
		return c.end(err)
	}
	m, err := pipeline.ParseManifest(raw)
	if err != nil {
		c.fail("_manifest.json: %v", err)
		return errEnd
	}
	sum := sha256.Sum256(raw)
	digest := hex.EncodeToString(sum[:])
	if v.latest != nil && v.latest.SHA256 != digest {
		c.fail("_manifest.json has sha256 %.12s, LATEST says %.12s", digest, v.latest.SHA256)
	}
	if m.Run != v.Run {
		c.fail("_manifest.json is that of run %s", m.Run)
	}
	// The marker names the manifest of every published run, the newest or not.
	mark := (&Latest{Run: v.Run, Created: m.Created}).marker()
	said, err := readPointer(ctx, v.Labels, mark)
	switch {
	case err != nil:
		if err := c.judge(err); err != nil {
			return err
		}
	case said.SHA256 != digest:
		c.fail("_manifest.json has sha256 %.12s, %s says %.12s", digest, mark, said.SHA256)
	}
	for _, f := range m.Files {
		if f.Path != f.Name || !tableName.MatchString(f.Name) || !isDigest(f.SHA256) || f.Bytes < 0 || f.Rows < 0 {
			c.fail("_manifest.json: %q (path %q, %d bytes, %d rows, sha256 %.12q) is no published file", f.Name, f.Path, f.Bytes, f.Rows, f.SHA256)
		}
	}
	v.manifest, v.report.Digest = m, m.Digest
	c.done("%d files, digest %.12s, sha256 %.12s", len(m.Files), m.Digest, digest)
	if c.OK {
		return nil
	}
	return errEnd
}

var tableName = regexp.MustCompile(`^[a-z]+(/[A-Za-z0-9=_-]+)*/[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

// isDigest tells whether s is a sha256 in lower-case hexadecimal.
func isDigest(s string) bool { return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == "" }

// readRecord reads run.json.
func (v *verifier) readRecord(ctx context.Context) error {
	c := v.begin("run record")
	raw, err := v.Labels.Get(ctx, v.prefix+"run.json")
	if err != nil {
		return c.end(err)
	}
	r, err := pipeline.ParseRecord(raw, v.Run)
	if err != nil {
		c.fail("%v", err)
		return errEnd
	}
	if m := v.manifest; r.Run != v.Run || r.Job.Name != m.Job || !r.Created.Equal(m.Created) {
		c.fail("run.json is that of run %s of job %s, created %s; the manifest names run %s of job %s, created %s",
			r.Run, r.Job.Name, r.Created, m.Run, m.Job, m.Created)
		return errEnd
	}
	v.record = &r
	c.done("job %s, model %.12s, code %s", r.Job.Name, r.Provenance.Model, r.Provenance.Code)
	return nil
}

// describing are the objects of a published folder that no manifest lists.
var describing = map[string]bool{"run.json": true, "README.md": true, croissantName: true, "_manifest.json": true, "_SUCCESS": true}

// listObjects compares the folder with the manifest.
func (v *verifier) listObjects(ctx context.Context) error {
	c := v.begin("objects")
	missing := map[string]int64{}
	for _, f := range v.manifest.Files {
		missing[f.Name] = f.Bytes
	}
	var objects, bytes int64
	err := v.Labels.List(ctx, v.prefix, func(o bucket.Object) error {
		name := strings.TrimPrefix(o.Key, v.prefix)
		want, listed := missing[name]
		delete(missing, name)
		switch {
		case o.IsDir || describing[name]:
		case !listed:
			c.fail("%s is not in the manifest: readers would take it for a part of the data set", name)
		case want != o.Size:
			c.fail("%s has %d bytes, the manifest says %d", name, o.Size, want)
		}
		if !o.IsDir {
			objects++
		}
		bytes += o.Size
		return nil
	})
	if err != nil {
		return err
	}
	for _, f := range v.manifest.Files {
		if _, ok := missing[f.Name]; ok {
			c.fail("%s is missing", f.Name)
		}
	}
	c.done("%d objects of %d bytes, none that the manifest does not list", objects, bytes)
	return nil
}
