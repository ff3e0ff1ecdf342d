// Package ort runs ONNX models with ONNX Runtime: it finds the shared library,
// opens it, makes sessions and runs batches on memory that is made once and
// reused. It knows tensors and names; what they mean (images, heads, features)
// is the caller's business.
//
// A program goes through four steps:
//
//	lib, err := ort.Find(explicit, folders)      // which library, its version and digest
//	rt, err := ort.Open(lib)                     // once per process
//	s, err := rt.NewSession("model.onnx", ort.Options{})
//	slot, err := s.NewSlot(ctx, []int64{64, 3, 32, 32})
//	for … {
//		copy(slot.Inputs[0].Float32(), batch)
//		err := s.Run(ctx, slot)
//		use(slot.Outputs[0].Float32())
//	}
//
// # Concurrency
//
// One [Session] serves any number of goroutines. A [Slot] is one batch in
// flight: its input and output tensors. It belongs to one goroutine at a time,
// so the number of slots bounds both the parallelism and the memory. On a CPU
// the best throughput comes from one session with one thread per run and as
// many slots as cores.
//
// # Memory
//
// A slot's buffers are ordinary Go slices, pinned while ONNX Runtime knows
// their address, so no run allocates or copies a batch. Activations between
// the first and the last node belong to ONNX Runtime (see [Options.Arena]).
//
// # Providers
//
// [Options.Providers] is the whole list of execution providers, in order of
// preference, and nothing is added to it. A provider that cannot be had is an
// error that names what is missing. Without [CPU] in the list ONNX Runtime is
// told to refuse a model of which a node would fall back to the CPU. With CPU
// at its end, nodes that the others cannot take (usually the arithmetic on
// shapes) run there: that is asked for, hence not silent, but which nodes
// those are cannot be read back through the binding.
//
// # Cancellation
//
// A cancelled context asks ONNX Runtime to stop between two nodes of the graph
// and then waits for the call to return: tensors are never freed or reused
// under a running call. One very long node is therefore waited for.
//
// # Signals
//
// Loading the CUDA provider can replace the signal handlers of the Go runtime,
// after which a SIGSEGV or the scheduler's own signals end the process.
// Handlers are therefore put back after each step that may load a provider.
package ort
