// Package extract runs the job's model over the listed images and writes what it
// says: for each head a table of log-probabilities, a sample of it, and, where
// the job asks for them, the features.
//
// [NewDesign] reconciles job and model from their files alone, [Open] loads the
// model with log-probabilities appended to its graph, [Classifier.Preflight] runs
// the first batch so that a wrong job fails before any task, and [Stage] does the
// tasks, one for each shard of the listing. [OpenShards] reads them back.
//
// # From image to table
//
// A task is a pipeline whose parts all work at once, joined by bounded queues:
//
//	fetcher ── spans ──► feeder ── images ──► workers ── batches ──► workers ──► tables
//	                                          (decode)               (infer, write)
//
// The fetcher reads ahead: as many requests at a time as extract.requests
// allows, and never more bytes than extract.read_ahead. A span is one loose
// file, or neighbouring members of a tar. The feeder takes spans in order and
// gives each image its place in a batch; it alone waits for a free batch, in
// order, so the oldest one can always go on. The workers are the stage's, not
// the task's. On a CPU there is one for each core, and each does what is ready:
// it runs a batch through ONNX Runtime, on its own thread, or else decodes an
// image straight into the session's memory and takes its sha256. So no core is
// idle while there is work, and no two threads share one. On a GPU decoders and
// runners are apart. Whoever has run the batch that comes next in order wraps
// the runtime's own buffers as Arrow batches and hands them to the tables.
//
// Tasks take turns at fetching, and in the same order at feeding: as soon as
// one has asked for its last span the next one fetches, out of the same budget,
// so that nothing stands still between two tasks.
//
// Batches are cut at fixed indices and an image that cannot be used leaves its
// place blank, so what shares a batch with an image follows from the listing.
// Together with the order at both ends this makes a shard's bytes independent of
// the number of goroutines, the store's speed and repetitions. Other shards (or
// batches) give the same rows as long as the model's outputs do not depend on
// the batch, which [Preflight.Probe] measures.
//
// # Images that cannot be used
//
// They become rows of the quarantine table and the run goes on, until more than
// images.max_rejected of all are there. Classes, besides those of package
// imageio (empty, format, truncated, corrupt, too-large, unsupported):
//
//	too-large  also: more bytes than preprocess.max_bytes; it is not read
//	missing    the object was deleted after it was listed
//	changed    the object is not the one that was listed: another tag or size, or
//	           too short. All members of such a tar are rejected, since none of
//	           their places can be trusted.
//	nan        a head gives NaN, +Inf, or −Inf for every cluster; or a feature is
//	           not finite
//
// What the store refuses to hand out (no permission, expired credentials) is not
// the image's fault and stops the run: a share of all images would otherwise be
// lost without a word. So does a store that fails for longer than the job's
// retries last; the same command goes on later.
//
// # Memory
//
// Bounded by the job, not by the number of images: a batch for each that runs
// and three more; twice extract.read_ahead (what is read, and as much in buffers
// to be used again); 64 KiB for each request; the blocks of all tables (64 MiB
// for the heads, a quarter of that for the samples; up to four times that while
// one task's are encoded and another's are filled); some 200 bytes per row of
// two shards; and what ONNX Runtime needs for the model and for the runs in
// flight. [NewEstimate] adds it up, but for the last.
package extract
