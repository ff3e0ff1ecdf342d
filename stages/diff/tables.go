package diff

import (
	"context"
	"fmt"
	"math"
	"strings"

	"sela/pipeline"
	"sela/schemas"
	"sela/stages/label/published"
	"sela/stages/solve"
)

// Table is the labels of one head of a run.
type Table struct {
	Clusters int   // K: labels are from 0 to K−1
	Rows     int64 // images that have a label
	Held     int64 // bytes of fetched files that Each holds at a time
	// Each calls fn for every row, ordered by key. An error of fn ends it and is
	// returned.
	Each func(ctx context.Context, fn func(*schemas.Label) error) error
}

// Tables returns the label tables of a published run, whose files by fetches. An
// error is of class Data: the run is not what it should be.
func Tables(run *published.Run, by published.Fetcher) ([]Table, error) {
	tables := make([]Table, run.Heads())
	for h := range tables {
		potentials, ok := run.Manifest.File(solve.PotentialsName(h))
		if !ok || potentials.Rows < 1 || potentials.Rows > math.MaxInt32 {
			return nil, pipeline.BadData(fmt.Errorf("run %s: its manifest tells no number of clusters of head %d (%s): check it with sela verify", run.Manifest.Run, h, solve.PotentialsName(h)))
		}
		files := run.Files(h)
		tables[h] = Table{Clusters: int(potentials.Rows), Rows: rows(files), Held: run.Held(h), Each: func(ctx context.Context, fn func(*schemas.Label) error) error {
			for _, f := range files {
				if err := run.Read(ctx, by, f, fn); err != nil {
					return err
				}
			}
			return nil
		}}
	}
	return tables, nil
}

// Committed returns the label tables that a run's label stage has committed,
// published or not.
func Committed(run *pipeline.Run, files []pipeline.Output, clusters []int) []Table {
	tables := make([]Table, len(clusters))
	for h := range tables {
		var mine []pipeline.Output
		prefix := fmt.Sprintf("labels/head=%d/", h)
		for _, f := range files {
			if strings.HasPrefix(f.Name, prefix) {
				mine = append(mine, f)
			}
		}
		tables[h] = Table{Clusters: clusters[h], Rows: rows(mine), Each: func(ctx context.Context, fn func(*schemas.Label) error) error {
			for _, f := range mine {
				if err := read(ctx, run, f, fn); err != nil {
					return err
				}
			}
			return nil
		}}
		for _, f := range mine {
			if !run.Work.Local() {
				tables[h].Held = max(tables[h].Held, f.Bytes)
			}
		}
	}
	return tables
}

func read(ctx context.Context, run *pipeline.Run, f pipeline.Output, fn func(*schemas.Label) error) error {
	local, release, err := run.Fetch(ctx, f)
	if err != nil {
		return err
	}
	defer release()
	return schemas.ReadLabels(local, fn)
}

func rows(files []pipeline.Output) (n int64) {
	for _, f := range files {
		n += f.Rows
	}
	return n
}
