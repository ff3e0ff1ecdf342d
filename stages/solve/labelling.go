package solve

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"slices"

	"sela/pipeline"
	"sela/schemas"
)

// Labelling states what labels are that no optimal transport stands behind:
// those of methods kmeans, deepcluster, random and truth. It is in the place of
// a certificate; it promises no shares.
type Labelling struct {
	Method        string  `json:"method"`
	Rows          int64   `json:"rows"`
	Clusters      int     `json:"clusters"`
	LargestCount  int64   `json:"largest_count"`
	SmallestCount int64   `json:"smallest_count"`
	EmptyClusters int     `json:"empty_clusters"`
	UseEntropy    float64 `json:"use_entropy_nats"` // as in a certificate

	// Centres is there for kmeans and deepcluster, Dealt for random, Classes,
	// the names by label, for truth.
	Centres *Centres `json:"centres,omitempty"`
	Dealt   *Dealt   `json:"dealt,omitempty"`
	Classes []string `json:"classes,omitempty"`
}

// Dealt says how labels were dealt.
type Dealt struct {
	Seed int64 `json:"seed"`
}

// Clusters returns the number of clusters of the head.
func (r *Result) Clusters() int {
	if r.Labelling != nil {
		return r.Labelling.Clusters
	}
	return r.Certificate.Clusters
}

// Passes returns the number of full passes over the log-probabilities, or of
// iterations over the features; 0 where labels take none.
func (r *Result) Passes() int {
	switch {
	case r.Labelling == nil:
		return r.Certificate.Passes
	case r.Labelling.Centres != nil:
		return r.Labelling.Centres.Iterations
	}
	return 0
}

// newLabelling counts labels, all in [0, clusters).
func newLabelling(method string, clusters int, labels []int32) *Labelling {
	counts := make([]int64, clusters)
	for _, k := range labels {
		counts[k]++
	}
	l := &Labelling{Method: method, Rows: int64(len(labels)), Clusters: clusters, LargestCount: slices.Max(counts), SmallestCount: slices.Min(counts)}
	for _, n := range counts {
		if n == 0 {
			l.EmptyClusters++
			continue
		}
		share := float64(n) / float64(len(labels))
		l.UseEntropy -= share * math.Log(share)
	}
	return l
}

// assign finds the labels of a head by a method that knows no potentials, and
// writes them.
func (s *Stage) assign(ctx context.Context, t pipeline.Task, a *pipeline.Attempt) error {
	var (
		rows      []int64
		labels    []int32
		labelling *Labelling
		err       error
	)
	head := t.Index
	switch method := a.Run.Job.Solve.Method; method {
	case "random":
		rows, labels, labelling, err = s.random(ctx, a, head)
	case "truth":
		rows, labels, labelling, err = s.truth(ctx, a, head)
	default:
		rows, labels, labelling, err = s.cluster(ctx, t, a)
	}
	if err != nil {
		return s.explain(ctx, err)
	}
	if err := uploadAssignments(ctx, a, head, rows, labels); err != nil {
		return err
	}
	// Potentials of 0 leave the model's own probabilities as they are.
	outcome := Result{Head: head, Labelling: labelling}
	if err := s.write(ctx, a, &outcome, make([]float64, labelling.Clusters)); err != nil {
		return err
	}
	if n := labelling.EmptyClusters; n > 0 {
		a.Run.Notice(Name, "warning about the labels", "head", head, "warning", fmt.Sprintf("%d of %d clusters have no row", n, labelling.Clusters))
	}
	a.Progress(t.Rows)
	a.Count("passes", int64(outcome.Passes()))
	return a.Result(outcome)
}

// rowNumbers returns the numbers of the rows that a head labels, ascending.
func (s *Stage) rowNumbers(ctx context.Context, a *pipeline.Attempt, head int) ([]int64, error) {
	source, err := OpenSource(a.Run, s.shards, head, 1)
	if err != nil {
		return nil, err
	}
	defer source.Close()
	numbers, err := source.numbers(ctx)
	if k := s.shards.Heads[head].Clusters; err == nil && len(numbers) < k {
		err = s.tooFew(fmt.Errorf("%d images for %d clusters", len(numbers), k))
	}
	return numbers, err
}

func (s *Stage) tooFew(err error) error {
	return pipeline.BadData(fmt.Errorf("%w (%d images, %d rejected): a labelling needs at least one image per cluster", err, s.shards.Usable(), s.shards.Rejected))
}

// uploadAssignments uploads the labels of rows, cut at the row numbers of label
// parts.
func uploadAssignments(ctx context.Context, a *pipeline.Attempt, head int, rows []int64, labels []int32) error {
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

// ReadLabelling returns what the metadata of a head's potentials say of labels
// that no potentials stand behind; nil where potentials do.
func ReadLabelling(meta map[string]string) (*Labelling, error) {
	text, ok := meta[metaLabelling]
	if !ok {
		return nil, nil
	}
	l := new(Labelling)
	if err := json.Unmarshal([]byte(text), l); err != nil {
		return nil, pipeline.BadData(fmt.Errorf("its labelling is damaged: %w", err))
	}
	return l, nil
}

// Keys of the metadata of a head's potentials: one or the other is there.
const (
	metaCertificate = "certificate"
	metaLabelling   = "labelling"
)
