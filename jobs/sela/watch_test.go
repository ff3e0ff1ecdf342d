package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// listening is a server for everything that a command tells.
type listening struct {
	*httptest.Server
	mu    sync.Mutex
	paths []string
	kinds []string // of OpenLineage events
}

func listen(t *testing.T, hold <-chan struct{}) *listening {
	l := &listening{}
	l.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		var event struct{ EventType string }
		if q.URL.Path == "/api/v1/lineage" {
			_ = json.NewDecoder(q.Body).Decode(&event)
		}
		l.mu.Lock()
		l.paths = append(l.paths, q.URL.Path)
		if event.EventType != "" && !slices.Contains(l.kinds, event.EventType) {
			l.kinds = append(l.kinds, event.EventType)
		}
		l.mu.Unlock()
		if hold != nil {
			<-hold
		}
	}))
	t.Cleanup(l.Close)
	return l
}

// take returns what was told since the last call.
func (l *listening) take() (paths, kinds []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	paths, kinds = l.paths, l.kinds
	l.paths, l.kinds = nil, nil
	return paths, kinds
}

// listeners are the variables that have a command tell everything to the server.
func (l *listening) listeners(r *rig) []string {
	if err := os.MkdirAll(r.path("textfiles"), 0o755); err != nil {
		r.t.Fatal(err)
	}
	return []string{pingVariable + "=" + l.URL + "/ping/SEKRET", pushgatewayVariable + "=" + l.URL, textfilesVariable + "=" + r.path("textfiles"),
		"OPENLINEAGE_URL=" + l.URL, "OTEL_EXPORTER_OTLP_ENDPOINT=" + l.URL}
}

// with runs a command line with further variables.
func (r *rig) with(env []string, args ...string) outcome {
	r.t.Helper()
	cmd, stdout, stderr := r.command(args...)
	cmd.Env = append(cmd.Env, env...)
	return r.outcome(cmd, cmd.Run(), stdout, stderr)
}

func TestEverybodyIsTold(t *testing.T) {
	r := newRig(t)
	l := listen(t, nil)
	env := l.listeners(r)
	done := r.with(env, "run", "job.yaml")
	paths, kinds := l.take()
	if done.code != 0 || !slices.Equal(kinds, []string{"START", "RUNNING", "COMPLETE"}) {
		t.Errorf("exit %d, events %v: %s", done.code, kinds, done.stderr)
	}
	for _, must := range []string{"/ping/SEKRET/start", "/ping/SEKRET", "/metrics/job/sela/sela_job/test/command/run", "/v1/traces", "/v1/metrics"} {
		if !slices.Contains(paths, must) {
			t.Errorf("%s was not told: %v", must, paths)
		}
	}
	figures := file(t, r.path("textfiles/sela_test_run.prom"))
	for _, must := range []string{`sela_images{command="run",sela_job="test"} 600`, `sela_labels{command="run",sela_job="test"} 1200`, `stage="extract"} 600`, "sela_last_success_timestamp_seconds"} {
		if !strings.Contains(figures, must) {
			t.Errorf("the text file lacks %s:\n%s", must, figures)
		}
	}
	wall, _ := done.result["extract_time"].(map[string]any)
	if wall["wall_seconds"].(float64) <= 0 || wall["inference_seconds"].(float64) <= 0 || wall["waited_for_store"].(float64) > 1 {
		t.Errorf("extract_time %v", wall)
	}
	if strings.Contains(done.stderr, "level=WARN") || strings.Contains(done.stderr+done.stdout+r.record(done), "SEKRET") {
		t.Errorf("a warning or a secret: %s", done.stderr)
	}

	nothing := r.with(env, "run", "job.yaml")
	if paths, kinds = l.take(); nothing.code != 99 || !slices.Equal(kinds, []string{"START", "RUNNING", "COMPLETE"}) || !slices.Contains(paths, "/ping/SEKRET") {
		t.Errorf("nothing new: exit %d, events %v, %v", nothing.code, kinds, paths)
	}
	// A stage alone is a command of its own.
	r.job("solve: {lambda: 10}")
	if list := r.with(env, "list", "job.yaml"); list.code != 0 {
		t.Errorf("list: exit %d: %s", list.code, list.stderr)
	}
	if paths, _ = l.take(); !slices.Contains(paths, "/metrics/job/sela/sela_job/test/command/list") {
		t.Errorf("list told %v", paths)
	}
	r.job("label: {max_count_ratio: 1}", "solve: {lambda: 5}")
	stopped := r.with(env, "run", "job.yaml")
	if paths, kinds = l.take(); stopped.code != 65 || !slices.Equal(kinds, []string{"START", "RUNNING", "FAIL"}) || !slices.Contains(paths, "/ping/SEKRET/65") {
		t.Errorf("a failure: exit %d, events %v, %v", stopped.code, kinds, paths)
	}
	// Flags stand before variables; a job file that cannot be read is a failure too.
	if none := r.with(env, "run", "none.yaml", "--ping", l.URL+"/flag"); none.code != 78 {
		t.Errorf("exit %d", none.code)
	}
	if paths, _ = l.take(); !slices.Contains(paths, "/flag/start") || !slices.Contains(paths, "/flag/78") || slices.Contains(paths, "/ping/SEKRET/start") {
		t.Errorf("pings %v", paths)
	}
}

// record is the run.json of a run, of both buckets.
func (r *rig) record(out outcome) string {
	id, _ := out.result["run"].(string)
	return file(r.t, r.path("work/runs/"+id+"/run.json")) + file(r.t, r.path("labels/runs/"+id+"/run.json"))
}

// TestDeadListeners: the server answers nobody until both commands have ended.
func TestDeadListeners(t *testing.T) {
	hold := make(chan struct{})
	r, l := newRig(t), listen(t, hold)
	defer close(hold)
	env := l.listeners(r)
	done := r.with(env, "run", "job.yaml", "--run-id", "one")
	if done.code != 0 || done.result["status"] != "done" || strings.Count(done.stderr, "not told how the command goes") < 3 || strings.Contains(done.stderr, "SEKRET") {
		t.Errorf("exit %d: %s%s", done.code, done.stderr, done.stdout)
	}
	cmd, stdout, stderr := r.command("run", "job.yaml", "--run-id", "two")
	cmd.Env = append(cmd.Env, env...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.await("work/runs/two/commits/list/*.json")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if out := r.outcome(cmd, cmd.Wait(), stdout, stderr); out.code != 128+int(syscall.SIGTERM) || out.result["class"] != "interrupted" {
		t.Errorf("exit %d, result %v: %s", out.code, out.result, out.stderr)
	}
}
