package extract_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"sela/pipeline"
	"sela/stages/extract"
	"sela/stages/internal/imageio"
	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxtest"
	"sela/stages/internal/ort"
	"sela/stages/internal/ort/orttest"
	"sela/stages/internal/runtest"
)

// tolerance of a log-probability in nats, against float64 on the model's own
// outputs for one image at a time.
const tolerance = 1e-5

// TestEveryKindOfModel extracts with each and compares every value with a plain
// loop over the images.
func TestEveryKindOfModel(t *testing.T) {
	files := map[string][]byte{"b/jpeg.jpg": encode(t, "jpg", picture(99, runtest.Size))}
	for i := range 37 {
		files[fmt.Sprintf("a/%02d.png", i)] = pngOf(t, uint64(i))
	}
	files["shard.tar"] = tarOf(t, member{"x.png", pngOf(t, 50)}, member{"y.txt", []byte("a caption")}, member{"z.png", pngOf(t, 51)})
	heads := func(names ...string) func(*pipeline.Job) { return func(j *pipeline.Job) { j.Model.Outputs = names } }
	kind := func(k onnx.OutputKind) func(*pipeline.Job) { return func(j *pipeline.Job) { j.Model.Kind = string(k) } }
	for _, c := range []struct {
		name   string
		model  onnxtest.Classifier
		change func(*pipeline.Job)
		opset  int64
	}{
		{name: "plain"},
		{name: "nhwc", model: onnxtest.Classifier{NHWC: true}},
		{name: "float16 input", model: onnxtest.Classifier{DType: onnx.Float16}},
		{name: "float16 nhwc input and output", model: onnxtest.Classifier{DType: onnx.Float16, NHWC: true, OutputDType: onnx.Float16}},
		{name: "uint8", model: onnxtest.Classifier{DType: onnx.Uint8}},
		{name: "uint8 nhwc", model: onnxtest.Classifier{DType: onnx.Uint8, NHWC: true}},
		{name: "float64 output", model: onnxtest.Classifier{OutputDType: onnx.Float64}},
		{name: "fixed batch", model: onnxtest.Classifier{Batch: 7}, change: func(j *pipeline.Job) { j.Runtime.Batch = 0 }},
		{name: "batch of one", change: func(j *pipeline.Job) { j.Runtime.Batch = 1 }},
		{name: "batch larger than the task", change: func(j *pipeline.Job) { j.Runtime.Batch = 100 }},
		{name: "heads of different size", model: onnxtest.Classifier{Clusters: []int{3, 300, 1, 2}}},
		{name: "some heads in another order", model: onnxtest.Classifier{Clusters: []int{3, 4, 5}}, change: heads("head_2", "head_0")},
		{name: "stacked", model: onnxtest.Classifier{Clusters: []int{5, 5, 5}, Stacked: true}},
		{name: "stacked probabilities", model: onnxtest.Classifier{Clusters: []int{5, 5}, Stacked: true, Kind: onnx.Probabilities}, change: kind(onnx.Probabilities)},
		{name: "probabilities", model: onnxtest.Classifier{Kind: onnx.Probabilities}, change: kind(onnx.Probabilities)},
		{name: "log-probabilities", model: onnxtest.Classifier{Kind: onnx.LogProbabilities}, change: kind(onnx.LogProbabilities)},
		{name: "log-probabilities taken for logits", model: onnxtest.Classifier{Kind: onnx.LogProbabilities}},
		{name: "features", model: onnxtest.Classifier{Hidden: 6, Clusters: []int{3, 4}}, change: func(j *pipeline.Job) { j.Model.Features = "hidden" }},
		{name: "external weights", model: onnxtest.Classifier{External: "weights.bin"}},
		{name: "named input", model: onnxtest.Classifier{Input: "x:0"}, change: func(j *pipeline.Job) { j.Model.Input = "x:0" }},
		{name: "opset 9", opset: 9},
		{name: "opset 11", opset: 11},
		{name: "opset 12, probabilities", opset: 12, model: onnxtest.Classifier{Kind: onnx.Probabilities}, change: kind(onnx.Probabilities)},
		{name: "opset 13, stacked", opset: 13, model: onnxtest.Classifier{Clusters: []int{5, 5}, Stacked: true}},
		{name: "opset 21", opset: 21},
		{name: "resized", change: func(j *pipeline.Job) { j.Preprocess.Resize, j.Preprocess.Filter = pipeline.Size{12}, "bicubic" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := world(t, files, c.model, func(j *pipeline.Job) {
				if c.change != nil {
					c.change(j)
				}
				if c.opset != 0 {
					j.Model.Path = inOpset(t, c.model, c.opset)
				}
			})
			r.Through(t, r.Run, extract.Name)
			compareWithPlainLoop(t, r)
		})
	}
}

// inOpset writes the classifier in another version of ONNX's operators.
func inOpset(t *testing.T, c onnxtest.Classifier, version int64) string {
	t.Helper()
	m, _ := c.Build()
	m.Proto.OpsetImport[0].Version = &version
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := m.Save(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// compareWithPlainLoop decodes, preprocesses and runs one image at a time
// through the model as it is, and takes logarithms in float64.
func compareWithPlainLoop(t *testing.T, r *runtest.Run) {
	t.Helper()
	graph, err := onnx.Load(r.Job.Model.Path)
	if err != nil {
		t.Fatal(err)
	}
	design, err := extract.NewDesign(r.Job, graph)
	if err != nil {
		t.Fatal(err)
	}
	names := slices.Clone(design.Outputs)
	if design.Features != "" {
		if _, err := graph.AppendFeatures(design.Features); err != nil {
			t.Fatal(err)
		}
		names = append(names, "sela_features")
	}
	names = float32Outputs(t, graph, names)
	path := filepath.Join(t.TempDir(), "plain.onnx")
	if err := graph.SaveWithData(path); err != nil {
		t.Fatal(err)
	}
	session, err := orttest.Open(t).NewSession(path, ort.Options{Inputs: []string{design.Input}, Outputs: names})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	dims := slices.Clone(session.Inputs()[0].Dims)
	dims[0] = max(dims[0], 1)
	slot, err := session.NewSlot(context.Background(), dims)
	if err != nil {
		t.Fatal(err)
	}
	defer slot.Close()
	pre, err := imageio.New(design.Spec)
	if err != nil {
		t.Fatal(err)
	}
	worker, n := pre.NewWorker(), pre.Len()

	heads := 0
	images := listed(t, r.Run)
	want := map[string]*rows{}
	for _, img := range images {
		data := get(t, r.Images, img)
		switch in := slot.Inputs[0]; design.Spec.DType {
		case imageio.Float16:
			err = worker.Float16(data, in.Float16()[:n])
		case imageio.Uint8:
			err = worker.Uint8(data, in.Uint8()[:n])
		default:
			err = worker.Float32(data, in.Float32()[:n])
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := session.Run(context.Background(), slot); err != nil {
			t.Fatal(err)
		}
		heads = 0
		for i, out := range slot.Outputs {
			width := int(out.Dims[len(out.Dims)-1])
			one := out.Float32()[:len(out.Float32())/int(dims[0])]
			if design.Features != "" && i == len(slot.Outputs)-1 {
				add(want, "features", img.Row, one)
				continue
			}
			for ; len(one) > 0; one = one[width:] {
				add(want, fmt.Sprintf("logprobs/head-%d", heads), img.Row, plainLogProbs(design.Kind, one[:width]))
				heads++
			}
		}
	}
	for folder, w := range want {
		got := read(t, r.Run, folder)
		if !slices.Equal(got.numbers, w.numbers) || len(got.values) != len(w.values) {
			t.Fatalf("%s: rows %v with %d values, want %v with %d", folder, got.numbers, len(got.values), w.numbers, len(w.values))
		}
		for i, x := range got.values {
			if d := math.Abs(float64(x - w.values[i])); !(d <= tolerance) {
				t.Fatalf("%s: row %d: value %d is %v, the plain loop has %v", folder, got.numbers[i*len(got.numbers)/len(got.values)], i, x, w.values[i])
			}
		}
		for _, img := range images {
			if folder == "logprobs/head-0" && got.sums[img.Row] != sha256.Sum256(get(t, r.Images, img)) {
				t.Errorf("row %d: wrong sha256", img.Row)
			}
		}
	}
	if shards, err := extract.OpenShards(context.Background(), r.Run); err != nil || len(shards.Heads) != heads || shards.Usable() != int64(len(images)) {
		t.Errorf("%d heads and %d usable images, want %d and %d: %v", len(shards.Heads), shards.Usable(), heads, len(images), err)
	}
}

func add(all map[string]*rows, folder string, row int64, values []float32) {
	if all[folder] == nil {
		all[folder] = &rows{}
	}
	all[folder].numbers = append(all[folder].numbers, row)
	all[folder].values = append(all[folder].values, values...)
}

// plainLogProbs is the definition, in float64.
func plainLogProbs(kind onnx.OutputKind, row []float32) []float32 {
	out := make([]float32, len(row))
	sum := 0.0
	for _, x := range row {
		sum += math.Exp(float64(x))
	}
	for i, x := range row {
		switch kind {
		case onnx.Logits:
			out[i] = float32(float64(x) - math.Log(sum))
		case onnx.Probabilities:
			out[i] = float32(math.Log(float64(x)))
		default:
			out[i] = x
		}
	}
	return out
}

// float32Outputs adds a cast to each output of another type that ONNX Runtime's
// binding cannot receive, and returns the names to ask for.
func float32Outputs(t *testing.T, m *onnx.Model, names []string) []string {
	t.Helper()
	info, err := onnx.Inspect(m)
	if err != nil {
		t.Fatal(err)
	}
	b := onnx.Edit(m)
	for _, o := range info.Outputs {
		at := slices.Index(names, o.Name)
		if o.DType != onnx.Float64 || at < 0 {
			continue
		}
		out := b.Node("Cast", o.Name+"_plain", []string{o.Name}, onnx.Int("to", int64(onnx.Float32)))
		b.Output(onnx.Value{Name: out, DType: onnx.Float32, Shape: o.Shape})
		names[at] = out
	}
	return names
}
