package schemas

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

type golden struct {
	name  string
	write func(t *testing.T, path string)
	read  func(t *testing.T, path string)
}

// goldens are the tables of testdata/v1: how each is written and read. The
// files stand for those that users have: as long as Version is 1 they must be
// read, and the same rows must give the same bytes.
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

func goldenPath(name string) string { return filepath.Join("testdata", "v1", name+".parquet") }

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
	} {
		kind, version, rows, kv, err := Inspect(goldenPath(name))
		check(t, err)
		if kind != want.kind || version != 1 || rows != want.rows || kv[want.key] == "" || kv["note"] != goldenKV["note"] {
			t.Errorf("%s: %q, version %d, %d rows, %v", name, kind, version, rows, kv)
		}
	}
}
