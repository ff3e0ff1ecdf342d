// Package loop is what rounds of labels and training have in common. A loop is
// one training of a network whose labels change between its parts:
//
//	round r of 0 … R   labels of the network as round r−1 left it, and then, but for
//	                   the last round, part r of the training on them
//
// Each round is a run of its own, of a job derived from the loop's ([Spec.RoundJob]),
// and its parent is the round before. Parameters, momenta, running statistics,
// heads and the position in the whole training pass from part to part with the
// trainer's checkpoint; learning rate and warm-up are functions of that position.
// The labels of round R are the loop's result, the network of round R−1 its
// model.
//
// A loop is recorded beside its runs:
//
//	<work>/loops/<loop>/loop.json        what it is ([Spec]), written first
//	<work>/loops/<loop>/model.onnx       the calibrated network, if it was calibrated
//	<work>/loops/<loop>/round-<r>.json   what a round came to ([Round]), when it is done
//	<work>/loops/<loop>/rounds.csv       a line for each round
//	<work>/loops/<loop>/_SUCCESS         last
package loop
