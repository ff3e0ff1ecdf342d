package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/schemas"
)

// publishLabels lays out a labels bucket's folder with one run of the given
// heads, each in two parts.
func publishLabels(t *testing.T, folder string, heads []*labels) {
	t.Helper()
	base := filepath.Join(folder, "runs", "r1")
	var files []pipeline.Output
	for _, l := range heads {
		half := len(l.names) / 2
		for part, span := range [][2]int{{0, half}, {half, len(l.names)}} {
			object := fmt.Sprintf("labels/head=%d/part-%05d.parquet", l.head, part)
			file := filepath.Join(base, object)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			w, err := schemas.CreateLabels(file, schemas.LabelsMeta{Head: l.head, Clusters: l.proof.Clusters})
			if err != nil {
				t.Fatal(err)
			}
			for row := span[0]; row < span[1]; row++ {
				prob := new(float32)
				if l.head == 1 {
					prob = nil // labels without a probability of their own
				}
				err := w.Write(&schemas.Label{
					Row: int64(row), Key: l.names[row].Key, Member: l.names[row].Member, SHA256: strings.Repeat("0", 64),
					Label: l.label[row], Prob: prob, ModelLabel: l.label[row], ModelProb: 0.5,
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			stats, err := w.Commit()
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, pipeline.Output{Name: object, Path: object, FileStats: stats})
		}
		object := fmt.Sprintf("potentials/head-%d.parquet", l.head)
		if err := os.MkdirAll(filepath.Join(base, "potentials"), 0o755); err != nil {
			t.Fatal(err)
		}
		proof, err := json.Marshal(l.proof)
		if err != nil {
			t.Fatal(err)
		}
		stats, err := schemas.WritePotentials(filepath.Join(base, object), make([]float64, l.proof.Clusters), map[string]string{"certificate": string(proof)})
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, pipeline.Output{Name: object, Path: object, FileStats: stats})
	}
	manifest, err := pipeline.NewManifest(&pipeline.Record{Run: "r1", Job: &pipeline.Job{Name: "demo"}}, "listing", files).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(base, "_manifest.json"), manifest, 0o644); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(manifest)
	latest, err := json.Marshal(map[string]string{"run": "r1", "manifest": "runs/r1/_manifest.json", "sha256": hex.EncodeToString(sum[:])})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "LATEST"), latest, 0o644); err != nil {
		t.Fatal(err)
	}
}

// fromTruth are labels that equal the truth of a written data set, in the order
// of its names.
func fromTruth(t *testing.T, dir string, head int) *labels {
	t.Helper()
	truth, err := readTruth(filepath.Join(dir, truthFile))
	if err != nil {
		t.Fatal(err)
	}
	l := &labels{head: head}
	for n := range truth {
		l.names = append(l.names, n)
	}
	slices.SortFunc(l.names, func(a, b name) int { return strings.Compare(a.Key+a.Member, b.Key+b.Member) })
	for _, n := range l.names {
		l.label = append(l.label, truth[n])
		l.proof.Clusters = max(l.proof.Clusters, int(truth[n])+1)
	}
	l.proof.Passes = 12
	return l
}

func TestReadPublished(t *testing.T) {
	dir, folder := t.TempDir(), t.TempDir()
	mustWrite(t, dir, small(), 2)
	want := []*labels{fromTruth(t, dir, 0), fromTruth(t, dir, 1), fromTruth(t, dir, 10)}
	publishLabels(t, folder, want)
	run, got, err := readPublished(folder)
	if err != nil {
		t.Fatal(err)
	}
	if run != "r1" || len(got) != len(want) {
		t.Fatalf("run %q with %d heads", run, len(got))
	}
	for i, l := range got {
		w := want[i]
		if l.head != w.head || !slices.Equal(l.names, w.names) || !slices.Equal(l.label, w.label) || l.proof != w.proof {
			t.Errorf("head %d differs from what was published", w.head)
		}
	}
}

func TestDamagedPartIsRefused(t *testing.T) {
	dir, folder := t.TempDir(), t.TempDir()
	mustWrite(t, dir, small(), 2)
	publishLabels(t, folder, []*labels{fromTruth(t, dir, 0)})
	part := filepath.Join(folder, "runs/r1/labels/head=0/part-00001.parquet")
	data, err := os.ReadFile(part)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(part, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := readPublished(folder); err == nil || !strings.Contains(err.Error(), part) {
		t.Errorf("damaged part: %v, want an error that names it", err)
	}
}
