package publish

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sela/pipeline"
	"sela/schemas"
	"sela/stages/internal/runtest"
	"sela/stages/label"
)

// TestGate publishes a run, spoils what a second one is compared with, and holds
// bounds against the second.
func TestGate(t *testing.T) {
	ctx := context.Background()
	d := newDataSet(t, runtest.Options{Broken: 2}).copy(t)
	d.rows(1, 0, func(all []schemas.Label) []schemas.Label {
		for i := range all {
			switch {
			case i < 15: // a quarter is in another cluster now
				all[i].Label = (all[i].Label + 1) % 3
			case i >= 50: // these are new
				return all[:i]
			}
		}
		return all
	})
	d.sign()
	second := d.of.Open(t, "run-2")
	d.of.Through(t, second, label.Name)
	gate := second.Job.Gate
	for _, test := range []struct {
		name string
		set  func(g *pipeline.Gate)
		says []string // none: it passes
	}{
		{"no bounds", func(*pipeline.Gate) {}, nil},
		{"churn within", func(g *pipeline.Gate) { g.MaxChurn = 0.31 }, nil},
		{"churn", func(g *pipeline.Gate) { g.MaxChurn = 0.29 }, []string{"head 1: 0.3 of its labels are others than in run run-1", "gate.max_churn allows 0.29", "run the same command again"}},
		{"NMI", func(g *pipeline.Gate) { g.MinNMI = 0.999 }, []string{"head 1: its labels agree with those of run run-1 by NMI 0.", "gate.min_nmi asks for 0.999"}},
		{"quarantine within", func(g *pipeline.Gate) { g.MaxQuarantine = 2.0 / 62 }, nil},
		{"quarantine", func(g *pipeline.Gate) { g.MaxQuarantine = 0.03 }, []string{"2 of 62 images (0.03226) are in quarantine, gate.max_quarantine allows 0.03"}},
		{"marginal error", func(g *pipeline.Gate) { g.MaxMarginalError = 0 }, []string{"head 0: the shares of its clusters are off by", "head 1: ", "gate.max_marginal_error allows 0"}},
		{"all at once", func(g *pipeline.Gate) { g.MaxChurn, g.MaxQuarantine = 0, 0 }, []string{"gate.max_churn", "gate.max_quarantine"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			second.Job.Gate = gate
			test.set(&second.Job.Gate)
			labels := runtest.Bucket(t, "file://"+copied(t, d.labels))
			stage := &Stage{Labels: labels}
			if _, err := stage.Plan(ctx, second); err != nil {
				t.Fatal(err)
			}
			compared, err := stage.gate(ctx, second)
			if len(test.says) == 0 {
				if err != nil || (compared == nil) == second.Job.Gate.Compares() {
					t.Fatalf("%+v, %v", compared, err)
				}
				return
			}
			if pipeline.ClassOf(err) != pipeline.Data {
				t.Fatalf("error %v", err)
			}
			for _, s := range test.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("it does not say %q: %v", s, err)
				}
			}
			if strings.Contains(err.Error(), "head 0: 0") {
				t.Errorf("head 0 did not change: %v", err)
			}
			if _, err := runtest.Runner().Run(ctx, second, stage); pipeline.ClassOf(err) != pipeline.Data {
				t.Errorf("the stage ends with %v", err)
			}
			if got := runtest.Objects(t, labels, "runs/run-2/"); len(got) > 0 {
				t.Errorf("%d objects were published", len(got))
			}
		})
	}

	t.Run("nothing before", func(t *testing.T) {
		second.Job.Gate = pipeline.Gate{MinNMI: 1, MaxQuarantine: 1, MaxMarginalError: 2}
		removed := copied(t, d.labels)
		if err := os.RemoveAll(filepath.Join(removed, "runs", "run-1")); err != nil {
			t.Fatal(err)
		}
		for name, dir := range map[string]string{"first run": t.TempDir(), "run was removed": removed} {
			stage := &Stage{Labels: runtest.Bucket(t, "file://"+dir)}
			if _, err := stage.Plan(ctx, second); err != nil {
				t.Fatal(err)
			}
			if compared, err := stage.gate(ctx, second); compared != nil || err != nil {
				t.Errorf("%s: %+v, %v", name, compared, err)
			}
		}
		// A later run, another job's and a round of a loop are none to compare with.
		stage := &Stage{Labels: runtest.Bucket(t, "file://"+d.labels)}
		if _, err := stage.Plan(ctx, second); err != nil {
			t.Fatal(err)
		}
		for name, change := range map[string]func(*pipeline.Run){
			"earlier": func(r *pipeline.Run) { r.Created = r.Created.Add(-24 * time.Hour) },
			"job":     func(r *pipeline.Run) { job := *r.Job; job.Name = "other"; r.Job = &job },
			"round":   func(r *pipeline.Run) { r.Loop = "loop" },
		} {
			run := d.of.Open(t, "run-2")
			run.Job.Gate = second.Job.Gate
			change(run)
			if before, err := stage.before(ctx, run); before != nil || err != nil {
				t.Errorf("%s: compared with %+v, %v", name, before, err)
			}
		}
	})

	t.Run("recorded", func(t *testing.T) {
		second.Job.Gate = pipeline.Gate{MaxChurn: 0.5, MaxQuarantine: 1, MaxMarginalError: 2}
		if _, err := runtest.Runner().Run(ctx, second, &Stage{Labels: runtest.Bucket(t, "file://"+d.labels)}); err != nil {
			t.Fatal(err)
		}
		result, err := Open(ctx, second)
		if err != nil {
			t.Fatal(err)
		}
		c := result.Compared
		if c == nil || c.Run != "run-1" || len(c.Heads) != 2 || *c.Heads[0].Churn != 0 || *c.Heads[1].Churn != 0.3 || c.Heads[1].Later != 10 || c.Heads[1].Earlier != 0 {
			raw, _ := json.Marshal(c)
			t.Errorf("%s", raw)
		}
	})
}

func copied(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), fmt.Sprint("copy of ", filepath.Base(dir)))
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}
