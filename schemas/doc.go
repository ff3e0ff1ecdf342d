// Package schemas holds every table that a run reads or writes: its columns,
// its file format, its writer and its reader. It is the only package that
// knows Arrow or Parquet.
//
// # Tables
//
//	images      row, key, member, size, etag, offset                 one row per image; rows dense
//	quarantine  row (optional), key, key_hex, member, stage, class,  one row per unusable image
//	            message
//	logprobs    row, log_p [K]float32 (nats), sha256 where asked     one row per usable image and head
//	features    row, features [D]float32                             one row per usable image
//	sample      row, log_p [K]float32                                the solver's sample
//	potentials  cluster, potential float64 (nats)                    one row per cluster
//	labels      row, key, member, sha256, label, prob, model_label,  one row per usable image and head;
//	            model_prob, prev_label, top_k where asked            what downstream teams read
//
// A label file has no head column: it lies in a folder head=<h>, and readers
// that know this hive layout refuse a column of the same name. The head is in
// the file's key-value metadata.
//
// # Files
//
// A table's part is one Parquet file at a local path. A writer creates it,
// takes rows, and ends with Commit or Abort: Commit writes the footer, syncs,
// re-reads the file, checks it and returns its rows, bytes and SHA-256; after
// Abort, or a Commit that failed, the file is gone. A file without Commit has
// no footer, so that no reader takes it for a whole one.
//
// The bytes of a file are a function of the rows and the metadata given to its
// writer, and of nothing else: not of batch sizes, time, host or number of
// processors. The key-value metadata says which table a file holds
// (sela.kind) and in which version of its format (sela.version, see [Version]);
// [Inspect] reads both from the footer alone.
//
// Rows of images, quarantine and labels files are cut into row groups of
// [GroupRows] rows and compressed with Zstandard. Arrow writes images and quarantine,
// xitongsys/parquet-go writes labels, and each is re-read with the other
// implementation before Commit returns: row count, smallest and largest key,
// and a checksum over the row (images, quarantine) or label (labels) column
// must agree.
//
// # Blocks
//
// The tables of float32 vectors (logprobs, features, sample) are read at the
// speed of the disk. Their row groups hold exactly BlockRows rows (the last
// one, what is left), every column of a row group is one uncompressed PLAIN
// page without dictionary or statistics, and so the values lie contiguous at
// the end of their column chunk, at the offset
//
//	DataPageOffset + TotalCompressedSize − rows·width·4
//
// of the footer. [Blocks.ReadRows] reads there directly into the caller's
// memory; no Parquet reader comes between. Commit reads every block back from
// its computed place and compares checksums. Any other Parquet reader sees a
// plain list column. Values are stored bit by bit, −Inf and NaN included.
// Payloads are little-endian, as Parquet is, and so must the host be.
//
// # Safety
//
// A caller verifies a file's SHA-256 against its commit before it opens the
// file here. The readers check what they can (footer against file size,
// columns against the table, metadata against row groups) and answer damage
// with [ErrCorrupt], but Parquet's page formats carry no checksums, and a
// flipped bit in a page can pass for another value.
package schemas
