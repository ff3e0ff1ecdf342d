package label

import (
	"context"
	"fmt"

	"sela/pipeline"
	"sela/schemas"
	"sela/sinkhorn"
	"sela/stages/solve"
)

// balanced are the labels of a part of a head where they are not what the
// potentials alone say: clusters were given exact counts, so that ties were
// parted, or no potentials stand behind the labels.
type balanced struct {
	name   string
	rows   []int64 // not asked for yet, ascending
	labels []int32
}

// openBalanced reads the labels of a part; nil where the potentials decide.
func openBalanced(ctx context.Context, run *pipeline.Run, solution *solve.Solution, part int) (*balanced, error) {
	if solution.Assignments == nil {
		return nil, nil
	}
	file, ok := solution.Assignments[part]
	if !ok { // no row of the part could be used
		return &balanced{name: fmt.Sprintf("part %d", part)}, nil
	}
	local, release, err := run.Fetch(ctx, file)
	if err != nil {
		return nil, err
	}
	defer release()
	b := &balanced{name: file.Name}
	if b.rows, b.labels, err = schemas.ReadAssignments(local); err != nil {
		return nil, pipeline.BadData(fmt.Errorf("%s: %w", file.Name, err))
	}
	return b, nil
}

// replace puts the labels of a block in the place of those of the potentials.
// Blocks come in row order, from the part's first row on.
func (b *balanced) replace(assignments []sinkhorn.Assignment, block *sinkhorn.Block, lambda float64, v []float64) error {
	for i, row := range block.Rows {
		if len(b.rows) == 0 || b.rows[0] != row {
			return pipeline.BadData(fmt.Errorf("%s has no label for row %d", b.name, row))
		}
		if label := b.labels[0]; label != assignments[i].Label {
			if label < 0 || int(label) >= len(v) {
				return pipeline.BadData(fmt.Errorf("%s gives row %d the label %d of %d clusters", b.name, row, label, len(v)))
			}
			assignments[i].Label = label
			assignments[i].Prob = sinkhorn.Share(block.X[i*len(v):(i+1)*len(v)], lambda, v, label)
		}
		b.rows, b.labels = b.rows[1:], b.labels[1:]
	}
	return nil
}
