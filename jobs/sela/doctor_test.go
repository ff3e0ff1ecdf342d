package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// diagnosis maps each check to its status and its detail.
func diagnosis(t *testing.T, out outcome) (status, detail map[string]string) {
	t.Helper()
	status, detail = map[string]string{}, map[string]string{}
	checks, ok := out.result["checks"].([]any)
	if !ok {
		t.Fatalf("no checks in %s%s", out.stdout, out.stderr)
	}
	for _, c := range checks {
		f := c.(map[string]any)
		name := f["check"].(string)
		status[name], detail[name] = f["status"].(string), f["detail"].(string)
		if !strings.Contains(out.stderr, f["status"].(string)+" ") || !strings.Contains(out.stderr, name) {
			t.Errorf("the table lacks %v", f)
		}
	}
	return status, detail
}

func TestDoctorOfTheMachine(t *testing.T) {
	r := newRig(t)
	status, detail := diagnosis(t, r.want(0, "doctor"))
	for _, check := range []string{"sela", "processor", "memory", "scratch", "onnxruntime", "provider cpu"} {
		if status[check] != "ok" {
			t.Errorf("%s: %q %s", check, status[check], detail[check])
		}
	}
	if !strings.Contains(detail["onnxruntime"], "version 1.") || !strings.Contains(detail["onnxruntime"], libraryPath(t)) {
		t.Errorf("onnxruntime: %s", detail["onnxruntime"])
	}
	if _, tried := status["model"]; tried {
		t.Error("a model was looked for without a job")
	}
}

func TestDoctorOfAGoodJob(t *testing.T) {
	r := newRig(t, "train: {type: command, command: [sh, -c, 'true']}")
	status, detail := diagnosis(t, r.want(0, "doctor", "job.yaml"))
	for _, check := range []string{"job", "onnxruntime", "images", "work", "labels", "model", "model run", "train"} {
		if status[check] != "ok" {
			t.Errorf("%s: %q %s", check, status[check], detail[check])
		}
	}
	if !strings.Contains(detail["model run"], "2 heads of 8 clusters") || !strings.Contains(detail["images"], "0/0000") {
		t.Errorf("model run: %s; images: %s", detail["model run"], detail["images"])
	}
	if !strings.Contains(detail["model"], "--calibrate-for") { // resize 32 is not resize 0
		t.Errorf("model: %s", detail["model"])
	}
	for _, folder := range []string{"work", "labels", "local"} {
		// Hidden names are the bucket's own.
		if left, err := filepath.Glob(r.path(folder + "/[^.]*")); err != nil || len(left) > 0 {
			t.Errorf("left %v, error %v", left, err)
		}
	}
}

// One thing is wrong at a time: its check fails with the remedy and its class,
// and all others are made.
func TestDoctorOfBadJobs(t *testing.T) {
	newRig(t)
	empty := t.TempDir()
	text := filepath.Join(t.TempDir(), "text.onnx")
	if err := os.WriteFile(text, []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	network := filepath.Join(fixture.dir, "model.onnx")
	for _, c := range []struct {
		field, check string
		code         int
		says         string
	}{
		{"images: {bucket: nowhere}", "images", 78, "nowhere"},
		{"images: {bucket: " + empty + "}", "images", 65, empty},
		{"images: {bucket: " + filepath.Join(fixture.dir, "images") + ", glob: '*.none'}", "images", 65, ""},
		{"work: {bucket: job.yaml}", "work", 78, "job.yaml"},
		{"labels: {bucket: 'nosuchscheme://labels'}", "labels", 78, "unknown scheme"},
		{"model: {path: " + text + "}", "model", 78, "not an ONNX model"},
		{"model: {path: none.onnx}", "model", 78, "none.onnx"},
		{"preprocess: {resize: 64, crop: 64}", "model", 78, "preprocess.crop"},
		{"model: {path: " + network + ", heads: 3}", "model run", 78, "model.heads"},
		{"model: {path: " + network + ", clusters: 9}", "model run", 78, "model.clusters"},
		{"runtime: {providers: [cuda, cpu]}", "provider cuda", 78, "cuda"},
		{"solve: {device: cuda}", "provider cuda", 78, "cuda"},
		{"runtime: {library: none.so}", "onnxruntime", 78, "none.so"},
		{"local: {dir: job.yaml}", "scratch", 78, "local.dir"},
		{"train: {type: command, command: [no-such-program]}", "train", 78, "no-such-program"},
		{"train: {type: http, url: 'http://127.0.0.1:1', token_env: SELA_NO_SUCH_TOKEN}", "train", 78, "SELA_NO_SUCH_TOKEN"},
		{"solve: {lambda: -1}", "job", 78, "solve.lambda"},
	} {
		t.Run(c.field, func(t *testing.T) {
			r := newRig(t, c.field)
			status, detail := diagnosis(t, r.want(c.code, "doctor", "job.yaml"))
			if status[c.check] != "FAIL" || !strings.Contains(detail[c.check], c.says) {
				if c.check == "provider cuda" && status[c.check] == "ok" {
					t.Skip("skipped, because this machine has the provider cuda")
				}
				t.Errorf("%s: %s %s, want FAIL with %q", c.check, status[c.check], detail[c.check], c.says)
			}
			if c.check == "job" {
				return
			}
			for _, other := range []string{"images", "work", "labels", "model", "train"} {
				if other != c.check && status[other] == "" {
					t.Errorf("%s was not looked at", other)
				}
			}
		})
	}
}

// A store that refuses everything is told by its name alone.
func TestDoctorKeepsSecrets(t *testing.T) {
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer store.Close()
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter3")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	at := "?endpoint=http://user:hunter2@" + store.Listener.Addr().String() + "&region=us-east-1&use_path_style=true"
	r := newRig(t, "images: {bucket: 's3://images"+at+"'}", "work: {bucket: 's3://work"+at+"'}", "model: {path: 's3://model/m.onnx"+at+"'}",
		"labels: {bucket: 's3://labels"+at+"'}", "retries: {request: 1}", "timeouts: {request: 2s}")
	out := r.want(78, "doctor", "job.yaml")
	status, detail := diagnosis(t, out)
	for _, check := range []string{"images", "work", "labels", "model"} {
		if status[check] != "FAIL" || !strings.Contains(detail[check], "s3://"+check) {
			t.Errorf("%s: %s %s", check, status[check], detail[check])
		}
	}
	if all := out.stdout + out.stderr; strings.Contains(all, "hunter") {
		t.Errorf("a secret is shown:\n%s", all)
	}
}
