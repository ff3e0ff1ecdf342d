package bucket

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"gocloud.dev/blob"
	"sela/pipeline/bucket/filedriver"
)

var (
	// ErrExists says that a key to be created is taken.
	ErrExists = errors.New("the object exists already")
	// ErrNotFound says that there is no object under a key.
	ErrNotFound = errors.New("no such object")
	// ErrChanged says that an object was replaced while it was read.
	ErrChanged = errors.New("the object changed while it was read")
	// ErrOverwrites says that a store ignores create-if-absent, so that no lock
	// and no commit on it can be relied on.
	ErrOverwrites = errors.New("the store ignores create-if-absent (If-None-Match) and lets writers overwrite each other")
)

// Options configures a bucket. The zero value means the defaults.
type Options struct {
	// RequestTimeout bounds a request without payload, and the time in which a
	// transfer moves no byte. Default: 60 s.
	RequestTimeout time.Duration
	// Attempts bounds how often a request is made. Default: 10, which wait out
	// some 90 s.
	Attempts int
	// Backoff is the mean wait before the second attempt; it doubles from one
	// to the next, up to 30 s. A store that asks for more (Retry-After, see
	// [Transport]) gets it, up to 2 minutes. Default: 250 ms.
	Backoff time.Duration
	// Requests bounds how many requests wait for the store's answer at once, of
	// reads (with listings and deletes) and of writes each. A body that is
	// being read does not count, an upload counts once for all its parts.
	// Default: 256.
	Requests int
	// Retrying, if it is set, is told of each failure that is waited out, and
	// of the wait. It must be safe for concurrent use.
	Retrying func(err error, wait time.Duration)
	// ETag returns the entity tag that a provider's own type holds, or "". as
	// is the As method of a listed object, of a reader or of attributes, see
	// package blob. It may be nil: then tags in listings come from MD5 or from
	// size and time. [Open] sets it where there is a [Provider].
	ETag func(as func(any) bool) string
	// Answer returns the HTTP status and the error code of the store's answer
	// that err holds, 0 and "" if it holds none. It may be nil: then only errors
	// with methods like those of the AWS SDK are understood. [Open] sets it
	// where there is a [Provider].
	Answer func(err error) (status int, code string)
}

func (o Options) withDefaults() Options {
	if o.RequestTimeout <= 0 {
		o.RequestTimeout = time.Minute
	}
	if o.Attempts <= 0 {
		o.Attempts = 10
	}
	if o.Backoff <= 0 {
		o.Backoff = 250 * time.Millisecond
	}
	if o.Requests <= 0 {
		o.Requests = 256
	}
	return o
}

// Object describes an object as one request saw it.
type Object struct {
	Key  string
	Size int64 // bytes
	// ETag changes when the content does. The tags of List and of Stat are the
	// same for file:// buckets and with [Options.ETag]; else compare only tags
	// of the same method.
	ETag    string
	ModTime time.Time
	IsDir   bool // a folder: only Key is set, and it ends with "/"
}

// Readable reports whether the object can be opened: keys that are not UTF-8
// are listed but refused by every other operation.
func (o Object) Readable() bool { return utf8.ValidString(o.Key) }

// Bucket is an open bucket.
type Bucket struct {
	blob    *blob.Bucket
	url     string
	root    string // the folder of a local bucket, else ""
	opts    Options
	secrets []string // what no error may show
	reads   slots
	writes  slots
	served  atomic.Bool // the store has granted a request
}

// New returns a Bucket on b, which it owns from then on. url is what [Bucket.URL]
// and errors show. If b is of package filedriver it must not be prefixed.
func New(b *blob.Bucket, url string, opts Options) *Bucket {
	opts = opts.withDefaults()
	bucket := &Bucket{blob: b, url: url, opts: opts, reads: make(slots, opts.Requests), writes: make(slots, opts.Requests)}
	var root filedriver.Root
	if b.As(&root) {
		bucket.root = string(root)
	}
	return bucket
}

// URL returns the bucket's URL without credentials and parameters: enough to
// name it, not always to open it.
func (b *Bucket) URL() string { return b.url }

// Local reports whether the objects are files of this machine.
func (b *Bucket) Local() bool { return b.root != "" }

// LocalPath returns the path of key's file if the bucket is local. The file may
// be missing. It must not be written to.
func (b *Bucket) LocalPath(key string) (path string, ok bool) {
	if b.root == "" || filedriver.CheckKey(key) != nil {
		return "", false
	}
	return filepath.Join(b.root, filepath.FromSlash(key)), true
}

// Close releases the bucket. Its readers must be closed before.
func (b *Bucket) Close() error { return b.fail("close", "", b.blob.Close()) }

// As sets i to the driver's own type, as package blob does.
func (b *Bucket) As(i any) bool { return b.blob.As(i) }

// Stat describes the object under key. It fails with [ErrNotFound] if there is
// none.
func (b *Bucket) Stat(ctx context.Context, key string) (Object, error) {
	var o Object
	err := b.request(ctx, "stat", key, func(ctx context.Context) error {
		a, err := b.blob.Attributes(ctx, key)
		if err == nil {
			o = Object{Key: key, Size: a.Size, ETag: cmp.Or(b.tag(a.As), a.ETag), ModTime: a.ModTime}
		}
		return err
	})
	return o, b.fail("stat", key, err)
}

// tag returns the entity tag behind an As method, or "".
func (b *Bucket) tag(as func(any) bool) string {
	var tag filedriver.ETag
	if as(&tag) {
		return string(tag)
	}
	if b.opts.ETag != nil {
		return b.opts.ETag(as)
	}
	return ""
}

// listedTag returns the entity tag of a listed object, made up from what the
// listing tells where there is none.
func (b *Bucket) listedTag(o *blob.ListObject) string {
	if tag := b.tag(o.As); tag != "" {
		return tag
	}
	if len(o.MD5) > 0 {
		return `"` + hex.EncodeToString(o.MD5) + `"`
	}
	return fmt.Sprintf(`W/"%x-%x"`, o.Size, o.ModTime.UnixNano())
}
