// Package schemas holds every table that a run reads or writes: its columns,
// its file format, its writer and its reader. It is the only package that
// knows Arrow or Parquet.
//
// # Tables
//
//	images      row, key, member, size, etag, offset                 one row per image; rows dense
//	quarantine  row (optional), key, key_hex, member, stage, class,  one row per unusable image
//	            message
//	logprobs    row, log_p [K]float32 (nats), sha256 where asked;    one row per usable image and head
//	            or log_p_max, log_p_step, log_p_gap in its place
//	features    row, features [D]float32                             one row per usable image
//	sample      row, log_p [K]float32                                the solver's sample
//	potentials  cluster, potential float64 (nats)                    one row per cluster
//	labels      row, key, member, sha256, label, prob, model_label,  one row per usable image and head;
//	            model_prob, prev_label, top_k where asked            what downstream teams read
//	evaluation  network, source, split, images, measure, value, and  one row per measure
//	            chance, dim, k, sigma, l2, clusters where they apply
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
// # The compact form
//
// Log-probabilities can be stored in half the bytes ([BlocksMeta].Compact): a row
// is its maximum log_p_max, a step log_p_step (both float32, nats) and log_p_gap,
// K little-endian uint16 codes, so that
//
//	log_p[k] = log_p_max − log_p_step·log_p_gap[k]
//
// rounded to float32. Code 65535 is −Inf. The step is the smallest power of two,
// from 2⁻²⁰ to 2⁻⁸, with which 65534 steps reach the row's smallest finite value;
// values more than 256 nats below the maximum become the last finite code. NaN
// and +Inf are refused. All columns are required, and their payloads lie as above.
//
// The step is the row's own because no common one serves. Of 100,000 rows of
// K = 300 normal logits, so many had another label than from float32, at λ = 25
// under solved potentials; "dead" rows have 2 % of their logits so much lower:
//
//	deviation, dead     step 2⁻⁹    2⁻¹⁰    2⁻¹¹    2⁻¹²    of the row
//	0.3                      249     130      56      32             4
//	3                         25      11       5       1             4
//	6                          9       4       1       3             3
//	3, by 20                  25      11       5   99662             9
//	3, by 40                  25      11   99676   99676            11
//	6, by 80                   9   99682   99682   99682             9
//	0.3, by 80               249   99665   99665   99665           249
//
// The shares are much the same at K = 3,000. A step fine enough for flat rows
// does not reach dead clusters: once a cluster has the last code in every row,
// its high potential wins every row.
//
// # Safety
//
// A caller verifies a file's SHA-256 against its commit before it opens the
// file here. The readers check what they can (footer against file size,
// columns against the table, metadata against row groups) and answer damage
// with [ErrCorrupt], but Parquet's page formats carry no checksums, and a
// flipped bit in a page can pass for another value.
package schemas
