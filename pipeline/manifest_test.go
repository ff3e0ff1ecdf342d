package pipeline

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sela/schemas"
)

func sampleFiles() []Output {
	return []Output{
		{Name: "labels/head=1/part-00000.parquet", Path: "labels/head=1/part-00000.aabbccddeeff.parquet", FileStats: schemas.FileStats{Rows: 10, Bytes: 1234, SHA256: strings.Repeat("ab", 32)}},
		{Name: "labels/head=0/part-00000.parquet", Path: "labels/head=0/part-00000.001122334455.parquet", FileStats: schemas.FileStats{Rows: 10, Bytes: 999, SHA256: strings.Repeat("01", 32)}},
		{Name: "potentials/head-0.parquet", Path: "potentials/head-0.66778899aabb.parquet", FileStats: schemas.FileStats{Rows: 3, Bytes: 77, SHA256: strings.Repeat("2f", 32)}},
	}
}

func sampleRecord() *Record {
	return &Record{Run: "20260102t030405z-abcdef", Job: &Job{Name: "letters"}, Created: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)}
}

func TestManifestGolden(t *testing.T) {
	raw, err := NewManifest(sampleRecord(), "listing", sampleFiles()).Encode()
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "v1", "manifest.json")
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(raw) != string(want) {
		t.Errorf("manifest is\n%swant, from %s,\n%s", raw, golden, want)
	}
	m, err := ParseManifest(want)
	if err != nil {
		t.Fatal(err)
	}
	f, ok := m.File("potentials/head-0.parquet")
	if !ok || f.Rows != 3 || f.Bytes != 77 {
		t.Errorf("file is %+v, %v", f, ok)
	}
	if _, ok := m.File("absent"); ok {
		t.Error("an absent file is found")
	}
}

func TestManifestDigest(t *testing.T) {
	base := NewManifest(sampleRecord(), "listing", sampleFiles()).Digest
	other := sampleRecord()
	other.Run, other.Created, other.Provenance.Code = "another", time.Now(), "x"
	for name, files := range map[string]func([]Output) []Output{
		"order":    func(f []Output) []Output { return []Output{f[2], f[0], f[1]} },
		"attempts": func(f []Output) []Output { f[0].Path = "labels/head=1/part-00000.ffffffffffff.parquet"; return f },
	} {
		if got := NewManifest(other, "listing", files(sampleFiles())).Digest; got != base {
			t.Errorf("%s changes the digest", name)
		}
	}
	seen := map[string]string{base: "nothing"}
	for name, change := range map[string]func([]Output) []Output{
		"name":  func(f []Output) []Output { f[0].Name += "x"; return f },
		"rows":  func(f []Output) []Output { f[0].Rows++; return f },
		"bytes": func(f []Output) []Output { f[0].Bytes++; return f },
		"sha":   func(f []Output) []Output { f[0].SHA256 = strings.Repeat("ac", 32); return f },
		"less":  func(f []Output) []Output { return f[1:] },
		"none":  func([]Output) []Output { return nil },
	} {
		got := NewManifest(sampleRecord(), "listing", change(sampleFiles())).Digest
		if what, taken := seen[got]; taken {
			t.Errorf("%s gives the digest of %s", name, what)
		}
		seen[got] = name
	}
	if NewManifest(sampleRecord(), "other", sampleFiles()).Digest == base {
		t.Error("the listing is not in the digest")
	}
}

func TestDamagedManifest(t *testing.T) {
	raw, err := NewManifest(sampleRecord(), "listing", sampleFiles()).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		old, new string
		want     Class
	}{
		"rows":     {`"rows": 3`, `"rows": 4`, Data},
		"sha":      {`"sha256": "2f`, `"sha256": "3f`, Data},
		"listing":  {`"listing": "listing"`, `"listing": "x"`, Data},
		"digest":   {`"digest": "`, `"digest": "0`, Data},
		"version":  {`"version": 1`, `"version": 2`, Config},
		"cut off":  {"]\n}\n", "", Data},
		"trailing": {"]\n}\n", "]\n}\n{", Data},
	} {
		damaged := strings.Replace(string(raw), c.old, c.new, 1)
		if damaged == string(raw) {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := ParseManifest([]byte(damaged)); ClassOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRunsWithTheSameOutputsHaveTheSameDigest compares whole runs.
func TestRunsWithTheSameOutputsHaveTheSameDigest(t *testing.T) {
	var digests []string
	for _, id := range []string{"a", "b"} {
		run, _ := openRun(t, memory(t), id)
		list := newFake("list", 1, func(_ context.Context, _ Task, a *Attempt) error {
			return a.Result(map[string]string{"digest": "d"})
		})
		for _, s := range []Stage{list, newFake("s", 4, nil)} {
			if _, err := (&Runner{Parallel: 2}).Run(t.Context(), run, s); err != nil {
				t.Fatal(err)
			}
		}
		if err := run.Finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		raw, err := run.Work.Get(t.Context(), run.Path("_manifest.json"))
		if err != nil {
			t.Fatal(err)
		}
		m, err := ParseManifest(raw)
		if err != nil {
			t.Fatal(err)
		}
		if m.Run != id || m.Listing != "d" || len(m.Files) != 5 {
			t.Errorf("manifest is %+v", m)
		}
		digests = append(digests, m.Digest)
	}
	if digests[0] != digests[1] {
		t.Errorf("digests are %v", digests)
	}
	var c Commit
	if err := json.Unmarshal([]byte(`{"result": null}`), &c); err != nil || Listing(&c) != "" {
		t.Errorf("listing of a commit without one is %q, %v", Listing(&c), err)
	}
}
