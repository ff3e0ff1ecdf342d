package kernel

// Shape of the screen, which is the same in every twin: a tile is tileLanes
// lanes of float32 scores, four vectors deep.
const (
	tileLanes   = 16
	tileColumns = 4 * tileLanes
)

// screenLimit bounds λ, 1/λ, |v_k| and the largest score of a row for which
// the screen's error bound is proved.
const screenLimit = 0x1p60

// twin is an implementation of the inner loops.
type twin struct {
	name string
	// block evaluates rows from i on, as Params.BlockLists does, and returns
	// the first row it leaves to the portable code: one the float32 screen
	// cannot judge, or whose list has no room in l.
	block   func(p *Params, s *Scratch, r *Rows, i int, mass []float64, x []float32, l *List) int
	logSums func(max, sum []float64, x []float32, shift, v []float64, lambda float64) (bad int)
}

var portable = twin{
	name:    "portable",
	block:   func(_ *Params, _ *Scratch, _ *Rows, i int, _ []float64, _ []float32, _ *List) int { return i },
	logSums: logSums,
}

// twins are the implementations this processor can run, best last.
var twins = append([]twin{portable}, native()...)

// active is the one in use.
var active = twins[len(twins)-1]

// Twin names the implementation in use: "avx512", "avx2", "neon" or
// "portable".
func Twin() string { return active.name }
