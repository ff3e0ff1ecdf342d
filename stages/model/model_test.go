package model_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/internal/imageio"
	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxtest"
	"sela/stages/internal/ort"
	"sela/stages/internal/ort/orttest"
	"sela/stages/model"
)

// picture returns a PNG of size px whose colours and gratings are of the seed.
func picture(t *testing.T, seed uint64, px int) []byte {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	img := image.NewNRGBA(image.Rect(0, 0, px, px))
	a, b, phase := r.Float64(), r.Float64(), r.Float64()*6
	base := [3]float64{r.Float64() * 150, r.Float64() * 150, r.Float64() * 150}
	for y := range px {
		for x := range px {
			wave := 50 * (1 + math.Sin(phase+a*float64(x)+b*float64(y)))
			img.SetNRGBA(x, y, color.NRGBA{uint8(base[0] + wave), uint8(base[1] + wave/2), uint8(base[2] + wave/3), 255})
		}
	}
	var out bytes.Buffer
	if err := png.Encode(&out, img); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// pictures opens a bucket of n images in groups, with an unusable one in each.
func pictures(t *testing.T, n int) *bucket.Bucket {
	t.Helper()
	dir := t.TempDir()
	for i := range n {
		group := filepath.Join(dir, fmt.Sprintf("class-%d", i/8))
		if err := os.MkdirAll(group, 0o755); err != nil {
			t.Fatal(err)
		}
		data := picture(t, uint64(i), 32)
		if i%8 == 7 {
			data = data[:len(data)/2]
		}
		if err := os.WriteFile(filepath.Join(group, fmt.Sprintf("%d.png", i)), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := bucket.Open(t.Context(), "file://"+dir, bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func network(t *testing.T) *model.Graph {
	t.Helper()
	g, err := model.New("resnet-s", model.NetworkOptions{Heads: 2, Clusters: 16, Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func preprocess(px int) pipeline.Preprocess {
	p := pipeline.DefaultJob().Preprocess
	p.Resize, p.Crop = pipeline.Size{px}, pipeline.Size{px}
	return p
}

func calibrated(t *testing.T, images *bucket.Bucket, batches, batch int) (*model.Graph, model.Calibrated) {
	t.Helper()
	g := network(t)
	c := model.Calibration{Images: images, Preprocess: preprocess(32), Batches: batches, Batch: batch}
	done, err := c.Apply(t.Context(), orttest.Open(t), g, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return g, done
}

// probabilities runs saved models on fresh pictures: softmax of head 0 [n][16].
func probabilities(t *testing.T, g *model.Graph, n int) [][]float64 {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sub", "model.onnx")
	if err := model.Save(g, path); err != nil {
		t.Fatal(err)
	}
	s, err := orttest.Open(t).NewSession(path, ort.Options{Outputs: []string{"head_0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	slot, err := s.NewSlot(t.Context(), []int64{int64(n), 3, 32, 32})
	if err != nil {
		t.Fatal(err)
	}
	defer slot.Close()
	pre, err := imageio.New(imageio.Spec{Crop: imageio.Size{Height: 32, Width: 32},
		Mean: [3]float32{0.485, 0.456, 0.406}, Std: [3]float32{0.229, 0.224, 0.225}})
	if err != nil {
		t.Fatal(err)
	}
	w := pre.NewWorker()
	for i := range n {
		if err := w.Float32(picture(t, uint64(1000+i), 32), slot.Inputs[0].Float32()[i*pre.Len():(i+1)*pre.Len()]); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Run(t.Context(), slot); err != nil {
		t.Fatal(err)
	}
	rows := make([][]float64, n)
	for i := range rows {
		sum := 0.0
		for _, x := range slot.Outputs[0].Float32()[i*16 : (i+1)*16] {
			rows[i] = append(rows[i], math.Exp(float64(x)))
			sum += math.Exp(float64(x))
		}
		for k := range rows[i] {
			rows[i][k] /= sum
		}
	}
	return rows
}

// spread is the standard deviation, over images, of a cluster's log-probability,
// averaged over clusters.
func spread(rows [][]float64) float64 {
	total := 0.0
	for k := range rows[0] {
		var mean, squares float64
		for _, row := range rows {
			l := math.Log(row[k])
			mean += l / float64(len(rows))
			squares += l * l / float64(len(rows))
		}
		total += math.Sqrt(squares - mean*mean)
	}
	return total / float64(len(rows[0]))
}

// A calibrated network says different things of different images and is sure of
// none; one that is not calibrated says much the same of all.
func TestCalibratedNetworkTellsImagesApart(t *testing.T) {
	g, done := calibrated(t, pictures(t, 96), 2, 32)
	if done.Images != 64 || done.Batches != 2 || done.Rejected < 1 || done.Rejected > 12 {
		t.Errorf("used %+v, want 64 images in 2 batches and some rejected", done)
	}
	if p := model.Preprocessing(g); p != done.Preprocessing || len(p) != 64 || model.Preprocessing(network(t)) != "" {
		t.Errorf("the model names the preprocessing %q, want %q", p, done.Preprocessing)
	}
	const n = 12
	rows := probabilities(t, g, n)
	if s := spread(rows); s < 0.2 || s > 1 {
		t.Errorf("log-probabilities vary by %.3f between images, want 0.2 to 1", s)
	}
	if s := spread(probabilities(t, network(t), n)); s > 0.1 {
		t.Errorf("without calibration they vary by %.3f: the test's images say nothing", s)
	}
	for i, row := range rows {
		if top := slices.Max(row); top < 1.5/16 || top > 0.9 {
			t.Errorf("image %d: largest probability %.3f", i, top)
		}
		for j := range i {
			if slices.Equal(row, rows[j]) {
				t.Errorf("images %d and %d have equal rows", i, j)
			}
		}
	}
}

func TestCalibrationIsDeterministic(t *testing.T) {
	images := pictures(t, 40)
	encode := func(batches, batch int) ([]byte, model.Calibrated) {
		g, done := calibrated(t, images, batches, batch)
		raw, err := g.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return raw, done
	}
	first, done := encode(2, 12)
	if second, again := encode(2, 12); !bytes.Equal(first, second) || done != again {
		t.Error("the same calibration gave another model")
	}
	if other, _ := encode(2, 11); bytes.Equal(first, other) {
		t.Error("fewer images gave the same model")
	}
	raw, err := network(t).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(first, raw) {
		t.Error("calibration changed nothing")
	}
}

// Where there are fewer images than asked for, the batches are even, and those
// that cannot be used are made up for while there are others.
func TestCalibrationOfFewImages(t *testing.T) {
	images := pictures(t, 20) // of which 18 can be used
	for _, c := range []struct {
		batches, batch          int
		usedBatches, usedImages int
	}{
		{4, 16, 1, 10}, // two of 10 are asked for, the second has 8
		{9, 64, 1, 18},
		{1, 6, 1, 6},
	} {
		if _, done := calibrated(t, images, c.batches, c.batch); done.Batches != c.usedBatches || done.Images != c.usedImages {
			t.Errorf("%d batches of %d: used %+v, want %d of %d images", c.batches, c.batch, done, c.usedBatches, c.usedImages)
		}
	}
}

// Members of a tar are the same images as loose files. (They are taken in
// another order, so that sums may differ in their last bits.)
func TestCalibrationReadsTars(t *testing.T) {
	loose := pictures(t, 24)
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "shard.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	for i := range 24 {
		if i%8 == 7 {
			continue // what cannot be used anyway
		}
		data := picture(t, uint64(i), 32)
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("%d.png", i), Mode: 0o644, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	tars, err := bucket.Open(t.Context(), "file://"+dir, bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer tars.Close()
	a, _ := calibrated(t, loose, 1, 64)
	b, done := calibrated(t, tars, 1, 64)
	if done.Images != 21 || done.Rejected != 0 {
		t.Errorf("used %+v", done)
	}
	compared := 0
	for _, init := range a.Proto.Graph.Initializer {
		if !strings.Contains(init.GetName(), "running_") {
			continue
		}
		x, errX := a.Floats(init.GetName())
		y, errY := b.Floats(init.GetName())
		if err := errors.Join(errX, errY); err != nil || len(x) != len(y) {
			t.Fatal(err)
		}
		for i := range x {
			compared++
			if math.Abs(float64(x[i]-y[i])) > 1e-4*(1+math.Abs(float64(x[i]))) {
				t.Fatalf("%s[%d]: %g of loose files, %g of a tar", init.GetName(), i, x[i], y[i])
			}
		}
	}
	if compared != 2*1344 {
		t.Errorf("compared %d statistics", compared)
	}
}

func TestCalibrationRefuses(t *testing.T) {
	rt := orttest.Open(t)
	images := pictures(t, 9)
	plain, _ := onnxtest.Classifier{Size: 32}.Build()
	for name, c := range map[string]struct {
		graph *model.Graph
		cal   model.Calibration
		class pipeline.Class
		says  string
	}{
		"batch":         {network(t), model.Calibration{Images: images, Preprocess: preprocess(32), Batches: 1, Batch: 1}, pipeline.Usage, "at least"},
		"preprocessing": {network(t), model.Calibration{Images: images, Preprocess: preprocess(64), Batches: 1, Batch: 4}, pipeline.Config, "preprocess.crop"},
		"plain":         {plain, model.Calibration{Images: images, Preprocess: preprocess(32), Batches: 1, Batch: 4}, pipeline.Config, "BatchNormalization"},
		"no images": {network(t), model.Calibration{Images: images, Select: pipeline.Images{Prefix: "nothing/"}, Preprocess: preprocess(32), Batches: 1, Batch: 4},
			pipeline.Data, "nothing/"},
		"all unusable": {network(t), model.Calibration{Images: images, Select: pipeline.Images{Glob: "*/7.png"}, Preprocess: preprocess(32), Batches: 1, Batch: 4},
			pipeline.Data, "7.png"},
	} {
		t.Run(name, func(t *testing.T) {
			before, _ := c.graph.Bytes()
			_, err := c.cal.Apply(t.Context(), rt, c.graph, t.TempDir())
			if err == nil || pipeline.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v of class %v, want %v with %q", err, pipeline.ClassOf(err), c.class, c.says)
			}
			if after, _ := c.graph.Bytes(); !bytes.Equal(before, after) {
				t.Error("the network was changed")
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	for _, o := range []model.NetworkOptions{{Heads: 0, Clusters: 4}, {Heads: 1, Clusters: 1}, {Heads: 1, Clusters: 4, ImageSize: 1}} {
		if _, err := model.New("resnet-s", o); pipeline.ClassOf(err) != pipeline.Usage {
			t.Errorf("%+v: error %v", o, err)
		}
	}
	if _, err := model.New("alexnet", model.NetworkOptions{Heads: 1, Clusters: 4}); err == nil || !strings.Contains(err.Error(), "resnet-s") {
		t.Errorf("unknown network: error %v", err)
	}
}

func TestDescribe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := model.Save(network(t), path); err != nil {
		t.Fatal(err)
	}
	d, err := model.Describe(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	_, digest, err := model.Load(t.Context(), path)
	if err != nil || d.SHA256 != digest || d.SHA256 != d.Files[0].SHA256 {
		t.Errorf("digests %s, %s, %v; error %v", d.SHA256, digest, d.Files, err)
	}
	if len(d.Inputs) != 1 || fmt.Sprint(d.Inputs[0]) != "{images float32 [N 3 32 32]}" {
		t.Errorf("inputs %v", d.Inputs)
	}
	if len(d.Outputs) != 2 || fmt.Sprint(d.Outputs[1]) != "{head_1 float32 [N 16]}" {
		t.Errorf("outputs %v", d.Outputs)
	}
	ops := map[string]int{}
	for _, op := range d.Ops {
		ops[op.Op] = op.Count
	}
	if ops["BatchNormalization"] != 9 || ops["Gemm"] != 2 {
		t.Errorf("ops %v", d.Ops)
	}
	if d.Opsets["ai.onnx"] != 17 || d.Metadata["sela.network"] != "resnet-s" {
		t.Errorf("opsets %v, metadata %v", d.Opsets, d.Metadata)
	}

	external := onnxtest.Write(t, t.TempDir(), "m.onnx", onnxtest.Classifier{External: "m.bin"})
	d, err = model.Describe(t.Context(), external)
	if err != nil || len(d.Files) != 2 || d.Files[1].Name != "m.bin" || d.SHA256 == d.Files[0].SHA256 {
		t.Errorf("with external data: %+v, error %v", d, err)
	}
	if err := os.Remove(filepath.Join(filepath.Dir(external), "m.bin")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{external, filepath.Join(t.TempDir(), "none.onnx")} {
		if _, err := model.Describe(t.Context(), path); pipeline.ClassOf(err) != pipeline.Config || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v of class %v", path, err, pipeline.ClassOf(err))
		}
	}
	if _, err := model.Describe(t.Context(), writeFile(t, "text.onnx", "hello")); !errors.Is(err, onnx.ErrNotModel) {
		t.Errorf("text: error %v", err)
	}
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
