// Package filedriver stores a bucket in a folder: it implements
// [gocloud.dev/blob/driver.Bucket] for file:// URLs.
//
// A key is the path of a file below the bucket's root, byte for byte: nothing
// is escaped, so a folder that was made by other tools is a bucket as it is,
// and what is written can be read by other tools.
//
//   - Writes are atomic and durable. The bytes go to a temporary file, which is
//     synced, then linked (create-if-absent) or renamed (replace) to its name,
//     and the folder is synced before the write returns. Of any number of
//     writers, in any number of processes, link(2) lets exactly one create a
//     key. A process that dies leaves at most a temporary file, which no
//     listing shows and a later writer sweeps when it is a day old.
//   - Listings come in key order, which is not the order of a directory walk
//     ('-' and '.' sort before '/'). They are read page by page in linear time;
//     of a folder at most a fixed number of names is held in memory, and the
//     folder is read again for the next ones.
//   - Reads follow symbolic links, wherever they lead, since people link their
//     data sets into place; listings follow them too, except back into a folder
//     that contains them, and leave out dangling ones. Writes and deletes never
//     leave the root through a link: they go through [os.Root]. A write to a key
//     that is a link replaces the link, not what it points to.
//   - An entity tag is made of inode, size and modification time. It changes
//     with every write made here, and with edits by other tools as far as the
//     modification time tells.
//   - Content type, metadata and the like are kept in one extended attribute of
//     the file, and only when they say more than "application/octet-stream". On
//     a file system without extended attributes content types are dropped and
//     metadata is refused.
//
// Every folder may hold one named [Reserved], which belongs to this package and
// is invisible: the root's holds the temporary files.
//
// gocloud's conformance tests demand keys that no file can be named by, such as
// "a//b" or "../x". They are kept under their hexadecimal form in the reserved
// folder of the root, in their place in every listing; [CheckKey] tells them
// from ordinary ones. File names that are not UTF-8 are listed, although
// package blob refuses to open them.
//
// The package needs a file system with hard links, and a Unix.
package filedriver
