// Package quarantine collects the images a task cannot use. One bad image never
// stops a run; too large a share of them does.
package quarantine

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"sela/pipeline"
	"sela/schemas"
)

// Table writes the quarantine rows of one attempt, in a file that exists only
// if there are any. Add may be called concurrently; the caller adds rows in an
// order that does not depend on timing.
type Table struct {
	attempt *pipeline.Attempt
	name    string
	mu      sync.Mutex
	w       *schemas.QuarantineWriter
	path    string
	rows    int64
	classes map[string]int64
	first   schemas.Quarantine
}

// New returns the table of an attempt at the task.
func New(a *pipeline.Attempt, task string) *Table {
	return &Table{attempt: a, name: "quarantine/part-" + task + ".parquet"}
}

// Add appends a row.
func (t *Table) Add(q schemas.Quarantine) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.w == nil {
		t.path = filepath.Join(t.attempt.Dir, "quarantine.parquet")
		w, err := schemas.CreateQuarantine(t.path, schemas.QuarantineMeta{})
		if err != nil {
			return err
		}
		t.w = w
	}
	// A decoder may quote bytes of the image.
	q.Message = strings.ToValidUTF8(q.Message, "\uFFFD")
	if t.rows == 0 {
		t.classes, t.first = map[string]int64{}, q
	}
	t.rows++
	t.classes[q.Class]++
	return t.w.Write(q)
}

// Summary counts the rows by class and tells the first one.
func (t *Table) Summary() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rows == 0 {
		return "none"
	}
	var classes []string
	for _, c := range slices.Sorted(maps.Keys(t.classes)) {
		classes = append(classes, fmt.Sprintf("%s %d", c, t.classes[c]))
	}
	return fmt.Sprintf("%s; the first one: %q %q: %s", strings.Join(classes, ", "), t.first.Key, t.first.Member, t.first.Message)
}

// Rows returns the number of rows added.
func (t *Table) Rows() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rows
}

// Finish checks and uploads the table.
func (t *Table) Finish(ctx context.Context) error {
	if t.w == nil {
		return nil
	}
	stats, err := t.w.Commit()
	t.w = nil
	if err != nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	return t.attempt.Upload(ctx, t.path, t.name, stats)
}

// Abort drops the table; after Finish it does nothing.
func (t *Table) Abort() {
	if t.w != nil {
		_ = t.w.Abort() // its folder is removed with the attempt
		t.w = nil
	}
}

// Check fails, with class Data, when more than the share max of all images is
// rejected.
func Check(rejected, all int64, max float64) error {
	if all == 0 || float64(rejected) <= max*float64(all) {
		return nil
	}
	return pipeline.BadData(fmt.Errorf("%d of %d images cannot be used, more than images.max_rejected (%v) allows: raise the share to go on with this run, or mend the images and start a new one with --run-id", rejected, all, max))
}
