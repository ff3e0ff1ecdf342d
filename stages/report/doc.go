// Package report writes the page that shows a run to people: what its clusters
// hold, how even and how sure they are, how the solve converged, how the rounds
// of a loop went, what was quarantined, where the time went, and what made it
// all.
//
//	report/index.html             everything but the clusters' images
//	report/data/head-<h>.js       the clusters of a head and the names of their images
//	report/data/tiles-<h>-<i>.jpg up to 256 images of them
//
// The page needs no network and no server. Browsers let a page opened from a
// disk load scripts and images beside it, but not data: hence a head's data are
// a script. They are loaded when they are looked at.
//
// The report is no committed output, for it may be made again, of a finished
// run too, and tells times. It lies in the run's folder of the work bucket and
// is not published: labels may be read by people to whom the images are not
// open. All files but index.html are the same bytes for the same labels, images
// and options, and so is index.html but for the times in it.
//
// Memory is that of 12 bytes for each labelled image where there is something
// to compare with, of the chosen images' names, and of one file of images.
package report
