package train

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/stages/internal/runtest"
	"sela/stages/label"
	"sela/stages/publish"
)

// published makes a run that has come as far as publish.
func published(t *testing.T) *runtest.Run {
	t.Helper()
	r := runtest.New(t, runtest.Options{Heads: 1})
	r.Through(t, r.Run, label.Name)
	if _, err := runtest.Runner().Run(context.Background(), r.Run, &publish.Stage{Labels: r.Labels}); err != nil {
		t.Fatal(err)
	}
	return r
}

// command performs the stage as one command does: the run is opened afresh.
func command(t *testing.T, r *runtest.Run, trigger Trigger) (pipeline.Totals, error) {
	t.Helper()
	return runtest.Runner().Run(context.Background(), r.Open(t, r.Run.Run), &Stage{Labels: r.Labels, Trigger: trigger})
}

// counted counts how often a trigger is fired.
type counted struct {
	Trigger
	fired int
}

func (c *counted) Fire(ctx context.Context, e Event) (*Outcome, error) {
	c.fired++
	return c.Trigger.Fire(ctx, e)
}

func TestStage(t *testing.T) {
	r := published(t)
	ctx := context.Background()
	again := func(name string, test func(t *testing.T)) {
		r.Forget(t, Name)
		t.Run(name, test)
	}
	once := func(t *testing.T, trigger Trigger) {
		t.Helper()
		for range 3 {
			c := &counted{Trigger: trigger}
			totals, err := command(t, r, c)
			if err != nil || c.fired != 0 || totals.Skipped != 1 {
				t.Errorf("after a recorded success: fired %d times, %+v, %v", c.fired, totals, err)
			}
		}
	}

	again("none", func(t *testing.T) {
		c := &counted{Trigger: None{}}
		if _, err := command(t, r, c); err != nil || c.fired != 1 {
			t.Fatal(c.fired, err)
		}
		commit, err := r.Commit(ctx, Name, pipeline.Task{ID: "trigger", Inputs: digestOf(t, r)})
		if err != nil || !strings.Contains(string(commit.Result), `"none"`) {
			t.Errorf("%s, %v", commit.Result, err)
		}
		once(t, None{})
	})

	again("command's model is recorded", func(t *testing.T) {
		c := shell(`test "$(cat)" = "$(cat "$SELA_MANIFEST")" && printf weights > "$SELA_TRAINED_MODEL"`)
		if _, err := command(t, r, c); err != nil {
			t.Fatal(err)
		}
		commit, err := r.Commit(ctx, Name, pipeline.Task{ID: "trigger", Inputs: digestOf(t, r)})
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte("weights"))
		if len(commit.Outputs) != 1 || commit.Outputs[0].Name != ModelName || commit.Outputs[0].SHA256 != hex.EncodeToString(sum[:]) || commit.Outputs[0].Bytes != 7 {
			t.Fatalf("outputs %+v", commit.Outputs)
		}
		local, release, err := r.Fetch(ctx, commit.Outputs[0])
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		if raw, err := os.ReadFile(local); err != nil || string(raw) != "weights" {
			t.Errorf("%q, %v", raw, err)
		}
		if !strings.Contains(string(commit.Result), "exit status 0") {
			t.Errorf("%s", commit.Result)
		}
		once(t, c)
	})

	again("http is retried until acknowledged", func(t *testing.T) {
		h := newReceiver(t, 500, 500, 200)
		if _, err := command(t, r, h.trigger()); err != nil {
			t.Fatal(err)
		}
		once(t, h.trigger())
		h.check(t, 3, digestOf(t, r))
	})

	again("http is retried over commands", func(t *testing.T) {
		// Three tries a command: the first two commands fail.
		h := newReceiver(t, 503, 503, 503, 503, 503, 503, 409)
		for i := range 2 {
			if _, err := command(t, r, h.trigger()); pipeline.ClassOf(err) != pipeline.Transient {
				t.Fatalf("command %d: %v, want a retryable error", i, err)
			}
			if len(h.got) != 3*(i+1) {
				t.Fatalf("command %d: %d requests in all", i, len(h.got))
			}
		}
		if _, err := command(t, r, h.trigger()); err != nil {
			t.Fatal(err)
		}
		once(t, h.trigger())
		h.check(t, 7, digestOf(t, r))
	})

	again("a refusal is not retried", func(t *testing.T) {
		h := newReceiver(t, 404, 200)
		if _, err := command(t, r, h.trigger()); pipeline.ClassOf(err) != pipeline.Config || len(h.got) != 1 {
			t.Fatal(len(h.got), err)
		}
		if _, err := command(t, r, h.trigger()); err != nil { // mended meanwhile
			t.Fatal(err)
		}
		once(t, h.trigger())
	})

	again("a success that was not recorded is told again", func(t *testing.T) {
		h := newReceiver(t, 200)
		if _, err := command(t, r, killed{h.trigger()}); err == nil {
			t.Fatal("the killed command succeeded")
		}
		if _, err := command(t, r, h.trigger()); err != nil {
			t.Fatal(err)
		}
		once(t, h.trigger())
		h.check(t, 2, digestOf(t, r))
	})

	again("an edited manifest is not sent", func(t *testing.T) {
		key := "runs/run-1/_manifest.json"
		raw, err := r.Labels.Get(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Labels.Put(ctx, key, raw)
		if err := r.Labels.Put(ctx, key, []byte(strings.Replace(string(raw), `"tiny"`, `"tony"`, 1))); err != nil {
			t.Fatal(err)
		}
		h := newReceiver(t, 200)
		if _, err := command(t, r, h.trigger()); pipeline.ClassOf(err) != pipeline.Data || len(h.got) != 0 {
			t.Errorf("%d requests, %v", len(h.got), err)
		}
	})
}

// check makes sure that all requests carried the same key and manifest.
func (r *receiver) check(t *testing.T, requests int, key string) {
	t.Helper()
	if len(r.got) != requests {
		t.Errorf("%d requests, want %d", len(r.got), requests)
	}
	for i, req := range r.got {
		if got := req.Header.Get("Idempotency-Key"); got != key || r.bodies[i] != r.bodies[0] || req.Method != http.MethodPost {
			t.Errorf("request %d: key %q, want %q", i, got, key)
		}
	}
}

func digestOf(t *testing.T, r *runtest.Run) string {
	t.Helper()
	p, err := publish.Open(context.Background(), r.Run)
	if err != nil {
		t.Fatal(err)
	}
	return p.Digest
}

// killed fires and is not heard of again.
type killed struct{ Trigger }

func (k killed) Fire(ctx context.Context, e Event) (*Outcome, error) {
	if _, err := k.Trigger.Fire(ctx, e); err != nil {
		return nil, err
	}
	return nil, errors.New("killed")
}
