// Package device makes the solver's passes in ONNX Runtime, on a GPU or on the
// CPU, over rows that stay in the device's memory. Its [Evaluator] is a
// [sinkhorn.Evaluator]: which method runs on it is the solver's affair.
//
// # Where the rows are
//
// Rows are packed into tiles of a fixed number of rows, gaps between row
// numbers closed. [New] copies as many tiles as fit into [Options.Memory] to
// the device, in sessions of at most 2 GiB: a session's tiles are an
// initialiser of its graph, since the binding to ONNX Runtime hands out CPU
// memory only and nothing else outlives a run on the device. An initialiser is
// read from a file beside the model, so each session's tiles are written to a
// scratch file, which is removed once the session is loaded. On a GPU the data
// is then in its memory. On the CPU it is the file itself, mapped: its name is
// gone, its blocks are freed when the evaluator is closed.
//
// (The shards' own pages would save that copy, but a model may name files
// below one folder only, a head's shards may lie in several, those of a remote
// store are evicted from a cache, and uint16 pages are not float32.)
//
// Tiles that do not fit are read from the source again in every pass and sent
// to the device in batches, the next one being read while one is evaluated.
//
// # What a pass is
//
// One run per session: Scan goes over its tiles, slices of the initialiser
// without a copy, so that what is computed in between is never larger than a
// few tiles. The arithmetic is that of package sinkhorn, in float64: scores
// λ·log p + v with the product and the sum rounded, the row's maximum,
// exponentials relative to it, their sum, the shares summed down the columns
// by a product with the vector of 1/sum. Per tile the K column sums come back,
// per row its log-sum-exp, and on request its label, margin and range; these
// are added up here, tile by tile in row order.
//
// Column sums in log domain, for the pass without potentials and for clusters
// whose mass leaves the range of float64, take a second run with the rows'
// log-sum-exp as an input.
//
// Iterations are not in the graph. A pass sends 8·K bytes and receives one
// number per row and K per tile, for N·K entries read, so there are no copies
// worth saving; an iteration needs the sums over all sessions and the tiles
// that are streamed; and the update of the potentials, the stop rule and the
// checkpoints remain the solver's, the same for every evaluator.
//
// # What is equal, and what is not
//
// Scores are the CPU kernels' bits, so labels, counts, ties, the smallest
// margin and the largest range are equal to [sinkhorn.CPU]'s. Sums are not
// equal in their last bits: exponentials and logarithms are those of ONNX
// Runtime's provider and sums have another order. On one machine, provider and
// version the results are the same in every run, and for any [Options.Memory],
// any cut of the rows into shards and any gaps: sums depend on the sequence of
// the rows and the size of a tile alone.
//
// Lists are not granted. On the CPU the graph is there to be tested: a pass
// takes some twenty times as long as sinkhorn.CPU's.
package device
