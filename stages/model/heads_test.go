package model_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxtest"
	"sela/stages/internal/ort"
	"sela/stages/internal/ort/orttest"
	"sela/stages/model"
)

// export loads a file that PyTorch wrote, which states no inner shapes.
func export(t *testing.T) *model.Graph {
	t.Helper()
	g, _, err := model.Load(t.Context(), "../internal/onnx/testdata/resnet-13.onnx")
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// runtime opens ONNX Runtime, or fails where it is not to be asked.
func runtime(t *testing.T, expected bool) func() (*model.Runtime, error) {
	return func() (*model.Runtime, error) {
		if !expected {
			return nil, errors.New("ONNX Runtime was asked")
		}
		return orttest.Open(t), nil
	}
}

func TestReplaceHeads(t *testing.T) {
	maps := "input.56" // [N, 16, 8, 8] of the export
	two := model.HeadOptions{Heads: 2, Clusters: 6}
	for _, c := range []struct {
		tensor string
		ask    bool
		want   string
	}{
		{"", false, "onnx::Gemm_114 float32 [batch 32]"},
		{maps, true, "input.56 float32 [batch 1024]"},
	} {
		g, dir := export(t), t.TempDir()
		heads, err := model.ReplaceHeads(g, c.tensor, two, runtime(t, c.ask), dir)
		if err != nil || !slices.Equal(heads, []string{"head_0", "head_1"}) {
			t.Fatalf("%q: heads %q, %v", c.tensor, heads, err)
		}
		if v, err := g.Features(""); err != nil || v.String() != c.want {
			t.Errorf("%q: features %v, %v; want %s", c.tensor, v, err, c.want)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		if rows := outputs(t, g, 3, "head_1"); len(rows) != 3*6 {
			t.Errorf("%q: %d logits", c.tensor, len(rows))
		}
		trunk, err := model.Trunk(g, "")
		if err != nil {
			t.Fatal(err)
		}
		outputs(t, trunk, 3, "features")
	}
}

// outputs runs a model of 32 pixels on n images of zeros.
func outputs(t *testing.T, g *model.Graph, n int, name string) []float32 {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := model.Save(g, path); err != nil {
		t.Fatal(err)
	}
	s, err := orttest.Open(t).NewSession(path, ort.Options{Outputs: []string{name}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	dims := []int64{int64(n)}
	for _, d := range g.Inputs()[0].Shape[1:] {
		dims = append(dims, d.Size)
	}
	slot, err := s.NewSlot(t.Context(), dims)
	if err != nil {
		t.Fatal(err)
	}
	defer slot.Close()
	if err := s.Run(t.Context(), slot); err != nil {
		t.Fatal(err)
	}
	return slices.Clone(slot.Outputs[0].Float32())
}

func TestReplaceHeadsRefuses(t *testing.T) {
	two := model.HeadOptions{Heads: 2, Clusters: 6}
	for name, c := range map[string]struct {
		tensor string
		o      model.HeadOptions
		class  pipeline.Class
		says   string
	}{
		"options":       {"", model.HeadOptions{Heads: 2}, pipeline.Usage, "0 clusters"},
		"kind":          {"", model.HeadOptions{Heads: 2, Clusters: 6, Kind: "mlp"}, pipeline.Usage, "linear and cosine"},
		"misspelt":      {"onnx::Gem_114", two, pipeline.Config, " onnx::Gemm_114,"},
		"a vector":      {"layer2.0.downsample.1.bias", two, pipeline.Config, "[32] is no batch of features"},
		"a bad library": {"input.56", two, pipeline.Config, "no library"},
	} {
		g := export(t)
		open := runtime(t, true)
		if name == "a bad library" {
			open = func() (*model.Runtime, error) { return nil, pipeline.BadConfig(errors.New("no library")) }
		}
		before, err := g.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		_, err = model.ReplaceHeads(g, c.tensor, c.o, open, t.TempDir())
		if pipeline.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v of class %v", name, err, pipeline.ClassOf(err))
		}
		if after, _ := g.Bytes(); string(before) != string(after) {
			t.Errorf("%s: the model was changed", name)
		}
	}
	if _, err := model.Trunk(export(t), "none"); pipeline.ClassOf(err) != pipeline.Config || !errors.Is(err, onnx.ErrNoTensor) {
		t.Errorf("trunk: error %v of class %v", err, pipeline.ClassOf(err))
	}
}

// External data that the trunk needs goes where the model goes, and replaces
// nothing there.
func TestSaveWithExternalData(t *testing.T) {
	path := onnxtest.Write(t, t.TempDir(), "m.onnx", onnxtest.Classifier{External: "m.bin", Hidden: 5})
	g, _, err := model.Load(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := model.ReplaceHeads(g, "", model.HeadOptions{Heads: 1, Clusters: 3}, runtime(t, false), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{filepath.Dir(path), filepath.Join(t.TempDir(), "new")} {
		out := filepath.Join(folder, "heads.onnx")
		if err := model.Save(g, out); err != nil {
			t.Fatal(err)
		}
		d, err := model.Describe(t.Context(), out)
		if err != nil || len(d.Files) != 2 || d.Features == nil || fmt.Sprint(*d.Features) != "{hidden float32 [N 5]}" {
			t.Errorf("%+v, %v", d, err)
		}
	}
	other := t.TempDir()
	data := filepath.Join(other, "m.bin")
	if err := os.WriteFile(data, []byte("another model's"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := model.Save(g, filepath.Join(other, "heads.onnx")); pipeline.ClassOf(err) != pipeline.Config || !strings.Contains(err.Error(), "m.bin") {
		t.Errorf("error %v", err)
	}
	if content, err := os.ReadFile(data); err != nil || string(content) != "another model's" {
		t.Errorf("the file holds %q, %v", content, err)
	}
}

// Calibrating the heads alone leaves the trunk's statistics.
func TestCalibrationOfHeadsOnly(t *testing.T) {
	images := pictures(t, 32)
	g := export(t)
	if _, err := model.ReplaceHeads(g, "", model.HeadOptions{Heads: 1, Clusters: 4, Kind: "cosine"}, runtime(t, false), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	was := g.Clone()
	c := model.Calibration{Images: images, Preprocess: preprocess(32), Batches: 1, Batch: 16, HeadsOnly: true}
	if _, err := c.Apply(t.Context(), orttest.Open(t), g, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	for _, w := range was.Proto.Graph.Initializer {
		before, err := was.Floats(w.GetName())
		if err != nil {
			continue // not of floats
		}
		after, err := g.Floats(w.GetName())
		changed := !slices.Equal(before, after)
		if wanted := strings.HasPrefix(w.GetName(), "projection.1.running_"); err != nil || changed != wanted {
			t.Errorf("%s: changed is %v, want %v; %v", w.GetName(), changed, wanted, err)
		}
	}
}
