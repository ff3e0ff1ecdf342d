package stores

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azblob "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"
)

// azureDriver is a container with the names that its blobs have. gocloud's own
// driver escapes " # % ? \ in a way of its own: it would not find an image
// called 100%.jpg that somebody else wrote, and lists what it wrote itself out
// of order. That driver's streamed writes also panic when they fail; this one
// never streams through a pipe.
type azureDriver struct{ client *container.Client }

var errUnimplemented = errors.New("this driver does not do that")

func (d *azureDriver) Close() error { return nil }

func (d *azureDriver) ErrorCode(err error) gcerrors.ErrorCode {
	if errors.Is(err, errUnimplemented) {
		return gcerrors.Unimplemented
	}
	switch status, code := azureAnswer(err); {
	case code == "BlobAlreadyExists", status == http.StatusPreconditionFailed:
		return gcerrors.FailedPrecondition
	case status == http.StatusNotFound:
		return gcerrors.NotFound
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return gcerrors.PermissionDenied
	}
	return gcerrors.Unknown
}

func (d *azureDriver) As(i any) bool {
	p, ok := i.(**container.Client)
	if ok {
		*p = d.client
	}
	return ok
}

func (d *azureDriver) ErrorAs(err error, i any) bool {
	p, ok := i.(**azcore.ResponseError)
	return ok && errors.As(err, p)
}

func (d *azureDriver) Attributes(ctx context.Context, key string) (*driver.Attributes, error) {
	a, err := d.client.NewBlobClient(key).GetProperties(ctx, nil)
	if err != nil {
		return nil, err
	}
	return &driver.Attributes{
		ContentType: value(a.ContentType), Size: value(a.ContentLength), MD5: a.ContentMD5, ETag: string(value(a.ETag)),
		CreateTime: value(a.CreationTime), ModTime: value(a.LastModified), AsFunc: as(a),
	}, nil
}

func (d *azureDriver) ListPaged(ctx context.Context, opts *driver.ListOptions) (*driver.ListPage, error) {
	size := int32(opts.PageSize)
	options := container.ListBlobsHierarchyOptions{Prefix: &opts.Prefix, MaxResults: &size}
	if size == 0 {
		options.MaxResults = nil
	}
	if len(opts.PageToken) > 0 {
		marker := string(opts.PageToken)
		options.Marker = &marker
	}
	answer, err := d.client.NewListBlobsHierarchyPager(opts.Delimiter, &options).NextPage(ctx)
	if err != nil {
		return nil, err
	}
	page := &driver.ListPage{NextPageToken: []byte(value(answer.NextMarker))}
	for _, folder := range answer.Segment.BlobPrefixes {
		page.Objects = append(page.Objects, &driver.ListObject{Key: value(folder.Name), IsDir: true, AsFunc: as(*folder)})
	}
	for _, b := range answer.Segment.BlobItems {
		page.Objects = append(page.Objects, &driver.ListObject{Key: value(b.Name), Size: value(b.Properties.ContentLength),
			ModTime: value(b.Properties.LastModified), MD5: b.Properties.ContentMD5, AsFunc: as(*b)})
	}
	// Folders come before blobs, each in order.
	slices.SortFunc(page.Objects, func(a, b *driver.ListObject) int { return strings.Compare(a.Key, b.Key) })
	return page, nil
}

type azureReader struct {
	io.ReadCloser
	answer azblob.DownloadStreamResponse
	size   int64
}

func (r *azureReader) As(i any) bool { return as(r.answer)(i) }
func (r *azureReader) Attributes() *driver.ReaderAttributes {
	return &driver.ReaderAttributes{ContentType: value(r.answer.ContentType), ModTime: value(r.answer.LastModified), Size: r.size}
}

func (d *azureDriver) NewRangeReader(ctx context.Context, key string, offset, length int64, _ *driver.ReaderOptions) (driver.Reader, error) {
	if length == 0 { // there is no such range
		a, err := d.client.NewBlobClient(key).GetProperties(ctx, nil)
		if err != nil {
			return nil, err
		}
		answer := azblob.DownloadStreamResponse{}
		answer.ContentType, answer.LastModified, answer.ETag = a.ContentType, a.LastModified, a.ETag
		return &azureReader{http.NoBody, answer, value(a.ContentLength)}, nil
	}
	// A count of 0 means up to the end.
	options := azblob.DownloadStreamOptions{Range: azblob.HTTPRange{Offset: offset, Count: max(length, 0)}}
	answer, err := d.client.NewBlobClient(key).DownloadStream(ctx, &options)
	if err != nil {
		return nil, err
	}
	size := value(answer.ContentLength)
	if _, whole, ok := strings.Cut(value(answer.ContentRange), "/"); ok {
		if size, err = strconv.ParseInt(whole, 10, 64); err != nil {
			return nil, errors.Join(err, answer.Body.Close())
		}
	}
	return &azureReader{answer.Body, answer, size}, nil
}

// azureWriter sends what it is given in blocks, each held in memory.
type azureWriter struct {
	ctx     context.Context
	client  *blockblob.Client
	options *blockblob.UploadStreamOptions
	err     error
	done    bool
}

const (
	azureBlock    = 8 << 20
	azureParallel = 5
)

func (d *azureDriver) NewTypedWriter(ctx context.Context, key, contentType string, opts *driver.WriterOptions) (driver.Writer, error) {
	options := &blockblob.UploadStreamOptions{BlockSize: azureBlock, Concurrency: azureParallel,
		HTTPHeaders: &azblob.HTTPHeaders{BlobContentType: &contentType, BlobContentMD5: opts.ContentMD5}}
	if opts.IfNotExist {
		anything := azcore.ETagAny
		options.AccessConditions = &azblob.AccessConditions{ModifiedAccessConditions: &azblob.ModifiedAccessConditions{IfNoneMatch: &anything}}
	}
	return &azureWriter{ctx: ctx, client: d.client.NewBlockBlobClient(key), options: options}, nil
}

func (w *azureWriter) Upload(r io.Reader) error {
	w.done = true
	_, w.err = w.client.UploadStream(w.ctx, r, w.options)
	return w.err
}

// Write is never called by package bucket, which uploads.
func (w *azureWriter) Write([]byte) (int, error) {
	w.done, w.err = true, errUnimplemented
	return 0, w.err
}

func (w *azureWriter) Close() error {
	if !w.done {
		return w.Upload(http.NoBody)
	}
	return w.err
}

func (d *azureDriver) Delete(ctx context.Context, key string, _ *driver.DeleteOptions) error {
	_, err := d.client.NewBlobClient(key).Delete(ctx, nil)
	return err
}

func (d *azureDriver) Copy(context.Context, string, string, *driver.CopyOptions) error {
	return errUnimplemented
}

func (d *azureDriver) SignedURL(context.Context, string, *driver.SignedURLOptions) (string, error) {
	return "", errUnimplemented
}

// value is what p points to, or the zero value.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// as returns an As function for v.
func as[T any](v T) func(any) bool {
	return func(i any) bool {
		p, ok := i.(*T)
		if ok {
			*p = v
		}
		return ok
	}
}
