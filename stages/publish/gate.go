package publish

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/diff"
	"sela/stages/label/published"
)

// gate refuses label sets that are not what they claim to be, and those that the
// job's gate stops, before any of it is published. It returns the comparison
// with the run before, if the gate asked for one.
func (s *Stage) gate(ctx context.Context, run *pipeline.Run) (*diff.Comparison, error) {
	if err := s.sound(run); err != nil {
		return nil, err
	}
	g := &run.Job.Gate
	var stopped []string
	stop := func(format string, args ...any) { stopped = append(stopped, fmt.Sprintf(format, args...)) }
	all := s.shards.Listing.Images + s.shards.Listing.Rejected
	if share := float64(s.shards.Rejected) / float64(max(all, 1)); share > g.MaxQuarantine {
		stop("%d of %d images (%.4g) are in quarantine, gate.max_quarantine allows %.4g", s.shards.Rejected, all, share, g.MaxQuarantine)
	}
	for h, sol := range s.solutions {
		if sol.Labelling != nil {
			continue // it promises no shares
		}
		// What the lists left out may add to the error: see sinkhorn.Certificate.
		if e := sol.Certificate.MarginalL1 + 2*sol.Certificate.DroppedBound; e > g.MaxMarginalError {
			stop("head %d: the shares of its clusters are off by %.4g in sum, gate.max_marginal_error allows %.4g", h, e, g.MaxMarginalError)
		}
	}
	compared, err := s.compare(ctx, run)
	if err != nil {
		return nil, fmt.Errorf("gate: %w", err)
	}
	if compared != nil {
		for _, h := range compared.Heads {
			switch {
			case h.Images == 0:
				run.Notice(Name, "gate: no image in common with the run before", "head", h.Head, "run_before", compared.Run)
				continue
			case *h.Churn > g.MaxChurn:
				stop("head %d: %.4g of its labels are others than in run %s (%.4g once renumbered clusters are matched), gate.max_churn allows %.4g", h.Head, *h.Churn, compared.Run, *h.Matched, g.MaxChurn)
			}
			if *h.NMI < g.MinNMI {
				stop("head %d: its labels agree with those of run %s by NMI %.4g, gate.min_nmi asks for %.4g", h.Head, compared.Run, *h.NMI, g.MinNMI)
			}
		}
	}
	if len(stopped) > 0 {
		return nil, pipeline.BadData(fmt.Errorf("gate: nothing is published: %s; if the labels are as they should be, change the bound and run the same command again (no label is made anew); if not, mend images, model or job and start a new run with --run-id", strings.Join(stopped, "; ")))
	}
	return compared, nil
}

// compare compares the run with the one before if the gate bounds what it tells.
func (s *Stage) compare(ctx context.Context, run *pipeline.Run) (*diff.Comparison, error) {
	if !run.Job.Gate.Compares() {
		return nil, nil
	}
	before, err := s.before(ctx, run)
	if err != nil {
		return nil, err
	}
	if before == nil {
		run.Notice(Name, "gate: max_churn and min_nmi have no run before to compare with")
		return nil, nil
	}
	clusters := make([]int, len(s.solutions))
	for h := range s.solutions {
		clusters[h] = s.solutions[h].Clusters()
	}
	c, err := diff.Runs(ctx, before, run, diff.Committed(run, s.files, clusters), diff.Options{Memory: int64(run.Job.Solve.Memory), Cache: run.CacheBytes()})
	if err == nil && c.Churn != nil {
		run.Notice(Name, "gate: compared with the run before", "run_before", c.Run, "churn", *c.Churn, "nmi", *c.NMI)
	}
	return c, err
}

// before opens the run that the gate compares with: the parent, else the newest
// that the job published before this one was begun and that is still there. A
// round of a loop has none but its parent.
func (s *Stage) before(ctx context.Context, run *pipeline.Run) (*published.Run, error) {
	if run.Parent != "" {
		return published.Open(ctx, s.Labels, run.Parent)
	}
	if run.Loop != "" {
		return nil, nil
	}
	keys, err := listMarkers(ctx, s.Labels)
	if err != nil {
		return nil, err
	}
	mine := (&Latest{Run: run.Run, Created: run.Created}).marker()
	for _, key := range slices.Backward(keys) {
		if key >= mine {
			continue
		}
		l, err := readPointer(ctx, s.Labels, key)
		if err != nil {
			return nil, err
		}
		if l.Job != run.Job.Name {
			continue
		}
		before, err := published.Open(ctx, s.Labels, l.Run)
		if pipeline.ClassOf(err) != pipeline.Config { // else somebody removed it
			return before, err
		}
	}
	return nil, nil
}

// listMarkers returns the keys of the markers, the oldest run's first.
func listMarkers(ctx context.Context, labels *bucket.Bucket) ([]string, error) {
	var keys []string
	err := labels.List(ctx, markers, func(o bucket.Object) error {
		keys = append(keys, o.Key)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the runs published in %s: %w", labels.URL(), err)
	}
	slices.Sort(keys)
	return keys, nil
}
