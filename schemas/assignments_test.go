package schemas

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestAssignments(t *testing.T) {
	r := newRand(31)
	for _, n := range []int{0, 1, 50, GroupRows + 7} {
		rows, labels := make([]int64, n), make([]int32, n)
		for i := range rows {
			rows[i] = int64(3*i + r.IntN(3))
			labels[i] = r.Int32()
		}
		path := filepath.Join(t.TempDir(), "assignments.parquet")
		stats, err := WriteAssignments(path, rows, labels, goldenKV)
		check(t, err)
		if stats.Rows != int64(n) {
			t.Errorf("%d rows, want %d", stats.Rows, n)
		}
		gotRows, gotLabels, err := ReadAssignments(path)
		check(t, err)
		same(t, append([]int64{}, gotRows...), rows)
		same(t, append([]int32{}, gotLabels...), labels)
	}
}

func TestRefusedAssignments(t *testing.T) {
	path := filepath.Join(t.TempDir(), "assignments.parquet")
	for name, c := range map[string]struct {
		rows   []int64
		labels []int32
		meta   map[string]string
	}{
		"short":     {[]int64{1, 2}, []int32{3}, nil},
		"unordered": {[]int64{2, 1}, []int32{3, 4}, nil},
		"twice":     {[]int64{2, 2}, []int32{3, 4}, nil},
		"negative":  {[]int64{-1}, []int32{3}, nil},
		"metadata":  {[]int64{1}, []int32{3}, map[string]string{keyKind: "x"}},
	} {
		if _, err := WriteAssignments(path, c.rows, c.labels, c.meta); err == nil {
			t.Errorf("%s: written", name)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: left a file: %v", name, err)
		}
	}
	if _, err := WritePotentials(path, []float64{1}, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ReadAssignments(path); !errors.Is(err, ErrKind) {
		t.Errorf("potentials are read as assignments: %v", err)
	}
}
