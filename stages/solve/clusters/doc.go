// Package clusters finds clusters in rows of features.
//
//   - [Open] reads rows, whitens them if asked ([Whiten]) and divides each by its
//     Euclidean length; they stay in memory where they fit and are read again for
//     each pass otherwise.
//   - [Features.KMeans] is Lloyd's algorithm from k-means++ centres.
//   - [Match] pairs the clusters of two clusterings.
//
// Rows come in chunks of [sinkhorn.ChunkRows] row numbers. Products of chunks
// with matrices are ONNX Runtime's, in float32 and of one size whatever a chunk
// holds; what is summed over rows is summed in float64 and in the order of rows.
// So the result has the same bits for any number of workers, any memory and any
// way in which a source cuts its rows into blocks; another library or processor
// may round otherwise.
package clusters
