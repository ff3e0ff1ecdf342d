package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// small returns the arguments that make a small network.
func small(out string, more ...string) []string {
	return append([]string{"model", "new", "--heads", "2", "--clusters", "6", "--out", out}, more...)
}

// calibration returns the arguments that make a small calibrated network.
func calibration(out string, more ...string) []string {
	return small(out, append([]string{"--batches", "2", "--batch", "16"}, more...)...)
}

func TestModelNewIsAFunctionOfItsOptions(t *testing.T) {
	r := newRig(t)
	images := filepath.Join(fixture.dir, "images")
	made := map[string]string{}
	for out, more := range map[string][]string{
		"a.onnx":           {"--calibrate", images},
		"b.onnx":           {"--calibrate", "file://" + images},
		"seed.onnx":        {"--calibrate", images, "--seed", "9"},
		"mean.onnx":        {"--calibrate", images, "--mean", "0.5,0.5,0.5"},
		"prefix.onnx":      {"--calibrate", images, "--prefix", "1/"},
		"glob.onnx":        {"--calibrate", images, "--glob", "*/*.png"},
		"deep/plain.onnx":  nil,
		"deep/again.onnx":  nil,
		"flagged-job.onnx": {"--calibrate", images, "--resize", "0"},
		"job.onnx":         {"--calibrate-for", "job.yaml"},
	} {
		args := calibration(out, more...)
		if more == nil {
			args = small(out)
		}
		result := r.want(0, args...).result
		raw, err := os.ReadFile(r.path(out))
		if err != nil {
			t.Fatal(err)
		}
		made[out] = string(raw)
		if result["path"] != out || result["heads"] != 2.0 || result["clusters"] != 6.0 || len(result["sha256"].(string)) != 64 || result["parameters"].(float64) < 1e6 {
			t.Errorf("%s: result %v", out, result)
		}
		if c, ok := result["calibration"].(map[string]any); ok != (more != nil) || ok && (c["images"] != 32.0 || c["batches"] != 2.0) {
			t.Errorf("%s: calibration %v", out, result["calibration"])
		}
	}
	equal := map[string]string{"b.onnx": "a.onnx", "deep/again.onnx": "deep/plain.onnx", "job.onnx": "flagged-job.onnx"}
	for out, raw := range made {
		for other, same := range made {
			if want := equal[out] == other || equal[other] == out || out == other; want != (raw == same) {
				t.Errorf("%s and %s: equal is %v, want %v", out, other, raw == same, want)
			}
		}
	}
}

func TestModelNewRefuses(t *testing.T) {
	r := newRig(t)
	images := filepath.Join(fixture.dir, "images")
	for _, c := range []struct {
		code int
		args []string
		says string
	}{
		{64, []string{"model", "new"}, "--out"},
		{64, []string{"model", "new", "--out", "m.onnx", "--arch", "alexnet"}, "resnet-s"},
		{64, calibration("m.onnx"), "--batches"},
		{64, []string{"model", "new", "--out", "m.onnx", "--glob", "*"}, "--glob"},
		{64, calibration("m.onnx", "--calibrate", images, "--calibrate-for", "job.yaml"), "one of them"},
		{64, calibration("m.onnx", "--calibrate-for", "job.yaml", "--resize", "32"), "--resize"},
		{64, calibration("m.onnx", "--calibrate", images, "--mean", "0.5"), "three numbers"},
		{64, calibration("m.onnx", "--calibrate", images, "--std", "1,0,1"), "positive"},
		{64, calibration("m.onnx", "--calibrate", images, "--heads", "0"), "heads"},
		{64, small("m.onnx", "--head", "softmax"), "linear and cosine"},
		{64, small("m.onnx", "--temperature", "0.2"), "temperature"},
		{64, small("m.onnx", "--arch", "alexnet-big", "--size", "32"), "223 to 254"},
		{65, calibration("m.onnx", "--calibrate", images, "--prefix", "none/"), "none/"},
		{78, calibration("m.onnx", "--calibrate", r.path("nowhere")), "nowhere"},
		{78, calibration("m.onnx", "--calibrate-for", "nowhere.yaml"), "nowhere.yaml"},
		{78, calibration("m.onnx", "--calibrate-for", "job.yaml", "--size", "64"), "preprocess.crop"},
		{78, calibration("job.yaml/m.onnx", "--calibrate", images), "job.yaml"},
	} {
		out := r.sela(c.args...)
		if out.code != c.code || !strings.Contains(out.stderr, c.says) {
			t.Errorf("%v: exit %d, want %d with %q: %s", c.args, out.code, c.code, c.says, out.stderr)
		}
	}
	if left, _ := filepath.Glob(r.path("*.onnx")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestModelInspect(t *testing.T) {
	r := newRig(t)
	path := filepath.Join(fixture.dir, "model.onnx")
	out := r.want(0, "model", "inspect", path)
	m := out.result["model"].(map[string]any)
	if want := []any{map[string]any{"name": "images", "type": "float32", "shape": []any{"N", "3", "32", "32"}}}; !reflect.DeepEqual(m["inputs"], want) {
		t.Errorf("inputs %v, want %v", m["inputs"], want)
	}
	if outputs := m["outputs"].([]any); len(outputs) != 2 {
		t.Errorf("outputs %v", outputs)
	}
	metadata := m["metadata"].(map[string]any)
	if metadata["sela.seed"] != "5" || metadata["sela.calibration_images"] == nil {
		t.Errorf("metadata %v", metadata)
	}
	for _, says := range []string{"head_1 float32 [N 8]", "features float32 [N 256]", "9 BatchNormalization", "ai.onnx:17", m["sha256"].(string)} {
		if !strings.Contains(out.stderr, says) {
			t.Errorf("the table lacks %q:\n%s", says, out.stderr)
		}
	}
	r.want(78, "model", "inspect", "none.onnx")
	r.want(78, "model", "inspect", "job.yaml")
	r.want(64, "model", "inspect")
}
