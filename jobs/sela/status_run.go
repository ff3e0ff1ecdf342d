package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/extract"
	"sela/stages/label"
	"sela/stages/list"
	"sela/stages/publish"
	"sela/stages/solve"
	"sela/stages/train"
)

// stageState is how far a stage of a run is.
type stageState struct {
	Tasks   int              `json:"tasks"`          // done
	Of      int              `json:"of,omitempty"`   // of so many; 0 = not known yet
	Rows    int64            `json:"rows,omitempty"` // done, of stages that count them
	OfRows  int64            `json:"of_rows,omitempty"`
	Rate    float64          `json:"rows_per_second,omitempty"` // of the newest tasks
	Seconds float64          `json:"task_seconds"`
	Bytes   int64            `json:"bytes"`
	Counts  map[string]int64 `json:"counts"`

	ended []ending
}

// ending is the end of a task.
type ending struct {
	at      time.Time
	seconds float64
	rows    int64
}

// counted is the count of a stage's commits that are its rows.
var counted = map[string]string{extract.Name: "images", label.Name: "labels"}

// recent is how many of the newest tasks a rate is of: a run that stood still
// for a night is as fast as it is now.
const recent = 8

// stageStates sums up what a run has committed.
func stageStates(ctx context.Context, run *pipeline.Run, commits []*pipeline.Commit) (map[string]*stageState, error) {
	at := map[string]time.Time{}
	prefix := run.Path("commits/")
	err := run.Work.List(ctx, prefix, func(o bucket.Object) error {
		at[strings.TrimSuffix(strings.TrimPrefix(o.Key, prefix), ".json")] = o.ModTime
		return nil
	})
	if err != nil {
		return nil, err
	}
	states := map[string]*stageState{}
	for _, c := range commits {
		s := states[c.Stage]
		if s == nil {
			s = &stageState{Counts: map[string]int64{}}
			states[c.Stage] = s
		}
		s.Tasks++
		s.Seconds += c.Seconds
		for _, o := range c.Outputs {
			s.Bytes += o.Bytes
		}
		for k, n := range c.Counts {
			s.Counts[k] += n
		}
		rows := c.Counts[counted[c.Stage]]
		s.Rows += rows
		s.ended = append(s.ended, ending{at[c.Stage+"/"+c.Task], c.Seconds, rows})
	}
	for _, s := range states {
		s.Rate = rate(s.ended)
	}
	plan(run, commits, states)
	return states, nil
}

// rate is the number of rows per second of the newest tasks, 0 where they count
// none.
func rate(ended []ending) float64 {
	slices.SortFunc(ended, func(a, b ending) int { return a.at.Compare(b.at) })
	ended = ended[max(0, len(ended)-recent):]
	var rows int64
	var first, last time.Time
	for _, e := range ended {
		began := e.at.Add(-time.Duration(e.seconds * float64(time.Second)))
		if first.IsZero() || began.Before(first) {
			first = began
		}
		rows, last = rows+e.rows, e.at
	}
	if elapsed := last.Sub(first).Seconds(); elapsed > 0 {
		return float64(rows) / elapsed
	}
	return 0
}

// plan fills in how much there is to do, as far as earlier stages tell.
func plan(run *pipeline.Run, commits []*pipeline.Commit, states map[string]*stageState) {
	var listing list.Result
	var shards extract.Result
	for _, c := range commits {
		switch c.Stage { // what is damaged, the stages themselves report
		case list.Name:
			_ = json.Unmarshal(c.Result, &listing)
		case extract.Name:
			if shards.Heads == nil {
				_ = json.Unmarshal(c.Result, &shards)
			}
		}
	}
	of := func(stage string, tasks int64, rows int64) {
		if s := states[stage]; s != nil {
			s.Of, s.OfRows = int(tasks), rows
		}
	}
	parts := func(size int64) int64 { return (listing.Images + size - 1) / size }
	heads := int64(len(shards.Heads))
	of(list.Name, 1, 0)
	of(extract.Name, parts(run.Job.Extract.ShardRows), listing.Images)
	of(solve.Name, heads, 0)
	usable := listing.Images
	if s := states[extract.Name]; s != nil {
		usable -= s.Counts["rejected"]
	}
	of(label.Name, heads*parts(run.Job.Label.PartRows), heads*usable)
	of(publish.Name, 1, 0)
	of(train.Name, 1, 0)
}

// listed writes counts as a person does: "4000 images, 12 rejected", by name, without
// those that are zero.
func listed(counts map[string]int64) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		if counts[name] != 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[name], strings.ReplaceAll(name, "_", " ")))
		}
	}
	return strings.Join(parts, ", ")
}

// underWay is the first stage that is not complete.
func underWay(states map[string]*stageState) string {
	for _, name := range stageOrder {
		if s := states[name]; s == nil || s.Of == 0 || s.Tasks < s.Of {
			return name
		}
	}
	return ""
}

// runStatus shows how far a run is, and who works on it.
func (a *app) runStatus(ctx context.Context, job *pipeline.Job, work *bucket.Bucket, id string) error {
	run, err := pipeline.Read(ctx, work, id)
	if err != nil {
		return err
	}
	commits, err := run.AllCommits(ctx)
	if err != nil {
		return err
	}
	states, err := stageStates(ctx, run, commits)
	if err != nil {
		return err
	}
	holder, err := pipeline.LeaseHolder(ctx, work, job.Name)
	if err != nil {
		return err
	}
	a.result = map[string]any{"command": "status", "job": job.Name, "run": id, "stages": states}
	state, now := "unfinished", ""
	if !run.Finished {
		now = underWay(states)
		a.result["stage"] = now
	}
	switch {
	case run.Finished:
		state = "finished"
	case holder != nil && holder.Holds(&run.Record):
		state = fmt.Sprintf("running (process %d on %s)", holder.Holder.PID, holder.Holder.Host)
	case holder != nil:
		state = fmt.Sprintf("unfinished; the job is held by %s (process %d on %s)", holder.Name(), holder.Holder.PID, holder.Holder.Host)
	}
	if holder != nil {
		a.result["holder"] = map[string]any{"run": holder.Name(), "pid": holder.Holder.PID, "host": holder.Holder.Host}
	}
	a.result["state"] = state
	fmt.Fprintf(os.Stderr, "run %s of job %s, created %s: %s\n", run.Run, run.Job.Name, run.Created.Format(time.RFC3339), state)
	table := tabwriter.NewWriter(os.Stderr, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "STAGE\tTASKS DONE\tTASK TIME\tROWS/S\tBYTES\tCOUNTS")
	for _, name := range stageOrder {
		mark := ""
		if name == now {
			mark = " <"
		}
		s := states[name]
		if s == nil {
			fmt.Fprintf(table, "%s%s\t-\t\t\t\t\n", name, mark)
			continue
		}
		done, speed := fmt.Sprint(s.Tasks), "-"
		if s.Of > 0 {
			done = fmt.Sprintf("%d of %d", s.Tasks, s.Of)
		}
		if s.Rate > 0 {
			speed = fmt.Sprintf("%.0f", s.Rate)
		}
		fmt.Fprintf(table, "%s%s\t%s\t%.1f s\t%s\t%s\t%s\n", name, mark, done, s.Seconds, speed, human(s.Bytes), listed(s.Counts))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if s := states[now]; s != nil && s.Rate > 0 && s.OfRows > s.Rows {
		left := time.Duration(float64(s.OfRows-s.Rows) / s.Rate * float64(time.Second)).Round(time.Second)
		a.result["seconds_left_of_stage"] = left.Seconds()
		fmt.Fprintf(os.Stderr, "%s: %d of %d rows; %s to go at this rate\n", now, s.Rows, s.OfRows, left)
	}
	if t := sumExtract(commits); t != nil {
		a.result["extract_time"] = t
		fmt.Fprintf(os.Stderr, "extract waited %.0f%% of its time for the store, %.0f%% for the model; decoding took %.1f s, inference %.1f s, of all threads\n",
			100*t.Store, 100*t.Model, t.Decode, t.Inference)
	}
	return nil
}
