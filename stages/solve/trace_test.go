package solve

import (
	"testing"

	"sela/sinkhorn"
)

// A long solve leaves a bounded, even record that ends with the certificate's
// pass.
func TestTrace(t *testing.T) {
	for _, passes := range []int{0, 1, 5, tracePasses, tracePasses + 1, 2201} {
		var tr trace
		for p := 1; p <= passes; p++ {
			tr.add(sinkhorn.Progress{Passes: p, MarginalL1: 1 / float64(p)})
		}
		got := tr.upTo(&sinkhorn.Certificate{Passes: max(passes, 1), MarginalL1: 1 / float64(max(passes, 1))})
		if len(got) == 0 || len(got) > tracePasses+1 || passes > 0 && 3*len(got) < min(passes, tracePasses) {
			t.Fatalf("%d passes: %d are recorded", passes, len(got))
		}
		if last := got[len(got)-1].Pass; last != max(passes, 1) {
			t.Errorf("%d passes: the last recorded is %d", passes, last)
		}
		for i, p := range got {
			if p.MarginalL1 != 1/float64(p.Pass) {
				t.Errorf("%d passes: pass %d has error %g", passes, p.Pass, p.MarginalL1)
			}
			if i > 0 && p.Pass <= got[i-1].Pass {
				t.Errorf("%d passes: pass %d follows pass %d", passes, p.Pass, got[i-1].Pass)
			}
		}
	}
}

// What is measured before there are potentials is no error of shares.
func TestTraceLeavesOutWhatMeasuredNothing(t *testing.T) {
	var tr trace
	tr.add(sinkhorn.Progress{Passes: 1})
	tr.add(sinkhorn.Progress{Passes: 2, MarginalL1: 0.5})
	if len(tr.passes) != 1 || tr.passes[0].Pass != 2 {
		t.Errorf("recorded %v", tr.passes)
	}
}
