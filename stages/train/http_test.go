package train

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"sela/pipeline"
)

// receiver answers with the given statuses in turn, the last one for ever, and
// keeps what it was sent.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	statuses []int
	header   http.Header // of its answers
	body     string      // of its answers; %s is the token it got
	got      []*http.Request
	bodies   []string
}

func newReceiver(t *testing.T, statuses ...int) *receiver {
	r := &receiver{statuses: statuses, header: http.Header{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		body, _ := io.ReadAll(req.Body) // an error shows in the comparison
		r.got, r.bodies = append(r.got, req), append(r.bodies, string(body))
		for k, v := range r.header {
			w.Header()[k] = v
		}
		w.WriteHeader(r.statuses[min(len(r.got), len(r.statuses))-1])
		fmt.Fprint(w, strings.ReplaceAll(r.body, "%s", req.Header.Get("Authorization")))
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) trigger() HTTP { return HTTP{URL: r.URL + "/hook", Client: r.Client()} }

func TestHTTPSendsManifest(t *testing.T) {
	r := newReceiver(t, http.StatusAccepted)
	h := r.trigger()
	h.Token = "s3cret"
	e := event(t)
	o, err := h.Fire(context.Background(), e)
	if err != nil || o.Type != "http" || !strings.Contains(o.Detail, "202") {
		t.Fatal(o, err)
	}
	req := r.got[0]
	for name, want := range map[string]string{"Content-Type": "application/json", "Idempotency-Key": e.Digest, "X-Sela-Run": e.Run,
		"X-Sela-Labels": e.Labels, "Authorization": "Bearer s3cret"} {
		if got := req.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if req.Method != http.MethodPost || r.bodies[0] != string(e.Manifest) {
		t.Errorf("%s %q", req.Method, r.bodies[0])
	}
}

func TestHTTPAnswers(t *testing.T) {
	const ok = pipeline.Class(-1)
	for status, want := range map[int]pipeline.Class{
		200: ok, 201: ok, 204: ok, 409: ok,
		408: pipeline.Transient, 425: pipeline.Transient, 429: pipeline.Transient, 500: pipeline.Transient, 503: pipeline.Transient,
		400: pipeline.Config, 401: pipeline.Config, 404: pipeline.Config, 422: pipeline.Config,
	} {
		r := newReceiver(t, status)
		_, err := r.trigger().Fire(context.Background(), event(t))
		if (err == nil) != (want == ok) || err != nil && pipeline.ClassOf(err) != want {
			t.Errorf("%d: %v, want class %v", status, err, want)
		}
	}
}

// A redirect that turns a POST into a GET would be acknowledged by somebody who
// never saw the manifest; one that keeps the POST is followed with all of it.
func TestHTTPRedirects(t *testing.T) {
	target := newReceiver(t, http.StatusOK)
	for status, follow := range map[int]bool{301: false, 302: false, 303: false, 307: true, 308: true} {
		r := newReceiver(t, status)
		r.header.Set("Location", target.URL)
		before := len(target.got)
		_, err := r.trigger().Fire(context.Background(), event(t))
		if !follow && pipeline.ClassOf(err) != pipeline.Config || follow && err != nil {
			t.Errorf("%d: %v", status, err)
		}
		if got := len(target.got) - before; got != map[bool]int{true: 1}[follow] {
			t.Errorf("%d: the target got %d requests", status, got)
		}
		if n := len(target.got); follow && (target.got[n-1].Method != http.MethodPost || target.bodies[n-1] == "" || target.got[n-1].Header.Get("Idempotency-Key") != "d1") {
			t.Errorf("%d: the target got %s %q", status, target.got[n-1].Method, target.bodies[n-1])
		}
	}
}

func TestHTTPHidesSecrets(t *testing.T) {
	refused := httptest.NewServer(http.NotFoundHandler())
	refused.Close()
	urls := map[string]string{"refused": refused.URL}
	for _, status := range []int{404, 500} {
		r := newReceiver(t, status)
		r.body = "you sent %s"
		urls[fmt.Sprint(status)] = r.URL
	}
	for name, url := range urls {
		h := HTTP{URL: url + "/hook?sig=qu3ry", Token: "s3cret", Client: http.DefaultClient}
		_, err := h.Fire(context.Background(), event(t))
		if err == nil || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "qu3ry") {
			t.Errorf("%s: %v", name, err)
		}
		if name == "refused" && pipeline.ClassOf(err) != pipeline.Transient {
			t.Errorf("connection refused: %v, want a retryable error", err)
		}
	}
}

func TestHTTPTimeoutAndCancel(t *testing.T) {
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer s.Close()
	defer close(release)
	h := HTTP{URL: s.URL, Client: s.Client(), Limit: 10 * time.Millisecond}
	if _, err := h.Fire(context.Background(), event(t)); pipeline.ClassOf(err) != pipeline.Transient {
		t.Errorf("no answer in time: %v", err)
	}
	h.Limit = 0
	ctx, cancel := context.WithTimeoutCause(context.Background(), time.Hour, nil)
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := h.Fire(ctx, event(t)); pipeline.ClassOf(err) != pipeline.Interrupted {
		t.Errorf("cancelled: %v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "0": 0, "-3": 0, "7": 7 * time.Second, "soon": 0, "999999": maxPause, "99999999999999999999": maxPause, "9999999999999": maxPause,
		now.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
		now.Add(-time.Hour).Format(http.TimeFormat):       0,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("Retry-After %q: %v, want %v", header, got, want)
		}
	}
	// A cancelled wait ends at once.
	r := newReceiver(t, http.StatusTooManyRequests)
	r.header.Set("Retry-After", "300")
	ctx, cancel := context.WithCancel(context.Background())
	h := r.trigger()
	h.Client.Transport = cancelAfter{h.Client.Transport, cancel}
	if _, err := h.Fire(ctx, event(t)); err == nil {
		t.Error("429 was taken for an acknowledgement")
	}
}

// cancelAfter cancels once an answer is there.
type cancelAfter struct {
	http.RoundTripper
	cancel context.CancelFunc
}

func (c cancelAfter) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.RoundTripper.RoundTrip(r.WithContext(context.WithoutCancel(r.Context())))
	c.cancel()
	return resp, err
}
