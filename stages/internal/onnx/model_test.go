package onnx_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxpb"
	"sela/stages/internal/onnx/onnxtest"
)

// goldens are the models of testdata/make.py.
var goldens = []string{"plain-7", "stacked-11", "norms-15", "branches-21"}

func load(t testing.TB, name string) *onnx.Model {
	t.Helper()
	m, err := onnx.Load(filepath.Join("testdata", name+".onnx"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func encode(t testing.TB, m *onnx.Model) []byte {
	t.Helper()
	data, err := m.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRoundTrip(t *testing.T) {
	for _, name := range goldens {
		m := load(t, name)
		path := filepath.Join(t.TempDir(), "m.onnx")
		if err := m.SaveWithData(path); err != nil {
			t.Fatal(err)
		}
		again, err := onnx.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(m.Proto, again.Proto) {
			t.Errorf("%s: content changed", name)
		}
		if !bytes.Equal(encode(t, again), encode(t, m)) {
			t.Errorf("%s: saved twice, the bytes differ", name)
		}
		original, err := os.ReadFile(filepath.Join("testdata", name+".onnx"))
		if err != nil {
			t.Fatal(err)
		}
		if len(encode(t, m)) != len(original) {
			t.Errorf("%s: %d bytes became %d", name, len(original), len(encode(t, m)))
		}
	}
}

func TestUnknownFieldsSurvive(t *testing.T) {
	m := load(t, "stacked-11")
	if _, err := m.AppendLogProbs(onnx.HeadsSpec{Kind: onnx.Logits}); err != nil {
		t.Fatal(err)
	}
	saved := encode(t, m)
	for _, want := range []string{"a node's own metadata", "SCALE_TENSOR", "an annotation"} {
		if !bytes.Contains(saved, []byte(want)) {
			t.Errorf("the edited model lost %q", want)
		}
	}
}

func TestSaveReplacesWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m.onnx")
	for _, seed := range []uint64{1, 1, 2} {
		onnxtest.Write(t, dir, "m.onnx", onnxtest.Classifier{Seed: seed})
	}
	want, _ := onnxtest.Classifier{Seed: 2}.Build()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, encode(t, want)) {
		t.Error("the file is not the model saved last")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("%d files left in the folder, want 1", len(entries))
	}
	if err := want.Save(filepath.Join(dir, "missing", "m.onnx")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("saved into a missing folder: %v", err)
	}
}

func TestCloneSharesNothing(t *testing.T) {
	m := load(t, "plain-7")
	before := encode(t, m)
	if _, err := m.Clone().AppendLogProbs(onnx.HeadsSpec{Kind: onnx.Logits}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, encode(t, m)) {
		t.Error("editing the clone changed the model")
	}
}

func TestParseRefuses(t *testing.T) {
	text := []byte("The quick brown fox jumps over the lazy dog.")
	for name, data := range map[string][]byte{
		"empty": nil, "text": text, "zeros": make([]byte, 64), "PNG": []byte("\x89PNG\r\n\x1a\n"),
		"no graph": encode(t, &onnx.Model{Proto: &onnxpb.ModelProto{IrVersion: proto.Int64(8)}}),
	} {
		if _, err := onnx.Parse(data); !errors.Is(err, onnx.ErrNotModel) {
			t.Errorf("%s: error %v, want ErrNotModel", name, err)
		}
	}
	whole, err := os.ReadFile("testdata/plain-7.onnx")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "cut.onnx")
	if err := os.WriteFile(path, whole[:len(whole)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := onnx.Load(path); !errors.Is(err, onnx.ErrNotModel) || !strings.Contains(err.Error(), path) {
		t.Errorf("cut file: error %v, want ErrNotModel naming the file", err)
	}
}

func TestExternalFiles(t *testing.T) {
	got, err := load(t, "branches-21").ExternalFiles()
	if err != nil {
		t.Fatal(err)
	}
	// One is named in the graph and an attribute, the other in a branch only.
	if want := []string{"b.bin", "weights/a.bin"}; !slices.Equal(got, want) {
		t.Errorf("external files %q, want %q", got, want)
	}
}

func TestExternalLocations(t *testing.T) {
	for location, ok := range map[string]bool{
		"w.bin": true, "./w.bin": true, "a b%20/w'.bin": true, "..w": true,
		"": false, ".": false, "..": false, "../w.bin": false, "a/../../w.bin": false, "a/../w.bin": false, "/etc/passwd": false,
		`..\w.bin`: false, `C:\w.bin`: false, "C:w.bin": false, "w\x00.bin": false, "w\n.bin": false, strings.Repeat("a", 5000): false,
	} {
		m, _ := onnxtest.Classifier{External: location}.Build()
		if location == "" {
			continue
		}
		_, err := m.ExternalFiles()
		if (err == nil) != ok {
			t.Errorf("location %q: error %v, want it accepted: %v", location, err, ok)
		}
	}
}

func TestLoadChecksExternalData(t *testing.T) {
	write := func(t *testing.T) (model, data string) {
		dir := t.TempDir()
		return onnxtest.Write(t, dir, "m.onnx", onnxtest.Classifier{External: "w.bin"}), filepath.Join(dir, "w.bin")
	}
	model, data := write(t)
	if _, err := onnx.Load(model); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(data, 3*8*8*4*4-1); err != nil {
		t.Fatal(err)
	}
	if _, err := onnx.Load(model); err == nil || !strings.Contains(err.Error(), "w.bin") {
		t.Errorf("a cut file: %v", err)
	}
	if err := os.Remove(data); err != nil {
		t.Fatal(err)
	}
	if _, err := onnx.Load(model); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "w.bin") {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := onnx.Fingerprint(context.Background(), model); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("digest of a model with a missing file: %v", err)
	}
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := onnx.Load(model); err == nil {
		t.Error("a folder was taken for a file")
	}
}

func TestSaveWithDataKeepsReferences(t *testing.T) {
	m := load(t, "branches-21")
	want, err := m.Floats("w")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "edited.onnx")
	for range 2 { // the second time over the first
		if err := m.SaveWithData(path); err != nil {
			t.Fatal(err)
		}
	}
	moved, err := onnx.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := moved.Floats("w"); err != nil || !slices.Equal(got, want) || len(got) != 20 {
		t.Errorf("weights %v, %v; want %v", got, err, want)
	}
	if err := moved.SaveWithData(path); err != nil {
		t.Errorf("saved where its data already lies: %v", err)
	}
	if _, err := onnx.Load(path); err != nil {
		t.Error(err)
	}
}

func TestFingerprint(t *testing.T) {
	ctx := context.Background()
	digest := func(path string) onnx.Digest {
		t.Helper()
		d, err := onnx.Fingerprint(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	// The digests sha256sum prints: of the file, and of its own output for the
	// model (its name removed) and the data files.
	if got, want := digest("testdata/plain-7.onnx").SHA256, plainSum; got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
	d := digest("testdata/branches-21.onnx")
	if d.SHA256 != branchesSum || len(d.Files) != 3 || d.Files[1].Name != "b.bin" || d.Files[2].Name != "weights/a.bin" || d.Files[2].Bytes != 96 {
		t.Errorf("digest %+v, want %s", d, branchesSum)
	}

	path := onnxtest.Write(t, t.TempDir(), "m.onnx", onnxtest.Classifier{External: "w.bin"})
	before := digest(path)
	data := filepath.Join(filepath.Dir(path), "w.bin")
	content, err := os.ReadFile(data)
	if err != nil {
		t.Fatal(err)
	}
	renamed := filepath.Join(filepath.Dir(path), "other.onnx")
	if err := os.Rename(path, renamed); err != nil {
		t.Fatal(err)
	}
	if got := digest(renamed).SHA256; got != before.SHA256 {
		t.Error("the digest depends on the model file's name")
	}
	content[len(content)-1] ^= 1
	if err := os.WriteFile(data, content, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := digest(renamed).SHA256; got == before.SHA256 {
		t.Error("a bit changed in the external data and the digest did not")
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := onnx.Fingerprint(cancelled, renamed); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range goldens {
		data, err := os.ReadFile(filepath.Join("testdata", name+".onnx"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for name := range exports {
		f.Add(encode(f, load(f, name)))
	}
	stacked, _ := onnxtest.Classifier{Stacked: true, Clusters: []int{3, 3}, External: "w"}.Build()
	f.Add(encode(f, stacked))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := onnx.Parse(data)
		if err != nil {
			return
		}
		if info, err := onnx.Inspect(m); err == nil && info.Parameters < 0 {
			t.Error("negative number of parameters")
		}
		again, err := onnx.Parse(encode(t, m))
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if !bytes.Equal(encode(t, again), encode(t, m)) {
			t.Error("written twice, the bytes differ")
		}
		for _, init := range m.Proto.Graph.Initializer {
			if init.GetDataLocation() != onnxpb.TensorProto_EXTERNAL {
				_, _ = m.Floats(init.GetName())
			}
		}
		before := encode(t, m)
		if _, err := m.AppendLogProbs(onnx.HeadsSpec{Kind: onnx.Logits}); err != nil && !bytes.Equal(before, encode(t, m)) {
			t.Error("a refused edit changed the model")
		}
		before = encode(t, m)
		if _, err := m.AppendFeatures("hidden"); err != nil && !bytes.Equal(before, encode(t, m)) {
			t.Error("a refused edit changed the model")
		}
		if cal, err := onnx.NewCalibration(m); err == nil && len(cal.Graph.Proto.Graph.Node) <= len(m.Proto.Graph.Node) {
			t.Error("a calibration adds nothing")
		}
		before = encode(t, m)
		if trunk, err := m.Trunk(""); err == nil {
			if len(trunk.Proto.Graph.Output) != 1 || !bytes.Equal(before, encode(t, m)) {
				t.Error("a trunk has one output and is a copy")
			}
			_, _ = onnx.InitFrom(trunk, m)
		}
		for _, kind := range []onnx.HeadKind{onnx.LinearHead, onnx.CosineHead} {
			c := m.Clone()
			if heads, err := c.ReplaceHeads("", onnx.HeadOptions{Kind: kind, Heads: 1, Clusters: 2}); err == nil && len(heads) != 1 || err != nil && !bytes.Equal(before, encode(t, c)) {
				t.Errorf("heads %q, %v, or a refused edit changed the model", heads, err)
			}
		}
	})
}

const (
	plainSum    = "0fa43bd137d0c4feea3f9c70cc4de74e5a51b8d281ba4cfa18c5378d6ea8c9e3"
	branchesSum = "74e7aaac146adda7a9150d017f149fbf490c71ada39dc668e1157d3d2ed7389a"
)
