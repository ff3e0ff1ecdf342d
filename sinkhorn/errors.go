package sinkhorn

import (
	"errors"
	"fmt"
	"math"
)

var (
	// ErrNotConverged is the error of a Status that stopped before the
	// tolerance was met. No labels should be published from such a result.
	ErrNotConverged = errors.New("sinkhorn: not converged")

	// ErrNoRows is returned for a source without a single row.
	ErrNoRows = errors.New("sinkhorn: no rows")

	// ErrTooFewRows is returned for fewer rows than clusters when every
	// cluster is to get an equal share, which no labelling can give.
	ErrTooFewRows = errors.New("sinkhorn: fewer rows than clusters")

	// ErrOptions is wrapped by every error about Options or a Request.
	ErrOptions = errors.New("sinkhorn: invalid options")

	// ErrSource is wrapped by errors about a Source or an Evaluator that does
	// not keep its contract: blocks of the wrong size, rows out of place, a
	// number of rows that changes between passes.
	ErrSource = errors.New("sinkhorn: inconsistent source")

	// ErrListsFull is returned when lists exceed the memory allowed and there
	// is no file to spill them to, or a spill file has no room left.
	ErrListsFull = errors.New("sinkhorn: lists exceed the memory allowed")

	// ErrState is wrapped by errors about a checkpoint that is damaged or
	// belongs to another problem.
	ErrState = errors.New("sinkhorn: unusable checkpoint")
)

// RowError reports a row that no method can assign.
type RowError struct {
	Row    int64  // row number
	Reason string // what is wrong with its log-probabilities
}

func (e *RowError) Error() string {
	return fmt.Sprintf("sinkhorn: row %d: %s", e.Row, e.Reason)
}

// ColumnError reports clusters whose probability is zero in every row: no
// potentials can give them a share.
type ColumnError struct {
	Clusters []int // ascending
}

func (e *ColumnError) Error() string {
	if len(e.Clusters) == 1 {
		return fmt.Sprintf("sinkhorn: cluster %d has log-probability -Inf in every row", e.Clusters[0])
	}
	return fmt.Sprintf("sinkhorn: clusters %s have log-probability -Inf in every row", listed(e.Clusters))
}

// listed names the first few of a list of clusters.
func listed(clusters []int) string {
	const shown = 8
	if len(clusters) <= shown {
		return fmt.Sprint(clusters)
	}
	return fmt.Sprintf("%v and %d more", clusters[:shown], len(clusters)-shown)
}

// rowError says why a row of log-probabilities has no log-sum-exp.
func rowError(row int64, x []float32) error {
	finite := false
	for k, v := range x {
		switch {
		case v != v:
			return &RowError{row, fmt.Sprintf("log-probability of cluster %d is NaN", k)}
		case math.IsInf(float64(v), 1):
			return &RowError{row, fmt.Sprintf("log-probability of cluster %d is +Inf", k)}
		case !math.IsInf(float64(v), -1):
			finite = true
		}
	}
	if !finite {
		return &RowError{row, "every log-probability is -Inf"}
	}
	return &RowError{row, "the scores overflow float64"}
}
