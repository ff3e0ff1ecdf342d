package train

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sela/pipeline"
)

func event(t *testing.T) Event {
	return Event{Run: "run-1", Labels: "file:///labels/runs/run-1/", URL: "file:///labels/runs/run-1/_manifest.json", Model: "/models/a.onnx", Digest: "d1", Manifest: []byte(`{"manifest": 1}`), Dir: t.TempDir()}
}

// shell is a command that runs a script with sh.
func shell(script string, args ...string) Command {
	return Command{Args: append([]string{"sh", "-c", script, "sh"}, args...), Env: os.Environ(), Log: new(bytes.Buffer)}
}

func TestNone(t *testing.T) {
	o, err := None{}.Fire(context.Background(), event(t))
	if err != nil || o.Type != "none" {
		t.Fatal(o, err)
	}
}

func TestCommandIsToldEverything(t *testing.T) {
	e := event(t)
	out := filepath.Join(t.TempDir(), "out")
	c := shell(`{ cat; cat "$SELA_MANIFEST"; echo; echo "$SELA_LABELS $SELA_RUN $SELA_DIGEST $SELA_MODEL $MARK"; echo "$@"; } > "$OUT"`,
		"{run}", "--labels={labels}", "{digest}", "{model}", "{manifest}", "{unknown}")
	c.Env = append(c.Env, "OUT="+out, "MARK=mine")
	o, err := c.Fire(context.Background(), e)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"manifest": 1}{"manifest": 1}
file:///labels/runs/run-1/ run-1 d1 /models/a.onnx mine
run-1 --labels=file:///labels/runs/run-1/ d1 /models/a.onnx ` + filepath.Join(e.Dir, "manifest.json") + ` {unknown}
`
	if string(raw) != want {
		t.Errorf("got\n%s\nwant\n%s", raw, want)
	}
	if o.Type != "command" || o.Model != "" || !strings.Contains(o.Detail, "exit status 0") {
		t.Errorf("outcome %+v", o)
	}
}

func TestCommandLogsAndTrains(t *testing.T) {
	for name, c := range map[string]Command{
		"by environment": shell(`echo out; echo err >&2; echo weights > "$SELA_TRAINED_MODEL"`),
		"by placeholder": shell(`echo out; echo err >&2; echo weights > "$1"`, "{trained_model}"),
	} {
		t.Run(name, func(t *testing.T) {
			o, err := c.Fire(context.Background(), event(t))
			if err != nil {
				t.Fatal(err)
			}
			if raw, err := os.ReadFile(o.Model); err != nil || string(raw) != "weights\n" {
				t.Errorf("model %q: %q, %v", o.Model, raw, err)
			}
			if log := c.Log.(*bytes.Buffer).String(); log != "out\nerr\n" {
				t.Errorf("log is %q", log)
			}
		})
	}
}

func TestCommandExitStatus(t *testing.T) {
	for script, want := range map[string]pipeline.Class{
		"exit 75":     pipeline.Transient,
		"exit 1":      pipeline.Config,
		"exit 65":     pipeline.Config,
		"kill -9 $$":  pipeline.Config,
		"exec /no/it": pipeline.Config,
	} {
		o, err := shell(script).Fire(context.Background(), event(t))
		if err == nil || pipeline.ClassOf(err) != want {
			t.Errorf("%s: %v, %v; want class %v", script, o, err, want)
		}
		if !strings.Contains(err.Error(), "labels stay published") {
			t.Errorf("%s: %q does not say what of the labels", script, err)
		}
	}
	missing := Command{Args: []string{"/no/such/program"}, Log: new(bytes.Buffer)}
	if _, err := missing.Fire(context.Background(), event(t)); pipeline.ClassOf(err) != pipeline.Config {
		t.Errorf("missing program: %v", err)
	}
}

// A large manifest that the program does not read is no failure.
func TestCommandNeedNotReadManifest(t *testing.T) {
	e := event(t)
	e.Manifest = bytes.Repeat([]byte("x"), 1<<20)
	if _, err := shell("exit 0").Fire(context.Background(), e); err != nil {
		t.Fatal(err)
	}
}

// What the program leaves running in the background is its own affair.
func TestCommandLeavesBackgroundAlone(t *testing.T) {
	c := shell(`(sleep 600) & echo $!; exit 0`)
	c.Grace = 10 * time.Millisecond
	if _, err := c.Fire(context.Background(), event(t)); err != nil {
		t.Fatal(err)
	}
	end(t, strings.TrimSpace(c.Log.(*bytes.Buffer).String()))
}

func TestCommandCancelled(t *testing.T) {
	for name, test := range map[string]struct {
		script string
		grace  time.Duration
		want   string // of the file that the program writes when it gets SIGTERM
	}{
		"ends on SIGTERM":     {`trap 'echo leader > "$F"; exit 0' TERM; echo > "$READY"; while :; do sleep 0.01; done`, time.Minute, "leader\n"},
		"its children too":    {`sh -c 'trap "sleep 0.1; echo child > \"$F\"; exit 0" TERM; echo > "$READY"; while :; do sleep 0.01; done' & wait`, time.Minute, "child\n"},
		"killed after grace":  {`trap '' TERM; echo > "$READY"; while :; do sleep 0.01; done`, 50 * time.Millisecond, ""},
		"killed with childen": {`sh -c 'trap "" TERM; echo > "$READY"; while :; do sleep 0.01; done' & wait`, 50 * time.Millisecond, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file, ready, group := filepath.Join(dir, "file"), filepath.Join(dir, "ready"), filepath.Join(dir, "group")
			c := shell(`echo $$ > "$GROUP"; ` + test.script)
			c.Env, c.Grace = append(c.Env, "F="+file, "READY="+ready, "GROUP="+group), test.grace
			ctx, cancel := context.WithCancel(context.Background())
			go func() {
				for !exists(ready) {
					time.Sleep(time.Millisecond)
				}
				cancel()
			}()
			_, err := c.Fire(ctx, event(t))
			if !errors.Is(err, context.Canceled) || pipeline.ClassOf(err) != pipeline.Interrupted {
				t.Errorf("error %v, want a cancellation", err)
			}
			raw, _ := os.ReadFile(file) // it may be missing
			if string(raw) != test.want {
				t.Errorf("the program left %q, want %q", raw, test.want)
			}
			pid, err := os.ReadFile(group)
			if err != nil {
				t.Fatal(err)
			}
			if alive(t, strings.TrimSpace(string(pid))) {
				t.Error("something of the program's group is still alive")
			}
		})
	}
}

func TestCommandLimit(t *testing.T) {
	c := shell("sleep 600")
	c.Limit = 20 * time.Millisecond
	_, err := c.Fire(context.Background(), event(t))
	if pipeline.ClassOf(err) != pipeline.Transient || !strings.Contains(err.Error(), "train.timeout") {
		t.Errorf("error %v, want a retryable one that names train.timeout", err)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
