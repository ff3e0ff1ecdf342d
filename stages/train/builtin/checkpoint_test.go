package builtin

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"sela/pipeline"
)

func TestCheckpoint(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.sela")
	h := header{Identity: Identity{Network: "n", Init: "i", After: "a", Labels: "l", Preprocessing: "p", Spec: "s"}, Epoch: 1, Step: 5, Sums: sums{Rows: 7, Weight: []float64{7, 2}, Loss: []float64{0.1, 1e-300}, Correct: []float64{3, 4}, Seconds: 1.5, Waited: 0.25},
		Metrics: []Metrics{{Epoch: 1, Step: 9, Train: Scores{Heads: []Score{{1, 2}}}, HeldOut: &Scores{Heads: []Score{{3, 4}}}}}, States: []state{{"a", []int64{2, 3}}, {"b", []int64{20000}}}}
	values := [][]float32{{1, -2, 3.5, math.SmallestNonzeroFloat32, math.MaxFloat32, 0}, make([]float32, 20000)}
	for i := range values[1] {
		values[1][i] = float32(i) / 7
	}
	if got, err := peek(path, h.Identity); got != nil || err != nil {
		t.Fatalf("no file: %v, %v", got, err)
	}
	if err := save(path, h, values); err != nil {
		t.Fatal(err)
	}
	read := [][]float32{make([]float32, 6), make([]float32, 20000)}
	got, err := restore(path, beginAnew, header{Identity: h.Identity, States: h.States, Sums: newSums(2)}, read)
	if err != nil || !reflect.DeepEqual(*got, h) || !reflect.DeepEqual(read, values) {
		t.Fatalf("read back as %+v, %v", got, err)
	}
	// A value that is not finite would replace what can go on by what cannot.
	before := contents(t, path)
	for _, bad := range []float64{math.NaN(), math.Inf(-1)} {
		values[1][19999] = float32(bad)
		if err := save(path, h, values); pipeline.ClassOf(err) != pipeline.Config || !strings.Contains(err.Error(), "b has a value that is not finite") {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if contents(t, path) != before {
		t.Error("the checkpoint is gone")
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("files left: %v, %v", entries, err)
	}
	if err := save(filepath.Join(path, "below-a-file"), h, values[:1]); err == nil {
		t.Error("a folder that cannot be is written to")
	}
}
