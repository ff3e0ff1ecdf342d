package bucket

import (
	"context"
	"fmt"

	"gocloud.dev/blob"
)

const pageSize = 1000

// List calls fn for each object whose key begins with prefix, in byte order of
// the keys, one request's page (1,000) at a time. It stops at fn's first error
// and returns it as it is. Objects written or deleted meanwhile may appear or
// not. A store that lists out of order is refused.
func (b *Bucket) List(ctx context.Context, prefix string, fn func(Object) error) error {
	return b.list(ctx, &blob.ListOptions{Prefix: prefix}, fn)
}

// ListDirs calls fn for each folder directly below prefix, which is empty or
// ends with "/", in byte order: each longest common beginning of keys up to the
// next "/". Their keys end with "/", and IsDir is set. Objects directly below
// prefix are left out.
func (b *Bucket) ListDirs(ctx context.Context, prefix string, fn func(Object) error) error {
	return b.list(ctx, &blob.ListOptions{Prefix: prefix, Delimiter: "/"}, func(o Object) error {
		if !o.IsDir {
			return nil
		}
		return fn(o)
	})
}

func (b *Bucket) list(ctx context.Context, opts *blob.ListOptions, fn func(Object) error) error {
	last := ""
	for token := blob.FirstPageToken; len(token) > 0; {
		var objects []*blob.ListObject
		var next []byte
		err := b.request(ctx, "list", opts.Prefix, func(ctx context.Context) (err error) {
			objects, next, err = b.blob.ListPage(ctx, token, pageSize, opts)
			return err
		})
		if err != nil {
			return b.fail("list", opts.Prefix, err)
		}
		token = next
		for _, listed := range objects {
			if last != "" && listed.Key <= last {
				return b.fail("list", opts.Prefix, fmt.Errorf("the store lists %q after %q, out of key order", listed.Key, last))
			}
			last = listed.Key
			o := Object{Key: listed.Key, IsDir: listed.IsDir}
			if !o.IsDir {
				o.Size, o.ModTime, o.ETag = listed.Size, listed.ModTime, b.listedTag(listed)
			}
			if err := fn(o); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}
