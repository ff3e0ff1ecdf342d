package observe

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"sela/pipeline"
)

// Patience and Haste bound how long the end of a command waits for receivers:
// Haste where a signal ended it, since its sender will not wait long.
const (
	Patience = 3 * time.Second
	Haste    = time.Second
)

// Options say what is watched and who is told.
type Options struct {
	Command string // run, loop or the name of a stage
	Version string // of this program

	Ping        string // URL of a health check; "" for none
	Pushgateway string // URL of a Prometheus Pushgateway; "" for none
	Textfiles   string // folder that a Prometheus node exporter reads; "" for none

	// Getenv looks up OTEL_* and OPENLINEAGE_* variables; what the OpenTelemetry
	// SDK itself looks up, it finds in the process's environment.
	Getenv func(string) string
	// Warn reports, once for each receiver, that it cannot be reached.
	Warn func(message string, err error)
}

// Outcome is how a command ended.
type Outcome struct {
	Err  error
	Code int // exit code

	Labels   string // URL of the folder that was published; "" for none
	Manifest string // digest of its manifest
	Files    int    // in it
	Bytes    int64
	Rows     int64 // labels of all heads
	Images   int64 // listed
	Rejected int64 // of these, in quarantine
}

// success tells whether a schedule is well: labels were made, or there was
// nothing to make.
func (o *Outcome) success() bool {
	return o.Err == nil || pipeline.ClassOf(o.Err) == pipeline.NothingNew
}

// listener is told what happens. Its methods must not block, but for end, which
// must return when ctx ends.
type listener interface {
	job(j *pipeline.Job)
	run(r *pipeline.Record)
	event(e pipeline.Event)
	end(ctx context.Context, s *summary)
}

// Watch watches one command. Its methods may be called concurrently; a nil Watch
// watches nothing.
type Watch struct {
	listeners []listener

	mu      sync.Mutex
	summary summary
	ended   bool
}

// summary is what a watch knows at the end of a command.
type summary struct {
	Outcome
	command, version string
	jobName          string // "" until the job is read
	runID            string // of the newest run
	started, ended   time.Time
	stages           []*stageSummary // in order of their start
}

// stageSummary is one stage, of all runs that the command worked on.
type stageSummary struct {
	name    string
	rows    int64
	tasks   int
	retries int
	elapsed time.Duration
	since   time.Time // zero when it is not under way
}

func (s *summary) stage(name string) *stageSummary {
	for _, st := range s.stages {
		if st.name == name {
			return st
		}
	}
	st := &stageSummary{name: name}
	s.stages = append(s.stages, st)
	return st
}

// Begin begins to watch a command. What is configured wrongly is reported with
// Warn and left out.
func Begin(o Options) *Watch {
	w := &Watch{summary: summary{command: o.Command, version: o.Version, started: time.Now()}}
	warn := once(o.Warn)
	client := &http.Client{}
	add := func(name string, l listener, err error) {
		if err != nil {
			warn(name, err)
		} else if l != nil {
			w.listeners = append(w.listeners, l)
		}
	}
	for _, open := range []struct {
		name string
		open func() (listener, error)
	}{
		{"health check", func() (listener, error) { return newPing(o, client, warn) }},
		{"prometheus", func() (listener, error) { return newPrometheus(o, client, warn) }},
		{"openlineage", func() (listener, error) { return newLineage(o, client, warn) }},
		{"opentelemetry", func() (listener, error) { return newTelemetry(o, w.summary.started, warn) }},
	} {
		l, err := open.open()
		add(open.name, l, err)
	}
	return w
}

// once reports the first failure of each name.
func once(warn func(string, error)) func(name string, err error) {
	var mu sync.Mutex
	told := map[string]bool{}
	return func(name string, err error) {
		mu.Lock()
		defer mu.Unlock()
		if told[name] || warn == nil {
			return
		}
		told[name] = true
		warn(fmt.Sprintf("%s: not told how the command goes; the command goes on", name), reason(err))
	}
}

// Job tells which job the command works on. Only the first call counts.
func (w *Watch) Job(j *pipeline.Job) {
	if w == nil {
		return
	}
	w.mu.Lock()
	first := w.summary.jobName == ""
	if first {
		w.summary.jobName = j.Name
	}
	w.mu.Unlock()
	if first {
		for _, l := range w.listeners {
			l.job(j)
		}
	}
}

// Run tells which run the command works on now.
func (w *Watch) Run(r *pipeline.Record) {
	if w == nil {
		return
	}
	w.mu.Lock()
	w.summary.runID = r.Run
	w.mu.Unlock()
	for _, l := range w.listeners {
		l.run(r)
	}
}

// Observe implements [pipeline.Observer].
func (w *Watch) Observe(e pipeline.Event) {
	if w == nil {
		return
	}
	w.mu.Lock()
	switch e.Kind {
	case pipeline.StageStarted:
		w.summary.stage(e.Stage).since = time.Now()
	case pipeline.StageDone:
		s := w.summary.stage(e.Stage)
		s.rows, s.tasks, s.elapsed, s.since = s.rows+e.Rows, s.tasks+e.Tasks-e.Skipped, s.elapsed+e.Elapsed, time.Time{}
	case pipeline.TaskRetried:
		w.summary.stage(e.Stage).retries++
	}
	w.mu.Unlock()
	for _, l := range w.listeners {
		l.event(e)
	}
}

// End tells everybody how the command ended and waits until they know or time
// is up. Only the first call counts.
func (w *Watch) End(o Outcome) {
	if w == nil {
		return
	}
	w.mu.Lock()
	if w.ended {
		w.mu.Unlock()
		return
	}
	w.ended = true
	s := w.summary
	s.Outcome, s.ended = o, time.Now()
	for _, st := range s.stages {
		if !st.since.IsZero() { // it did not come to its end
			st.elapsed, st.since = st.elapsed+s.ended.Sub(st.since), time.Time{}
		}
	}
	w.mu.Unlock()
	limit := Patience
	if pipeline.ClassOf(o.Err) == pipeline.Interrupted && o.Err != nil {
		limit = Haste
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var group sync.WaitGroup
	for _, l := range w.listeners {
		group.Go(func() { l.end(ctx, &s) })
	}
	group.Wait()
}
