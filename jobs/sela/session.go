package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/cpu"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/extract"
	"sela/stages/label"
	"sela/stages/list"
	"sela/stages/model"
	"sela/stages/publish"
	"sela/stages/solve"
	"sela/stages/train"
	"sela/stages/train/builtin"
	"sela/stages/truth"
)

// libraryVariable names the ONNX Runtime library to use.
const libraryVariable = "SELA_ONNXRUNTIME"

// session is a job opened on this machine: its buckets, its model, the runtime
// library, and, once known, its run.
type session struct {
	app    *app
	job    *pipeline.Job
	images *bucket.Bucket
	work   *bucket.Bucket
	labels *bucket.Bucket

	design     *extract.Design
	library    model.Library
	provenance pipeline.Provenance
	loop       string // that the run is a round of; "" for none
	run        *pipeline.Run
	totals     map[string]pipeline.Totals // of the stages done by this process
	shown      string                     // URL of the report that this process wrote; "" if it wrote none
	extract    *extract.Stage
	release    func() error // of the folder that holds the edited model
}

// openSession reads the job and everything the run's identity needs; no image
// is read and no library loaded yet.
func (a *app) openSession(ctx context.Context, jobPath string) (*session, error) {
	job, err := pipeline.LoadJob(jobPath)
	if err != nil {
		return nil, err
	}
	if job.Local.Dir == "" {
		job.Local.Dir = defaultScratch()
	}
	return a.sessionOf(ctx, job)
}

// sessionOf is openSession for a job that was read already.
func (a *app) sessionOf(ctx context.Context, job *pipeline.Job) (*session, error) {
	s := &session{app: a, job: job, totals: map[string]pipeline.Totals{}}
	a.watch.Job(job)
	if err := s.openBuckets(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	err := s.openModel(ctx)
	if err == nil {
		err = s.openTruth(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	s.extract = &extract.Stage{Images: s.images, Open: s.openClassifier, Earlier: s.lastPublished}
	return s, nil
}

// defaultScratch is a folder of the user's own: another user could not write
// to it.
func defaultScratch() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("sela-%d", os.Getuid()))
}

func (s *session) openBuckets(ctx context.Context) (err error) {
	options := bucketOptions(s.job)
	options.Retrying = s.app.progress.storeWaits()
	for _, b := range []struct {
		field  string
		url    string
		create bool
		open   **bucket.Bucket
	}{
		{"images.bucket", s.job.Images.Bucket, false, &s.images},
		{"work.bucket", s.job.Work.Bucket, true, &s.work},
		{"labels.bucket", s.job.Labels.Bucket, true, &s.labels},
	} {
		url := b.url
		if b.create {
			url = creating(url)
		}
		if *b.open, err = bucket.Open(ctx, url, options); err != nil {
			return pipeline.BadConfig(fmt.Errorf("%s: %w", b.field, err))
		}
	}
	return nil
}

func bucketOptions(job *pipeline.Job) bucket.Options {
	return bucket.Options{RequestTimeout: time.Duration(job.Timeouts.Request), Attempts: job.Retries.Request, Requests: job.Limits.Requests}
}

// openModel reads the model's graph and digests, and finds the library.
func (s *session) openModel(ctx context.Context) error {
	path, err := model.Local(ctx, s.job.Model.Path, s.job.Local.Dir)
	if err != nil {
		return err
	}
	graph, digest, err := model.Load(ctx, path)
	if err != nil {
		return err
	}
	if s.design, err = extract.NewDesign(s.job, graph); err != nil {
		return err
	}
	if s.job.Train.Type == builtin.Name {
		if err := builtin.Check(s.job, s.design); err != nil {
			return err
		}
	}
	if s.library, err = findLibrary(s.job.Runtime.Library); err != nil {
		return err
	}
	s.provenance = pipeline.Provenance{Model: digest, Library: s.library.SHA256, LibraryBuild: s.library.Version,
		Preprocessing: s.design.Spec.Fingerprint(), Code: version(), Processor: processorClass()}
	return nil
}

// openTruth reads the digest of the classes that are to be copied.
func (s *session) openTruth(ctx context.Context) error {
	if s.job.Solve.Truth == "" {
		return nil
	}
	source, err := truth.Open(ctx, s.job.Solve.Truth)
	if err != nil {
		return fmt.Errorf("solve.%w", err)
	}
	s.provenance.Truth = source.Digest()
	return nil
}

// findLibrary finds the ONNX Runtime library: the job's, the environment's, or
// where make puts it.
func findLibrary(explicit string) (model.Library, error) {
	if explicit == "" {
		explicit = os.Getenv(libraryVariable)
	}
	return model.FindLibrary(explicit)
}

// processorClass names what decides which kernels ONNX Runtime uses, and so,
// possibly, the last bit of a float.
func processorClass() string {
	switch {
	case cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL:
		return runtime.GOARCH + "-avx512"
	case cpu.X86.HasAVX2 && cpu.X86.HasFMA:
		return runtime.GOARCH + "-avx2"
	default:
		return runtime.GOARCH
	}
}

// openClassifier loads the library and the model.
func (s *session) openClassifier(ctx context.Context) (*extract.Classifier, error) {
	rt, err := model.OpenRuntime(s.library)
	if err != nil {
		return nil, err
	}
	dir, release, err := pipeline.OwnFolder(s.job.Local.Dir)
	if err != nil {
		return nil, pipeline.BadConfig(fmt.Errorf("local.dir: %w", err))
	}
	s.release = release
	classifier, err := extract.Open(ctx, rt, s.job, s.design, dir)
	if err != nil {
		return nil, err
	}
	clusters := make([]int, len(classifier.Heads))
	for h, head := range classifier.Heads {
		clusters[h] = head.Clusters
	}
	if err := solve.Check(s.job, clusters, rt); err != nil {
		return nil, errors.Join(err, classifier.Close())
	}
	return classifier, nil
}

// openRun opens the session's run.
func (s *session) openRun(ctx context.Context, runID string, mustExist bool) error {
	parent, err := s.parent(ctx)
	if err != nil {
		return err
	}
	s.run, err = pipeline.Open(ctx, s.work, pipeline.Options{Job: s.job, Provenance: s.provenance, RunID: runID, MustExist: mustExist,
		Parent: parent, Loop: s.loop, Observer: s.app.observer()})
	if err == nil {
		s.app.watch.Run(&s.run.Record)
	}
	return err
}

// parent is the published run whose labels become prev_label.
func (s *session) parent(ctx context.Context) (string, error) {
	if s.job.Label.Previous != "latest" {
		return s.job.Label.Previous, nil
	}
	latest, err := publish.Newest(ctx, s.labels, s.job.Name)
	if err != nil || latest == nil {
		return "", err
	}
	return latest.Run, nil
}

// lastPublished opens the job's last published run, if it is another than this
// one and its state is still there.
func (s *session) lastPublished(ctx context.Context) (*pipeline.Run, error) {
	latest, err := publish.Newest(ctx, s.labels, s.job.Name)
	if err != nil || latest == nil || latest.Run == s.run.Run {
		return nil, err
	}
	before, err := s.run.Other(ctx, latest.Run)
	if errors.Is(err, bucket.ErrNotFound) {
		s.run.Notice(extract.Name, "every image is extracted: the last published run has left no state", "run", latest.Run, "work", s.work.URL())
		return nil, nil
	}
	return before, err
}

// stage returns a stage of the run by name.
func (s *session) stage(name string) (pipeline.Stage, error) {
	switch name {
	case list.Name:
		return &list.Stage{Images: s.images}, nil
	case extract.Name:
		return s.extract, nil
	case solve.Name:
		return &solve.Stage{Labels: s.labels, Runtime: func() (*model.Runtime, error) { return model.OpenRuntime(s.library) }}, nil
	case label.Name:
		return &label.Stage{Labels: s.labels}, nil
	case publish.Name:
		return &publish.Stage{Labels: s.labels}, nil
	default:
		trigger, err := s.trigger()
		return &train.Stage{Labels: s.labels, Trigger: trigger}, err
	}
}

// trigger makes the job's training trigger.
func (s *session) trigger() (train.Trigger, error) {
	t := s.job.Train
	switch t.Type {
	case "command":
		return train.Command{Args: t.Command, Env: os.Environ(), Log: os.Stderr, Limit: time.Duration(t.Timeout)}, nil
	case "http":
		token, err := secret("train.token_env", t.TokenEnv)
		return train.HTTP{URL: t.URL, Token: token, Client: http.DefaultClient, Limit: time.Duration(t.Timeout)}, err
	case "airflow":
		token, err := secret("train.token_env", t.TokenEnv)
		if err != nil {
			return nil, err
		}
		login, err := secret("train.login_env", t.LoginEnv)
		user, password, ok := strings.Cut(login, ":")
		if err == nil && login != "" && !ok {
			err = pipeline.BadConfig(fmt.Errorf("train.login_env: the environment variable %s does not hold user:password", t.LoginEnv))
		}
		return train.Airflow{URL: t.URL, DAG: t.DAG, Token: token, User: user, Password: password, Client: http.DefaultClient,
			Limit: time.Duration(t.Timeout)}, err
	case builtin.Name:
		return builtin.Trigger{Run: s.run, Images: s.images, Labels: s.labels, Design: s.design, Memory: memoryLimit(), Stop: s.app.interrupt.stop,
			Runtime: func() (*model.Runtime, error) { return model.OpenRuntime(s.library) }, Limit: time.Duration(t.Timeout)}, nil
	default:
		return train.None{}, nil
	}
}

// secret returns what the environment variable that a field names holds, "" if
// the field names none.
func secret(field, variable string) (string, error) {
	if variable == "" {
		return "", nil
	}
	value := os.Getenv(variable)
	if value == "" {
		return "", pipeline.BadConfig(fmt.Errorf("%s: the environment variable %s is not set", field, variable))
	}
	return value, nil
}

// runner returns how a stage's tasks are done: one at a time where a task uses
// all cores, side by side where it uses one.
func (s *session) runner(stage string, shard, shards int) *pipeline.Runner {
	r := &pipeline.Runner{Stop: s.app.interrupt.stop, Shard: shard, Shards: shards}
	switch stage {
	case extract.Name:
		// While one task's files are checked and uploaded the next one runs.
		r.Parallel = 2
	case label.Name:
		r.Parallel = runtime.GOMAXPROCS(0)
	}
	return r
}

// close gives everything back.
func (s *session) close() error {
	var errs []error
	if s.extract != nil {
		errs = append(errs, s.extract.Close())
	}
	if s.release != nil {
		errs = append(errs, s.release())
	}
	for _, b := range []*bucket.Bucket{s.images, s.work, s.labels} {
		if b != nil {
			errs = append(errs, b.Close())
		}
	}
	return errors.Join(errs...)
}

// withSession runs f with the job's session.
func (a *app) withSession(cmd *cobra.Command, jobPath string, f func(context.Context, *session) error) error {
	ctx := cmd.Context()
	s, err := a.openSession(ctx, jobPath)
	if err != nil {
		return err
	}
	return errors.Join(f(ctx, s), s.close())
}
