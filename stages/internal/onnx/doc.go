// Package onnx treats ONNX graphs as data: it reads, describes, edits, builds
// and writes them. It runs none: the caller hands a saved model to ONNX
// Runtime (package ort) and brings numbers back where an edit needs them.
//
// # What is where
//
//   - [Load], [Parse], [Model.Save], [Model.SaveWithData]: a model and the files
//     its weights may lie in; [Fingerprint] is the identity of all of them.
//   - [Inspect]: inputs, outputs, operator sets, parameters, operators.
//   - [Model.AppendLogProbs]: from whatever a classifier puts out (logits,
//     probabilities or log-probabilities, any float type, T outputs [B, K_t] or
//     one [B, T, K]) to one float32 output of log-probabilities [B, K] per
//     head. [Model.AppendFeatures] adds an inner tensor as an output [B, D].
//   - [Model.PrependNormalise]: images as bytes instead of normalised ones.
//   - [Builder]: new graphs, or more nodes in an existing one. All edits and all
//     networks are made with it.
//   - [NewNetwork]: the built-in networks, with seeded random weights.
//   - [Model.Features]: what a model's heads read; [Model.ReplaceHeads]: new heads
//     there; [Model.Trunk]: the model up to there; [InitFrom]: a trunk's weights
//     from another model.
//   - [Calibration]: BatchNormalization's running statistics from a few batches.
//
// # What a model is
//
// A [Model] wraps the decoded file. Its Proto may be read and changed directly;
// whatever the decoder did not know is kept and written back. Functions that
// take a *Model change it only where they say so, and none is safe for
// concurrent use with a change of the same model.
//
// # External data
//
// Weights may lie in files beside the model, named by relative paths inside it.
// An edited model keeps these names, so it must be saved where the names lead to
// the same bytes: [Model.SaveWithData] copies the files to its folder. (ONNX
// Runtime finds no file for a model handed over as bytes unless the session
// option session.model_external_initializers_file_folder_path names the folder.)
//
// # Versions
//
// Models of operator set 7 and later can be edited: before 7, operators
// broadcast by other rules. The nodes added mean the same in every operator set
// since. A model's IR version is never changed; where it is below 4, an
// initialiser that is added is listed as an input as well, as that version asks.
package onnx
