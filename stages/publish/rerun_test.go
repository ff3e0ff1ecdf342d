package publish

import (
	"archive/tar"
	"bytes"
	"context"
	"testing"

	"sela/pipeline"
)

func tarOf(t *testing.T, members ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range members {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(name)), Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Samples are found in loose objects and in tars, and only under their own key.
func TestLocate(t *testing.T) {
	ctx, images := context.Background(), folder(t)
	for key, data := range map[string][]byte{
		"a.tar": tarOf(t, "x.png", "y.txt", "z.png"), "a.tar.tar": tarOf(t, "w.png"), "b.png": []byte("loose"), "c.tar": nil,
	} {
		if err := images.Put(ctx, key, data); err != nil {
			t.Fatal(err)
		}
	}
	sampleOf := func(key, member string) *sample { return &sample{key: key, member: member} }
	v := &verifier{report: &Report{}, samples: []*sample{sampleOf("a.tar", "z.png"), sampleOf("a.tar", "w.png"), sampleOf("a.tar", "x.png"),
		sampleOf("b.png", ""), sampleOf("c.tar", "x.png"), sampleOf("d.png", "")}}
	for i, s := range v.samples {
		s.row = int64(i)
	}
	c := v.begin("model")
	found, err := v.locate(ctx, c, images)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 3 || len(v.samples) != 3 || c.problems != 3 {
		t.Fatalf("found %+v, kept %d samples, %d problems: %s", found, len(v.samples), c.problems, c.Detail)
	}
	for i, want := range []string{"z.png", "x.png", "loose"} {
		data := make([]byte, found[i].Size)
		if err := images.ReadRange(ctx, found[i].Key, found[i].Offset, data); err != nil || string(data) != want || found[i].Row != v.samples[i].row {
			t.Errorf("%+v holds %q, want %q, %v", found[i], data, want, err)
		}
	}
}

// The sample is a choice without repetition, the same for a seed, and never
// larger than what there is.
func TestChoose(t *testing.T) {
	choose := func(rows int64, sample int, seed uint64) []int64 {
		v := &verifier{VerifyOptions: VerifyOptions{Sample: sample, Seed: seed, Model: func(context.Context, *pipeline.Record) (*Model, error) { return nil, nil }},
			heads: []*head{{files: []pipeline.Output{{}, {}}}}}
		v.heads[0].files[0].Rows, v.heads[0].files[1].Rows = rows/2, rows-rows/2
		v.choose()
		var all []int64
		for _, s := range v.samples {
			all = append(all, s.ordinal)
		}
		return all
	}
	hits := make([]int, 20)
	for seed := range uint64(2000) {
		drawn := choose(20, 5, seed)
		if len(drawn) != 5 {
			t.Fatalf("seed %d: %v", seed, drawn)
		}
		for i, at := range drawn {
			if at < 0 || at >= 20 || i > 0 && at <= drawn[i-1] {
				t.Fatalf("seed %d: %v", seed, drawn)
			}
			hits[at]++
		}
	}
	for at, n := range hits { // 500 expected, standard deviation 19
		if n < 400 || n > 600 {
			t.Errorf("row %d was drawn %d times of 2000", at, n)
		}
	}
	if all := choose(3, 64, 1); len(all) != 3 {
		t.Errorf("of three rows: %v", all)
	}
	if all := choose(3, 0, 1); len(all) != 0 {
		t.Errorf("none were asked for: %v", all)
	}
}
