package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"sela/pipeline"
)

// progress shows a person or a log what a run is doing.
type progress struct {
	log     *slog.Logger
	bars    *mpb.Progress // nil where the output is a log
	verbose bool

	mu     sync.Mutex
	stages map[string]*stageProgress
}

// stageProgress is one bar. What the display's own goroutine reads is atomic:
// it must never wait for the lock of somebody who waits for the display.
type stageProgress struct {
	bar     *mpb.Bar
	detail  atomic.Value // string
	done    atomic.Int64
	total   int64
	started time.Time
	told    time.Time
}

// tellEvery is the pause between two progress lines of a log.
const tellEvery = 10 * time.Second

func newProgress(format string, verbose bool) (*progress, error) {
	p := &progress{verbose: verbose, stages: map[string]*stageProgress{}}
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	options := &slog.HandlerOptions{Level: level}
	switch format {
	case "auto":
		if term.IsTerminal(int(os.Stderr.Fd())) {
			p.bars = mpb.New(mpb.WithOutput(os.Stderr), mpb.WithWidth(32))
			p.log = slog.New(slog.NewTextHandler(p.bars, options))
			return p, nil
		}
		p.log = slog.New(slog.NewTextHandler(os.Stderr, options))
	case "text":
		p.log = slog.New(slog.NewTextHandler(os.Stderr, options))
	case "json":
		p.log = slog.New(slog.NewJSONHandler(os.Stderr, options))
	default:
		return nil, pipeline.BadUsage(fmt.Errorf("--log-format %q: use auto, text or json", format))
	}
	return p, nil
}

// Observe implements [pipeline.Observer].
func (p *progress) Observe(e pipeline.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stages[e.Stage]
	switch e.Kind {
	case pipeline.StageStarted:
		p.start(e)
	case pipeline.RowsDone:
		p.advance(e.Stage, s, e.Rows)
	case pipeline.PassDone:
		p.pass(e, s)
	case pipeline.StageDone:
		p.end(e, s)
	case pipeline.TaskRetried:
		p.line(slog.LevelWarn, "a task failed and is tried again", e, slog.String("error", e.Err.Error()))
	case pipeline.TaskStarted, pipeline.TaskCommitted, pipeline.TaskDiscarded:
		p.line(slog.LevelDebug, string(e.Kind), e)
	case pipeline.Notice:
		p.line(slog.LevelInfo, e.Task, pipeline.Event{Stage: e.Stage, Attrs: e.Attrs})
	}
}

func (p *progress) line(level slog.Level, message string, e pipeline.Event, more ...slog.Attr) {
	var attrs []slog.Attr
	if e.Stage != "" {
		attrs = append(attrs, slog.String("stage", e.Stage))
	}
	if e.Task != "" {
		attrs = append(attrs, slog.String("task", e.Task))
	}
	attrs = append(append(attrs, e.Attrs...), more...)
	p.log.LogAttrs(context.Background(), level, message, attrs...)
}

func (p *progress) start(e pipeline.Event) {
	s := &stageProgress{total: e.Total, started: time.Now(), told: time.Now()}
	s.detail.Store("")
	p.stages[e.Stage] = s
	if e.Tasks == e.Skipped && e.Tasks > 0 {
		return // the end says so
	}
	if p.bars == nil {
		p.line(slog.LevelInfo, "stage started", pipeline.Event{Stage: e.Stage}, slog.Int("tasks", e.Tasks), slog.Int("done_before", e.Skipped), slog.Int64("rows", e.Total))
		return
	}
	s.bar = p.bars.AddBar(max(e.Total, 0),
		mpb.PrependDecorators(decor.Name(e.Stage, decor.WCSyncSpaceR), decor.CountersNoUnit("%d / %d", decor.WCSyncSpace)),
		mpb.AppendDecorators(decor.Percentage(decor.WCSyncSpace), decor.Any(func(decor.Statistics) string {
			return " " + perSecond(s.done.Load(), time.Since(s.started))
		}), decor.Name(" ETA "), decor.OnComplete(decor.AverageETA(decor.ET_STYLE_GO), "done"),
			decor.Any(func(decor.Statistics) string { return "  " + s.detail.Load().(string) })))
}

func perSecond(rows int64, elapsed time.Duration) string {
	if elapsed <= 0 {
		return "0/s"
	}
	return fmt.Sprintf("%.0f/s", float64(rows)/elapsed.Seconds())
}

func (p *progress) advance(stage string, s *stageProgress, rows int64) {
	if s == nil {
		return
	}
	done := s.done.Add(rows)
	if s.bar != nil {
		if done > s.total {
			s.bar.SetTotal(done, false)
		}
		s.bar.IncrInt64(rows)
		return
	}
	if p.bars != nil || time.Since(s.told) < tellEvery {
		return
	}
	s.told = time.Now()
	elapsed := time.Since(s.started)
	attrs := []slog.Attr{slog.Int64("rows", done), slog.String("rate", perSecond(done, elapsed))}
	if s.total > 0 && done > 0 {
		left := time.Duration(float64(elapsed) * float64(s.total-done) / float64(done))
		attrs = append(attrs, slog.Int64("of", s.total), slog.Duration("eta", left.Round(time.Second)))
	}
	p.line(slog.LevelInfo, "progress", pipeline.Event{Stage: stage}, attrs...)
}

// pass reports a pass of the solver: how many there will be is not known.
func (p *progress) pass(e pipeline.Event, s *stageProgress) {
	if s == nil {
		return
	}
	detail := e.Task
	for _, a := range e.Attrs {
		if a.Value.Kind() == slog.KindFloat64 {
			detail += fmt.Sprintf(" %s %.2e", a.Key, a.Value.Float64())
		} else {
			detail += fmt.Sprintf(" %s %v", a.Key, a.Value.Any())
		}
	}
	s.detail.Store(detail)
	if p.bars == nil && time.Since(s.told) >= tellEvery {
		s.told = time.Now()
		p.line(slog.LevelInfo, "solving", e)
	}
}

func (p *progress) end(e pipeline.Event, s *stageProgress) {
	if s != nil && s.bar != nil {
		s.detail.Store("")
		s.bar.SetTotal(max(s.done.Load(), e.Rows), false)
		s.bar.SetCurrent(max(s.done.Load(), e.Rows))
		s.bar.SetTotal(-1, true)
		return
	}
	if e.Tasks == e.Skipped && e.Tasks > 0 {
		p.line(slog.LevelInfo, "stage was done before", pipeline.Event{Stage: e.Stage}, slog.Int("tasks", e.Tasks))
		return
	}
	rows := e.Rows
	if s != nil {
		rows = max(rows, s.done.Load())
	}
	p.line(slog.LevelInfo, "stage done", pipeline.Event{Stage: e.Stage}, slog.Int64("rows", rows),
		slog.String("rate", perSecond(rows, e.Elapsed)), slog.Duration("elapsed", e.Elapsed.Round(time.Millisecond)))
}

// close ends the display.
func (p *progress) close() {
	if p.bars == nil {
		return
	}
	p.mu.Lock()
	for _, s := range p.stages {
		if s.bar != nil && !s.bar.Completed() {
			s.bar.Abort(false)
		}
	}
	p.mu.Unlock()
	p.bars.Wait()
}

func (p *progress) failed(err error) {
	class := pipeline.ClassOf(err)
	log := p.log
	if p.bars != nil {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil)) // the display has ended
	}
	level := slog.LevelError
	if class == pipeline.NothingNew {
		level = slog.LevelInfo
	}
	log.Log(context.Background(), level, err.Error(), "class", class.String())
}
