package ort_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"sela/stages/internal/ort"
	"sela/stages/internal/ort/orttest"
)

func open(t testing.TB, model string, opts ort.Options) *ort.Session {
	t.Helper()
	s, err := orttest.Open(t).NewSession(filepath.Join("testdata", model), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newSlot(t testing.TB, s *ort.Session, shapes ...[]int64) *ort.Slot {
	t.Helper()
	slot, err := s.NewSlot(t.Context(), shapes...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := slot.Close(); err != nil {
			t.Error(err)
		}
	})
	return slot
}

// pixel is the i-th element of the images that testdata/make.py uses.
func pixel(i int) float32 { return float32((37*i)%101-50) / 32 }

func fillPixels(x []float32) {
	for i := range x {
		x[i] = pixel(i)
	}
}

// goldens returns NumPy's outputs for four images; see testdata/make.py.
func goldens(t testing.TB) map[string][]float64 {
	t.Helper()
	data, err := os.ReadFile("testdata/goldens.json")
	if err != nil {
		t.Fatal(err)
	}
	var g map[string][]float64
	if err := json.Unmarshal(data, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

func wantClose(t testing.TB, name string, got []float32, want []float64, tolerance float64) {
	t.Helper()
	if len(got) != len(want) || len(want) == 0 {
		t.Fatalf("%s: %d values, want %d", name, len(got), len(want))
	}
	for i := range got {
		if d := math.Abs(float64(got[i]) - want[i]); !(d <= tolerance) {
			t.Fatalf("%s[%d] = %v, want %v within %v", name, i, got[i], want[i], tolerance)
		}
	}
}

func TestRunEqualsNumPy(t *testing.T) {
	g := goldens(t)
	for _, tt := range []struct {
		model     string
		opts      ort.Options
		tolerance float64
		want      []string
	}{
		{"linear.onnx", ort.Options{}, 1e-5, []string{"logits_0", "logits_1", "features"}},
		{"linear.onnx", ort.Options{Threads: 2, Arena: true, Optimization: ort.OptimizeNone}, 1e-5, []string{"logits_0", "logits_1", "features"}},
		{"linear.onnx", ort.Options{Outputs: []string{"features", "logits_1"}}, 1e-5, []string{"features", "logits_1"}},
		{"linear.onnx", ort.Options{Providers: []ort.Provider{{Name: ort.CPU}}, Inputs: []string{"images"}}, 1e-5, []string{"logits_0", "logits_1", "features"}},
		{"linear_batch4.onnx", ort.Options{}, 1e-5, []string{"logits_0", "logits_1", "features"}},
		{"external.onnx", ort.Options{}, 1e-5, []string{"logits_0", "logits_1", "features"}},
		// Values up to 8 in binary16: steps of 2^-8, a few of them.
		{"linear_float16.onnx", ort.Options{}, 0.03, []string{"logits_0", "logits_1", "features"}},
	} {
		t.Run(fmt.Sprint(tt.model, tt.opts), func(t *testing.T) {
			s := open(t, tt.model, tt.opts)
			slot := newSlot(t, s, []int64{4, 3, 4, 4})
			for range 2 { // the same memory twice
				if x := slot.Inputs[0].Float32(); x != nil {
					fillPixels(x)
				} else {
					x := make([]float32, 4*48)
					fillPixels(x)
					ort.EncodeFloat16(slot.Inputs[0].Float16(), x)
				}
				if err := s.Run(t.Context(), slot); err != nil {
					t.Fatal(err)
				}
				for i, name := range tt.want {
					if slot.Outputs[i].Name != name {
						t.Fatalf("output %d is %s, want %s", i, slot.Outputs[i].Name, name)
					}
					wantClose(t, name, slot.Outputs[i].Float32(), g[name], tt.tolerance)
					clear(slot.Outputs[i].Float32())
				}
			}
		})
	}
}

func TestRunUint8(t *testing.T) {
	s := open(t, "uint8.onnx", ort.Options{})
	slot := newSlot(t, s, []int64{4, 4, 4, 3})
	x := slot.Inputs[0].Uint8()
	for i := range x {
		x[i] = byte(37 * i % 256)
	}
	if err := s.Run(t.Context(), slot); err != nil {
		t.Fatal(err)
	}
	wantClose(t, "logits_0", slot.Outputs[0].Float32(), goldens(t)["uint8_logits_0"], 1e-5)
	if slot.Inputs[0].Float32() != nil || slot.Inputs[0].Float16() != nil {
		t.Error("a uint8 tensor has a float view")
	}
}

func TestRunHandsNaNOn(t *testing.T) {
	s := open(t, "nan.onnx", ort.Options{})
	slot := newSlot(t, s, []int64{2, 4})
	copy(slot.Inputs[0].Float32(), []float32{4, -1, 9, 16, 1, 1, -1, 0})
	if err := s.Run(t.Context(), slot); err != nil {
		t.Fatal(err)
	}
	for i, v := range slot.Outputs[0].Float32() {
		if isNaN := v != v; isNaN != (i == 1 || i == 6) {
			t.Errorf("value %d is %v", i, v)
		}
	}
}

func TestInspect(t *testing.T) {
	for _, tt := range []struct{ model, want string }{
		{"linear.onnx", "images float32 [?,3,4,4] -> logits_0 float32 [?,5] logits_1 float32 [?,5] features float32 [?,8]"},
		{"linear_batch4.onnx", "images float32 [4,3,4,4] -> logits_0 float32 [4,5] logits_1 float32 [4,5] features float32 [4,8]"},
		{"linear_float16.onnx", "images float16 [?,3,4,4] -> logits_0 float16 [?,5] logits_1 float16 [?,5] features float16 [?,8]"},
		{"uint8.onnx", "images uint8 [?,4,4,3] -> logits_0 float32 [?,5]"},
		{"free.onnx", "images float32 [?,?,?,?] -> flat float32 [?,?] labels int64 [?]"},
	} {
		in, out, err := orttest.Open(t).Inspect(filepath.Join("testdata", tt.model))
		if err != nil {
			t.Error(err)
			continue
		}
		got := ""
		for _, i := range in {
			got += i.String() + " "
		}
		got += "->"
		for _, o := range out {
			got += " " + o.String()
		}
		if got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.model, got, tt.want)
		}
	}
}

// The width of this model's output is known to a run only.
func TestFreeOutputDimensions(t *testing.T) {
	s := open(t, "free.onnx", ort.Options{Outputs: []string{"flat"}})
	for _, dims := range [][]int64{{2, 3, 4, 5}, {3, 1, 2, 2}} {
		slot := newSlot(t, s, dims)
		fillPixels(slot.Inputs[0].Float32())
		if err := s.Run(t.Context(), slot); err != nil {
			t.Fatal(err)
		}
		flat := slot.Outputs[0]
		if len(flat.Dims) != 2 || flat.Dims[0] != dims[0] || flat.Dims[1] != dims[1]*dims[2]*dims[3] {
			t.Fatalf("dimensions %v for %v", flat.Dims, dims)
		}
		for i, v := range flat.Float32() {
			if v != pixel(i) {
				t.Fatalf("value %d is %v, want %v", i, v, pixel(i))
			}
		}
	}
}

func TestSessionErrors(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	external, err := os.ReadFile("testdata/external.onnx")
	if err != nil {
		t.Fatal(err)
	}
	linear, err := os.ReadFile("testdata/linear.onnx")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, path string
		opts       ort.Options
		is         error
		want       string
	}{
		{"absent", filepath.Join(dir, "absent.onnx"), ort.Options{}, ort.ErrModel, "absent.onnx"},
		{"junk", write("junk.onnx", []byte("no model")), ort.Options{}, ort.ErrModel, "junk.onnx"},
		{"empty", write("empty.onnx", nil), ort.Options{}, ort.ErrModel, "empty.onnx"},
		{"cut", write("cut.onnx", linear[:len(linear)/2]), ort.Options{}, ort.ErrModel, "cut.onnx"},
		{"no weights", write("external.onnx", external), ort.Options{}, ort.ErrModel, "external.bin"},
		{"wrong input", "testdata/linear.onnx", ort.Options{Inputs: []string{"image"}}, ort.ErrModel, `no input "image"; its inputs are images float32 [?,3,4,4]`},
		{"wrong output", "testdata/linear.onnx", ort.Options{Outputs: []string{"probs"}}, ort.ErrModel, `no output "probs"; its outputs are logits_0 float32 [?,5]; logits_1`},
		{"output twice", "testdata/linear.onnx", ort.Options{Outputs: []string{"features", "features"}}, ort.ErrModel, "named twice"},
		{"no outputs", "testdata/linear.onnx", ort.Options{Outputs: []string{}}, ort.ErrModel, "no outputs"},
		{"input left out", "testdata/loop.onnx", ort.Options{Inputs: []string{"x"}}, ort.ErrModel, `input "trips" has no default`},
		{"output type", "testdata/free.onnx", ort.Options{}, ort.ErrModel, `output "labels" is int64`},
		{"optimization", "testdata/linear.onnx", ort.Options{Optimization: "most"}, ort.ErrModel, `"most"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := orttest.Open(t).NewSession(tt.path, tt.opts)
			if err == nil {
				s.Close()
				t.Fatal("no error")
			}
			if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q, want a %v with %q", err, tt.is, tt.want)
			}
		})
	}
}

func TestSlotErrors(t *testing.T) {
	for _, tt := range []struct {
		model  string
		shapes [][]int64
		want   string
	}{
		{"linear.onnx", nil, "0 input shapes given for 1 inputs"},
		{"linear.onnx", [][]int64{{4, 3, 4}}, "has 3 dimensions"},
		{"linear.onnx", [][]int64{{4, 3, 4, 5}}, "does not fit in dimension 3"},
		{"linear.onnx", [][]int64{{0, 3, 4, 4}}, "does not fit in dimension 0"},
		{"linear.onnx", [][]int64{{1 << 60, 3, 4, 4}}, "too large"},
		{"linear_batch4.onnx", [][]int64{{8, 3, 4, 4}}, "does not fit in dimension 0"},
	} {
		_, err := open(t, tt.model, ort.Options{}).NewSlot(t.Context(), tt.shapes...)
		if err == nil || !errors.Is(err, ort.ErrModel) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %v: error %v, want %q", tt.model, tt.shapes, err, tt.want)
		}
	}
}

func TestRunErrors(t *testing.T) {
	s := open(t, "linear.onnx", ort.Options{})
	other := newSlot(t, open(t, "linear_batch4.onnx", ort.Options{}), []int64{4, 3, 4, 4})
	if err := s.Run(t.Context(), other); !errors.Is(err, ort.ErrRun) || !strings.Contains(err.Error(), "another session") {
		t.Errorf("slot of another session: %v", err)
	}
	slot := newSlot(t, s, []int64{4, 3, 4, 4})
	if err := slot.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), slot); !errors.Is(err, ort.ErrRun) || !strings.Contains(err.Error(), "slot is closed") {
		t.Errorf("closed slot: %v", err)
	}
	slot = newSlot(t, s, []int64{4, 3, 4, 4})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), slot); !errors.Is(err, ort.ErrRun) || !strings.Contains(err.Error(), "session is closed") {
		t.Errorf("closed session: %v", err)
	}
}

// Sixteen goroutines on one session must each get their own rows' outputs.
func TestConcurrentRuns(t *testing.T) {
	s := open(t, "linear.onnx", ort.Options{})
	reference := newSlot(t, s, []int64{64, 3, 4, 4})
	fillPixels(reference.Inputs[0].Float32())
	if err := s.Run(t.Context(), reference); err != nil {
		t.Fatal(err)
	}
	want := reference.Outputs[0].Float32()
	var all sync.WaitGroup
	for worker := range 16 {
		all.Go(func() {
			slot, err := s.NewSlot(context.Background(), []int64{4, 3, 4, 4})
			if err != nil {
				t.Error(err)
				return
			}
			defer slot.Close()
			for round := range 50 {
				first := (worker + round) % 16 * 4
				copy(slot.Inputs[0].Float32(), reference.Inputs[0].Float32()[first*48:])
				if err := s.Run(context.Background(), slot); err != nil {
					t.Error(err)
					return
				}
				for i, v := range slot.Outputs[0].Float32() {
					if v != want[first*5+i] {
						t.Errorf("worker %d round %d: value %d is %v, want %v", worker, round, i, v, want[first*5+i])
						return
					}
				}
			}
		})
	}
	all.Wait()
}

func TestRunAllocatesNoBatch(t *testing.T) {
	s := open(t, "linear.onnx", ort.Options{})
	slot := newSlot(t, s, []int64{1024, 3, 4, 4})
	const runs = 200
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		if err := s.Run(t.Context(), slot); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	// The call's own bookkeeping only: the batch is 196 kB.
	if got := (after.TotalAlloc - before.TotalAlloc) / runs; got > 4096 {
		t.Errorf("%d bytes allocated per run", got)
	}
}
