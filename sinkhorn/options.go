package sinkhorn

import (
	"fmt"
	"math"

	"sela/sinkhorn/internal/kernel"
)

// Method names a way to the potentials.
type Method string

const (
	// MethodLists solves on lists of each row's entries near its best, and
	// proves the result on all of them: a handful of passes. Where rows are
	// too flat for lists it is MethodLBFGS.
	MethodLists Method = "lists"

	// MethodLBFGS minimises the semi-dual by limited-memory BFGS on full
	// passes.
	MethodLBFGS Method = "lbfgs"

	// MethodSinkhorn alternates row and column scaling, one pass for each
	// iteration, with the reference's start and stop rule.
	MethodSinkhorn Method = "sinkhorn"

	// MethodFixed takes the potentials as given and makes the one pass that
	// certifies them on these rows.
	MethodFixed Method = "fixed"
)

// Defaults of Options. λ, DefaultChange and the limit are the reference's.
const (
	DefaultMethod        = MethodLists
	DefaultLambda        = 25.0
	DefaultTol           = 1e-6 // of the shares, MethodLists and MethodLBFGS
	DefaultChange        = 0.1  // of the row scalings, MethodSinkhorn
	DefaultMaxIterations = 20000
	DefaultMemory        = 512 << 20 // bytes
)

// Options says what Solve solves and how. The zero value of each field means
// its default.
type Options struct {
	// Method is MethodLists unless set.
	Method Method

	// Lambda is λ, the factor on log p: 25 unless set. Larger is closer to
	// the linear programme and takes more iterations.
	Lambda float64

	// Tol ends a solve. MethodLists and MethodLBFGS end when the shares of
	// the clusters have an L1 error Σ_k |m_k − b_k| ≤ Tol: 1e-6 unless set.
	// MethodSinkhorn ends when Σ_i |c_i/c'_i − 1| ≤ Tol on a checked iteration,
	// a sum over rows: 0.1 unless set.
	Tol float64

	// MaxIterations ends a solve without success after so many full passes, or
	// iterations of MethodSinkhorn: 20,000 unless set.
	MaxIterations int

	// Marginals holds the share b_k > 0 that each cluster is to get; they sum
	// to 1 within 1e-9. nil means 1/K each.
	Marginals []float64

	// Potentials are the K potentials of MethodFixed, in nats.
	Potentials []float64

	// Start holds K potentials of an earlier round, in nats, where
	// MethodLists and MethodLBFGS may start. nil for none.
	Start []float64

	// Sample is what MethodLists and MethodLBFGS look for a start on; nil for
	// none.
	Sample *Sample

	// Anneal holds ascending values of λ below Lambda at which the sample is
	// solved in turn first, each from the solution of the one before.
	Anneal []float64

	// Memory bounds the lists that MethodLists holds, in bytes: 512 MiB unless
	// set. Spill takes those beyond it; without one MethodLBFGS takes over.
	Memory int64
	Spill  Spill

	// Workers is the number of goroutines that work on lists and samples, at
	// least 1. It changes no bit of a result.
	Workers int

	// Recorder is told of every pass, where it is not nil.
	Recorder Recorder

	// Checkpoint keeps the state between passes, where it is not nil.
	Checkpoint Checkpoint
}

// WithDefaults returns o with the default in place of each unset field that
// has one.
func (o Options) WithDefaults() Options {
	if o.Method == "" {
		o.Method = DefaultMethod
	}
	if o.Lambda == 0 {
		o.Lambda = DefaultLambda
	}
	if o.Tol == 0 {
		o.Tol = DefaultTol
		if o.Method == MethodSinkhorn {
			o.Tol = DefaultChange
		}
	}
	if o.Memory == 0 {
		o.Memory = DefaultMemory
	}
	o.Workers = max(o.Workers, 1)
	if o.MaxIterations == 0 {
		o.MaxIterations = DefaultMaxIterations
	}
	return o
}

// Validate reports the first thing wrong with o, whose unset fields count as
// their defaults. Errors wrap ErrOptions.
func (o Options) Validate() error {
	o = o.WithDefaults()
	if !(o.Lambda > 0) || math.IsInf(o.Lambda, 1) {
		return fmt.Errorf("%w: lambda is %v, want a positive number", ErrOptions, o.Lambda)
	}
	if !(o.Tol > 0) || math.IsInf(o.Tol, 1) {
		return fmt.Errorf("%w: tol is %v, want a positive number", ErrOptions, o.Tol)
	}
	if o.MaxIterations < 1 {
		return fmt.Errorf("%w: max iterations is %d, want at least 1", ErrOptions, o.MaxIterations)
	}
	if err := checkMarginals(o.Marginals); err != nil {
		return err
	}
	switch o.Method {
	case MethodLists, MethodLBFGS:
		last := 0.0
		for _, lambda := range o.Anneal {
			if !(lambda > last && lambda < o.Lambda) {
				return fmt.Errorf("%w: anneal is %v, want ascending values below %v", ErrOptions, o.Anneal, o.Lambda)
			}
			last = lambda
		}
		if o.Start != nil {
			if err := checkPotentials(o.Start, len(o.Start)); err != nil {
				return err
			}
		}
		if o.Potentials != nil {
			return fmt.Errorf("%w: method %s takes potentials to start from as Start", ErrOptions, o.Method)
		}
	case MethodSinkhorn:
		if o.Potentials != nil || o.Start != nil {
			return fmt.Errorf("%w: method %s starts from 1/N, it takes no potentials", ErrOptions, o.Method)
		}
	case MethodFixed:
		if len(o.Potentials) == 0 {
			return fmt.Errorf("%w: method %s needs potentials", ErrOptions, o.Method)
		}
		if err := checkPotentials(o.Potentials, len(o.Potentials)); err != nil {
			return err
		}
		if o.Marginals != nil && len(o.Marginals) != len(o.Potentials) {
			return fmt.Errorf("%w: %d marginals for %d potentials", ErrOptions, len(o.Marginals), len(o.Potentials))
		}
	default:
		return fmt.Errorf("%w: unknown method %q, want %s, %s, %s or %s", ErrOptions, o.Method, MethodLists, MethodLBFGS, MethodSinkhorn, MethodFixed)
	}
	return nil
}

func checkMarginals(b []float64) error {
	if b == nil {
		return nil
	}
	sum := 0.0
	for k, bk := range b {
		if !(bk > 0) || math.IsInf(bk, 1) {
			return fmt.Errorf("%w: marginal of cluster %d is %v, want a positive share", ErrOptions, k, bk)
		}
		sum += bk
	}
	if !(math.Abs(sum-1) <= 1e-9) {
		return fmt.Errorf("%w: marginals sum to %v, want 1", ErrOptions, sum)
	}
	return nil
}

// PowerMarginals returns shares b_k that are proportional to (k+1)^−exponent.
func PowerMarginals(clusters int, exponent float64) []float64 {
	b, sum := make([]float64, clusters), 0.0
	for k := range b {
		b[k] = kernel.Exp(-exponent * kernel.Log(float64(k+1)))
		sum += b[k]
	}
	for k := range b {
		b[k] /= sum
	}
	return b
}

// marginals returns b for the given number of clusters.
func (o *Options) marginals(clusters int) ([]float64, error) {
	if o.Marginals != nil {
		if len(o.Marginals) != clusters {
			return nil, fmt.Errorf("%w: %d marginals for %d clusters", ErrOptions, len(o.Marginals), clusters)
		}
		return o.Marginals, nil
	}
	b := make([]float64, clusters)
	for k := range b {
		b[k] = 1 / float64(clusters)
	}
	return b, nil
}

// Recorder is told of every pass, from the goroutine that called Solve and
// after the pass. It must return soon.
type Recorder interface {
	Record(Progress)
}

// Progress describes a solve after a pass.
type Progress struct {
	Passes     int     // passes made so far, those before a resumption included
	Iterations int     // iterations whose potentials the passes have evaluated
	Rows       int64   // N
	Checked    bool    // the pass evaluated the stop rule
	Change     float64 // Σ_i |c_i/c'_i − 1|, sum over rows, where Checked
	Objective  float64 // F in nats; 0 after the pass before the first iteration
	MarginalL1 float64 // ‖m − b‖₁, a share of all rows; 0 likewise
}
