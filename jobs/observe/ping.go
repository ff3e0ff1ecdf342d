package observe

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"sela/pipeline"
)

// ping tells a health check when a command starts and how it ends: URL/start,
// then the bare URL for a success and URL/<exit code> for a failure, or URL/fail
// where the service knows no exit codes.
type ping struct {
	url     *url.URL
	client  *http.Client
	courier *courier
}

func newPing(o Options, client *http.Client, warn func(string, error)) (listener, error) {
	if o.Ping == "" {
		return nil, nil
	}
	u, err := parseURL("the health check", o.Ping)
	if err != nil {
		return nil, err
	}
	p := &ping{url: u, client: client, courier: newCourier(func(err error) { warn("health check", err) })}
	p.courier.post(func(ctx context.Context) error {
		_, err := p.get(ctx, "start")
		return err
	})
	return p, nil
}

// get pings the URL, or what lies below it.
func (p *ping) get(ctx context.Context, below string) (status int, err error) {
	u := p.url
	if below != "" {
		u = u.JoinPath(below)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return 0, err
	}
	return answer(p.client, r)
}

func (p *ping) job(*pipeline.Job)    {}
func (p *ping) run(*pipeline.Record) {}
func (p *ping) event(pipeline.Event) {}

func (p *ping) end(ctx context.Context, s *summary) {
	p.courier.last(ctx, func(ctx context.Context) error {
		if s.success() {
			_, err := p.get(ctx, "")
			return err
		}
		status, err := p.get(ctx, strconv.Itoa(s.Code))
		if status == http.StatusNotFound || status == http.StatusMethodNotAllowed || status == http.StatusBadRequest {
			_, err = p.get(ctx, "fail")
		}
		return err
	})
}
