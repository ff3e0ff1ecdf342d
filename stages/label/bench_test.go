package label_test

import (
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sela/pipeline"
	"sela/schemas"
	"sela/stages/label"
)

// BenchmarkLabel labels two row groups of one head of 128 clusters. share is the
// core time of the writer alone, on the rows that the stage wrote, over that of
// the whole stage. Both end with a file that was read again.
func BenchmarkLabel(b *testing.B) {
	for name, previous := range map[string]bool{"plain": false, "previous": true} {
		b.Run(name, func(b *testing.B) {
			s := &synthetic{images: 2 * schemas.GroupRows, clusters: []int{128}, work: folder(b), job: func(j *pipeline.Job) {
				j.Extract.ShardRows, j.Label.PartRows, j.Solve.Lambda = 8192, 2*schemas.GroupRows, 25
			}}
			run := s.open(b)
			file := s.label(b, run, 1)[0]
			ready := rows(b, run, []pipeline.Output{file}, 0)
			if previous {
				s.labels = folder(b)
				publishFiles(b, s.labels, run, []pipeline.Output{file})
				s.id, s.parent = "run-2", "run-1"
				run = s.open(b)
			}
			stage := &label.Stage{Labels: s.labels}
			tasks, err := stage.Plan(b.Context(), run)
			if err != nil {
				b.Fatal(err)
			}
			commit := run.Path("commits/label/" + tasks[0].ID + ".json")
			path := filepath.Join(b.TempDir(), "labels.parquet")
			var whole, alone, elapsed time.Duration
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				if err := s.work.Delete(b.Context(), commit); err != nil {
					b.Fatal(err)
				}
				before := coreTime(b)
				write(b, path, ready)
				alone += coreTime(b) - before
				b.StartTimer()
				before, start := coreTime(b), time.Now()
				if _, err := runner(1).Run(b.Context(), run, stage); err != nil {
					b.Fatal(err)
				}
				whole, elapsed = whole+coreTime(b)-before, elapsed+time.Since(start)
			}
			n := float64(b.N) * float64(s.images)
			b.ReportMetric(n/elapsed.Seconds(), "rows/s")
			b.ReportMetric(n/whole.Seconds(), "rows/core-s")
			b.ReportMetric(float64(file.Bytes)/float64(file.Rows), "B/row")
			b.ReportMetric(alone.Seconds()/whole.Seconds(), "share")
		})
	}
}

// write writes finished rows.
func write(b *testing.B, path string, rows []schemas.Label) {
	b.Helper()
	w, err := schemas.CreateLabels(path, schemas.LabelsMeta{Clusters: 128})
	if err != nil {
		b.Fatal(err)
	}
	for i := range rows {
		if err := w.Write(&rows[i]); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := w.Commit(); err != nil {
		b.Fatal(err)
	}
}

// coreTime is what this process has had of the cores.
func coreTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
