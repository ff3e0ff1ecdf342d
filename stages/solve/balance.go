package solve

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"sela/pipeline"
	"sela/schemas"
	"sela/sinkhorn"
)

const assignmentsFormat = "assignments/head-%d/part-%05d.parquet"

// AssignmentsName is the logical name of the labels of a head in a label part,
// where they are not what the potentials alone say.
func AssignmentsName(head, part int) string {
	return fmt.Sprintf(assignmentsFormat, head, part)
}

// balance gives every cluster its exact number of rows: it replaces the
// result's potentials and counts, and uploads the labels, cut at the row
// numbers of label parts.
func (v *solver) balance(ctx context.Context, a *pipeline.Attempt, head int, r *sinkhorn.Result) error {
	b, rows, passes, err := sinkhorn.Exact(ctx, v.evaluator.(sinkhorn.Lister), r.V, v.options)
	if err != nil {
		return err
	}
	r.V, r.Counts, r.Certificate = b.V, b.Counts, r.Certificate.WithExact(b, v.options.Marginals, passes)
	labels := b.Labels
	for part := 0; len(rows) > 0; part++ {
		n, _ := slices.BinarySearch(rows, int64(part+1)*a.Run.Job.Label.PartRows)
		path := filepath.Join(a.Dir, "assignments.parquet")
		stats, err := schemas.WriteAssignments(path, rows[:n], labels[:n], map[string]string{"head": fmt.Sprint(head)})
		if err != nil {
			return err
		}
		if err := a.Upload(ctx, path, AssignmentsName(head, part), stats); err != nil {
			return err
		}
		rows, labels = rows[n:], labels[n:]
	}
	return nil
}
