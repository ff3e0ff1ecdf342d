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
//     numbers, as often as asked.
//   - An Evaluator makes one pass over all rows for given potentials and
//     returns O(K) numbers: CPU does it in this process. It is all that a
//     method knows of the data, so a pass elsewhere is another Evaluator.
//   - Solve runs a method on an Evaluator. MethodSinkhorn is the reference's
//     alternating scaling, iteration for iteration; MethodFixed certifies
//     potentials that are known.
//   - A Result carries potentials, Status and Certificate: what a full pass
//     under the final potentials measured.
//   - A Checkpoint keeps the State between passes, a Recorder is told of them.
//   - Assign, TopK and AssignBlock make labels from rows and potentials.
//
// # Numbers
//
// All that decides is float64. Nothing is exponentiated before a row's maximum
// is subtracted, and the mass of a cluster that hardly any row likes is
// summed as a logarithm, so it is solved where p^λ underflows. A log p of −Inf
// is a probability of zero; rows with NaN, +Inf or nothing but −Inf are
// refused by number (RowError), clusters that are −Inf in every row by name
// (ColumnError). Log-probabilities must be absolute, not shifted by row, for
// MethodSinkhorn to count iterations as the reference does; its first
// iteration is not invariant to such shifts, its limit is.
//
// Sums are formed per chunk and merged in chunk order, exp and log are the
// package's own and free of fused operations, so a result has the same bits
// for any number of workers, on any processor.
//
// State is O(K), plus one block per worker: nothing of size N is held.
package sinkhorn
