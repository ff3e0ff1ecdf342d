// Package sinkhorn finds cluster assignments that fit a model's
// log-probabilities best while every cluster gets its share of the rows:
// entropic optimal transport from N rows to K clusters, solved in log domain
// by passes over a stream of rows.
//
// # The problem
//
// For x_ik = λ·log p_ik (natural log) and wanted shares b_k, the semi-dual
//
//	F(v) = mean_i log Σ_k exp(x_ik + v_k) − Σ_k b_k·v_k
//
// is convex in the K potentials v. Its gradient is m(v) − b, where
// m_k = mean_i softmax_k(x_i + v) is the share that cluster k gets. At the
// minimum the shares are the wanted ones, and row i has the label
// argmax_k (x_ik + v_k), lowest index on ties. (Asano, Rupprecht, Vedaldi,
// "Self-labelling via simultaneous clustering and representation learning",
// ICLR 2020, section 3; Cuturi, "Sinkhorn distances", NIPS 2013; Peyré and
// Cuturi, "Computational Optimal Transport", 2019, sections 4.4 and 5.3.)
//
// # The parts
//
//   - A Source yields the log-probabilities in chunks of ChunkRows row
//     numbers, as often as asked, in blocks that fit a core's cache.
//   - An Evaluator makes one pass over all rows for given potentials and
//     returns O(K) numbers, and lists if asked: CPU does it in this process. It
//     is all that a method knows of the data, so a pass elsewhere is another
//     Evaluator.
//   - Solve runs a method on an Evaluator.
//   - A Result carries potentials, Status and Certificate: what a full pass
//     under the final potentials measured, or what lists and a bound prove.
//   - A Checkpoint keeps the State between passes, a Recorder is told of them.
//   - Exact gives every cluster its exact number of rows; Assign, TopK and an
//     Assigner make labels from rows and potentials.
//
// # The methods
//
// MethodLists is the default. It starts from whichever of zero, given
// potentials and the solution on a sample has the smallest F on another
// sample. One full pass there lists, for each row, the entries within some 45
// nats of its best, about 10 of 3,000 where rows are peaked. The semi-dual of
// the lists is minimised in memory by truncated Newton. What the lists leave out
// is known at the potentials at which they were made, and grows with the
// potentials' moves by no more than a factor that is computed: mostly that
// proves the result, and no further pass is needed; else the next pass lists
// again. Where rows are too flat for lists, full passes correct the sample
// (DANE), and where that stalls L-BFGS takes over, at last plain scaling.
//
// MethodLBFGS is L-BFGS on full passes. MethodSinkhorn is the reference's
// alternating scaling, iteration for iteration; MethodFixed certifies
// potentials that are known.
//
// # Numbers
//
// All that decides is float64; float32 only screens out what cannot matter.
// Nothing is exponentiated before a row's maximum is subtracted, and the mass
// of a cluster that hardly any row likes is summed as a logarithm where a
// method depends on it, so it is solved where p^λ underflows. A log p of −Inf is
// a probability of zero; rows with NaN, +Inf or nothing but −Inf are refused by
// number (RowError), clusters that are −Inf in every row by name (ColumnError).
// Log-probabilities must be absolute, not shifted by row, for MethodSinkhorn to
// count iterations as the reference does; its first iteration is not invariant
// to such shifts, its limit is.
//
// Sums are formed per chunk and merged in chunk order, exp and log are the
// package's own and free of fused operations, so a result has the same bits for
// any number of workers, any cut of the rows into blocks, and on any processor.
//
// State is O(K), plus one block per worker, plus the lists, which are bounded
// and may go to a file: nothing of size N·K is held. Exact takes some 12 bytes a
// row.
package sinkhorn
