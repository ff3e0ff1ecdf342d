package sinkhorn

import "fmt"

// Status says how a solve ended.
type Status int

const (
	// Converged: the stop rule held.
	Converged Status = iota
	// Evaluated: the potentials were given, and have been certified as they
	// are.
	Evaluated
	// IterationLimit: MaxIterations passed before the stop rule held.
	IterationLimit
)

var statusNames = [...]string{"converged", "evaluated", "iteration limit"}

// String returns the status in words.
func (s Status) String() string {
	if s < 0 || int(s) >= len(statusNames) {
		return fmt.Sprintf("Status(%d)", int(s))
	}
	return statusNames[s]
}

// Err returns nil for a status that is a success, and an error that wraps
// ErrNotConverged otherwise.
func (s Status) Err() error {
	switch s {
	case Converged, Evaluated:
		return nil
	}
	return fmt.Errorf("%w: %s", ErrNotConverged, s)
}

// MarshalText writes the status in words.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *Status) UnmarshalText(text []byte) error {
	for i, name := range statusNames {
		if name == string(text) {
			*s = Status(i)
			return nil
		}
	}
	return fmt.Errorf("sinkhorn: unknown status %q", text)
}

// Result is the outcome of a solve. Check Status.Err before publishing labels
// made from it.
type Result struct {
	// V holds the K potentials in nats. Of MethodSinkhorn their scale is that
	// of the reference's log r: x_ik + V_k − lse_i is the log of the share. Of
	// the other methods they are potentials up to a common constant.
	V []float64

	Status      Status
	Iterations  int // for MethodSinkhorn; ≡ 1 mod 10 when converged
	Passes      int // full passes, the certifying one included
	Certificate Certificate

	Masses []float64 // m_k under V, a share of all rows
	Counts []int64   // rows whose label is k, under V
}
