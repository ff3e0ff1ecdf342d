package observe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sela/pipeline"
)

// receiver is a server that notes what it is sent.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	requests []request
	status   map[string]int // to answer by path; 200 if not given
}

type request struct {
	method, path, query, auth, kind string
	body                            []byte
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{status: map[string]int{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.requests = append(r.requests, request{q.Method, q.URL.Path, q.URL.RawQuery, q.Header.Get("Authorization"), q.Header.Get("Content-Type"), body})
		if code := r.status[q.URL.Path]; code != 0 {
			w.WriteHeader(code)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

// got returns the requests to paths that begin with prefix.
func (r *receiver) got(prefix string) (found []request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, q := range r.requests {
		if strings.HasPrefix(q.path, prefix) {
			found = append(found, q)
		}
	}
	return found
}

// environment looks variables up in a map.
func environment(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

// warnings collects what a watch has to say.
type warnings struct {
	mu  sync.Mutex
	all []string
}

func (w *warnings) warn(message string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, fmt.Sprintf("%s (%v)", message, err))
}

func (w *warnings) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.all, "\n")
}

func testJob() *pipeline.Job {
	j := pipeline.DefaultJob()
	j.Name, j.Images.Bucket, j.Labels.Bucket = "letters", "s3://photos/2026?region=x", "file:///srv/labels"
	return j
}

// perform reports the events of a small run.
func perform(w *Watch) {
	w.Job(testJob())
	w.Run(&pipeline.Record{Run: "run-17"})
	for _, e := range []pipeline.Event{
		{Kind: pipeline.StageStarted, Stage: "list", Tasks: 1},
		{Kind: pipeline.TaskStarted, Stage: "list", Task: "all"},
		{Kind: pipeline.TaskCommitted, Stage: "list", Task: "all", Elapsed: time.Second},
		{Kind: pipeline.StageDone, Stage: "list", Tasks: 1, Elapsed: time.Second},
		{Kind: pipeline.StageStarted, Stage: "extract", Tasks: 3, Skipped: 1, Total: 20},
		{Kind: pipeline.TaskStarted, Stage: "extract", Task: "0"},
		{Kind: pipeline.RowsDone, Stage: "extract", Task: "0", Rows: 4},
		{Kind: pipeline.TaskRetried, Stage: "extract", Task: "0", Err: errors.New("lost")},
		{Kind: pipeline.TaskStarted, Stage: "extract", Task: "0"},
		{Kind: pipeline.RowsDone, Stage: "extract", Task: "0", Rows: 10},
		{Kind: pipeline.TaskCommitted, Stage: "extract", Task: "0", Elapsed: time.Second},
		{Kind: pipeline.TaskStarted, Stage: "extract", Task: "1"},
		{Kind: pipeline.TaskDiscarded, Stage: "extract", Task: "1", Elapsed: time.Second},
		{Kind: pipeline.StageDone, Stage: "extract", Rows: 20, Tasks: 3, Skipped: 1, Elapsed: 2 * time.Second},
		{Kind: pipeline.StageStarted, Stage: "solve", Tasks: 2},
		{Kind: pipeline.TaskStarted, Stage: "solve", Task: "head-0"},
	} {
		w.Observe(e)
	}
}

var (
	published = Outcome{Labels: "file:///srv/labels/runs/run-17/", Manifest: "abc123", Files: 2, Bytes: 900, Rows: 40, Images: 21, Rejected: 1}
	nothing   = Outcome{Err: pipeline.Nothing(errors.New("nothing new")), Code: 99}
	failed    = Outcome{Err: pipeline.BadData(errors.New("gate: no")), Code: 65}
	signalled = Outcome{Err: fmt.Errorf("stopped: %w", context.Canceled), Code: 143}
)

func TestPing(t *testing.T) {
	for name, test := range map[string]struct {
		outcome Outcome
		status  map[string]int
		want    []string
	}{
		"success":     {published, nil, []string{"/p/start", "/p"}},
		"nothing new": {nothing, nil, []string{"/p/start", "/p"}},
		"failure":     {failed, nil, []string{"/p/start", "/p/65"}},
		"signal":      {signalled, nil, []string{"/p/start", "/p/143"}},
		"no codes":    {failed, map[string]int{"/p/65": 404}, []string{"/p/start", "/p/65", "/p/fail"}},
		"ill":         {published, map[string]int{"/p": 500}, []string{"/p/start", "/p"}},
	} {
		t.Run(name, func(t *testing.T) {
			r, said := newReceiver(t), &warnings{}
			maps.Copy(r.status, test.status)
			w := Begin(Options{Command: "run", Ping: r.URL + "/p?rid=7", Getenv: environment(nil), Warn: said.warn})
			perform(w)
			w.End(test.outcome)
			w.End(failed) // it has ended
			var paths []string
			for _, q := range r.got("") {
				paths = append(paths, q.path)
				if q.query != "rid=7" || q.method != http.MethodGet {
					t.Errorf("%+v", q)
				}
			}
			if !slices.Equal(paths, test.want) {
				t.Errorf("pings %v, want %v", paths, test.want)
			}
			if (len(said.all) > 0) != (name == "ill") {
				t.Errorf("warnings %q", said.text())
			}
		})
	}
}

// everything asks for all receivers at one address. OpenTelemetry's SDK looks
// into the process's environment.
func everything(t *testing.T, url string, said *warnings) Options {
	t.Helper()
	vars := map[string]string{"OPENLINEAGE_URL": url, "OPENLINEAGE_API_KEY": "SEKRET", "OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_HEADERS": "authorization=SEKRET"}
	for name, value := range vars {
		t.Setenv(name, value)
	}
	return Options{Command: "run", Version: "v1", Ping: url + "/ping/SEKRET?token=SEKRET", Pushgateway: url, Getenv: environment(vars), Warn: said.warn}
}

// TestHangingReceivers: the server answers nobody until the watch has ended, so
// that a watch that waited for it would never end.
func TestHangingReceivers(t *testing.T) {
	release := make(chan struct{})
	var asked sync.Map
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		asked.Store(q.URL.Path, true)
		<-release
	}))
	defer hanging.Close()
	for name, outcome := range map[string]Outcome{"done": published, "signal": signalled} {
		t.Run(name, func(t *testing.T) {
			said := &warnings{}
			w := Begin(everything(t, hanging.URL, said))
			perform(w)
			for range 1000 { // more than may wait
				w.Observe(pipeline.Event{Kind: pipeline.StageStarted, Stage: "label", Tasks: 1})
			}
			w.End(outcome)
			for _, who := range []string{"health check", "pushgateway", "openlineage", "opentelemetry"} {
				if n := strings.Count(said.text(), who+": not told"); n != 1 {
					t.Errorf("%d warnings of %s, want 1:\n%s", n, who, said.text())
				}
			}
			if strings.Contains(said.text(), "SEKRET") {
				t.Errorf("a secret is told:\n%s", said.text())
			}
		})
	}
	close(release)
	for _, path := range []string{"/ping/SEKRET/start", "/ping/SEKRET", "/api/v1/lineage"} {
		if _, ok := asked.Load(path); !ok {
			t.Errorf("%s was not asked", path)
		}
	}
}

func TestUnreachableReceivers(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	refusing := newReceiver(t)
	for _, path := range []string{"/ping/SEKRET/start", "/ping/SEKRET", "/api/v1/lineage", "/v1/traces", "/v1/metrics", "/metrics/job/sela/sela_job/letters/command/run"} {
		refusing.status[path] = 401
	}
	for name, url := range map[string]string{"gone": gone.URL, "refusing": refusing.URL, "a password": strings.Replace(gone.URL, "://", "://SEKRET:SEKRET@", 1)} {
		t.Run(name, func(t *testing.T) {
			said := &warnings{}
			w := Begin(everything(t, url, said))
			perform(w)
			w.End(published)
			for _, who := range []string{"health check", "pushgateway", "openlineage", "opentelemetry"} {
				if n := strings.Count(said.text(), who+": not told"); n != 1 {
					t.Errorf("%d warnings of %s, want 1:\n%s", n, who, said.text())
				}
			}
			if strings.Contains(said.text(), "SEKRET") || !strings.Contains(said.text(), strings.TrimPrefix(url[strings.LastIndexAny(url, "/@")+1:], "/")) {
				t.Errorf("a secret is told, or no host:\n%s", said.text())
			}
		})
	}
}

func TestWrongConfiguration(t *testing.T) {
	said := &warnings{}
	w := Begin(Options{Command: "run", Ping: "SEKRET:8000", Pushgateway: "ftp://SEKRET", Warn: said.warn, Getenv: environment(map[string]string{
		"OPENLINEAGE_URL": "://SEKRET", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})})
	perform(w)
	w.End(published)
	if len(w.listeners) != 0 || len(said.all) != 4 || strings.Contains(said.text(), "SEKRET") || !strings.Contains(said.text(), "http/protobuf") {
		t.Errorf("%d listeners; %s", len(w.listeners), said.text())
	}
	var none *Watch // of a command that is not watched
	perform(none)
	none.End(failed)
	if off := Begin(Options{Command: "run", Getenv: environment(map[string]string{"OPENLINEAGE_URL": "http://localhost:1", "OPENLINEAGE_DISABLED": "true",
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:1", "OTEL_SDK_DISABLED": "true"})}); len(off.listeners) != 0 {
		t.Errorf("%d listeners", len(off.listeners))
	}
}
