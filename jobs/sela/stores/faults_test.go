package stores

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sela/pipeline/bucket"
	"sela/pipeline/bucket/buckettest"
)

// through runs a test on a bucket behind a proxy: on a server for S3 inside the
// test, and on each store of `make test-stores`.
func through(t *testing.T, opts bucket.Options, test func(t *testing.T, b *bucket.Bucket, p *buckettest.Proxy)) {
	if opts.Backoff == 0 {
		opts.Backoff = time.Millisecond
	}
	run := func(name string, place func(t *testing.T) *url.URL) {
		t.Run(name, func(t *testing.T) {
			u, p := buckettest.Through(t, place(t))
			test(t, open(t, u, opts), p)
		})
	}
	run("s3 inside", func(t *testing.T) *url.URL { return buckettest.S3(t, "bucket") })
	for _, scheme := range buckettest.Schemes {
		run(scheme, func(t *testing.T) *url.URL {
			serve(t, scheme).Close() // makes the container
			return buckettest.Server(t, scheme)
		})
	}
}

func open(t *testing.T, u *url.URL, opts bucket.Options) *bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(t.Context(), u.String(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func noise(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i * i / 251)
	}
	return data
}

// writes tells the requests that store something.
func writes(r *http.Request) bool { return r.Method == http.MethodPut || r.Method == http.MethodPost }

// TestLostAnswers: the store does what it is asked and its answer is lost. The
// writer recognises its own object when it asks again, and nobody else's.
func TestLostAnswers(t *testing.T) {
	through(t, bucket.Options{}, func(t *testing.T, b *bucket.Bucket, p *buckettest.Proxy) {
		lost := 0
		p.Spoil(func(r *http.Request) *buckettest.Spoil {
			if lost++; lost%2 == 1 {
				return &buckettest.Spoil{Lose: true}
			}
			return nil
		})
		path := filepath.Join(t.TempDir(), "file")
		must(t, os.WriteFile(path, noise(70_000), 0o666))
		for i := range 4 {
			key := fmt.Sprint("key", i)
			must(t, b.Create(t.Context(), key, []byte("mine")))
			if err := b.Create(t.Context(), key, []byte("another's")); !errors.Is(err, bucket.ErrExists) {
				t.Errorf("creating an object again: %v", err)
			}
			if got, err := b.Get(t.Context(), key); err != nil || string(got) != "mine" {
				t.Errorf("the object holds %q, %v", got, err)
			}
			must(t, b.Upload(t.Context(), "file"+key, path))
			must(t, b.Delete(t.Context(), key))
		}
		if lost < 8 {
			t.Errorf("%d answers were lost", lost/2)
		}
	})
}

// TestResets: every third connection is reset before the store sees a request.
func TestResets(t *testing.T) {
	through(t, bucket.Options{}, func(t *testing.T, b *bucket.Bucket, p *buckettest.Proxy) {
		requests := 0
		p.Spoil(func(*http.Request) *buckettest.Spoil {
			if requests++; requests%3 == 0 {
				return &buckettest.Spoil{}
			}
			return nil
		})
		data := noise(50_000)
		for i := range 6 {
			key := fmt.Sprint("key", i)
			must(t, b.Create(t.Context(), key, data))
			if got, err := b.Get(t.Context(), key); err != nil || !bytes.Equal(got, data) {
				t.Errorf("read %d bytes of %d, %v", len(got), len(data), err)
			}
		}
		n := 0
		must(t, b.List(t.Context(), "", func(bucket.Object) error { n++; return nil }))
		if n != 6 || requests < 15 {
			t.Errorf("%d objects are listed; %d requests", n, requests)
		}
	})
}

// TestCutReads: a read whose connection breaks goes on at its byte.
func TestCutReads(t *testing.T) {
	through(t, bucket.Options{}, func(t *testing.T, b *bucket.Bucket, p *buckettest.Proxy) {
		data := noise(1 << 20)
		must(t, b.Create(t.Context(), "data", data))
		var mu sync.Mutex
		var ranges []string
		p.Spoil(func(r *http.Request) *buckettest.Spoil {
			mu.Lock()
			defer mu.Unlock()
			from := r.Header.Get("Range")
			if from == "" {
				from = r.Header.Get("X-Ms-Range")
			}
			ranges = append(ranges, from)
			if len(ranges) == 1 {
				return &buckettest.Spoil{Cut: 600_000}
			}
			return nil
		})
		got := make([]byte, len(data)-1000)
		must(t, b.ReadRange(t.Context(), "data", 1000, got))
		if !bytes.Equal(got, data[1000:]) {
			t.Error("the bytes read are not those written")
		}
		var first, second int64
		if len(ranges) != 2 {
			t.Fatalf("the requests were for %q", ranges)
		}
		fmt.Sscanf(ranges[0], "bytes=%d-", &first)
		fmt.Sscanf(ranges[1], "bytes=%d-", &second)
		if first != 1000 || second <= 1000 || second > 601_000 {
			t.Errorf("the requests were for %q", ranges)
		}
	})
}

// TestReplacedWhileRead: after a break the rest of another object is refused.
func TestReplacedWhileRead(t *testing.T) {
	through(t, bucket.Options{}, func(t *testing.T, b *bucket.Bucket, p *buckettest.Proxy) {
		must(t, b.Put(t.Context(), "data", noise(1<<20)))
		p.Spoil(func(*http.Request) *buckettest.Spoil { return &buckettest.Spoil{Cut: 1000} })
		r, err := b.NewReader(t.Context(), "data", 0, -1)
		must(t, err)
		defer r.Close()
		p.Spoil(nil)
		must(t, b.Put(t.Context(), "data", append([]byte("x"), noise(1<<20-1)...)))
		buf := make([]byte, 64<<10)
		for err == nil {
			_, err = r.Read(buf)
		}
		if !errors.Is(err, bucket.ErrChanged) {
			t.Errorf("reading on in another object: %v", err)
		}
	})
}

// TestRetryAfter: a store's wish to be left alone is granted.
func TestRetryAfter(t *testing.T) {
	var mu sync.Mutex
	var waits []time.Duration
	var told []error
	opts := bucket.Options{Retrying: func(err error, wait time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		waits, told = append(waits, wait), append(told, err)
	}}
	through(t, opts, func(t *testing.T, b *bucket.Bucket, p *buckettest.Proxy) {
		waits, told = nil, nil
		asked := 0
		p.Spoil(func(*http.Request) *buckettest.Spoil {
			switch asked++; asked {
			case 1:
				return &buckettest.Spoil{Status: 503, Header: http.Header{"Retry-After": {"1"}}}
			case 2:
				return &buckettest.Spoil{Status: 429}
			}
			return nil
		})
		must(t, b.Create(t.Context(), "key", []byte("data")))
		if len(waits) != 2 || waits[0] < time.Second || waits[0] > 1100*time.Millisecond || waits[1] > 100*time.Millisecond {
			t.Errorf("waited %v after %v", waits, told)
		}
		if len(told) > 0 && !errors.Is(told[0], bucket.ErrUnavailable) {
			t.Errorf("a store that is busy: %v", told[0])
		}
	})
}

func TestMissingBucket(t *testing.T) {
	for _, scheme := range append([]string{"s3 inside"}, buckettest.Schemes...) {
		t.Run(scheme, func(t *testing.T) {
			var u *url.URL
			if scheme == "s3 inside" {
				u = buckettest.S3(t, "bucket")
			} else {
				u = buckettest.Server(t, scheme)
			}
			u.Host = "absent"
			b := open(t, u, bucket.Options{Backoff: time.Millisecond})
			_, getErr := b.Get(t.Context(), "key")
			for name, err := range map[string]error{
				"create": b.Create(t.Context(), "key", nil),
				"list":   b.List(t.Context(), "", func(bucket.Object) error { return nil }),
				"probe":  b.Probe(t.Context()),
			} {
				if !errors.Is(err, bucket.ErrNoBucket) || errors.Is(err, bucket.ErrNotFound) || !strings.Contains(err.Error(), "absent") {
					t.Errorf("%s: %v", name, err)
				}
			}
			if !errors.Is(getErr, bucket.ErrNoBucket) && !errors.Is(getErr, bucket.ErrNotFound) {
				t.Errorf("get: %v", getErr)
			}
		})
	}
}

// refusals are the stores' answers to credentials.
var refusals = map[string]struct{ denied, forbidden, expired buckettest.Spoil }{
	"s3": {
		denied:    buckettest.Spoil{Status: 403, Body: `<Error><Code>InvalidAccessKeyId</Code><Message>no such key</Message></Error>`},
		forbidden: buckettest.Spoil{Status: 403, Body: `<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>`},
		expired:   buckettest.Spoil{Status: 400, Body: `<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>`},
	},
	"gs": {
		denied:    buckettest.Spoil{Status: 401, Body: `{"error":{"code":401,"message":"Invalid Credentials"}}`},
		forbidden: buckettest.Spoil{Status: 403, Body: `{"error":{"code":403,"message":"no access to storage.objects.get"}}`},
		expired:   buckettest.Spoil{Status: 401, Body: `{"error":{"code":401,"message":"Invalid Credentials"}}`},
	},
	"azblob": {
		denied:    buckettest.Spoil{Status: 403, Header: http.Header{"X-Ms-Error-Code": {"AuthenticationFailed"}}},
		forbidden: buckettest.Spoil{Status: 403, Header: http.Header{"X-Ms-Error-Code": {"AuthorizationPermissionMismatch"}}},
		expired: buckettest.Spoil{Status: 403, Header: http.Header{"X-Ms-Error-Code": {"AuthenticationFailed"}},
			Body: `<Error><Code>AuthenticationFailed</Code><AuthenticationErrorDetail>Signature not valid in the specified time frame</AuthenticationErrorDetail></Error>`},
	},
}

func TestRefusedCredentials(t *testing.T) {
	through(t, bucket.Options{}, func(t *testing.T, b *bucket.Bucket, p *buckettest.Proxy) {
		answers := refusals[strings.SplitN(b.URL(), ":", 2)[0]]
		asked := 0
		refuse := func(s buckettest.Spoil) {
			asked = 0
			p.Spoil(func(*http.Request) *buckettest.Spoil { asked++; return &s })
		}
		check := func(what string, want error) {
			t.Helper()
			_, getErr := b.Get(t.Context(), "key")
			for name, err := range map[string]error{
				"get": getErr, "create": b.Create(t.Context(), "new", []byte("x")),
				"list": b.List(t.Context(), "", func(bucket.Object) error { return nil }),
			} {
				if !errors.Is(err, want) || errors.Is(err, bucket.ErrNotFound) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%s, %s: %v", what, name, err)
				}
			}
			if asked > 3 {
				t.Errorf("%s: the store was asked %d times", what, asked)
			}
		}
		refuse(answers.denied)
		check("wrong credentials", bucket.ErrDenied)
		p.Spoil(nil)
		must(t, b.Create(t.Context(), "key", []byte("x")))
		refuse(answers.expired)
		check("credentials that expired", bucket.ErrExpired)
		refuse(answers.forbidden)
		check("missing permissions", bucket.ErrDenied)
	})
}

// TestStoreWrongKeys: the servers check signatures.
func TestStoreWrongKeys(t *testing.T) {
	for scheme, variable := range map[string]string{"s3": "AWS_SECRET_ACCESS_KEY", "azblob": "AZURE_STORAGE_KEY"} {
		t.Run(scheme, func(t *testing.T) {
			u := buckettest.Server(t, scheme)
			wrong := strings.Repeat("QUJD", 12)
			t.Setenv(variable, wrong)
			b := open(t, u, bucket.Options{Backoff: time.Millisecond})
			_, getErr := b.Get(t.Context(), "key")
			for _, err := range []error{getErr, b.Create(t.Context(), "key", []byte("x")), b.Probe(t.Context())} {
				if !errors.Is(err, bucket.ErrDenied) || strings.Contains(err.Error(), wrong) {
					t.Errorf("a wrong key: %v", err)
				}
			}
		})
	}
}

// TestClockSkew: the store's clock is an hour ahead. Its answer tells, and the
// next signature is of its time; a store that still does not accept it is given
// up soon.
func TestClockSkew(t *testing.T) {
	u, p := buckettest.Through(t, buckettest.S3(t, "bucket"))
	b := open(t, u, bucket.Options{Backoff: time.Millisecond})
	asked, never := 0, false
	p.Spoil(func(r *http.Request) *buckettest.Spoil {
		asked++
		theirs := time.Now().Add(time.Hour).UTC()
		if signed, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date")); err == nil && signed.Sub(theirs).Abs() < 15*time.Minute && !never {
			r.Header.Set("X-Amz-Date", time.Now().UTC().Format("20060102T150405Z")) // what is behind has our clock
			return nil
		}
		return &buckettest.Spoil{Status: 403, Header: http.Header{"Date": {theirs.Format(http.TimeFormat)}},
			Body: `<Error><Code>RequestTimeTooSkewed</Code><Message>The difference between the request time and the current time is too large.</Message></Error>`}
	})
	must(t, b.Create(t.Context(), "key", []byte("x")))
	if asked != 2 {
		t.Errorf("the store was asked %d times", asked)
	}
	asked, never = 0, true
	if err := b.Create(t.Context(), "other", []byte("x")); !errors.Is(err, bucket.ErrClock) || asked != 2 {
		t.Errorf("a clock that cannot be corrected: %v, after %d requests", err, asked)
	}
}
