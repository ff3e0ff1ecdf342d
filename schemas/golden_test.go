package schemas

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

type golden struct {
	name  string
	write func(t *testing.T, path string)
	read  func(t *testing.T, path string)
}

// goldens are the tables of testdata/v<Version>: how each is written and read.
// The files stand for those that users have: as long as Version is what it is,
// the same rows must give the same bytes. Those of earlier versions stay, and
// are read to the same rows: see TestEarlierVersions.
var goldens = []golden{
	{"images", func(t *testing.T, path string) {
		writeImages(t, path, ImagesMeta{FirstRow: 40, KV: goldenKV}, someImages(newRand(11), 40, 100))
	}, func(t *testing.T, path string) {
		var got []Image
		check(t, ReadImages(path, 0, 1<<40, func(im Image) error {
			got = append(got, im)
			return nil
		}))
		same(t, got, someImages(newRand(11), 40, 100))
	}},
	{"quarantine", func(t *testing.T, path string) {
		writeQuarantine(t, path, QuarantineMeta{KV: goldenKV}, someQuarantine(newRand(12), 40))
	}, func(t *testing.T, path string) {
		var got []Quarantine
		check(t, ReadQuarantine(path, func(q Quarantine) error {
			got = append(got, q)
			return nil
		}))
		same(t, got, someQuarantine(newRand(12), 40))
	}},
	{"logprobs", goldenBlocks(BlocksMeta{Kind: KindLogprobs, Head: 0, BlockRows: 16}, 5, true), readGoldenBlocks(5, true)},
	{"logprobs-compact", func(t *testing.T, path string) {
		writeVectors(t, path, BlocksMeta{Kind: KindLogprobs, Head: 2, Compact: true, BlockRows: 16, KV: goldenKV}, goldenCompact(), func() int { return 3 })
	}, func(t *testing.T, path string) {
		b, err := OpenBlocks(path)
		check(t, err)
		defer b.Close()
		compare(t, b, stored(goldenCompact()), 0, 1<<40)
		same(t, b.Meta().KV, goldenKV)
	}},
	{"features", goldenBlocks(BlocksMeta{Kind: KindFeatures, BlockRows: 100}, 9, false), readGoldenBlocks(9, false)},
	{"sample", goldenBlocks(BlocksMeta{Kind: KindSample, Head: 7, BlockRows: 7}, 4, false), readGoldenBlocks(4, false)},
	{"potentials", func(t *testing.T, path string) {
		_, err := WritePotentials(path, goldenPotentials(), goldenKV)
		check(t, err)
	}, func(t *testing.T, path string) {
		v, meta, err := ReadPotentials(path)
		check(t, err)
		same(t, v, goldenPotentials())
		same(t, meta, goldenKV)
	}},
	{"assignments", func(t *testing.T, path string) {
		_, err := WriteAssignments(path, []int64{3, 4, 9, 1 << 40}, []int32{0, 7, 7, 2999}, goldenKV)
		check(t, err)
	}, func(t *testing.T, path string) {
		rows, labels, err := ReadAssignments(path)
		check(t, err)
		same(t, rows, []int64{3, 4, 9, 1 << 40})
		same(t, labels, []int32{0, 7, 7, 2999})
	}},
	{"labels", func(t *testing.T, path string) {
		writeLabels(t, path, LabelsMeta{Head: 3, Clusters: 10, KV: goldenKV}, someLabels(newRand(13), 50, 10, false))
	}, func(t *testing.T, path string) {
		same(t, readLabels(t, path), someLabels(newRand(13), 50, 10, false))
	}},
	{"labels-topk", func(t *testing.T, path string) {
		writeLabels(t, path, LabelsMeta{Head: 3, Clusters: 10, TopK: true, KV: goldenKV}, someLabels(newRand(14), 50, 10, true))
	}, func(t *testing.T, path string) {
		same(t, readLabels(t, path), someLabels(newRand(14), 50, 10, true))
	}},
	{"evaluation", func(t *testing.T, path string) {
		_, err := WriteEvaluation(path, someEvaluation(), goldenKV)
		check(t, err)
	}, func(t *testing.T, path string) {
		rows, meta, err := ReadEvaluation(path)
		check(t, err)
		same(t, rows, someEvaluation())
		same(t, meta, goldenKV)
	}},
}

var goldenKV = map[string]string{"sela.model_sha256": "ab", "note": "größer"}

func goldenPotentials() []float64 {
	r, v := newRand(15), make([]float64, 12)
	for k := range v {
		v[k] = r.NormFloat64()
	}
	return v
}

func goldenCompact() vectors { return tame(someVectors(newRand(17), 50, 5, true)) }

func goldenBlocks(meta BlocksMeta, width int, digests bool) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		meta.KV = goldenKV
		writeVectors(t, path, meta, someVectors(newRand(16), 50, width, digests), func() int { return 3 })
	}
}

func readGoldenBlocks(width int, digests bool) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		b, err := OpenBlocks(path)
		check(t, err)
		defer b.Close()
		compare(t, b, someVectors(newRand(16), 50, width, digests), 0, 1<<40)
		same(t, b.Meta().KV, goldenKV)
	}
}

func same[T any](t *testing.T, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func goldenPath(name string) string { return versionPath(Version, name) }

func versionPath(version int, name string) string {
	return filepath.Join("testdata", fmt.Sprintf("v%d", version), name+".parquet")
}

func TestGolden(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x")
			g.write(t, path)
			now, err := os.ReadFile(path)
			check(t, err)
			if *update {
				check(t, os.WriteFile(goldenPath(g.name), now, 0o666))
			}
			golden, err := os.ReadFile(goldenPath(g.name))
			check(t, err)
			if !bytes.Equal(now, golden) {
				t.Errorf("the same rows give %d other bytes than the %d of %s: a change of the format needs a new Version", len(now), len(golden), goldenPath(g.name))
			}
			g.read(t, goldenPath(g.name))
		})
	}
	files, err := filepath.Glob(goldenPath("*"))
	check(t, err)
	for _, f := range files {
		if !slices.ContainsFunc(goldens, func(g golden) bool { return goldenPath(g.name) == f }) {
			t.Errorf("%s belongs to no table", f)
		}
	}
}

// TestEarlierVersions reads the files of every version that there ever was:
// published tables are kept for years. A table's kind that is younger than a
// version has no file of it.
func TestEarlierVersions(t *testing.T) {
	kinds := map[string]bool{}
	for version := 1; version <= Version; version++ {
		files, err := filepath.Glob(versionPath(version, "*"))
		check(t, err)
		if len(files) == 0 {
			t.Fatalf("there are no files of version %d: they must not be removed", version)
		}
		for _, g := range goldens {
			path := versionPath(version, g.name)
			if !slices.Contains(files, path) {
				continue
			}
			kind, found, _, _, err := Inspect(path)
			check(t, err)
			if found != version {
				t.Errorf("%s is of version %d", path, found)
			}
			kinds[kind] = true
			g.read(t, path)
		}
	}
	for _, table := range Tables() {
		if !kinds[table.Kind] {
			t.Errorf("no file of table %s is kept", table.Kind)
		}
	}
}

// TestLaterVersion: a file of a version to come is not taken for a damaged one,
// and says what to do.
func TestLaterVersion(t *testing.T) {
	raw, err := os.ReadFile(goldenPath("labels"))
	check(t, err)
	// The length of the value stands before it.
	was, later := []byte("\x18\x0csela.version\x18\x011"), []byte("\x18\x0csela.version\x18\x012")
	if bytes.Count(raw, was) != 1 {
		t.Fatal("the version is not where it was")
	}
	path := filepath.Join(t.TempDir(), "later.parquet")
	check(t, os.WriteFile(path, bytes.Replace(raw, was, later, 1), 0o600))
	if _, version, rows, _, err := Inspect(path); err != nil || version != Version+1 || rows != 50 {
		t.Errorf("inspect: version %d, %d rows, %v", version, rows, err)
	}
	err = ReadLabels(path, func(*Label) error { return nil })
	if !errors.Is(err, ErrKind) || !strings.Contains(err.Error(), "newer") {
		t.Errorf("error %v", err)
	}
}

func TestInspect(t *testing.T) {
	for name, want := range map[string]struct {
		kind string
		rows int64
		key  string
	}{
		"images": {KindImages, 100, keyFirstRow}, "quarantine": {KindQuarantine, 40, keyKind},
		"logprobs": {KindLogprobs, 50, keyBlockRows}, "logprobs-compact": {KindLogprobs, 50, keyWidth}, "features": {KindFeatures, 50, keyWidth},
		"sample": {KindSample, 50, keyHead}, "potentials": {KindPotentials, 12, keyClusters},
		"labels": {KindLabels, 50, keyHead}, "labels-topk": {KindLabels, 50, keyClusters}, "evaluation": {KindEvaluation, 3, keyKind},
		"assignments": {KindAssignments, 4, keyKind},
	} {
		kind, version, rows, kv, err := Inspect(goldenPath(name))
		check(t, err)
		if kind != want.kind || version != 1 || rows != want.rows || kv[want.key] == "" || kv["note"] != goldenKV["note"] {
			t.Errorf("%s: %q, version %d, %d rows, %v", name, kind, version, rows, kv)
		}
	}
}
