package pipeline

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sela/pipeline/bucket"
)

// ChunkRows is the number of row numbers whose sums the solver keeps together;
// shards are cut at its multiples (see package sinkhorn).
const ChunkRows = 1024

// LoadJob reads and checks the job file at path. Folders and model paths that
// are not URLs are taken relative to the file's folder. Errors name the file
// and line and are of class [Config].
func LoadJob(path string) (*Job, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, BadConfig(fmt.Errorf("read job: %w (write one with: sela job init > job.yaml)", err))
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, BadConfig(fmt.Errorf("read job %s: %w", path, err))
	}
	job, err := ParseJob(raw, dir)
	if err != nil {
		return nil, BadConfig(fmt.Errorf("job %s: %w", path, err))
	}
	return job, nil
}

// ParseJob is [LoadJob] on bytes; dir is what relative paths are relative to.
// Its error has no class.
func ParseJob(raw []byte, dir string) (*Job, error) {
	job := DefaultJob()
	var d decoder
	if err := d.decode(raw, job); err != nil {
		return nil, err
	}
	problems := d.found
	if len(problems) == 0 {
		// What could not be read would only be reported a second time.
		job.resolve(dir)
		problems = job.check()
	}
	if len(problems) > 0 {
		return nil, d.describe(problems)
	}
	return job, nil
}

// resolve turns folders into file URLs and makes local paths absolute.
func (j *Job) resolve(dir string) {
	for _, b := range []*string{&j.Images.Bucket, &j.Work.Bucket, &j.Labels.Bucket} {
		*b = bucketURL(dir, *b)
	}
	for _, p := range []*string{&j.Model.Path, &j.Local.Dir, &j.Runtime.Library, &j.Images.Only, &j.Train.Builtin.Init, &j.Train.Builtin.After} {
		if *p != "" && !strings.Contains(*p, "://") {
			*p = absolute(dir, *p)
		}
	}
	for _, p := range []*string{&j.Solve.Truth, &j.Loop.Truth} {
		if *p != "" && *p != "folders" && !strings.Contains(*p, "://") {
			*p = absolute(dir, *p)
		}
	}
}

// bucketURL returns s if it is a URL, and the URL of the folder s otherwise.
// Two spellings of a folder give the same URL.
func bucketURL(dir, s string) string {
	folder := s
	if u, err := url.Parse(s); err == nil && u.Scheme == "file" && u.Host == "" && u.User == nil && u.RawQuery == "" && u.Fragment == "" {
		folder = u.Path
		if u.Opaque != "" { // file:relative/path
			if folder, err = url.PathUnescape(u.Opaque); err != nil {
				return s
			}
		}
	} else if strings.Contains(s, "://") {
		return s
	}
	if folder == "" {
		return s
	}
	return (&url.URL{Scheme: "file", Path: absolute(dir, folder)}).String()
}

func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// problem is a field that cannot be used, by its YAML path. line is 0 where the
// field's own will do.
type problem struct {
	path, message string
	line          int
}

var jobName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$`)

// check returns every problem of the job, so that one edit can mend them all.
func (j *Job) check() (found []problem) {
	bad := func(path, format string, args ...any) {
		found = append(found, problem{path: path, message: fmt.Sprintf(format, args...)})
	}
	require := func(path, value string) {
		if value == "" {
			bad(path, "is required")
		}
	}
	oneOf := func(path, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			bad(path, "is %q; it must be one of %s", value, strings.Join(allowed, ", "))
		}
	}
	atLeast := func(path string, value, least int64) {
		if value < least {
			bad(path, "is %d; it must be at least %d", value, least)
		}
	}
	if !jobName.MatchString(j.Name) {
		bad("job", "is %q; use lower-case letters, digits and dashes, at most 64", j.Name)
	}
	for _, b := range []struct{ path, value string }{
		{"images.bucket", j.Images.Bucket}, {"work.bucket", j.Work.Bucket}, {"labels.bucket", j.Labels.Bucket}, {"model.path", j.Model.Path},
		{"train.builtin.init", j.Train.Builtin.Init}, {"train.builtin.after", j.Train.Builtin.After},
	} {
		if bucket.HoldsSecret(b.value) {
			bad(b.path, "holds a user name, a password or a key; credentials come from the environment")
		}
	}
	require("images.bucket", j.Images.Bucket)
	require("work.bucket", j.Work.Bucket)
	require("labels.bucket", j.Labels.Bucket)
	require("model.path", j.Model.Path)
	if j.Work.Bucket != "" && strings.TrimRight(j.Work.Bucket, "/") == strings.TrimRight(j.Labels.Bucket, "/") {
		bad("labels.bucket", "is the work bucket; labels are published to a place of their own")
	}
	atLeast("images.limit", j.Images.Limit, 0)
	if !(j.Images.Sample > 0 && j.Images.Sample <= 1) {
		bad("images.sample", "is %v; it is a share above 0 and at most 1", j.Images.Sample)
	}
	if !(j.Images.MaxRejected >= 0 && j.Images.MaxRejected <= 1) {
		bad("images.max_rejected", "is %v; it is a share from 0 to 1", j.Images.MaxRejected)
	}
	oneOf("model.kind", j.Model.Kind, "logits", "probabilities", "log_probabilities")
	atLeast("model.heads", int64(j.Model.Heads), 0)
	atLeast("model.clusters", int64(j.Model.Clusters), 0)
	if slices.Contains(j.Model.Outputs, j.Model.Features) && j.Model.Features != "" {
		bad("model.features", "%q is also among model.outputs", j.Model.Features)
	}
	if duplicate(j.Model.Outputs) {
		bad("model.outputs", "names an output twice")
	}
	if n := len(j.Model.Outputs); n > 1 && j.Model.Heads != 0 && j.Model.Heads != n {
		bad("model.heads", "is %d, but model.outputs names %d", j.Model.Heads, n)
	}
	oneOf("preprocess.filter", j.Preprocess.Filter, "bilinear", "bicubic", "box", "lanczos", "nearest")
	oneOf("preprocess.order", j.Preprocess.Order, "horizontal-first", "pillow-13")
	oneOf("preprocess.decode", j.Preprocess.Decode, "exact", "scaled")
	oneOf("preprocess.orientation", j.Preprocess.Orientation, "ignore", "exif")
	oneOf("preprocess.normalise", j.Preprocess.Normalise, "host", "device")
	oneOf("preprocess.layout", j.Preprocess.Layout, "auto", "nchw", "nhwc")
	for c := range 3 {
		if !finite(j.Preprocess.Mean[c]) {
			bad("preprocess.mean", "channel %d is %v; it must be a finite number", c, j.Preprocess.Mean[c])
		}
		if s := j.Preprocess.Std[c]; !(s > 0 && finite(s)) {
			bad("preprocess.std", "channel %d is %v; it must be positive", c, s)
		}
	}
	atLeast("preprocess.max_pixels", j.Preprocess.MaxPixels, 1)
	atLeast("preprocess.max_bytes", int64(j.Preprocess.MaxBytes), 1)
	if len(j.Runtime.Providers) == 0 {
		bad("runtime.providers", "is empty; name at least cpu")
	}
	for _, p := range j.Runtime.Providers {
		oneOf("runtime.providers", p, "cpu", "cuda", "tensorrt")
	}
	if duplicate(j.Runtime.Providers) {
		bad("runtime.providers", "names a provider twice")
	}
	atLeast("runtime.device", int64(j.Runtime.Device), 0)
	oneOf("runtime.precision", j.Runtime.Precision, "float32", "tf32", "float16")
	if j.Runtime.Precision == "tf32" && !slices.Contains(j.Runtime.Providers, "cuda") && !slices.Contains(j.Runtime.Providers, "tensorrt") {
		bad("runtime.precision", "is tf32, which needs the provider cuda or tensorrt")
	}
	if j.Runtime.Precision == "float16" && !slices.Contains(j.Runtime.Providers, "tensorrt") {
		bad("runtime.precision", "is float16, which needs the provider tensorrt (or export the model in float16)")
	}
	atLeast("runtime.batch", int64(j.Runtime.Batch), 0)
	atLeast("runtime.threads", int64(j.Runtime.Threads), 0)
	oneOf("extract.stored", j.Extract.Stored, "float32", "uint16")
	oneOf("extract.reuse", j.Extract.Reuse, "latest", "none")
	atLeast("extract.decoders", int64(j.Extract.Decoders), 0)
	atLeast("extract.requests", int64(j.Extract.Requests), 0)
	atLeast("extract.read_ahead", int64(j.Extract.ReadAhead), 1<<20)
	if r := j.Extract.ShardRows; r <= 0 || r%ChunkRows != 0 {
		bad("extract.shard_rows", "is %d; it must be a positive multiple of %d", r, ChunkRows)
	}
	j.checkLabels(bad, oneOf, atLeast)
	return found
}

// checkLabels is the part of check about what follows the log-probabilities.
func (j *Job) checkLabels(bad func(string, string, ...any), oneOf func(string, string, ...string), atLeast func(string, int64, int64)) {
	j.Solve.check(bad, oneOf)
	if j.Label.TopK < 0 {
		bad("label.top_k", "is %d; it must be at least 0", j.Label.TopK)
	}
	if j.Label.TopK > 0 && !j.Solve.Transports() {
		bad("label.top_k", "needs probabilities, which labels by method %s have not", j.Solve.Method)
	}
	if j.Label.PartRows < ChunkRows || j.Label.PartRows%ChunkRows != 0 {
		bad("label.part_rows", "is %d; it must be a positive multiple of %d", j.Label.PartRows, ChunkRows)
	}
	if j.Label.Previous != "" && !runID.MatchString(j.Label.Previous) {
		bad("label.previous", "is %q, which is neither latest nor the id of a run", j.Label.Previous)
	}
	if !(j.Label.MaxCountRatio >= 1 && finite(j.Label.MaxCountRatio)) {
		bad("label.max_count_ratio", "is %v; it must be at least 1", j.Label.MaxCountRatio)
	}
	j.Gate.check(bad)
	j.Train.check(bad, oneOf)
	oneOf("loop.start", j.Loop.Start, "model", "random")
	oneOf("loop.schedule", j.Loop.Schedule, "even", "power")
	atLeast("loop.calibrate", int64(j.Loop.Calibrate), 0)
	if !(j.Loop.Power >= 1 && finite(j.Loop.Power)) {
		bad("loop.power", "is %v; it must be at least 1", j.Loop.Power)
	}
	if c := j.Loop.StopChurn; !(c >= 0 && c <= 1) {
		bad("loop.stop_churn", "is %v; it must be from 0 to 1", c)
	}
	if n := j.Report.ImagesPerCluster; n < 0 || n > maxReportImages {
		bad("report.images_per_cluster", "is %d; it must be from 0 to %d", n, maxReportImages)
	}
	atLeast("report.images", int64(j.Report.Images), 0)
	if j.Local.Bytes < 128<<20 {
		bad("local.bytes", "is %s; it must be at least 128MiB", j.Local.Bytes)
	}
	if n, err := strconv.Atoi(j.Keep.LogProbs); j.Keep.LogProbs != "until_published" && j.Keep.LogProbs != "always" && (err != nil || n < 1) {
		bad("keep.logprobs", "is %q; it must be until_published, always or a number of runs from 1", j.Keep.LogProbs)
	}
	if j.Timeouts.Request <= 0 {
		bad("timeouts.request", "must be above 0s")
	}
	if j.Timeouts.Task <= 0 {
		bad("timeouts.task", "must be above 0s")
	}
	if j.Retries.Request < 1 {
		bad("retries.request", "is %d; it must be at least 1", j.Retries.Request)
	}
	atLeast("limits.requests", int64(j.Limits.Requests), 1)
	if j.Extract.Requests > j.Limits.Requests {
		bad("extract.requests", "is %d, more than limits.requests (%d) lets through", j.Extract.Requests, j.Limits.Requests)
	}
	if j.Retries.Task < 1 {
		bad("retries.task", "is %d; it must be at least 1", j.Retries.Task)
	}
}

// maxReportImages bounds the images that a report holds in mind of each cluster.
const maxReportImages = 100

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

func duplicate(names []string) bool {
	sorted := slices.Sorted(slices.Values(names))
	return len(slices.Compact(sorted)) < len(names)
}

// describe writes one line per problem, with the line of the file it is on: that
// of the field, or of the section where the field is missing.
func (d *decoder) describe(problems []problem) error {
	lines := make([]string, len(problems))
	for i, p := range problems {
		at := p.line
		for path := p.path; at == 0 && path != ""; path = path[:max(strings.LastIndexByte(path, '.'), 0)] {
			at = d.lines[path]
		}
		if at > 0 {
			lines[i] = fmt.Sprintf("line %d: ", at)
		}
		lines[i] += strings.TrimSpace(p.path + " " + p.message)
	}
	return errors.New(strings.Join(lines, "; "))
}
