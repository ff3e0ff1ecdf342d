// Package export writes the labels of one head of a published run in the forms
// that other tools read.
//
//	imagefolder   labels.csv: path,label,confidence, a line for each image
//	webdataset    a tar beside each tar of images, under the same key: for every
//	              labelled image NAME.ext of it NAME.cls, the label, and NAME.json,
//	              the row; what WebDataset takes for one sample with the image
//	label-studio  tasks-*.json, tasks with the label as a prediction, and config.xml,
//	              the labelling interface that they belong to
//	torch         labels.int64, probs.float32, names.utf8, ends.int64 and index.json:
//	              arrays that torch.from_file maps into memory; see [torchIndex]
//
// An export owns the folder or the bucket it is written to. _export.json is
// written first and says which export it is; another one is refused there. Each
// object appears whole or not at all, and _SUCCESS last: an export that was cut
// off goes on when it is given again. The bytes depend on the label table and
// the options alone.
//
// Memory is that of one row group of the label table; for webdataset 16 bytes
// for each image of a tar come on top. Objects are written to local scratch
// first, one at a time (torch: five), within the bound that the caller sets.
//
// Keys and names come from whoever owns the images. Each format escapes what its
// syntax can escape, and an image that it cannot name unmistakably, or whose
// name would lead a reader out of the images' folder, ends the export with an
// error that quotes it: a label that is silently left out would be worse.
package export
