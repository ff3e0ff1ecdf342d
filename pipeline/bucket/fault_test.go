package bucket

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/blob/memblob"
	"gocloud.dev/gcerrors"
)

// answering is a store whose every request passes a gate first.
type answering struct {
	driver.Bucket // nil: what is not defined below is not called
	inner         *blob.Bucket
	gate          func() error
}

func (a *answering) As(any) bool                            { return false }
func (a *answering) Close() error                           { return a.inner.Close() }
func (a *answering) ErrorCode(err error) gcerrors.ErrorCode { return gcerrors.Code(err) }

func (a *answering) Attributes(ctx context.Context, key string) (*driver.Attributes, error) {
	if err := a.gate(); err != nil {
		return nil, err
	}
	at, err := a.inner.Attributes(ctx, key)
	if err != nil {
		return nil, err
	}
	return &driver.Attributes{Size: at.Size, ModTime: at.ModTime, ETag: at.ETag}, nil
}

func (a *answering) NewTypedWriter(ctx context.Context, key, contentType string, opts *driver.WriterOptions) (driver.Writer, error) {
	if err := a.gate(); err != nil {
		return nil, err
	}
	return a.inner.NewWriter(ctx, key, &blob.WriterOptions{ContentType: contentType, IfNotExist: opts.IfNotExist})
}

// TestOutages: with the default options a store that answers 503 for a minute is
// waited out, and one that does not come back is given up after some minutes. The
// clock is the test's.
func TestOutages(t *testing.T) {
	for name, c := range map[string]struct {
		outage time.Duration
		want   error
	}{"a minute": {time.Minute, nil}, "a day": {24 * time.Hour, ErrUnavailable}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, told := time.Now(), 0
				b := New(blob.NewBucket(&answering{inner: memblob.OpenBucket(nil), gate: func() error {
					if time.Since(start) < c.outage {
						return apiError{"SlowDown", 503}
					}
					return nil
				}}), "test://outage", Options{Retrying: func(err error, _ time.Duration) {
					if told++; !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "create test://outage/key") {
						t.Errorf("told of %v", err)
					}
				}})
				err := b.Create(t.Context(), "key", []byte("x"))
				if !errors.Is(err, c.want) || told == 0 || time.Since(start) > 4*time.Minute {
					t.Errorf("%v after %v and %d retries", err, time.Since(start), told)
				}
				if err := b.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestRequestsAtOnce: no more requests than allowed wait for the store.
func TestRequestsAtOnce(t *testing.T) {
	const limit = 5
	var now, most atomic.Int64
	enough := make(chan struct{})
	b := New(blob.NewBucket(&answering{inner: memblob.OpenBucket(nil), gate: func() error {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
			if n == limit {
				close(enough) // then all that may be are under way
			}
		}
		defer now.Add(-1)
		<-enough
		return nil
	}}), "test://limited", Options{Requests: limit})
	defer b.Close()
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			if _, err := b.Stat(t.Context(), fmt.Sprint(i)); !errors.Is(err, ErrNotFound) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most.Load() != limit {
		t.Errorf("%d requests were under way at once, want %d", most.Load(), limit)
	}
	// Who waits for a turn can be cancelled.
	full := New(memblob.OpenBucket(nil), "test://full", Options{Requests: 1})
	defer full.Close()
	full.reads <- struct{}{}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := full.Stat(ctx, "key"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for a turn without end: %v", err)
	}
}

func TestRetryAfterHeader(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name, value string
		want        time.Duration
	}{
		{"Retry-After", "7", 7 * time.Second},
		{"Retry-After", "86400", maxRetryAfter},
		{"Retry-After", "99999999999999999999", 0},
		{"Retry-After", "-3", 0},
		{"Retry-After", "soon", 0},
		{"Retry-After", "", 0},
		{"Retry-After", now.Add(9 * time.Second).Format(http.TimeFormat), 9 * time.Second},
		{"Retry-After", now.Add(-time.Hour).Format(http.TimeFormat), 0},
		{"Retry-After", now.Add(time.Hour).Format(http.TimeFormat), maxRetryAfter},
		{"X-Ms-Retry-After-Ms", "1500", 1500 * time.Millisecond},
	} {
		if got := retryAfter(http.Header{c.name: {c.value}}, now); got != c.want {
			t.Errorf("%s: %s is %v, want %v", c.name, c.value, got, c.want)
		}
	}
}

// TestRedaction: what drivers quote in errors and what grants access.
func TestRedaction(t *testing.T) {
	const secret = "S3cr3tOf/Zm9v+bar=="
	for _, text := range []string{
		`Get "https://a.blob.core.windows.net/c/k?sv=2024&sp=r&sig=%s&se=x": dial tcp: refused`,
		`Put "https://b.s3.amazonaws.com/k?X-Amz-Credential=%s&X-Amz-Signature=%[1]s&X-Amz-Security-Token=%[1]s": EOF`,
		`https://storage.googleapis.com/b/k?GoogleAccessId=me&Signature=%s`,
		`request had Authorization: Bearer %s`,
		`Authorization: SharedKey account:%s`,
		`AWS4-HMAC-SHA256 Credential=%s, SignedHeaders=host, Signature=%[1]s`,
		`DefaultEndpointsProtocol=https;AccountName=a;AccountKey=%s;EndpointSuffix=core.windows.net`,
		`<Error><Code>SignatureDoesNotMatch</Code><StringToSign>%s</StringToSign><SignatureProvided>%[1]s</SignatureProvided></Error>`,
		`oauth2: {"refresh_token": "%s", "client_secret":"%[1]s"}`,
		`proxy http://user:%s@proxy:3128 refused`,
	} {
		for _, form := range []string{secret, url.QueryEscape(secret), "AKIA0123456789"} {
			if strings.Contains(text, "user:%s@") && form == secret {
				continue // no URL has a slash there
			}
			if got := redact(fmt.Sprintf(text, form), nil); strings.Contains(got, form) || strings.Contains(got, form[:8]) || !strings.Contains(got, redacted) {
				t.Errorf("%q becomes %q", text, got)
			}
		}
	}
	for _, plain := range []string{
		"create s3://bucket/a/key=1/token/part-0: no such object", "labels/head=3/part-000.parquet", "code=Unknown", "partkey=3", "https://host/path@2x.png",
		"StatusCode: 403, RequestID: 8X, api error AccessDenied: User: arn:aws:iam::1:user/me is not authorized to perform: s3:PutObject",
	} {
		if got := redact(plain, nil); got != plain {
			t.Errorf("%q becomes %q", plain, got)
		}
	}
	if got := redact("the key is topsecret, top", []string{"topsecret", "top"}); strings.Contains(got, "top") {
		t.Error(got)
	}
	page := "PUT http://x\n----\nRESPONSE 403\n----\n" + strings.Repeat("é", 2000)
	if got := oneLine(page); strings.ContainsAny(got, "\n") || len(got) > maxDetail+4 || !strings.HasPrefix(got, "PUT http://x RESPONSE 403 é") {
		t.Errorf("a page becomes %q", got)
	}
}

// TestFaults holds what stores answer against what it means.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		code   string
		status int
		object bool
		served bool
		want   fault
	}{
		{"SlowDown", 503, true, false, busy},
		{"InternalError", 200, true, false, busy},
		{"BadDigest", 400, true, false, busy},
		{"", 429, true, false, busy},
		{"OperationAborted", 409, true, false, busy},
		{"BlobAlreadyExists", 409, true, false, taken},
		{"", 412, true, false, taken},
		{"", 404, true, false, missing},
		{"", 404, false, false, noBucket},
		{"NoSuchBucket", 404, true, false, noBucket},
		{"NoSuchUpload", 404, false, false, busy},
		{"AccessDenied", 403, true, true, denied},
		{"InvalidAccessKeyId", 403, true, false, denied},
		{"InvalidAccessKeyId", 403, true, true, expired},
		{"", 401, true, false, denied},
		{"", 401, true, true, expired},
		{"invalid_grant", 400, true, false, denied},
		{"ExpiredToken", 400, true, false, expired},
		{"RequestTimeTooSkewed", 403, true, true, skewed},
		{"PermanentRedirect", 301, true, false, refused},
		{"AuthorizationHeaderMalformed", 400, true, false, refused},
		{"NotImplemented", 501, true, false, refused},
	} {
		b := New(memblob.OpenBucket(nil), "test://faults", Options{})
		b.served.Store(c.served)
		if got := b.diagnose(fmt.Errorf("wrapped: %w", apiError{c.code, c.status}), c.object); got != c.want {
			t.Errorf("%d %s (object %v, served before %v): %v, want %v", c.status, c.code, c.object, c.served, got, c.want)
		}
		b.Close()
	}
}
