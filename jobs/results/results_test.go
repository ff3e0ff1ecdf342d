package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sela/pipeline"
)

func TestRowsAreSound(t *testing.T) {
	names := map[string]bool{}
	for _, r := range rows {
		if names[r.name] {
			t.Errorf("two rows are called %s", r.name)
		}
		if r.labels != "" && !names[r.labels] {
			t.Errorf("%s trains on the labels of %s, which does not come before it", r.name, r.labels)
		}
		if shares[r.variant] == nil {
			t.Errorf("%s: there is no variant %q", r.name, r.variant)
		}
		names[r.name] = true
	}
	for _, p := range paired {
		if !names[p[0]] || !names[p[1]] {
			t.Errorf("no rows %v to compare", p)
		}
	}
}

func TestJobsParse(t *testing.T) {
	for _, r := range rows {
		j := jobOf(&r, 50_000, 300_000, 0, 3)
		j.Data, j.Only, j.Providers = "/data", "only.csv", "cuda,cpu"
		if j.Method == "" {
			j.Method = "lists"
		}
		text, err := j.yaml()
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := pipeline.ParseJob([]byte(text), "/dir")
		if err != nil {
			t.Fatalf("%s: %v in\n%s", r.name, err, text)
		}
		if b := parsed.Train.Builtin; b.Seed != 3 || b.Rate != 0.1 || b.Warmup != 0.02 || parsed.Images.Only != "/dir/only.csv" || len(parsed.Runtime.Providers) != 2 {
			t.Errorf("%s: %+v", r.name, b)
		}
	}
}

func TestEveryRowHasTheSameBudget(t *testing.T) {
	for _, c := range []struct {
		r              row
		images         int64
		epochs, rounds int
	}{
		{row{method: "lists"}, 50_000, 1, 6},
		{row{method: "truth", once: true}, 50_000, 6, 1},
		{row{method: "lists", budget: 4}, 50_000, 1, 24},
		{row{method: "lists"}, 47_500, 1, 6},
		{row{method: "kmeans"}, 27_500, 1, 11},
		{row{method: "lists"}, 1_000_000, 1, 1},
	} {
		if j := jobOf(&c.r, c.images, 300_000, 0, 0); j.Epochs != c.epochs || j.Rounds != c.rounds {
			t.Errorf("%+v of %d images: %d epochs in %d rounds, want %d in %d", c.r, c.images, j.Epochs, j.Rounds, c.epochs, c.rounds)
		}
	}
}

func TestChoose(t *testing.T) {
	dir := t.TempDir()
	for part := range 2 {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for i := range 500 {
			name := fmt.Sprintf("class-%d/%d.jpg", i%10, 1000*part+i)
			if err := w.WriteHeader(&tar.Header{Name: name, Size: 1, Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
				t.Fatal(err)
			}
			_, _ = w.Write([]byte{1})
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("cifar10-train-0000%d.tar", part)), b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	all, err := pictures(dir)
	if err != nil || len(all) != 1000 || all[999] != (picture{"cifar10-train-00001.tar", "class-9/1499.jpg", "class-9"}) {
		t.Fatalf("%d pictures, %v, %v", len(all), all[len(all)-1], err)
	}
	light, counts := choose(all, shares["light"])
	if len(light) != 950 || counts["class-9"] != 50 || counts["class-0"] != 100 {
		t.Errorf("light keeps %d, %v", len(light), counts)
	}
	heavy, counts := choose(all, shares["heavy"])
	if len(heavy) != 550 || counts["class-9"] != 10 || counts["class-4"] != 60 {
		t.Errorf("heavy keeps %d, %v", len(heavy), counts)
	}
	in := map[picture]bool{}
	for _, p := range light {
		in[p] = true
	}
	for _, p := range heavy {
		if !in[p] {
			t.Fatalf("%v is in heavy, not in light", p)
		}
	}
	list := filepath.Join(dir, "only.csv")
	if err := writeList(list, heavy); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(list)
	if err != nil || !strings.HasPrefix(string(raw), "key,member\ncifar10-train-00000.tar,class-") || bytes.Count(raw, []byte("\n")) != 551 {
		t.Errorf("%.80s, %v", raw, err)
	}
	if _, err := pictures(t.TempDir()); err == nil {
		t.Error("an empty folder is no error")
	}
}

func TestFiguresAreKept(t *testing.T) {
	s := settings{out: filepath.Join(t.TempDir(), "out"), machine: "2 cores, test"}
	chance := 0.025
	keep := func(row string, seed int, figures ...figure) {
		t.Helper()
		if err := s.keep(row, seed, figures, "v1"); err != nil {
			t.Fatal(err)
		}
	}
	keep("sela", 1, figure{1, 6, "knn_10", 0.42, nil, ""})
	keep("sela", 0, figure{0, 3, "knn_10", 0.1, nil, ""}, figure{0, 6, "knn_10", 0.4, nil, ""}, figure{0, 6, "nmi", 0.3, &chance, ""})
	keep("sela", 1, figure{1, 6, "knn_10", 0.43, nil, ""}) // in the place of the first
	keep("kmeans", 0, figure{0, 6, "knn_10", 0.35, nil, ""})
	keep("kmeans", 1, figure{1, 6, "knn_10", 0.36, nil, ""})
	raw, err := os.ReadFile(s.file("sela"))
	want := "row,seed,epoch,measure,value,chance,machine,code\nsela,0,3,knn_10,0.1,,\"2 cores, test\",v1\nsela,0,6,knn_10,0.4,,\"2 cores, test\",v1\nsela,0,6,nmi,0.3,0.025,\"2 cores, test\",v1\nsela,1,6,knn_10,0.43,,\"2 cores, test\",v1\n"
	if err != nil || string(raw) != want {
		t.Errorf("%v\n%s", err, raw)
	}
	var table bytes.Buffer
	if err := s.table(&table); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"| `sela` | SeLa [128×10] | 41.5 (40.0 to 43.0) | – | – | – | 0.300 (by chance 0.025) | – | – | 2 | 2 cores, test |",
		"| sela − kmeans | 6.00 (5.00 to 7.00) ± 1.00 | – | – | 2 |",
	} {
		if !strings.Contains(table.String(), line+"\n") {
			t.Errorf("no line\n%s\nin\n%s", line, table.String())
		}
	}
	if err := os.WriteFile(s.file("sela"), []byte("a,b\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.figuresOf("sela"); err == nil {
		t.Error("another header is no error")
	}
}

// TestReadmeHasTheTable: the README's table of results is what the files say. To
// renew it, put the output of `make results ROW=table` between its marks.
func TestReadmeHasTheTable(t *testing.T) {
	raw, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(raw), "<!-- generated: make results ROW=table -->\n")
	got, _, ended := strings.Cut(rest, "<!-- end -->\n")
	if !found || !ended {
		t.Fatal("the README has lost the marks of the table of results")
	}
	var want bytes.Buffer
	s := settings{out: "cifar10"}
	if err := s.table(&want); err != nil {
		t.Fatal(err)
	}
	if got != want.String() {
		t.Errorf("the README says\n%s\nmake results ROW=table says\n%s", got, want.String())
	}
}

func TestJobFilesParse(t *testing.T) {
	files, err := filepath.Glob("jobs/*.yaml")
	if err != nil || len(files) != 4 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		j, err := pipeline.LoadJob(f)
		if err != nil {
			t.Errorf("%s: %v", f, err)
		} else if j.Train.Type != "builtin" || j.Name+".yaml" != filepath.Base(f) {
			t.Errorf("%s: job %s, train.type %s", f, j.Name, j.Train.Type)
		}
	}
}
