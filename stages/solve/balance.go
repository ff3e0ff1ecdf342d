package solve

import (
	"context"
	"fmt"

	"sela/pipeline"
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
	return uploadAssignments(ctx, a, head, rows, b.Labels)
}
