package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// export is a file that PyTorch wrote, which states no inner shapes.
const export = "../../stages/internal/onnx/testdata/resnet-13.onnx"

func TestModelHeads(t *testing.T) {
	r := newRig(t)
	images := filepath.Join(fixture.dir, "images")
	named, err := filepath.Abs(export)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args     []string
		features string // name and shape
		ops      string // that the new model has
		more     int    // parameters, beside what is left of the export's 3,408 without its head
	}{
		{[]string{named}, "onnx::Gemm_114 [batch 32]", "2 Gemm", 2 * (32*6 + 6)},
		{[]string{named, "--head", "cosine"}, "onnx::Gemm_114 [batch 32]", "13 BatchNormalization", 32*32 + 3*32 + 32*128 + 128 + 2*128*6},
		{[]string{named, "--head", "cosine", "--temperature", "0.5", "--calibrate", images}, "onnx::Gemm_114 [batch 32]", "2 MatMul", 32*32 + 3*32 + 32*128 + 128 + 2*128*6},
		{[]string{named, "--features", "input.56"}, "input.56 [batch 1024]", "1 Flatten", 0},
	} {
		out := r.sela(append([]string{"model", "heads", "--heads", "2", "--clusters", "6", "--out", "out/h.onnx"}, c.args...)...)
		if out.code != 0 {
			t.Errorf("%v: exit %d: %s", c.args, out.code, out.stderr)
			continue
		}
		if !reflect.DeepEqual(out.result["outputs"], []any{"head_0", "head_1"}) || out.result["path"] != "out/h.onnx" {
			t.Errorf("%v: result %v", c.args, out.result)
		}
		if done, ok := out.result["calibration"].(map[string]any); ok != strings.Contains(strings.Join(c.args, " "), "--calibrate") || ok && done["images"] == 0.0 {
			t.Errorf("%v: calibration %v", c.args, done)
		}
		seen := r.want(0, "model", "inspect", "out/h.onnx")
		for _, says := range []string{"head_1 float32 [batch 6]", c.ops, strings.Replace(c.features, " [", " float32 [", 1)} {
			if !strings.Contains(seen.stderr, says) {
				t.Errorf("%v: the table lacks %q:\n%s", c.args, says, seen.stderr)
			}
		}
		if got := out.result["parameters"].(float64) - 3408; c.more != 0 && got != float64(c.more) {
			t.Errorf("%v: %g parameters more, want %d", c.args, got, c.more)
		}
	}
}

func TestModelTrunk(t *testing.T) {
	r := newRig(t)
	from := filepath.Join(fixture.dir, "model.onnx")
	r.want(0, "model", "trunk", from, "--out", "trunk.onnx")
	seen := r.want(0, "model", "inspect", "trunk.onnx")
	if !strings.Contains(seen.stderr, "output      features float32 [N 256]") || strings.Contains(seen.stderr, "Gemm") {
		t.Errorf("the trunk is\n%s", seen.stderr)
	}
	// Heads go on a trunk as on a whole network.
	args := []string{"--heads", "2", "--clusters", "9", "--seed", "4", "--out"}
	r.want(0, append([]string{"model", "heads", "trunk.onnx"}, append(args, "a.onnx")...)...)
	r.want(0, append([]string{"model", "heads", "file://" + from}, append(args, "b.onnx")...)...)
	a, errA := os.ReadFile(r.path("a.onnx"))
	b, errB := os.ReadFile(r.path("b.onnx"))
	if errA != nil || errB != nil || string(a) != string(b) {
		t.Errorf("heads on the trunk and on the network differ: %v, %v", errA, errB)
	}
	r.want(0, "model", "trunk", from, "--features", "conv1", "--out", "conv1.onnx")
	if seen := r.want(0, "model", "inspect", "conv1.onnx"); !strings.Contains(seen.stderr, "features float32 [N 16384]") {
		t.Errorf("the trunk to conv1 is\n%s", seen.stderr)
	}
}

func TestModelHeadsRefuses(t *testing.T) {
	r := newRig(t)
	from := filepath.Join(fixture.dir, "model.onnx")
	images := filepath.Join(fixture.dir, "images")
	for _, c := range []struct {
		code int
		args []string
		says string
	}{
		{64, []string{"heads", from}, "--out"},
		{64, []string{"trunk", from}, "--out"},
		{64, []string{"heads", "--out", "m.onnx"}, "arg"},
		{64, []string{"heads", from, "--out", "m.onnx", "--clusters", "1"}, "clusters"},
		{64, []string{"heads", from, "--out", "m.onnx", "--head", "mlp"}, "linear and cosine"},
		{64, []string{"heads", from, "--out", "m.onnx", "--calibrate", images}, "nothing to calibrate"},
		{64, []string{"heads", from, "--out", "m.onnx", "--head", "cosine", "--glob", "*"}, "--glob"},
		{65, []string{"heads", from, "--out", "m.onnx", "--head", "cosine", "--calibrate", images, "--prefix", "none/"}, "none/"},
		{78, []string{"heads", "none.onnx", "--out", "m.onnx"}, "none.onnx"},
		{78, []string{"heads", "job.yaml", "--out", "m.onnx"}, "job.yaml"},
		{78, []string{"heads", from, "--out", "m.onnx", "--features", "convl"}, "similar: conv1"},
		{78, []string{"trunk", from, "--out", "m.onnx", "--features", "convl"}, "similar: conv1"},
		{78, []string{"heads", from, "--out", "job.yaml/m.onnx"}, "job.yaml"},
	} {
		out := r.sela(append([]string{"model"}, c.args...)...)
		if out.code != c.code || !strings.Contains(out.stderr, c.says) {
			t.Errorf("%v: exit %d, want %d with %q: %s", c.args, out.code, c.code, c.says, out.stderr)
		}
	}
	if left, _ := filepath.Glob(r.path("*.onnx")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
