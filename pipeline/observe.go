package pipeline

import (
	"log/slog"
	"time"
)

// Kind tells what an [Event] reports.
type Kind string

// The kinds of events, in the order in which a task meets them.
const (
	StageStarted  Kind = "stage started"
	TaskStarted   Kind = "task started"
	RowsDone      Kind = "rows done"
	PassDone      Kind = "pass done"
	TaskRetried   Kind = "task retried"
	TaskCommitted Kind = "task committed"
	TaskDiscarded Kind = "task discarded"
	StageDone     Kind = "stage done"
	Notice        Kind = "notice"
)

// Event is something that happened in a run. Observers turn events into log
// lines, progress bars and metrics; no event changes what is computed.
type Event struct {
	Kind    Kind
	Stage   string
	Task    string
	Rows    int64         // rows done since the last event, or in all for StageDone
	Total   int64         // rows of the stage (StageStarted)
	Tasks   int           // tasks of the stage (StageStarted)
	Skipped int           // tasks that were committed before (StageStarted)
	Elapsed time.Duration // TaskCommitted, StageDone
	Err     error         // TaskRetried
	Attrs   []slog.Attr   // anything else worth a log line
}

// Observer receives the events of a run. Observe is called from many
// goroutines and must not block.
type Observer interface{ Observe(Event) }

// ObserverFunc makes an Observer of a function.
type ObserverFunc func(Event)

// Observe calls f.
func (f ObserverFunc) Observe(e Event) { f(e) }
