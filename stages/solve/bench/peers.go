//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"sela/sinkhorn"
	"sela/stages/internal/report"
)

// peerTargets are the errors to which peers are timed.
var peerTargets = []float64{1e-3, 1e-6}

// peerReport is a line of peers.py.
type peerReport struct {
	Peer    string                 `json:"peer"`
	Package string                 `json:"package"`
	Failed  string                 `json:"failed"`
	Targets map[string]*peerMoment `json:"targets"`
	Best    *peerMoment            `json:"best"`
	OwnStop *peerMoment            `json:"own_stop"`
	Prepare float64                `json:"prepare_s"`
	RSS     float64                `json:"rss_gib"`
}

type peerMoment struct {
	Iterations int     `json:"iterations"`
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpu_seconds"`
	Error      float64 `json:"error"`
}

// peers times other solvers on the same matrix.
func (b *bench) peers(ctx context.Context) (err error) {
	rows, clusters, limit := b.rows(50_000), 1000, 2*time.Minute
	if b.quick {
		rows, clusters, limit = 8192, 128, 3*time.Second
	}
	m, err := newFamily("B", rows, clusters, 1)
	if err != nil {
		return err
	}
	sets, err := b.write(ctx, "peers", m, float32Form)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove(sets)) }()
	matrix := filepath.Join(b.scratch, "peers.npy")
	if err := writeNpy(matrix, m); err != nil {
		return err
	}
	defer os.Remove(matrix)
	t := &report.Table{Title: fmt.Sprintf("Peers on the same matrix: family B, %d × %d, λ = %v, %d cores", rows, clusters, sinkhorn.DefaultLambda, b.workers),
		Columns: []string{"solver", "package", "s to 1e-3", "s to 1e-6", "iterations or passes", "best L1", "own rule s", "preparation s", "peak RSS GiB", "/ ours at 1e-3", "/ ours at 1e-6"}}
	t.Note("Ours: a process of its own from the shards in the page cache, its opening of the shards, check of their sha256 and reading of the sample included: the best of %d. It is not asked for less than 1e-6.", b.repeat)
	t.Note("Peers: the matrix is in memory, and the clock runs in the solver alone. > : not within %s; the error is the best seen, from the potentials, in float64. own rule: seconds until the reference's stop rule holds.", limit)
	ours, err := b.ours(ctx, t, sets[0])
	if err != nil {
		return err
	}
	failed := error(nil)
	if _, err := os.Stat(b.python); err != nil {
		t.Note("No peers were measured: %v. A plain make bench-solver installs them.", err)
	} else {
		failed = b.runPeers(ctx, t, matrix, ours, limit)
	}
	return errors.Join(failed, b.report(t))
}

func (b *bench) ours(ctx context.Context, t *report.Table, d *dataset) (*outcome, error) {
	paths, err := d.everything(ctx)
	if err != nil {
		return nil, err
	}
	if err := warm(ctx, paths, b.workers); err != nil {
		return nil, err
	}
	var best *outcome
	for range b.repeat {
		out, err := request{Dataset: *d, Method: lists, Workers: b.workers, Sampled: true}.inChild(ctx)
		if err != nil {
			return nil, err
		}
		if best == nil || out[0].Seconds < best.Seconds {
			best = &out[0]
		}
	}
	t.Add("this, "+lists, "", best.Seconds, best.Seconds, best.Passes, best.L1, nil, best.Steps[0].Seconds, gib(best.PeakRSS), 1.0, 1.0)
	return best, nil
}

func (b *bench) runPeers(ctx context.Context, t *report.Table, matrix string, ours *outcome, limit time.Duration) error {
	say("peers: up to %s each", limit)
	cmd := exec.CommandContext(ctx, b.python, filepath.Join(b.scripts, "peers.py"), matrix,
		fmt.Sprintf("--lambda=%v", sinkhorn.DefaultLambda), fmt.Sprintf("--cap=%v", limit.Seconds()), fmt.Sprintf("--threads=%d", b.workers))
	cmd.Args = append(cmd.Args, "--target")
	for _, target := range peerTargets {
		cmd.Args = append(cmd.Args, fmt.Sprint(target))
	}
	if b.quick {
		for _, name := range []string{"sela:float64", "numpy-log:float64", "ott:float64"} {
			cmd.Args = append(cmd.Args, "--peer="+name)
		}
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", b.python, err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var r peerReport
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return errors.Join(fmt.Errorf("peers.py printed %q: %w", lines.Text(), err), cmd.Wait())
		}
		if r.Best != nil && len(r.Targets) != len(peerTargets) {
			return errors.Join(fmt.Errorf("peers.py reports %d targets of %s, want %d: %s", len(r.Targets), r.Peer, len(peerTargets), lines.Text()), cmd.Wait())
		}
		say("peer %s is done", r.Peer)
		b.addPeer(t, &r, ours, limit)
	}
	return errors.Join(lines.Err(), cmd.Wait())
}

func (b *bench) addPeer(t *report.Table, r *peerReport, ours *outcome, limit time.Duration) {
	if r.Best == nil {
		t.Add(r.Peer, r.Package, "failed: "+r.Failed)
		return
	}
	row := []any{r.Peer, r.Package}
	var ratios []any
	for _, target := range peerTargets {
		m := r.at(target)
		if m != nil {
			row, ratios = append(row, m.Seconds), append(ratios, m.Seconds/ours.Seconds)
			if target == sinkhorn.DefaultTol && b.full() {
				b.figures = append(b.figures, report.AtLeast("ahead of "+r.Peer+" at 1e-6", m.Seconds/ours.Seconds, 10, " ×"))
			}
			continue
		}
		why := "> " + report.Number(limit.Seconds())
		if r.Failed != "" {
			why = r.Failed
		}
		least := limit.Seconds() / ours.Seconds
		row, ratios = append(row, why), append(ratios, "> "+report.Number(least))
		if target == sinkhorn.DefaultTol && b.full() && r.Failed == "" {
			f := report.AtLeast("ahead of "+r.Peer+" at 1e-6", least, 10, " ×")
			f.Value = "> " + f.Value
			b.figures = append(b.figures, f)
		}
	}
	own := any(nil)
	if r.OwnStop != nil {
		own = fmt.Sprintf("%s (L1 %s)", report.Number(r.OwnStop.Seconds), report.Number(r.OwnStop.Error))
	}
	t.Add(append(append(row, r.Best.Iterations, r.Best.Error, own, r.Prepare, r.RSS), ratios...)...)
}

// at returns the moment at which a target was reached, or nil. Python and Go
// write the same number in different ways.
func (r *peerReport) at(target float64) *peerMoment {
	for name, m := range r.Targets {
		var x float64
		if _, err := fmt.Sscan(name, &x); err == nil && x == target {
			return m
		}
	}
	return nil
}
