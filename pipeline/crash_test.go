package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sela/pipeline/bucket"
)

// childEnv holds the folder in which a test binary that finds it set works on
// the crash test's run, until it is done or killed.
const childEnv = "SELA_PIPELINE_CRASH_TEST"

const (
	crashTasks    = 12 // per stage
	crashParallel = 3
	crashKills    = 30
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := crashRun(context.Background(), dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// chained is a stage whose every task depends on all tasks of the stage before.
type chained struct {
	name, before string
	dir          string
	inputs       string
}

func (s *chained) Name() string { return s.name }

func (s *chained) Plan(ctx context.Context, run *Run) ([]Task, error) {
	if s.before != "" {
		previous := (&chained{name: s.before}).tasks("inputs of " + s.before)
		commits, err := run.Commits(ctx, s.before, previous)
		if err != nil {
			return nil, err
		}
		for _, c := range commits {
			for _, o := range c.Outputs {
				local, release, err := run.Fetch(ctx, o)
				if err != nil {
					return nil, err
				}
				raw, err := os.ReadFile(local)
				release()
				if err != nil {
					return nil, err
				}
				s.inputs = stats(s.inputs + string(raw)).SHA256
			}
		}
	}
	return s.tasks("inputs of " + s.name), nil
}

func (s *chained) tasks(inputs string) []Task {
	stage := newFake(s.name, crashTasks, nil)
	for i := range stage.tasks {
		stage.tasks[i].Inputs = inputs
	}
	return stage.tasks
}

func (s *chained) Do(ctx context.Context, t Task, a *Attempt) error {
	// A line for each beginning is what the test counts attempts by.
	f, err := os.OpenFile(filepath.Join(s.dir, "begun"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, s.name, t.ID)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	for _, part := range []string{"x", "y"} {
		time.Sleep(time.Millisecond)
		content := strings.Repeat(stats(s.inputs+t.ID+part).SHA256, 50)
		if err := put(ctx, a, s.name+"/"+part+"-"+t.ID+".txt", content); err != nil {
			return err
		}
	}
	return nil
}

// crashRun is what `sela run` does, with the crash test's stages.
func crashRun(ctx context.Context, dir string) (err error) {
	work, err := bucket.Open(ctx, "file://"+filepath.ToSlash(dir)+"/work?create_dir=true", bucket.Options{})
	if err != nil {
		return err
	}
	job, err := ParseJob([]byte(required), "/home/job")
	if err != nil {
		return err
	}
	job.Local = Local{Dir: filepath.Join(dir, "local"), Bytes: 1 << 20}
	run, err := Open(ctx, work, Options{Job: job, Provenance: testProvenance})
	if err != nil {
		return err
	}
	lease, err := run.Acquire(ctx, true)
	if err != nil {
		return err
	}
	before := ""
	for _, name := range []string{"first", "second", "third"} {
		if _, err := (&Runner{Parallel: crashParallel}).Run(ctx, run, &chained{name: name, before: before, dir: dir}); err != nil {
			return err
		}
		before = name
	}
	return errors.Join(run.Finish(ctx), lease.Release(ctx))
}

// TestCrash kills processes that work on a run, one after the other, until one
// comes to its end, and compares what that leaves with what an undisturbed
// process does; with new runs, until there were enough kills.
func TestCrash(t *testing.T) {
	if Self().Started == "" || Self().System == "" {
		t.Skip("this system does not tell that a process has ended; its lease would have to expire")
	}
	calm := t.TempDir()
	if err := crashRun(t.Context(), calm); err != nil {
		t.Fatal(err)
	}
	want, digest := finishedRun(t, calm)
	if len(want) != 3*2*crashTasks {
		t.Errorf("the undisturbed run has %d outputs", len(want))
	}
	random := rand.New(rand.NewPCG(1, 2))
	for kills := 0; kills < crashKills; {
		dir := t.TempDir()
		round := 0
		for !crashChild(t, dir, random, kills+round < crashKills) {
			round++
		}
		kills += round
		extra := beginnings(t, dir) - 3*crashTasks
		t.Logf("%d kills, %d of %d tasks repeated", round, extra, 3*crashTasks)
		if extra < 0 || extra > round*crashParallel {
			t.Errorf("%d tasks were repeated; at most %d were in flight", extra, round*crashParallel)
		}
		got, gotDigest := finishedRun(t, dir)
		if gotDigest != digest || len(got) != len(want) {
			t.Errorf("manifest %s of %d outputs, want %s of %d", gotDigest, len(got), digest, len(want))
		}
		for name, content := range want {
			if got[name] != content {
				t.Errorf("%s differs", name)
			}
		}
		if owners, _ := filepath.Glob(filepath.Join(dir, "local", "attempts", "*")); len(owners) > 2 {
			t.Errorf("killed processes left %v", owners)
		}
	}
}

// crashChild lets a process work on the run in dir, kills it when a few more
// tasks have begun and a moment that may be anything has passed, and reports
// whether the process had come to its end before.
func crashChild(t *testing.T, dir string, random *rand.Rand, kill bool) (finished bool) {
	t.Helper()
	goal, pause := beginnings(t, dir)+random.IntN(4), time.Duration(random.IntN(8000))*time.Microsecond
	var output strings.Builder
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for kill && beginnings(t, dir) < goal && len(ended) == 0 {
		time.Sleep(time.Millisecond)
	}
	if kill {
		time.Sleep(pause)
		_ = cmd.Process.Kill() // fails when the process has come to its end
	}
	err := <-ended
	if err != nil && cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("child failed: %v\n%s", err, &output)
	}
	return err == nil
}

// beginnings counts the attempts that were begun.
func beginnings(t *testing.T, dir string) int {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "begun"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Count(string(raw), "\n")
}

// finishedRun reads the outputs of the only run, which must be finished, and
// the digest of its manifest.
func finishedRun(t *testing.T, dir string) (files map[string]string, digest string) {
	t.Helper()
	work := folder(t, filepath.Join(dir, "work"))
	records, err := Records(t.Context(), work)
	if err != nil || len(records) != 1 || !records[0].Finished() {
		t.Fatalf("records are %+v, %v", records, err)
	}
	run, err := Read(t.Context(), work, records[0].Run)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := work.Get(t.Context(), run.Path("_manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParseManifest(raw)
	if err != nil {
		t.Fatal(err)
	}
	return outputs(t, run), m.Digest
}
