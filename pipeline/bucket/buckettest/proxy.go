package buckettest

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
)

// Proxy stands between a client and a store and spoils what the store is asked
// and what it answers.
type Proxy struct {
	mu     sync.Mutex
	spoil  func(r *http.Request) *Spoil
	server *httptest.Server
}

// Spoil says what happens to one request. The zero value refuses the connection:
// it is reset, and the store never sees the request.
type Spoil struct {
	// Status, if set, is answered in the store's place, with Header and Body.
	Status int
	Header http.Header
	Body   string
	// Lose lets the store do what it is asked and loses its answer.
	Lose bool
	// Cut, if positive, resets the connection after so many bytes of the
	// answer's body.
	Cut int64
}

// Spoil makes spoil decide about every request from now on; it returns nil for
// those that pass. It is called for one request at a time. A nil spoil lets all
// pass.
func (p *Proxy) Spoil(spoil func(r *http.Request) *Spoil) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spoil = spoil
}

func (p *Proxy) verdict(r *http.Request) *Spoil {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spoil == nil {
		return nil
	}
	return p.spoil(r)
}

// Through puts a proxy before the store of a bucket's URL, as [S3] and [Server]
// return it, and returns the URL that leads through it. For gs:// it sets the
// environment, so the test must not be parallel.
func Through(t testing.TB, u *url.URL) (*url.URL, *Proxy) {
	t.Helper()
	q := u.Query()
	target := &url.URL{Scheme: "http"}
	switch u.Scheme {
	case "s3":
		endpoint, err := url.Parse(q.Get("endpoint"))
		if err != nil {
			t.Fatal(err)
		}
		target = endpoint
	case "gs":
		target.Host = emulatorHost(t)
	case "azblob":
		target.Host = q.Get("domain")
	}
	p := &Proxy{}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			if u.Scheme == "s3" {
				r.Out.Host = r.In.Host // it is signed
			}
		},
		ModifyResponse: func(answer *http.Response) error {
			if s, ok := answer.Request.Context().Value(spoilKey{}).(*Spoil); ok && s.Cut > 0 {
				answer.Body = &cutBody{answer.Body, s.Cut}
			}
			return nil
		},
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		FlushInterval: -1,
	}
	p.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch s := p.verdict(r); {
		case s == nil:
			forward.ServeHTTP(w, r)
		case s.Status != 0:
			_, _ = io.Copy(io.Discard, r.Body)
			for name, values := range s.Header {
				w.Header()[name] = values
			}
			w.WriteHeader(s.Status)
			_, _ = io.WriteString(w, s.Body)
		case s.Lose:
			forward.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		case s.Cut > 0:
			forward.ServeHTTP(w, r.WithContext(withSpoil(r.Context(), s)))
		default:
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(p.server.Close)
	through := *u
	host := p.server.Listener.Addr().String()
	switch u.Scheme {
	case "s3":
		q.Set("endpoint", p.server.URL)
	case "gs":
		t.Setenv(emulator, host)
	case "azblob":
		q.Set("domain", host)
	}
	through.RawQuery = q.Encode()
	return &through, p
}

// cutBody breaks off after left bytes.
type cutBody struct {
	io.ReadCloser
	left int64
}

func (b *cutBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

type spoilKey struct{}

func withSpoil(ctx context.Context, s *Spoil) context.Context {
	return context.WithValue(ctx, spoilKey{}, s)
}
