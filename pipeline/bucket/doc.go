// Package bucket is the pipeline's storage: one folder of one object store,
// opened by URL, over [gocloud.dev/blob].
//
// What it adds to package blob:
//
//   - Objects are created, not overwritten: [Bucket.Create] and
//     [Bucket.Upload] fail with [ErrExists] where the key is taken, and of
//     racing writers exactly one succeeds. [Bucket.Probe] finds out whether a
//     store keeps that promise.
//   - Faults that may pass are retried, with growing, jittered waits. Every
//     request has a time limit; a transfer has one for standing still, not for
//     its whole length. A read that breaks off goes on at its byte, if the
//     object is still the same one. A write whose answer was lost is recognised
//     by its bytes when it is repeated.
//   - Listings are streamed in key order, which is checked.
//   - Errors name the operation and the object, and never hold credentials.
//   - file:// buckets are plain folders ([sela/pipeline/bucket/filedriver]), whose
//     files can be read in place: [Bucket.LocalPath].
//   - [Cache] keeps copies of remote objects, checked by sha256, in a folder of
//     bounded size that several processes may share.
//
// The schemes file and mem are always there. Others (s3, gs, azblob) work once
// the program imports their gocloud driver, which registers itself; the path of
// their URLs is a prefix of all keys.
//
// Everything here is safe for concurrent use, except a single [Reader].
// Package buckettest holds a conformance suite for stores and a bucket that
// injects faults.
package bucket
