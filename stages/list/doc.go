// Package list takes the snapshot of the images that the rest of a run is a
// function of: the images table, one row per image, rows dense from 0 in order
// of (key, offset), and a digest over it.
//
// [Scan] turns a bucket into that stream of rows. It holds no listing in memory,
// reads no image, and gives the same rows for any concurrency. [Stage] runs it
// as a task of the pipeline and writes the tables; [Open] reads them back.
//
// # What is an image
//
// A loose object whose name ends in an image extension, or a member of a tar
// shard (*.tar, as WebDataset writes them) whose name does. A member is
// addressed by the offset of its first byte and its size, so that one image is
// one ranged read. Extensions count in either case. Passed over and counted:
// other extensions, keys outside the glob, what is not in the table of
// images.only, what the sample leaves out, and hidden names, that is, with an
// element that begins with "." (macOS puts a "._x.jpg" beside every x.jpg).
// Names that begin with "_" are not hidden: cameras write them. Folders are not
// counted.
//
// The name of a member is a label and half of the key (key, member) that joins
// tables downstream. It is kept exactly as the tar holds it, a leading "./"
// included, so that it equals what other tar readers show; it is never a path.
//
// # What is refused
//
// An image that cannot be used is a quarantine row without a row number, and
// the scan goes on. Its classes:
//
//	empty        an object, a tar or a member of no bytes
//	not-utf8     key or member are not UTF-8: tables and stores cannot name it
//	bad-name     a member with an absolute name, a ".." element, or a name over 4,096 bytes
//	duplicate    a member with the name of an earlier image of its tar, which is kept
//	unsupported  a compressed tar; a link, device or sparse member
//	truncated    the tar ends inside this member; the complete ones are kept
//	bad-tar      a damaged header, or data behind the end of the archive: what is before is kept
//
// A quarantine row counts for one image, also where it stands for the rest of a
// tar: nobody can count what a damaged tar would have held.
//
// # Memory
//
// Loose objects take a few batches of 256 rows, whatever their number, and the
// table of images.only some 100 bytes for each of its images. A tar
// that is indexed ahead of its turn keeps at most 64 batches of 1,024 rows or
// 64 KiB of names each (about 10 MiB in all), a 64 KiB buffer, and 16 bytes of
// hash (some 40 with the table's overhead) per image to find duplicates: 40 MiB
// for a tar of a million images. All of it times [Options.Concurrency]. Headers
// that claim more than the tar holds cost nothing; extended headers are limited
// to 1 MiB by archive/tar.
package list
