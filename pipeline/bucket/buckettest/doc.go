// Package buckettest tests buckets and what is built on them.
//
// [Run] is the conformance suite that every store must pass to be used by the
// pipeline. [Faulty] wraps a bucket so that its calls fail, stall, break off or
// report failure after success, in a fixed rhythm. [S3] runs an S3 server inside
// the test.
package buckettest
