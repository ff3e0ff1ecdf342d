package bucket_test

import (
	"testing"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"
	"sela/pipeline/bucket/buckettest"
	"sela/pipeline/bucket/filedriver"
)

func TestConformanceFile(t *testing.T) {
	buckettest.Run(t, func(t *testing.T) *blob.Bucket {
		b, err := filedriver.Open(t.TempDir(), filedriver.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}, buckettest.Options{})
}

func TestConformanceMem(t *testing.T) {
	buckettest.Run(t, func(*testing.T) *blob.Bucket { return memblob.OpenBucket(&memblob.Options{NoMD5: true}) }, buckettest.Options{})
}

func TestConformanceS3(t *testing.T) {
	buckettest.Run(t, func(t *testing.T) *blob.Bucket {
		b, err := blob.OpenBucket(t.Context(), buckettest.S3(t, "bucket").String())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}, buckettest.Options{ETag: buckettest.S3ETag})
}
