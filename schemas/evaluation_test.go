package schemas

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// someEvaluation has rows with every optional column present and absent.
func someEvaluation() []Evaluation {
	return []Evaluation{
		{Network: "model", Source: "features", Split: "test", Images: 10000, Measure: "knn", Value: 0.4375, Dim: ptr[int32](256), K: ptr[int32](10), Sigma: ptr(0.1)},
		{Network: "model", Source: "conv5", Split: "test", Images: 10000, Measure: "linear", Value: math.Nextafter(0.5, 1), Dim: ptr[int32](9216), L2: ptr(1e-4)},
		{Network: "run-größer", Source: "head 3", Split: "train", Images: 50000, Measure: "nmi", Value: 0.25, Chance: ptr(0.0), Clusters: ptr[int32](128)},
	}
}

func TestEvaluation(t *testing.T) {
	for _, rows := range [][]Evaluation{nil, someEvaluation(), someEvaluation()[2:]} {
		path := filepath.Join(t.TempDir(), "evaluation.parquet")
		stats, err := WriteEvaluation(path, rows, goldenKV)
		check(t, err)
		if stats.Rows != int64(len(rows)) {
			t.Errorf("%d rows, want %d", stats.Rows, len(rows))
		}
		got, meta, err := ReadEvaluation(path)
		check(t, err)
		same(t, got, rows)
		same(t, meta, goldenKV)
	}
}

func TestRefusedEvaluation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "evaluation.parquet")
	if _, err := WriteEvaluation(path, []Evaluation{{Network: "\xff"}}, nil); err == nil {
		t.Error("text that is not UTF-8 is written")
	}
	if _, err := WriteEvaluation(path, nil, map[string]string{keyKind: "x"}); err == nil {
		t.Error("the table's own metadata is taken from a caller")
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left a file: %v", err)
	}
	if _, err := WritePotentials(path, []float64{1}, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ReadEvaluation(path); !errors.Is(err, ErrKind) {
		t.Errorf("potentials are read as an evaluation: %v", err)
	}
}
