package model_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/pipeline/bucket/buckettest"
	"sela/stages/internal/onnx/onnxpb"
	"sela/stages/internal/onnx/onnxtest"
	"sela/stages/model"
)

// store is a remote folder of models.
type store struct {
	*bucket.Bucket
	url *url.URL
}

func newStore(t *testing.T) store {
	t.Helper()
	u := buckettest.S3(t, "models")
	u.Path = "/nets/a b"
	b, err := bucket.Open(t.Context(), u.String(), bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return store{b, u}
}

func (s store) put(t *testing.T, key string, data []byte) {
	t.Helper()
	if err := s.Put(t.Context(), key, data); err != nil {
		t.Fatal(err)
	}
}

func (s store) model(name string) string { return s.url.JoinPath(name).String() }

// classifier returns the files of a model with its weights in the file external.
func classifier(t *testing.T, external string, seed uint64) (graph, weights []byte) {
	t.Helper()
	g, weights := onnxtest.Classifier{External: external, Seed: seed}.Build()
	graph, err := g.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return graph, weights
}

func digest(t *testing.T, path string) string {
	t.Helper()
	_, d, err := model.Load(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestLocalLeavesPathsAlone(t *testing.T) {
	for _, path := range []string{"model.onnx", "/a/b c/%20.onnx", "../m"} {
		if got, err := model.Local(t.Context(), path, ""); err != nil || got != path {
			t.Errorf("%s: %s, error %v", path, got, err)
		}
	}
	dir := filepath.Join(t.TempDir(), "a b")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := onnxtest.Write(t, dir, "m.onnx", onnxtest.Classifier{External: "m.bin"})
	got, err := model.Local(t.Context(), (&url.URL{Scheme: "file", Path: file}).String(), "")
	if err != nil || got != file {
		t.Errorf("file URL: %s, error %v; want %s", got, err, file)
	}
}

func TestLocalFetchesOnce(t *testing.T) {
	s, dir := newStore(t), t.TempDir()
	graph, _ := classifier(t, "", 1)
	s.put(t, "model.onnx", graph)
	first, err := model.Local(t.Context(), s.model("model.onnx"), dir)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(first)
	if err != nil {
		t.Fatal(err)
	}
	again, err := model.Local(t.Context(), s.model("model.onnx"), dir)
	if err != nil || again != first {
		t.Fatalf("asked again: %s, error %v; want %s", again, err, first)
	}
	if after, err := os.Stat(again); err != nil || !os.SameFile(before, after) {
		t.Errorf("the file was fetched again (%v)", err)
	}

	other, _ := classifier(t, "", 2)
	s.put(t, "model.onnx", other)
	second, err := model.Local(t.Context(), s.model("model.onnx"), dir)
	if err != nil || second == first {
		t.Fatalf("after a change: %s, error %v", second, err)
	}
	if digest(t, first) == digest(t, second) {
		t.Error("after a change the old model came back, or the old copy was replaced")
	}
	if left, err := filepath.Glob(filepath.Join(dir, "models", "arriving-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestLocalFetchesExternalData(t *testing.T) {
	s, dir := newStore(t), t.TempDir()
	graph, weights := classifier(t, "weights/part 1.bin", 1)
	s.put(t, "model.onnx", graph)
	s.put(t, "unrelated.bin", weights)
	_, err := model.Local(t.Context(), s.model("model.onnx"), dir)
	if pipeline.ClassOf(err) != pipeline.Config || !strings.Contains(err.Error(), `"weights/part 1.bin"`) {
		t.Fatalf("without its data: error %v of class %v", err, pipeline.ClassOf(err))
	}

	s.put(t, "weights/part 1.bin", weights)
	path, err := model.Local(t.Context(), s.model("model.onnx"), dir)
	if err != nil {
		t.Fatal(err)
	}
	first := digest(t, path)
	want, err := model.Describe(t.Context(), path)
	if err != nil || len(want.Files) != 2 || want.Files[1].Bytes != int64(len(weights)) {
		t.Errorf("files %+v, error %v", want, err)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(path), "unrelated.bin")); err == nil {
		t.Error("a file the model does not name was fetched")
	}

	// The weights alone change.
	_, changed := classifier(t, "weights/part 1.bin", 2)
	s.put(t, "weights/part 1.bin", changed)
	second, err := model.Local(t.Context(), s.model("model.onnx"), dir)
	if err != nil || digest(t, second) == first || digest(t, path) != first {
		t.Errorf("after a change of the weights: %s, error %v", second, err)
	}
}

func TestLocalRefuses(t *testing.T) {
	s := newStore(t)
	leaving := func(location string) []byte {
		g, _ := onnxtest.Classifier{External: "w.bin"}.Build()
		for _, i := range g.Proto.Graph.Initializer {
			if i.GetDataLocation() == onnxpb.TensorProto_EXTERNAL {
				i.ExternalData[0].Value = proto.String(location)
			}
		}
		raw, err := g.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	s.put(t, "up.onnx", leaving("../../secret"))
	s.put(t, "root.onnx", leaving("/etc/passwd"))
	s.put(t, "text.onnx", []byte("hello"))
	for name, says := range map[string]string{
		s.model("up.onnx"):            "../../secret",
		s.model("root.onnx"):          "/etc/passwd",
		s.model("text.onnx"):          "not an ONNX model",
		s.model("none.onnx"):          "no such object",
		s.url.String() + "&x=%zz":     "",
		"s3://models":                 "file name",
		"s3://models/a/":              "file name",
		"s3://models/a/..":            "file name",
		"nowhere://models/model.onnx": "unknown scheme",
	} {
		dir := t.TempDir()
		got, err := model.Local(t.Context(), name, dir)
		if pipeline.ClassOf(err) != pipeline.Config || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %q, error %v of class %v, want %q", name, got, err, pipeline.ClassOf(err), says)
		}
		if strings.Contains(err.Error(), "endpoint") {
			t.Errorf("%s: the error shows the URL's parameters: %v", name, err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "models", "arriving-*")); len(left) > 0 {
			t.Errorf("%s: left behind %v", name, left)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := model.Local(cancelled, s.model("up.onnx"), t.TempDir()); !errors.Is(err, context.Canceled) || pipeline.ClassOf(err) != pipeline.Interrupted {
		t.Errorf("cancelled: error %v of class %v", err, pipeline.ClassOf(err))
	}
}

func TestLocalForgetsOldCopies(t *testing.T) {
	s, dir := newStore(t), t.TempDir()
	fetch := func(name string, seed uint64) string {
		graph, _ := classifier(t, "", seed)
		s.put(t, name, graph)
		path, err := model.Local(t.Context(), s.model(name), dir)
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	old, recent := fetch("old.onnx", 1), fetch("recent.onnx", 2)
	past := time.Now().Add(-30 * 24 * time.Hour)
	for _, path := range []string{old, recent} {
		if err := os.Chtimes(filepath.Dir(path), past, past); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := model.Local(t.Context(), s.model("recent.onnx"), dir); err != nil { // a use
		t.Fatal(err)
	}
	fetch("new.onnx", 3)
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a copy that was not used for a month is still there (%v)", err)
	}
	if _, err := os.Stat(recent); err != nil {
		t.Errorf("a copy in use was removed: %v", err)
	}
}

// A file that is no model is fetched once and not looked into.
func TestLocalFile(t *testing.T) {
	s, dir := newStore(t), t.TempDir()
	s.put(t, "a.sela", []byte("no graph"))
	first, err := model.LocalFile(t.Context(), "checkpoint", s.model("a.sela"), dir)
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(first); err != nil || string(raw) != "no graph" {
		t.Errorf("it holds %q (%v)", raw, err)
	}
	if again, err := model.LocalFile(t.Context(), "checkpoint", s.model("a.sela"), dir); err != nil || again != first {
		t.Errorf("asked again: %s, error %v; want %s", again, err, first)
	}
	if path, err := model.LocalFile(t.Context(), "checkpoint", "b.sela", dir); err != nil || path != "b.sela" {
		t.Errorf("a path: %s, error %v", path, err)
	}
	_, err = model.LocalFile(t.Context(), "checkpoint", s.model("none.sela"), dir)
	if pipeline.ClassOf(err) != pipeline.Config || !strings.Contains(err.Error(), "checkpoint ") || !strings.Contains(err.Error(), "no such object") {
		t.Errorf("missing: %v", err)
	}
}
