package sinkhorn

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// failing is a Checkpoint that fails at its nth Save, counted from 1, as a
// full disk does; it holds what was saved before.
type failing struct {
	held  State
	after int
}

var errDisk = errors.New("disk full")

func (c *failing) Load(context.Context) (State, error) { return c.held, nil }

func (c *failing) Save(_ context.Context, s State) error {
	if c.after--; c.after == 0 {
		return errDisk
	}
	c.held = bytes.Clone(s)
	return nil
}

// ways are solves that take each way there is to a result.
func ways() map[string]struct {
	m      *memory
	o      Options
	way    phase
	passes int // at least
} {
	c := family("C", 21, 12000, 100, 3)
	b := family("B", 22, 6000, 60, 3)
	flat, flatter := family("B", 23, 3000, 40, 0.3), family("B", 27, 12000, 12, 0.3)
	reversed := make([]float64, 60)
	for k := range reversed {
		reversed[k] = float64(100 * (k % 9))
	}
	return map[string]struct {
		m      *memory
		o      Options
		way    phase
		passes int
	}{
		"lists, sample":      {c, Options{Sample: split(c, 500)}, phaseLists, 2},
		"lists, approach":    {c, Options{}, phaseLists, 4},
		"lists, bad start":   {b, Options{Start: reversed}, phaseLists, 4},
		"lists, zero start":  {c, Options{Start: make([]float64, 100)}, phaseLists, 2},
		"lists, marginals":   {b, Options{Sample: split(b, 1200), Marginals: shares(newRand(3), "power law", 60)}, phaseLists, 1},
		"lbfgs":              {b, Options{Method: MethodLBFGS}, phaseLBFGS, 10},
		"lbfgs, sample":      {flat, Options{Sample: split(flat, 800)}, phaseLBFGS, 4},
		"sample":             {flatter, Options{Sample: split(flatter, 5500)}, phaseSample, 3},
		"lbfgs, flat":        {flat, Options{}, phaseLBFGS, 6},
		"lbfgs, starved":     {lower(problem(24, 1500, 30, 2, 0.5), -1e4, 3, 4), Options{}, phaseLBFGS, 8},
		"lbfgs, full lists":  {c, Options{Memory: 1}, phaseLBFGS, 8},
		"lbfgs after stalls": {problem(78, 3000, 20, 3, 0.5), Options{Lambda: 200}, phaseLBFGS, 10},
		"scaling":            {flat, Options{Tol: 1e-8}, phaseScaling, 20},
	}
}

// shorten makes L-BFGS give way soon where the way is to be scaling.
func shorten(t *testing.T, way phase) {
	if way == phaseScaling {
		t.Cleanup(func() { lbfgsMaxPasses = 400 })
		lbfgsMaxPasses = 7
	}
}

// TestResume kills solves at every Save and goes on with other workers, each
// solve reading blocks of other sizes: the result has the same bits.
func TestResume(t *testing.T) {
	ctx := context.Background()
	for name, c := range ways() {
		t.Run(name, func(t *testing.T) {
			shorten(t, c.way)
			all := new(kept)
			o := c.o
			o.Checkpoint, o.Workers = all, 1
			want, err := Solve(ctx, NewCPU(c.m, 1), o)
			if err != nil {
				t.Fatal(err)
			}
			verify(t, c.m, o, want)
			p := want.Certificate
			largest := 0
			for _, s := range all.states {
				largest = max(largest, len(s))
			}
			t.Logf("%v by %s, %s: %d passes, %d states of at most %d bytes", p.Status, p.Way, p.Proof, p.Passes, len(all.states), largest)
			if p.Status != Converged || p.Way != c.way || p.Passes < c.passes {
				t.Fatalf("%v by %s after %d passes, want %s and at least %d", p.Status, p.Way, p.Passes, c.way, c.passes)
			}
			o.Checkpoint = &kept{load: all.states[len(all.states)-1]}
			if got, err := Solve(ctx, NewCPU(c.m, 2), o); err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("from the last state: %+v, %v\nwant %+v", got, err, want)
			}
			stride := 1 + len(all.states)/12
			if raceEnabled {
				stride = 1 + len(all.states)/3
			}
			for n := 1; n <= len(all.states); n += stride {
				o.Checkpoint = &failing{after: n}
				if _, err := Solve(ctx, NewCPU(c.m, 2), o); !errors.Is(err, errDisk) || !strings.Contains(err.Error(), "save state after pass") {
					t.Fatalf("save %d: error %v, want that of the checkpoint", n, err)
				}
				rest := &kept{load: o.Checkpoint.(*failing).held}
				o.Checkpoint, o.Workers = rest, 1+n%3
				got, err := Solve(ctx, NewCPU(c.m, 1+n%4), o)
				if err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("killed at save %d: %+v\nwant %+v", n, got, want)
				}
				again := all.states[n-1:]
				if n == 1 {
					again = all.states
				}
				for i, s := range rest.states {
					if !bytes.Equal(s, again[i]) {
						t.Fatalf("killed at save %d: state %d differs", n, i)
					}
				}
			}
		})
	}
}

// TestNotConverged stops every way after every number of passes: a status that
// says so, and from the last state a solve with a higher limit ends as if it had
// never been stopped.
func TestNotConverged(t *testing.T) {
	ctx := context.Background()
	for name, c := range ways() {
		t.Run(name, func(t *testing.T) {
			shorten(t, c.way)
			o := c.o
			want := solve(t, c.m, o)
			for _, limit := range []int{1, 2, 3, 5, want.Passes / 2, want.Passes - 1} {
				if limit < 1 || limit >= want.Passes || raceEnabled && limit > 1 && limit != want.Passes/2 {
					continue
				}
				saved := new(kept)
				at := o
				at.MaxIterations, at.Checkpoint = limit, saved
				res := solve(t, c.m, at)
				verify(t, c.m, at, res)
				// A pass whose lists became too long certifies nothing: one follows.
				if res.Status != IterationLimit || !errors.Is(res.Status.Err(), ErrNotConverged) || res.Passes != limit && res.Passes != limit+1 {
					t.Errorf("limit %d: %v after %d passes", limit, res.Status, res.Passes)
				}
				at.MaxIterations, at.Checkpoint = 0, &kept{load: saved.states[len(saved.states)-1]}
				got, err := Solve(ctx, NewCPU(c.m, 2), at)
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("limit %d, raised: %+v, %v\nwant %+v", limit, got, err, want)
				}
			}
		})
	}
}

// TestStatesOfOthers offers states of one problem to another.
func TestStatesOfOthers(t *testing.T) {
	c := family("C", 21, 12000, 100, 3)
	all := new(kept)
	solve(t, c, Options{Checkpoint: all})
	mid := all.states[len(all.states)/2]
	for name, o := range map[string]Options{
		"method": {Method: MethodLBFGS}, "scaling": {Method: MethodSinkhorn}, "lambda": {Lambda: 24}, "tol": {Tol: 1e-7},
		"marginals": {Marginals: shares(newRand(1), "power law", 100)},
	} {
		o.Checkpoint = &kept{load: mid}
		if _, err := Solve(context.Background(), NewCPU(c, 1), o); !errors.Is(err, ErrState) {
			t.Errorf("%s: %v", name, err)
		}
	}
	flat, states := family("B", 23, 8000, 40, 0.3), new(kept)
	solve(t, flat, Options{Sample: split(flat, 2000), Checkpoint: states})
	if _, err := Solve(context.Background(), NewCPU(flat, 1), Options{Checkpoint: &kept{load: states.states[0]}}); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "sample") {
		t.Errorf("without the sample: %v", err)
	}
	for name, m := range map[string]*memory{"rows": family("C", 21, 11000, 100, 3), "clusters": family("C", 21, 12000, 99, 3)} {
		if _, err := Solve(context.Background(), NewCPU(m, 1), Options{Checkpoint: &kept{load: mid}}); err == nil {
			t.Errorf("a state of other %s was accepted", name)
		}
	}
}
