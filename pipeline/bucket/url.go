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
//	s3://bucket/prefix?region=…                 and others, by the gocloud driver the program imports
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
	switch mux := blob.DefaultURLMux(); {
	case u.Scheme == filedriver.Scheme:
		b, err = filedriver.URLOpener{}.OpenBucketURL(ctx, u)
	case u.Scheme == memblob.Scheme:
		b, err = new(memblob.URLOpener).OpenBucketURL(ctx, u)
	case mux.ValidBucketScheme(u.Scheme):
		b, err = openRemote(ctx, mux, *u)
	default:
		known = append(known, mux.BucketSchemes()...)
		slices.Sort(known)
		err = fmt.Errorf("unknown scheme; this program knows %s", strings.Join(slices.Compact(known), ", "))
	}
	if err != nil {
		return nil, &opError{redact("open bucket "+shown.String()+": "+err.Error(), secrets), []error{err}}
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

// openRemote opens u by mux, with the path of u as the prefix of all keys.
func openRemote(ctx context.Context, mux *blob.URLMux, u url.URL) (*blob.Bucket, error) {
	prefix := strings.Trim(u.Path, "/")
	if prefix != "" && u.Query().Has("prefix") {
		return nil, errors.New("it has a path and a parameter prefix; keep one of them")
	}
	u.Path, u.RawPath = "", ""
	b, err := mux.OpenBucketURL(ctx, &u)
	if err != nil || prefix == "" {
		return b, err
	}
	return blob.PrefixedBucket(b, prefix+"/"), nil
}

var (
	schemeOnly   = regexp.MustCompile(`^[a-z0-9]+:`)
	storedSecret = regexp.MustCompile(`(?i)access_?key|secret|token|^sig$|sas|password|credential`)
	secretName   = regexp.MustCompile(`(?i)key|secret|token|sig|sas|password|credential`)
)

// HoldsSecret tells whether a bucket URL has a user name, a password or a
// parameter that no driver needs but as a secret: such a URL must not be
// stored. (What errors hide is wider: kmskeyid is a name.)
func HoldsSecret(rawURL string) bool {
	u, err := url.Parse(rawURL)
	if err != nil {
		return false
	}
	for name := range u.Query() {
		if storedSecret.MatchString(name) {
			return true
		}
	}
	return u.User != nil
}

// secretsOf returns the parts of u that no message may show, in every form in
// which they may turn up.
func secretsOf(u *url.URL) []string {
	var secrets []string
	add := func(s string) {
		if s != "" {
			secrets = append(secrets, s, url.QueryEscape(s), url.PathEscape(s))
		}
	}
	if u.User != nil {
		add(u.User.String())
		password, _ := u.User.Password()
		add(password)
		add(u.User.Username())
	}
	for name, values := range u.Query() {
		if secretName.MatchString(name) {
			for _, v := range values {
				add(v)
			}
		}
		for _, v := range values { // an endpoint may hold some, too
			if inner, err := url.Parse(v); err == nil && inner.User != nil {
				add(inner.User.String())
			}
		}
	}
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	return slices.Compact(secrets)
}

func redact(text string, secrets []string) string {
	for _, s := range secrets {
		text = strings.ReplaceAll(text, s, "REDACTED")
	}
	return text
}

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
	causes := []error{err}
	detail := err.Error()
	switch {
	case errors.Is(err, ErrExists):
		detail = ErrExists.Error()
	case gcerrors.Code(err) == gcerrors.NotFound:
		causes = []error{ErrNotFound, err}
		detail = ErrNotFound.Error()
	}
	return &opError{redact(fmt.Sprintf("%s %s: %s", op, object, detail), b.secrets), causes}
}
