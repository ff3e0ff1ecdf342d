package pipeline

import (
	"context"
	"time"
)

// Stage is one step of a run.
type Stage interface {
	// Name is the stage's folder among the commits: one lower-case word.
	Name() string
	// Plan returns the stage's tasks: a pure function of the run's record and of
	// the commits of earlier stages, in a fixed order. It fails when an earlier
	// stage is not complete.
	Plan(ctx context.Context, run *Run) ([]Task, error)
	// Do performs one attempt at a task: it hands finished local files to the
	// attempt and returns. It may be called again for the same task, by this
	// process or another, and must then produce the same bytes. It returns only
	// after everything that it started has ended.
	Do(ctx context.Context, task Task, attempt *Attempt) error
}

// Task is a unit of idempotent work.
type Task struct {
	// ID names the task within its stage; it becomes part of object names.
	ID string
	// Inputs is a digest of everything the task's output depends on beyond the
	// run's record. A commit made from other inputs is refused.
	Inputs string
	// Scratch is an upper bound, in bytes, of the local files the task needs.
	Scratch int64
	// Timeout bounds an attempt: 0 is the job's timeouts.task, less than 0 none.
	Timeout time.Duration
	// Rows is the number of rows the task will process, for progress only.
	Rows int64
	// Index is the task's position in the stage's plan.
	Index int
}
