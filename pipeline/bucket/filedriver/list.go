package filedriver

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"gocloud.dev/blob/driver"
)

const (
	defaultPageSize = 1000

	// maxCursors is how many listings may rest between two pages with their
	// place kept; further ones find theirs again from the last key.
	maxCursors = 4
)

// ListPaged implements [driver.Bucket]. A folder below the root that cannot be
// read is an error, not an omission.
func (b *bucket) ListPaged(ctx context.Context, opts *driver.ListOptions) (*driver.ListPage, error) {
	if opts.BeforeList != nil {
		if err := opts.BeforeList(func(any) bool { return false }); err != nil {
			return nil, err
		}
	}
	pageSize := opts.PageSize
	if pageSize == 0 {
		pageSize = defaultPageSize
	}
	c := b.takeCursor(opts)
	if c == nil {
		var err error
		if c, err = newCursor(ctx, b, opts.Prefix, opts.Delimiter, string(opts.PageToken)); err != nil {
			return nil, err
		}
	}
	page := new(driver.ListPage)
	for range pageSize {
		it, err := c.next(ctx)
		if err == io.EOF {
			return page, nil
		}
		if err != nil {
			return nil, err
		}
		object := &driver.ListObject{Key: it.key, IsDir: it.dir}
		if !it.dir {
			object.ModTime, object.Size, object.AsFunc = it.info.ModTime(), it.info.Size(), asETag(it.info)
		}
		page.Objects = append(page.Objects, object)
	}
	switch err := c.peek(ctx); err {
	case nil:
		page.NextPageToken = []byte(c.token)
		b.keepCursor(c)
	case io.EOF:
	default:
		return nil, err
	}
	return page, ctx.Err()
}

// takeCursor returns the kept cursor that continues the listing of opts, or nil.
func (b *bucket) takeCursor(opts *driver.ListOptions) *cursor {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, c := range b.cursors {
		if c.prefix == opts.Prefix && c.delimiter == opts.Delimiter && c.token == string(opts.PageToken) {
			b.cursors = slices.Delete(b.cursors, i, i+1)
			return c
		}
	}
	return nil
}

func (b *bucket) keepCursor(c *cursor) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.cursors) == maxCursors {
		b.cursors = slices.Delete(b.cursors, 0, 1)
	}
	b.cursors = append(b.cursors, c)
}

// A page token is the last key of the page, after a byte that says what it is.
const (
	afterObject = "o"
	afterDir    = "d"
)

// cursor merges the walk with the odd keys and folds what a delimiter makes
// common.
type cursor struct {
	prefix, delimiter string

	bucket *bucket
	walker *walker
	walked *item    // the walker's item that is not yet used
	odd    []string // the odd keys still to come, in order
	ahead  *item    // what peek found
	dir    string   // the folder last returned: everything below it is skipped
	token  string
}

func newCursor(ctx context.Context, b *bucket, prefix, delimiter, token string) (*cursor, error) {
	c := &cursor{prefix: prefix, delimiter: delimiter, bucket: b, token: token}
	after, isDir := strings.CutPrefix(token, afterDir)
	if isDir {
		c.dir = after
	} else {
		after = strings.TrimPrefix(token, afterObject)
	}
	var err error
	if c.walker, err = newWalker(ctx, b, prefix, after, delimiter == "/"); err != nil {
		return nil, err
	}
	c.odd, err = b.oddKeys(prefix, after)
	return c, err
}

// oddKeys returns the odd keys that begin with prefix and are greater than after.
func (b *bucket) oddKeys(prefix, after string) ([]string, error) {
	d, err := os.Open(b.path(oddDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, name := range names {
		key, err := hex.DecodeString(name)
		if err == nil && string(key) > after && strings.HasPrefix(string(key), prefix) {
			keys = append(keys, string(key))
		}
	}
	slices.Sort(keys)
	return keys, nil
}

// next returns the next object or folder of the listing, or io.EOF.
func (c *cursor) next(ctx context.Context) (item, error) {
	if err := c.peek(ctx); err != nil {
		return item{}, err
	}
	it := *c.ahead
	c.ahead = nil
	if it.dir {
		c.dir, c.token = it.key, afterDir+it.key
	} else {
		c.token = afterObject + it.key
	}
	return it, nil
}

// peek finds what next will return.
func (c *cursor) peek(ctx context.Context) error {
	for c.ahead == nil {
		it, err := c.merge(ctx)
		if err != nil {
			return err
		}
		if c.dir != "" && strings.HasPrefix(it.key, c.dir) {
			continue
		}
		if c.delimiter != "" {
			rest := it.key[len(c.prefix):]
			if i := strings.Index(rest, c.delimiter); i >= 0 {
				it = item{key: it.key[:len(c.prefix)+i+len(c.delimiter)], dir: true}
			}
		}
		c.ahead = &it
	}
	return nil
}

// merge returns the next item of the walk or of the odd keys, whichever is first.
func (c *cursor) merge(ctx context.Context) (item, error) {
	if c.walked == nil {
		it, err := c.walker.next(ctx)
		if err != nil && err != io.EOF {
			return item{}, err
		}
		if err == nil {
			c.walked = &it
		}
	}
	for len(c.odd) > 0 && (c.walked == nil || c.odd[0] < c.walked.key) {
		key := c.odd[0]
		c.odd = c.odd[1:]
		if _, info, err := c.bucket.stat(key); err == nil {
			return item{key: key, info: info}, nil
		}
	}
	if c.walked == nil {
		return item{}, io.EOF
	}
	it := *c.walked
	c.walked = nil
	return it, nil
}
