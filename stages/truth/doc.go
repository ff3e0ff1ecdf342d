// Package truth knows the true classes of images: from the names of the folders
// they lie in, or from a table. Labelling never looks at them; they serve to
// measure labels and features, and the labeller that is given them for
// comparison.
//
// [Folders] as a source means that an image's class is the name of the last
// folder of its path: of the member's path in a tar shard, of the key for a
// loose file. An image outside any folder has no class. Every other source is
// the path or bucket URL of a CSV file (RFC 4180) with a header line, in any
// order:
//
//	key,member,class
//	cats/000012.jpg,,cat
//	shard-000.tar,000017.jpg,dog
//
// whose member is empty for a loose file.
package truth
