package resample

// twin is an implementation of the two passes. in begins with the first sample
// that an output reads.
type twin struct {
	name   string
	layout layout
	across func(t *taps, in, out pixels, rows int, s *scratch)
	down   func(t *taps, in, out pixels, bytes int, s *scratch)
}

var portable = twin{name: "portable", across: across, down: down}

// twins are the implementations this processor can run, best last.
var twins = append([]twin{portable}, native()...)

// active is the one in use.
var active = twins[len(twins)-1]
