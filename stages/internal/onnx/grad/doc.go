// Package grad differentiates ONNX networks: from an inference graph it makes a
// training step, a graph of standard operators that any runtime of ONNX can
// run. It runs none itself.
//
//	s, err := grad.NewStep(m, grad.Options{Input: "images", Heads: heads, Batch: 128, Loss: grad.CrossEntropy, SGD: …})
//	run s.Model: batch and state in, losses and next state out; again and again
//	err = s.Apply(m, values) // the trained parameters into the inference model
//
// # How it works
//
// The graph is translated node by node with every shape known, the batch being
// fixed: shapes that an export computes in the graph are computed here. Each
// translation of an operator adds its forward nodes and records how gradients
// flow back to its inputs (its vector-Jacobian product); the records are then
// played backwards from the losses (reverse mode; Griewank and Walther,
// Evaluating Derivatives, chapter 3). A value that no trained parameter feeds
// gets no gradient, so that of the images is never computed. Products in the
// backward pass are ordinary nodes; those that nothing uses are swept away.
//
// The step is written in operator set 17 whatever the model's, 7 to 22.
//
// # Training mode
//
// BatchNormalization normalises by the statistics of its batch, and its running
// statistics move as PyTorch moves them. Dropout multiplies by a mask that is an
// input. Everything else computes what it does in inference.
//
// Exports must still hold these layers: PyTorch's folds BatchNormalization into
// convolutions and drops Dropout unless torch.onnx.export is called with
// training=TrainingMode.PRESERVE (with the model in the mode it is to be exported
// in: train() keeps Dropout) and do_constant_folding=False.
//
// # Parameters
//
// What is trained is found by use, not by name: float32 initialisers that
// convolutions, products and normalisations read as their parameters, and those
// that are added, multiplied or joined to what came through a parameter. Other
// constants, such as the mean and deviation that images are normalised by, stay.
// A parameter is trained where it lies: one that an export has transposed or
// folded is trained transposed or folded. See [Options.Frozen] for exceptions.
//
// # Precision and determinism
//
// Everything is float32. Equal inputs give equal outputs, bit for bit, as far as
// the runtime's operators do; ONNX Runtime's do on a CPU with one number of
// threads. Another number may change the last bits of some gradients: a product
// with more columns than rows is divided by columns between the threads, and
// where one gets 64 or fewer, ONNX Runtime 1.24 sums in another order.
//
// # Concurrency
//
// All functions may be called concurrently, as long as no one changes the model.
package grad
