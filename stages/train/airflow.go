package train

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"sela/pipeline"
)

// Airflow starts a training DAG through the stable REST API of Airflow 3, once
// per manifest: the id of the DAG run is made of the manifest's digest, and
// 409, by which Airflow says that it has this DAG run already, acknowledges it.
// The DAG run's conf has run, labels, manifest, digest and model. Answers are
// classed as those to [HTTP] are.
type Airflow struct {
	URL            string // of the API server, without /api/v2
	DAG            string
	Token          string // bearer token, or empty; never logged
	User, Password string // if User is set, a token is asked for with these; never logged
	Client         *http.Client
	Limit          time.Duration // of one request; 0 is none
}

// RunID returns the id of the DAG run for a manifest's digest.
func (Airflow) RunID(digest string) string { return "sela__" + digest }

// Fire implements [Trigger].
func (f Airflow) Fire(ctx context.Context, e Event) (*Outcome, error) {
	token := f.Token
	if f.User != "" {
		var err error
		if token, err = f.login(ctx); err != nil {
			return nil, err
		}
	}
	header := http.Header{}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	id := f.RunID(e.Digest)
	body, err := json.Marshal(map[string]any{
		"dag_run_id":   id,
		"logical_date": nil, // must be there, and a run that is no schedule's has none
		"conf":         map[string]string{"run": e.Run, "labels": e.Labels, "manifest": e.URL, "digest": e.Digest, "model": e.Model},
	})
	if err != nil {
		return nil, fmt.Errorf("train: conf of DAG run %s: %w", id, err)
	}
	said, _, err := f.poster(token).post(ctx, f.at("/api/v2/dags/"+url.PathEscape(f.DAG)+"/dagRuns"), header, body)
	if err != nil {
		return nil, err
	}
	return &Outcome{Type: "airflow", Detail: "DAG run " + id + ": " + said}, nil
}

// login returns a fresh token.
func (f Airflow) login(ctx context.Context) (string, error) {
	body, err := json.Marshal(map[string]string{"username": f.User, "password": f.Password})
	if err != nil {
		return "", fmt.Errorf("train: login: %w", err)
	}
	where := f.at("/auth/token")
	said, answer, err := f.poster().post(ctx, where, http.Header{}, body)
	if err != nil {
		return "", fmt.Errorf("ask for a token: %w", err)
	}
	var got struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(answer, &got); err != nil || got.Token == "" {
		return "", pipeline.BadConfig(fmt.Errorf("train: %s without an access_token: the labels stay published; name the API server of an Airflow 3 in train.url, or use train.token_env", said))
	}
	return got.Token, nil
}

func (f Airflow) at(path string) string { return strings.TrimRight(f.URL, "/") + path }

func (f Airflow) poster(tokens ...string) poster {
	return poster{client: f.Client, limit: f.Limit, secrets: append(tokens, f.Token, f.Password)}
}
