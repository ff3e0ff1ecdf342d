//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sela/stages/internal/ort/orttest"
)

// The operations of a step, by hand: resnet-s at 8 pixels.
func TestOperations(t *testing.T) {
	w := workload{Network: "resnet-s", Size: 8, Batch: 2, Heads: 2, Clusters: 3}
	got, err := operations(orttest.Open(t), w, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	conv := func(pixels, in, out, kernel float64) float64 { return 2 * pixels * pixels * in * out * kernel * kernel }
	want := conv(4, 64, 64, 3)*2 + // first block
		conv(2, 64, 128, 3) + conv(2, 128, 128, 3) + conv(2, 64, 128, 1) +
		conv(1, 128, 256, 3) + conv(1, 256, 256, 3) + conv(1, 128, 256, 1) +
		2*conv(1, 256, 3, 1) // heads
	want = 2 * (3*want + 2*conv(4, 3, 64, 3)) // no gradient of the images
	if math.Abs(got/want-1) > 1e-12 {
		t.Errorf("%g operations, want %g", got, want)
	}
}

// The program's own candidate answers as peers.py does.
func TestServe(t *testing.T) {
	library := orttest.Library(t).Path
	w := workload{Network: "alexnet-s", Size: 8, Batch: 2, Heads: 2, Clusters: 3, Threads: 1, Forms: "default"}
	var in, out bytes.Buffer
	requests := json.NewEncoder(&in)
	for _, r := range []request{{Do: "steps", Count: 1}, {Do: "open", workload: w}, {Do: "steps", Count: 3}, {Do: "operators", workload: w}, {Do: "memory"}, {Do: "nothing"}} {
		if err := requests.Encode(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := serve(t.Context(), library, &in, &out); err != nil {
		t.Fatal(err)
	}
	var got [6]answer
	answers := json.NewDecoder(&out)
	for i := range got {
		if err := answers.Decode(&got[i]); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range []int{0, 5} {
		if got[i].Error == "" {
			t.Errorf("answer %d: %+v, want an error", i, got[i])
		}
	}
	if a := got[1]; a.Error != "" || a.Threads != 1 || a.Parameters < 1e5 || a.Operations < 1e6 {
		t.Errorf("opened: %+v", a)
	}
	if a := got[2]; a.Error != "" || len(a.Wall) != 3 || len(a.CPU) != 3 || slices.Min(a.Wall) <= 0 || !(a.Loss > 0 && a.Loss < 3) {
		t.Errorf("steps: %+v", a)
	}
	convs := map[string]int{}
	for _, o := range got[3].Operators {
		if o.Name == "Conv" {
			convs[o.Part] = o.Nodes
		}
		if o.Seconds < 0 || math.IsInf(o.Seconds, 0) {
			t.Errorf("%+v", o)
		}
	}
	if convs["forward"] == 0 || convs["update"] != 0 {
		t.Errorf("convolutions: %v (%s)", convs, got[3].Error)
	}
	if a := got[4]; a.Peak < 1e6 {
		t.Errorf("memory: %+v", a)
	}
}

// Of each node the fastest run counts; other events do not.
func TestReadProfile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "profile.json")
	events := `[{"cat":"Session","name":"model_run","dur":99},
		{"cat":"Node","name":"grad/a/Conv_kernel_time","dur":30,"args":{"op_name":"Conv"}},
		{"cat":"Node","name":"grad/a/Conv_kernel_time","dur":20,"args":{"op_name":"Conv"}},
		{"cat":"Node","name":"grad/b/Conv_kernel_time","dur":5,"args":{"op_name":"Conv"}},
		{"cat":"Node","name":"grad/b/Conv_fence_before","dur":7,"args":{"op_name":"Conv"}},
		{"cat":"Node","name":"next/w/Sub_kernel_time","dur":40,"args":{"op_name":"Sub"}},
		{"cat":"Node","name":"conv1_kernel_time","dur":1,"args":{"op_name":"Conv"}}]`
	if err := os.WriteFile(path, []byte(events), 0o666); err != nil {
		t.Fatal(err)
	}
	got, err := readProfile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		got[i].Seconds = math.Round(got[i].Seconds * 1e6)
	}
	want := []operator{{"update", "Sub", 1, 40}, {"backward", "Conv", 2, 25}, {"forward", "Conv", 1, 1}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if err := os.WriteFile(path, []byte(`[{`), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := readProfile(path); err == nil || !strings.Contains(err.Error(), "profile") {
		t.Errorf("%v", err)
	}
}

func TestMedianAndSpread(t *testing.T) {
	if m := median([]float64{3, 1, 2, 10}); m != 2.5 {
		t.Errorf("median %g", m)
	}
	if s := spread(ratios([]float64{2, 9}, []float64{1, 3})); s != "2.50 (2.00–3.00)" {
		t.Errorf("%s", s)
	}
}
