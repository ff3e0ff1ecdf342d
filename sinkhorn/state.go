package sinkhorn

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
)

// Checkpoint keeps the state of one solve between passes, so that a solve
// that was killed goes on where it was and ends with the same bits. One
// checkpoint serves one problem: the same rows and the same options, save that
// MaxIterations may be raised.
type Checkpoint interface {
	// Load returns the state saved last, or nil where there is none.
	Load(ctx context.Context) (State, error)

	// Save replaces the state, whole or not at all. It is called after every
	// pass that another is to follow. The state is not used after it returns.
	Save(ctx context.Context, s State) error
}

// State is a solve between two passes, as bytes to be kept unseen: a JSON
// object with its format, version and checksum. Its size is about 40·K bytes.
type State []byte

const (
	stateFormat  = "sela sinkhorn state"
	stateVersion = 2
)

// state is the content of a State. Floats are written in the shortest decimal
// form that reads back as the same bits.
type state struct {
	Format     string    `json:"format"`
	Version    int       `json:"version"`
	Method     Method    `json:"method"`
	Lambda     float64   `json:"lambda"`
	Tol        float64   `json:"tol"`
	Rows       int64     `json:"rows"`
	Passes     int       `json:"passes"`     // made
	Iterations int       `json:"iterations"` // whose potentials were evaluated
	Starved    []int     `json:"starved"`    // clusters whose p^λ underflows float64 in the sum over all rows
	Marginals  []float64 `json:"marginals"`  // b
	V          []float64 `json:"v"`          // potentials of the next iteration
	Previous   []float64 `json:"previous"`   // potentials of the last one; empty before the first
	Checksum   string    `json:"checksum"`   // of everything else

	// Of MethodLists and MethodLBFGS.
	Phase        phase     `json:"phase,omitempty"`
	Share        []float64 `json:"share,omitempty"`   // of the clusters at the last potentials judged
	LastL1       float64   `json:"last_l1,omitempty"` // of the last full pass that listed
	Stalls       int       `json:"stalls,omitempty"`
	Lifts        int       `json:"lifts,omitempty"`
	SamplePasses int       `json:"sample_passes,omitempty"`
	ListSteps    int       `json:"list_steps,omitempty"`
	ListLength   float64   `json:"list_length,omitempty"` // of the last pass that listed
	Approach     bool      `json:"approach,omitempty"`    // L-BFGS only leads to where lists pay
	Unjudged     bool      `json:"unjudged,omitempty"`    // V is Options.Start, of which nothing is known yet
	Journal      []journal `json:"journal,omitempty"`     // of L-BFGS, whose start V is not replaced meanwhile
}

// journal is what a pass of L-BFGS found.
type journal struct {
	F    float64   `json:"f"`
	Mass []float64 `json:"mass"`
}

// gradient returns ∇F = m − b.
func (j *journal) gradient(b []float64) []float64 {
	g := make([]float64, len(b))
	for k := range g {
		g[k] = j.Mass[k] - b[k]
	}
	return g
}

// encode returns the state as JSON with its checksum.
func (s *state) encode() (State, error) {
	s.Format, s.Version, s.Checksum = stateFormat, stateVersion, ""
	data, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	h := fnv.New128a()
	h.Write(data)
	s.Checksum = fmt.Sprintf("fnv128a:%x", h.Sum(nil))
	return json.Marshal(s)
}

// save hands the state to the checkpoint, where there is one.
func (s *state) save(ctx context.Context, c Checkpoint) error {
	if c == nil {
		return nil
	}
	data, err := s.encode()
	if err != nil {
		return fmt.Errorf("sinkhorn: encode state after pass %d: %w", s.Passes, err)
	}
	if err := c.Save(ctx, data); err != nil {
		return fmt.Errorf("sinkhorn: save state after pass %d: %w", s.Passes, err)
	}
	return nil
}

// load returns the state of an earlier solve of the same problem, or nil.
func loadState(ctx context.Context, o *Options) (*state, error) {
	if o.Checkpoint == nil {
		return nil, nil
	}
	data, err := o.Checkpoint.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("sinkhorn: load state: %w", err)
	}
	if data == nil {
		return nil, nil
	}
	s := new(state)
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("%w: %w; remove it to start again", ErrState, err)
	}
	switch {
	case s.Format != stateFormat:
		return nil, fmt.Errorf("%w: format %q, want %q", ErrState, s.Format, stateFormat)
	case s.Version != stateVersion:
		return nil, fmt.Errorf("%w: version %d, this program reads %d; remove it to start again", ErrState, s.Version, stateVersion)
	}
	checksum := s.Checksum
	if _, err := s.encode(); err != nil || s.Checksum != checksum {
		return nil, fmt.Errorf("%w: its checksum does not match; remove it to start again", ErrState)
	}
	return s, s.matches(o)
}

// matches reports how the saved problem differs from the one to be solved.
func (s *state) matches(o *Options) error {
	clusters := len(s.V)
	b, err := o.marginals(clusters)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	differ := func(what string, saved, wanted any) error {
		return fmt.Errorf("%w: it has %s %v, the options %v; remove it to start again", ErrState, what, saved, wanted)
	}
	switch {
	case s.Method != o.Method:
		return differ("method", s.Method, o.Method)
	case s.Lambda != o.Lambda:
		return differ("lambda", s.Lambda, o.Lambda)
	case s.Tol != o.Tol:
		return differ("tol", s.Tol, o.Tol)
	case s.Phase == phaseSample && o.Sample == nil:
		return fmt.Errorf("%w: it goes on with a sample, the options have none; remove it to start again", ErrState)
	case len(s.Marginals) != clusters || len(s.Previous) != 0 && len(s.Previous) != clusters:
		return fmt.Errorf("%w: its vectors differ in length; remove it to start again", ErrState)
	}
	for k := range b {
		if s.Marginals[k] != b[k] {
			return differ(fmt.Sprintf("for cluster %d the marginal", k), s.Marginals[k], b[k])
		}
	}
	return nil
}
