package train

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"sela/pipeline"
)

// HTTP posts each published manifest to a URL, with the manifest's digest as
// Idempotency-Key and the published folder as X-Sela-Labels. A 2xx answer
// acknowledges it, as does 409, by which a receiver says that it knows the key
// already. 408, 425, 429 and 5xx may be tried again; the pause that a
// Retry-After asks for is kept.
type HTTP struct {
	URL    string
	Token  string // bearer token, or empty; never logged
	Client *http.Client
	Limit  time.Duration // of one request; 0 is none
}

// Fire implements [Trigger].
func (h HTTP) Fire(ctx context.Context, e Event) (*Outcome, error) {
	header := http.Header{"Idempotency-Key": {e.Digest}, "X-Sela-Run": {e.Run}, "X-Sela-Labels": {e.Labels}}
	p := poster{client: h.Client, limit: h.Limit, secrets: []string{h.Token}}
	if h.Token != "" {
		header.Set("Authorization", "Bearer "+h.Token)
	}
	said, _, err := p.post(ctx, h.URL, header, e.Manifest)
	if err != nil {
		return nil, err
	}
	return &Outcome{Type: "http", Detail: said}, nil
}

// poster sends JSON and classes the answers.
type poster struct {
	client  *http.Client
	limit   time.Duration // of one request; 0 is none
	secrets []string      // left out of errors in case the receiver repeats them
}

// maxPause bounds what a Retry-After can ask for.
const maxPause = 5 * time.Minute

// post returns what was answered, in words and as the beginning of the body,
// when the answer is 2xx or 409.
func (p poster) post(ctx context.Context, to string, header http.Header, body []byte) (said string, answer []byte, err error) {
	rctx := ctx
	if p.limit > 0 {
		var cancel context.CancelFunc
		rctx, cancel = context.WithTimeout(ctx, p.limit)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(rctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return "", nil, pipeline.BadConfig(fmt.Errorf("train.url: %w", err))
	}
	req.Header = header
	req.Header.Set("Content-Type", "application/json")
	client := *p.client
	client.CheckRedirect = keepPost
	resp, err := client.Do(req)
	where := req.URL.Scheme + "://" + req.URL.Host + req.URL.Path // a query may hold a secret
	if err != nil {
		if ctx.Err() != nil {
			return "", nil, fmt.Errorf("train: %w", ctx.Err())
		}
		var detail *url.Error
		if errors.As(err, &detail) {
			err = detail.Err
		}
		return "", nil, pipeline.Retryable(fmt.Errorf("train: POST %s: %w: the labels stay published", where, err))
	}
	defer resp.Body.Close()
	said = fmt.Sprintf("%s answered %s", where, resp.Status)
	answer, _ = io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // half an answer is better than none
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300 || code == http.StatusConflict:
		return said, answer, nil
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests, code >= 500:
		pause(ctx, retryAfter(resp.Header.Get("Retry-After"), time.Now()))
		return "", nil, pipeline.Retryable(fmt.Errorf("train: %s%s: the labels stay published", said, p.quote(answer)))
	default:
		return "", nil, pipeline.BadConfig(fmt.Errorf("train: %s%s: the labels stay published; mend the job's train section and run the same command again", said, p.quote(answer)))
	}
}

// keepPost refuses to follow a redirect that would turn the POST into a GET: its
// target would acknowledge what it never got.
func keepPost(req *http.Request, via []*http.Request) error {
	if req.Method != http.MethodPost || len(via) >= 10 {
		return http.ErrUseLastResponse
	}
	return nil
}

// quote returns a colon and the beginning of an answer, without secrets; nothing
// for an empty answer.
func (p poster) quote(answer []byte) string {
	said := string(answer)
	for _, s := range p.secrets {
		if s != "" {
			said = strings.ReplaceAll(said, s, "REDACTED")
		}
	}
	if said = strings.TrimSpace(said[:min(len(said), 512)]); said == "" {
		return ""
	}
	return ": " + said
}

// retryAfter returns how long a Retry-After header asks to wait, in seconds or
// as a date; at most maxPause.
func retryAfter(header string, now time.Time) time.Duration {
	var wait time.Duration
	if s, err := strconv.ParseFloat(header, 64); err == nil {
		wait = time.Duration(min(s, maxPause.Seconds()) * float64(time.Second))
	} else if t, err := http.ParseTime(header); err == nil {
		wait = t.Sub(now)
	}
	return min(max(wait, 0), maxPause)
}

// pause waits unless ctx ends.
func pause(ctx context.Context, wait time.Duration) {
	select {
	case <-time.After(wait):
	case <-ctx.Done():
	}
}
