package evaluate

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/schemas"
)

// TestPasses cuts the tensors so that their features fit into memory together,
// and refuses one that never does.
func TestPasses(t *testing.T) {
	images := make([]schemas.Image, 100)
	r := &run{Config: &Config{Train: Split{Images: images[:80]}, Test: Split{Images: images[:20]}}}
	all := []*source{{name: "a", shape: []int{10}}, {name: "b", shape: []int{20}}, {name: "c", shape: []int{30}}, {name: "d", shape: []int{40, 2, 2}, pooling: Pooling{Side: 1}}}
	for _, c := range []struct {
		memory int64 // 400 bytes a feature
		want   string
	}{{0, "abcd"}, {400*100*10/7 + 100, "abcd"}, {400*70*10/7 + 100, "abc d"}, {400*40*10/7 + 100, "ab c d"}} {
		r.Memory = c.memory
		groups, err := r.passes(&Network{Name: "net"}, all)
		var got []string
		for _, g := range groups {
			names := ""
			for _, s := range g {
				names += s.name
			}
			got = append(got, names)
		}
		if strings.Join(got, " ") != c.want || err != nil {
			t.Errorf("%d bytes: passes %q, want %q: %v", c.memory, got, c.want, err)
		}
	}
	r.Memory = 400*30*10/7 + 100
	if _, err := r.passes(&Network{Name: "net"}, all); pipeline.ClassOf(err) != pipeline.Config || !strings.Contains(err.Error(), "net: 40 features of d for 100 images take") {
		t.Errorf("a tensor that is too large: %v", err)
	}
}

func TestReport(t *testing.T) {
	r := &Report{Rows: []schemas.Evaluation{
		{Network: "run-1", Source: "head 0", Split: "train", Images: 50, Measure: "nmi", Value: 0.5, Chance: ptr(0.1), Clusters: ptr(int32(3))},
		{Network: "run-1", Source: "head 0", Split: "train", Images: 50, Measure: "ami", Value: 0.4, Clusters: ptr(int32(3))},
		{Network: "run-1", Source: "head 0", Split: "train", Images: 50, Measure: "ari", Value: 0.3, Clusters: ptr(int32(3))},
		{Network: "run-1", Source: "head 0", Split: "train", Images: 50, Measure: "purity", Value: 0.7, Chance: ptr(0.2), Clusters: ptr(int32(3))},
		{Network: "model", Source: "features", Split: "test", Images: 10, Measure: "knn", Value: 0.4375, Dim: ptr(int32(256)), K: ptr(int32(10)), Sigma: ptr(0.1)},
		{Network: "model", Source: "features", Split: "test", Images: 10, Measure: "knn", Value: 0.25, Dim: ptr(int32(256)), K: ptr(int32(50)), Sigma: ptr(0.5)},
		{Network: "model", Source: "conv5", Split: "test", Images: 10, Measure: "linear", Value: 0.5, Dim: ptr(int32(9216)), L2: ptr(1e-4)},
	}}
	var out bytes.Buffer
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(out.String()) {
		if fields := strings.Join(strings.Fields(line), " "); fields != "" {
			lines = append(lines, fields)
		}
	}
	want := []string{
		"network features dim kNN 10 kNN 50 linear L2",
		"model features 256 43.75 % 25.00 % – –",
		"model conv5 9216 – – 50.00 % 0.0001",
		"labels head split clusters NMI by chance AMI ARI purity by chance accuracy",
		"run-1 head 0 train 3 0.500 0.100 0.400 0.300 0.700 0.200 –",
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("printed\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}

	dir := filepath.Join(t.TempDir(), "new", "folder")
	for range 2 { // the second time it replaces them
		files, err := r.Save(dir, nil)
		if err != nil || len(files) != 2 {
			t.Fatalf("files %q, %v", files, err)
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, "evaluation.csv"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(string(raw), "\n"); got[0] != "network,source,split,images,measure,value,chance,dim,k,sigma,l2,clusters" ||
		got[1] != "run-1,head 0,train,50,nmi,0.5,0.1,,,,,3" || got[5] != "model,features,test,10,knn,0.4375,,256,10,0.1,," {
		t.Errorf("CSV is\n%s", raw)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}
