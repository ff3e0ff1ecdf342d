package sinkhorn

import (
	"bytes"
	"context"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
)

// kept is a Checkpoint that keeps every state.
type kept struct {
	states []State
	load   State
	err    error
}

func (c *kept) Load(context.Context) (State, error) { return c.load, c.err }

func (c *kept) Save(_ context.Context, s State) error {
	c.states = append(c.states, bytes.Clone(s))
	return c.err
}

func TestResumeFromEveryState(t *testing.T) {
	m := problem(41, 1100, 6, 1, 0.4)
	for i := 4; i < len(m.x); i += 6 {
		m.x[i] -= 150 // a starved cluster, known from the first pass only
	}
	all := new(kept)
	want := solve(t, m, Options{Method: MethodSinkhorn, Lambda: 10, Checkpoint: all})
	if len(all.states) != want.Passes-1 || want.Passes < 20 {
		t.Fatalf("%d states of %d passes", len(all.states), want.Passes)
	}
	for i, s := range all.states {
		m.reads.Store(0)
		rest := &kept{load: s}
		got := solve(t, m, Options{Method: MethodSinkhorn, Lambda: 10, Checkpoint: rest})
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("resumed after pass %d: %+v\nwant %+v", i+1, got, want)
		}
		if reads := m.reads.Load(); reads != int64(m.Chunks()*(want.Passes-1-i)) {
			t.Fatalf("resumed after pass %d: read %d chunks", i+1, reads)
		}
		for j, again := range rest.states {
			if !bytes.Equal(again, all.states[i+1+j]) {
				t.Fatalf("resumed after pass %d: state %d differs", i+1, i+1+j)
			}
		}
	}
}

// TestRaiseLimit goes on from a solve that ran into its iteration limit.
func TestRaiseLimit(t *testing.T) {
	m := problem(42, 1500, 5, 1.2, 0.4)
	want := solve(t, m, Options{Method: MethodSinkhorn, Lambda: 20})
	first := new(kept)
	if res := solve(t, m, Options{Method: MethodSinkhorn, Lambda: 20, MaxIterations: 8, Checkpoint: first}); res.Status != IterationLimit {
		t.Fatal(res.Status)
	}
	got := solve(t, m, Options{Method: MethodSinkhorn, Lambda: 20, Checkpoint: &kept{load: first.states[len(first.states)-1]}})
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

func TestRefusedStates(t *testing.T) {
	m := problem(43, 1500, 4, 1, 0)
	saved := new(kept)
	solve(t, m, Options{Method: MethodSinkhorn, Checkpoint: saved})
	s := saved.states[3]
	replace := func(old, with string) State {
		if !bytes.Contains(s, []byte(old)) {
			t.Fatalf("no %s in %s", old, s)
		}
		return bytes.Replace(s, []byte(old), []byte(with), 1)
	}
	for _, c := range []struct {
		name  string
		state State
		o     Options
		want  string
	}{
		{"cut", s[:len(s)/2], Options{Method: MethodSinkhorn}, "remove it"},
		{"empty", State{}, Options{Method: MethodSinkhorn}, "remove it"},
		{"changed", replace(`"passes":4`, `"passes":5`), Options{Method: MethodSinkhorn}, "checksum"},
		{"format", replace(stateFormat, "something"), Options{Method: MethodSinkhorn}, "format"},
		{"version", replace(`"version":2`, `"version":3`), Options{Method: MethodSinkhorn}, "version 3"},
		{"lambda", s, Options{Method: MethodSinkhorn, Lambda: 10}, "lambda 25"},
		{"tol", s, Options{Method: MethodSinkhorn, Tol: 1}, "tol 0.1"},
		{"clusters", s, Options{Method: MethodSinkhorn, Marginals: []float64{0.5, 0.5}}, "2 marginals"},
		{"marginals", s, Options{Method: MethodSinkhorn, Marginals: []float64{0.25, 0.25, 0.3, 0.2}}, "cluster 2"},
	} {
		c.o.Checkpoint = &kept{load: c.state}
		if _, err := Solve(context.Background(), NewCPU(m, 1), c.o); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
	for name, other := range map[string]*memory{"rows": problem(43, 1400, 4, 1, 0), "clusters": problem(43, 1500, 5, 1, 0)} {
		if _, err := Solve(context.Background(), NewCPU(other, 1), Options{Method: MethodSinkhorn, Checkpoint: &kept{load: s}}); err == nil {
			t.Errorf("a state of other %s was accepted", name)
		}
	}
	failing := errors.New("disk full")
	if _, err := Solve(context.Background(), NewCPU(m, 1), Options{Method: MethodSinkhorn, Checkpoint: &kept{err: failing}}); !errors.Is(err, failing) {
		t.Errorf("error %v, want that of the checkpoint", err)
	}
}

// TestStateKeepsBits saves floats of every size.
func TestStateKeepsBits(t *testing.T) {
	s := &state{
		Method: MethodSinkhorn, Lambda: math.Pi, Tol: 0x1p-1074, Rows: 1<<62 + 1, Passes: 3, Iterations: 2, Starved: []int{1},
		Marginals: []float64{0.1, 0.2, 0.7},
		V:         []float64{math.Copysign(0, -1), math.MaxFloat64, math.Nextafter(1, 2)},
		Previous:  []float64{-0x1.123456789abcdp-1022, 1.0 / 3, -1e-300},
	}
	c := new(kept)
	if err := s.save(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	c.load = c.states[0]
	back, err := loadState(context.Background(), &Options{Method: s.Method, Lambda: s.Lambda, Tol: s.Tol, Marginals: s.Marginals, Checkpoint: c})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, s) || math.Signbit(back.V[0]) != math.Signbit(s.V[0]) {
		t.Errorf("%+v\nwant %+v", back, s)
	}
}

// FuzzState feeds damaged states: an error or a state of consistent lengths.
func FuzzState(f *testing.F) {
	c := new(kept)
	(&state{Method: MethodSinkhorn, Lambda: 25, Tol: 0.1, Marginals: []float64{1}, V: []float64{2}}).save(context.Background(), c)
	f.Add([]byte(c.states[0]))
	f.Add([]byte("{}"))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, data []byte) {
		o := Options{Method: MethodSinkhorn}.WithDefaults()
		o.Checkpoint = &kept{load: append(State{}, data...)}
		s, err := loadState(context.Background(), &o)
		if err == nil && (s == nil || len(s.V) == 0 || len(s.Marginals) != len(s.V)) {
			t.Errorf("%q was accepted as %+v", data, s)
		}
	})
}
