package loop

import (
	"math"

	"sela/pipeline"
)

// Ends returns, for each of R = rounds parts, the number of epochs of the whole
// training after which it ends: where the labels of the next round are made. The
// last is the whole training, rounds × epochs.
//
// Schedule even gives every part as much. Schedule power puts round i at
// (i/R)^power of the training, so that labels change often at the beginning. The
// SeLa reference (main.py) makes labels nopts times, at
// (E + 1.01)·linspace(0, 1, nopts)² epochs. With R = nopts − 1 and power 2 these are
// the same shares: there of E + 1.01 epochs, so that the last labels come within
// the last iterations of the E + 1 epochs that it runs; here of the whole training,
// so that they come at its end.
func Ends(spec pipeline.Loop, rounds, epochs int) []float64 {
	total := float64(rounds) * float64(epochs)
	ends := make([]float64, rounds)
	for r := range ends {
		share := float64(r+1) / float64(rounds)
		if spec.Schedule == "power" {
			share = math.Pow(share, spec.Power)
		}
		ends[r] = total * share
	}
	ends[rounds-1] = total
	return ends
}

// decayed is the share of its base to which the learning rate must have fallen
// before churn may end a loop: while the rate is high, labels that stand still
// say little.
const decayed = 0.1

// Settled tells whether a round's labels end the loop: a smaller share of them
// than stop_churn has changed, and the learning rate, which the last step before
// them had, has fallen to a tenth of its base. A rate that is still rising, in
// the warm-up, has not fallen.
func (s *Spec) Settled(round int, churn, rate float64) bool {
	b := s.Job.Train.Builtin
	warm := b.Warmup * float64(s.Total())
	// A rate of exactly a tenth of the base may be a bit more than that in floats.
	return churn < s.Job.Loop.StopChurn && rate <= decayed*b.Rate*(1+1e-9) && s.Epoch(round) > warm
}
