package train

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/stages/internal/runtest"
)

func (r *receiver) airflow() Airflow {
	return Airflow{URL: r.URL + "/base/", DAG: "train.it", Token: "s3cret", Client: r.Client()}
}

func TestAirflowStartsDAG(t *testing.T) {
	r := newReceiver(t, http.StatusOK)
	e := event(t)
	o, err := r.airflow().Fire(context.Background(), e)
	if err != nil || o.Type != "airflow" || !strings.Contains(o.Detail, "DAG run sela__d1") {
		t.Fatal(o, err)
	}
	req := r.got[0]
	if req.Method != http.MethodPost || req.URL.Path != "/base/api/v2/dags/train.it/dagRuns" || req.Header.Get("Authorization") != "Bearer s3cret" {
		t.Errorf("%s %s %v", req.Method, req.URL, req.Header)
	}
	// Unknown keys are refused by Airflow, and logical_date must be there.
	want := `{"conf":{"digest":"d1","labels":"` + e.Labels + `","manifest":"` + e.URL + `","model":"` + e.Model + `","run":"run-1"},"dag_run_id":"sela__d1","logical_date":null}`
	if r.bodies[0] != want {
		t.Errorf("body\n%s\nwant\n%s", r.bodies[0], want)
	}
}

func TestAirflowAnswers(t *testing.T) {
	const ok = pipeline.Class(-1)
	for status, want := range map[int]pipeline.Class{
		200: ok, 201: ok, 409: ok,
		429: pipeline.Transient, 500: pipeline.Transient, 502: pipeline.Transient, 503: pipeline.Transient,
		302: pipeline.Config, 400: pipeline.Config, 401: pipeline.Config, 403: pipeline.Config, 404: pipeline.Config, 422: pipeline.Config,
	} {
		r := newReceiver(t, status)
		r.body = "you sent %s"
		_, err := r.airflow().Fire(context.Background(), event(t))
		if (err == nil) != (want == ok) || err != nil && pipeline.ClassOf(err) != want {
			t.Errorf("%d: %v, want class %v", status, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "stay published")) {
			t.Errorf("%d: %v", status, err)
		}
	}
}

func TestAirflowLogin(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		answer string
		want   string // "" is success
		class  pipeline.Class
	}{
		{"token", 201, `{"access_token": "t0k3n"}`, "", 0},
		{"wrong password", 401, `p4ss is wrong`, "REDACTED is wrong", pipeline.Config},
		{"no token", 200, `{"jwt": "x"}`, "without an access_token", pipeline.Config},
		{"no JSON", 200, `<html>`, "without an access_token", pipeline.Config},
		{"down", 503, ``, "503", pipeline.Transient},
	} {
		var bearer string
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path != "/auth/token" {
				bearer = req.Header.Get("Authorization")
				return
			}
			var login map[string]string
			if err := json.NewDecoder(req.Body).Decode(&login); err != nil || login["username"] != "ann" || login["password"] != "p4ss" {
				t.Errorf("%s: login %v, %v", c.name, login, err)
			}
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(c.answer)) // a failure shows as another answer
		}))
		_, err := Airflow{URL: s.URL, DAG: "d", User: "ann", Password: "p4ss", Client: s.Client()}.Fire(context.Background(), event(t))
		s.Close()
		switch {
		case c.want == "":
			if err != nil || bearer != "Bearer t0k3n" {
				t.Errorf("%s: %q, %v", c.name, bearer, err)
			}
		case err == nil || !strings.Contains(err.Error(), c.want) || pipeline.ClassOf(err) != c.class || bearer != "" || strings.Contains(err.Error(), "p4ss"):
			t.Errorf("%s: %v (%v), DAG asked for with %q", c.name, err, pipeline.ClassOf(err), bearer)
		}
	}
}

// An Airflow that comes back gets the DAG run, with the same id as before; one
// that has it already, from a try whose answer was lost, is not asked again.
func TestAirflowOncePerManifest(t *testing.T) {
	r := published(t)
	s := newReceiver(t, 500, 503, 409)
	if _, err := command(t, r, s.airflow()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := command(t, r, s.airflow()); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.got) != 3 {
		t.Errorf("%d requests, want 3", len(s.got))
	}
	for i, body := range s.bodies {
		if body != s.bodies[0] || !strings.Contains(body, Airflow{}.RunID(digestOf(t, r))) {
			t.Errorf("request %d: %s", i, body)
		}
	}
}

func TestAirflowStaysDown(t *testing.T) {
	r := published(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	_, err := runtest.Runner().Run(context.Background(), r.Run, &Stage{Labels: r.Labels, Trigger: Airflow{URL: gone.URL, DAG: "d", Client: http.DefaultClient}})
	if pipeline.ExitCode(err, 0) != 75 {
		t.Errorf("exit code %d: %v", pipeline.ExitCode(err, 0), err)
	}
	if _, err := r.Labels.Get(context.Background(), "LATEST"); err != nil {
		t.Errorf("the labels are not published any more: %v", err)
	}
}
