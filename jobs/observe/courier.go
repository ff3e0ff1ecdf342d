package observe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"sync"
	"time"
)

// courier sends messages one after another, in order, away from the run.
type courier struct {
	queue  chan message
	closed chan struct{}
	gone   chan struct{} // closed when nothing is under way any more
	ctx    context.Context
	cancel context.CancelFunc
	once   sync.Once
	failed func(error)
}

// message sends one message.
type message func(ctx context.Context) error

const (
	// waiting is how many messages may wait; what is more is dropped.
	waiting = 64
	// sending bounds one message.
	sending = 10 * time.Second
)

func newCourier(failed func(error)) *courier {
	c := &courier{queue: make(chan message, waiting), closed: make(chan struct{}), gone: make(chan struct{}), failed: failed}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	go c.work()
	return c
}

func (c *courier) work() {
	defer close(c.gone)
	for {
		select {
		case m := <-c.queue:
			c.send(c.ctx, m)
		case <-c.closed:
			for {
				select {
				case m := <-c.queue:
					c.send(c.ctx, m)
				default:
					return
				}
			}
		}
	}
}

func (c *courier) send(ctx context.Context, m message) {
	ctx, cancel := context.WithTimeout(ctx, sending)
	defer cancel()
	if err := m(ctx); err != nil {
		c.failed(err)
	}
}

// post sends m when those before it are sent.
func (c *courier) post(m message) {
	select {
	case c.queue <- m:
	default:
		c.failed(errors.New("it is too slow: a message was dropped"))
	}
}

// last sends m after those before it, or without them where they take more than
// a third of the time that ctx leaves.
func (c *courier) last(ctx context.Context, m message) {
	c.once.Do(func() { close(c.closed) })
	defer c.cancel()
	limit := sending
	if end, ok := ctx.Deadline(); ok {
		limit = time.Until(end) / 3
	}
	timer := time.AfterFunc(limit, c.cancel)
	defer timer.Stop()
	<-c.gone
	c.send(ctx, m)
}

// answer does a request and makes an error of an answer that is no success.
func answer(client *http.Client, r *http.Request) (status int, err error) {
	response, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<20)) // so that the connection serves again
	if response.StatusCode/100 != 2 {
		return response.StatusCode, fmt.Errorf("%s answered %s", host(r.URL), response.Status)
	}
	return response.StatusCode, nil
}

// parseURL reads the URL of a receiver.
func parseURL(name, raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%s is no http or https URL", name) // the URL may hold a secret
	}
	return u, nil
}

// host is what of a URL may be shown.
func host(u *url.URL) string { return u.Scheme + "://" + u.Host }

var anyURL = regexp.MustCompile(`[a-zA-Z][a-zA-Z0-9+.-]*://[^\s"'<>]*`)

// reason is err without what is secret in URLs.
func reason(err error) error {
	text := err.Error()
	var failed *url.Error
	if errors.As(err, &failed) {
		text = failed.Err.Error()
		if u, parseErr := url.Parse(failed.URL); parseErr == nil {
			text = host(u) + ": " + text
		}
	}
	text = anyURL.ReplaceAllStringFunc(text, func(raw string) string {
		u, err := url.Parse(raw)
		if err != nil || u.Host == "" {
			return "(a URL)"
		}
		return host(u)
	})
	return errors.New(text)
}
