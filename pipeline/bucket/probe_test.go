package bucket_test

import (
	"context"
	"errors"
	"testing"

	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/blob/memblob"
	"gocloud.dev/gcerrors"
	"sela/pipeline/bucket"
)

// overwriting is a store that ignores create-if-absent and lists backwards.
type overwriting struct {
	driver.Bucket // nil: what is not defined below is not called
	inner         *blob.Bucket
}

func (o *overwriting) ErrorCode(err error) gcerrors.ErrorCode { return gcerrors.Code(err) }
func (o *overwriting) As(any) bool                            { return false }
func (o *overwriting) Close() error                           { return o.inner.Close() }

func (o *overwriting) NewTypedWriter(ctx context.Context, key, contentType string, _ *driver.WriterOptions) (driver.Writer, error) {
	return o.inner.NewWriter(ctx, key, &blob.WriterOptions{ContentType: contentType})
}

func (o *overwriting) Delete(ctx context.Context, key string, _ *driver.DeleteOptions) error {
	return o.inner.Delete(ctx, key)
}

func (o *overwriting) ListPaged(context.Context, *driver.ListOptions) (*driver.ListPage, error) {
	return &driver.ListPage{Objects: []*driver.ListObject{{Key: "b"}, {Key: "a"}}}, nil
}

func TestProbeFindsOverwritingStores(t *testing.T) {
	inner := memblob.OpenBucket(nil)
	b := bucket.New(blob.NewBucket(&overwriting{inner: inner}), "test://overwriting", bucket.Options{})
	if err := b.Probe(t.Context()); !errors.Is(err, bucket.ErrOverwrites) {
		t.Errorf("Probe returned %v", err)
	}
	objects, _, err := inner.ListPage(t.Context(), blob.FirstPageToken, 10, nil)
	if err != nil || len(objects) > 0 {
		t.Errorf("the probe left %d objects, %v", len(objects), err)
	}
}

func TestListRefusesDisorder(t *testing.T) {
	b := bucket.New(blob.NewBucket(&overwriting{inner: memblob.OpenBucket(nil)}), "test://disorder", bucket.Options{})
	if err := b.List(t.Context(), "", func(bucket.Object) error { return nil }); err == nil {
		t.Error("a listing out of order was accepted")
	}
}
