// Package builtin trains a network on published labels with the runtime that
// made them: no second framework.
//
//   - [OpenPublished], [Labels]: the label tables of a run and where their images
//     lie; [ReadTargets]: a table of classes instead.
//   - [Loader]: images to batches, shuffled and augmented, ahead of their use.
//   - [Train]: one training, from the last checkpoint or from the beginning.
//   - [Trigger]: a training as the last stage of a run, train.type builtin.
//
// # A training
//
// The network is any ONNX graph that package grad can differentiate. Its step,
// forward, loss, gradients and update, is itself a graph, whose outputs are its
// next inputs; ONNX Runtime computes it and this package fills the images in. On
// a device a run of the graph takes many steps in a loop, between which the state
// stays there.
// Each epoch ends with the held-out images, which the network in evaluation mode
// has never been trained on, a row of the metrics table and a checkpoint.
//
// # Parts
//
// A training whose labels change on its way is trained in parts: train.builtin.until
// ends one, and train.builtin.after begins the next with its checkpoint, wherever
// in an epoch that is. Epochs, learning rate, order and what else is drawn are
// those of the whole training, so that parts on equal labels come to what the
// whole does, to the bit. Each part ends with the held-out images, a row of the
// table and the results, as a training does.
//
// # Repeatability
//
// What is drawn, the learning rate and the order of the images are functions of
// seed, epoch, step and image. A checkpoint holds everything else: parameters,
// momenta, running statistics, position, sums. So a training that was ended
// anywhere, by a signal or by a lost machine, goes on to the same bits, on CPUs
// of one kind under one build of ONNX Runtime; CUDA's kernels promise no bits.
// Two trainings that began apart have the same bits too, unless train.builtin.forms
// is measured: then a machine chooses how it computes gradients, once for one
// local.dir.
//
// A checkpoint goes on only with the network, labels, preprocessing and settings
// it is of ([Identity]). It is replaced as a whole and never by one with a value
// that is not finite, so the newest file is always the last good one.
package builtin
