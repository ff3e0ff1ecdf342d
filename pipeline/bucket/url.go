package bucket

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"
	"gocloud.dev/gcerrors"
	"sela/pipeline/bucket/filedriver"
)

// Open opens the bucket that a URL names:
//
//	file:///absolute/path, file:relative/path   a folder; ?create_dir=true makes it
//	mem://                                      memory, empty, of this Bucket alone
//	s3://bucket/prefix?region=…                 and others, by the [Provider] that is registered for the scheme,
//	                                            or the gocloud driver that the program imports
//
// Parameters of the others are those of their driver.
func Open(ctx context.Context, rawURL string, opts Options) (*Bucket, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		// The parser's message quotes the URL, which may hold credentials.
		return nil, fmt.Errorf("open bucket %s… it is no URL; check its %%-escapes and its port", schemeOnly.FindString(rawURL))
	}
	if u.Scheme == "" {
		return nil, fmt.Errorf("open bucket %q: it has no scheme; for a folder write file:%s", u.Path, u.Path)
	}
	known := []string{filedriver.Scheme, memblob.Scheme}
	secrets := secretsOf(u)
	shown := *u
	shown.User, shown.RawQuery, shown.Fragment = nil, "", ""
	var b *blob.Bucket
	provider, isProvider := providerOf(u.Scheme)
	switch mux := blob.DefaultURLMux(); {
	case u.Scheme == filedriver.Scheme:
		b, err = filedriver.URLOpener{}.OpenBucketURL(ctx, u)
	case u.Scheme == memblob.Scheme:
		b, err = new(memblob.URLOpener).OpenBucketURL(ctx, u)
	case isProvider:
		opts.ETag, opts.Answer = provider.ETag, provider.Answer
		if provider.Secrets != nil {
			secrets = longestFirst(append(secrets, everyForm(provider.Secrets())...))
		}
		b, err = openRemote(ctx, provider.Open, *u)
	case mux.ValidBucketScheme(u.Scheme):
		b, err = openRemote(ctx, mux.OpenBucketURL, *u)
	default:
		known = append(append(known, mux.BucketSchemes()...), registered()...)
		slices.Sort(known)
		err = fmt.Errorf("unknown scheme; this program knows %s", strings.Join(slices.Compact(known), ", "))
	}
	if err != nil {
		return nil, &opError{redact("open bucket "+shown.String()+": "+oneLine(err.Error()), secrets), []error{err}}
	}
	bucket := New(b, strings.TrimSuffix(shown.String(), "/"), opts)
	switch {
	case bucket.root != "":
		bucket.url = (&url.URL{Scheme: filedriver.Scheme, Path: bucket.root}).String()
	case u.Scheme == memblob.Scheme:
		bucket.url = "mem://"
	}
	bucket.secrets = secrets
	return bucket, nil
}

// openRemote opens u, with its path as the prefix of all keys.
func openRemote(ctx context.Context, open func(context.Context, *url.URL) (*blob.Bucket, error), u url.URL) (*blob.Bucket, error) {
	prefix := strings.Trim(u.Path, "/")
	if prefix != "" && u.Query().Has("prefix") {
		return nil, errors.New("it has a path and a parameter prefix; keep one of them")
	}
	u.Path, u.RawPath = "", ""
	b, err := open(ctx, &u)
	if err != nil || prefix == "" {
		return b, err
	}
	return blob.PrefixedBucket(b, prefix+"/"), nil
}

var schemeOnly = regexp.MustCompile(`^[a-z0-9]+:`)

// opError is an error whose text was freed of secrets. What it wraps serves
// errors.Is and errors.As and should not be printed.
type opError struct {
	text   string
	causes []error
}

func (e *opError) Error() string   { return e.text }
func (e *opError) Unwrap() []error { return e.causes }

// fail says what failed on which object. It returns nil for nil.
func (b *Bucket) fail(op, key string, err error) error {
	if err == nil {
		return nil
	}
	var done *opError
	if errors.As(err, &done) {
		return err
	}
	object := b.url
	if key != "" {
		object += "/" + key
	}
	causes, detail := []error{err}, oneLine(err.Error())
	if errors.Is(err, ErrExists) {
		detail = ErrExists.Error()
	} else if f := b.faultOf(op, err); sentinel[f] != nil {
		causes = []error{sentinel[f], err}
		if detail = sentinel[f].Error() + ": " + detail; f == missing {
			detail = ErrNotFound.Error()
		}
	}
	return &opError{redact(fmt.Sprintf("%s %s: %s", op, object, detail), b.secrets), causes}
}

// faultOf is diagnose for a request of this package. A write or a listing that
// finds something missing misses the bucket.
func (b *Bucket) faultOf(op string, err error) fault {
	f := b.diagnose(err, !slices.Contains([]string{"list", "create", "put", "upload", "copy to"}, op))
	if f == unknown && gcerrors.Code(err) == gcerrors.NotFound {
		return missing
	}
	return f
}
