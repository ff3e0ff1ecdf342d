package solve_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/schemas"
	"sela/stages/internal/runtest"
	"sela/stages/label"
	"sela/stages/solve"
)

// by is a change of a job to another method.
func by(method string) func(*pipeline.Job) {
	return func(j *pipeline.Job) { j.Solve.Method, j.Solve.Seed = method, 3 }
}

func solutionsOf(t testing.TB, run *pipeline.Run) []solve.Solution {
	t.Helper()
	all, err := solve.Solutions(context.Background(), run, shards(t, run))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// bare reads the label rows of a head, all without a probability, as row and
// label, and holds them against the labelling.
func bare(t *testing.T, run *pipeline.Run, head int) (rows []int64, labels []int32) {
	t.Helper()
	solutions := solutionsOf(t, run)
	files, err := label.Files(context.Background(), run, shards(t, run), solutions)
	if err != nil {
		t.Fatal(err)
	}
	k := clusters[head]
	counts := make([]int64, k)
	for _, f := range files {
		if !strings.HasPrefix(f.Name, fmt.Sprintf("labels/head=%d/", head)) {
			continue
		}
		local, release, err := run.Fetch(context.Background(), f)
		if err != nil {
			t.Fatal(err)
		}
		err = schemas.ReadLabels(local, func(l *schemas.Label) error {
			if l.Prob != nil || len(l.TopK) > 0 || !(l.ModelProb > 0 && l.ModelProb <= 1) {
				t.Fatalf("row %d: prob %v, model_prob %v, top_k %v", l.Row, l.Prob, l.ModelProb, l.TopK)
			}
			rows, labels = append(rows, l.Row), append(labels, l.Label)
			counts[l.Label]++
			return nil
		})
		release()
		if err != nil {
			t.Fatal(err)
		}
	}
	l := solutions[head].Labelling
	if l == nil || l.Method != run.Job.Solve.Method || l.Rows != int64(len(rows)) || l.Clusters != k || l.LargestCount != slices.Max(counts) || l.SmallestCount != slices.Min(counts) {
		t.Fatalf("head %d: labelling %+v, counts %v", head, l, counts)
	}
	if c := solutions[head].Certificate; c.Method != "" || c.Rows != 0 || solutions[head].Clusters() != k {
		t.Fatalf("head %d: certificate %+v", head, c)
	}
	return rows, labels
}

// sums are the digests of what solve and label committed, by name.
func sums(t testing.TB, run *pipeline.Run) map[string]string {
	t.Helper()
	all := map[string]string{}
	commits, err := run.AllCommits(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commits {
		for _, o := range c.Outputs {
			if c.Stage == solve.Name || c.Stage == label.Name {
				all[o.Name] = o.SHA256
			}
		}
	}
	return all
}

// TestLabellersAreInvariant: what other methods write is the same bytes for any
// number of workers, any shards, rows held in memory or not, and a remote store.
func TestLabellersAreInvariant(t *testing.T) {
	for _, method := range []string{"kmeans", "deepcluster", "random"} {
		t.Run(method, func(t *testing.T) {
			r := extracted(t, images, gaps, false, func(j *pipeline.Job) {
				by(method)(j)
				j.Solve.Workers, j.Solve.Memory = 1, 64<<20
			})
			r.Through(t, r.Run, label.Name)
			want := sums(t, r.Run)
			if len(want) != 2+2*(3+2) { // potentials, and by part assignments and, but for one without rows, labels
				t.Errorf("files %v", slices.Sorted(maps.Keys(want)))
			}
			for h := range clusters {
				if rows, _ := bare(t, r.Run, h); int64(len(rows)) != shards(t, r.Run).Usable() {
					t.Errorf("head %d: %d rows", h, len(rows))
				}
			}
			memory := pipeline.Bytes(64 << 20)
			if method == "kmeans" {
				memory = 5 << 20 // too little for 1,400 rows of 192 features beside the centres
			}
			for i, c := range []struct {
				name    string
				workers int
				shard   int64
				memory  pipeline.Bytes
			}{{"2 workers", 2, 1024, 64 << 20}, {"5 workers, larger shards", 5, 2048, 64 << 20}, {"less memory", 2, 8192, memory}} {
				r.Job.Solve.Workers, r.Job.Extract.ShardRows, r.Job.Solve.Memory = c.workers, c.shard, c.memory
				run := r.Open(t, fmt.Sprintf("variant-%d", i))
				r.Through(t, run, label.Name)
				if got := sums(t, run); !maps.Equal(got, want) {
					t.Errorf("%s: %v, want %v", c.name, got, want)
				}
			}
			r.Job.Solve.Seed++
			run := r.Open(t, "other-seed")
			r.Through(t, run, label.Name)
			if got := sums(t, run); got[solve.AssignmentsName(1, 0)] == want[solve.AssignmentsName(1, 0)] {
				t.Error("another seed gave the same labels")
			}
			remote := extracted(t, images, gaps, true, func(j *pipeline.Job) {
				by(method)(j)
				j.Solve.Memory = memory
			})
			remote.Through(t, remote.Run, label.Name)
			if got := sums(t, remote.Run); got[solve.AssignmentsName(1, 0)] != want[solve.AssignmentsName(1, 0)] || got[solve.AssignmentsName(0, 2)] != want[solve.AssignmentsName(0, 2)] {
				t.Errorf("of a remote store: %v, want %v", got, want)
			}
		})
	}
}

// TestRandomLabels: every cluster has N/K images, rounded down or up, dealt
// otherwise in each head.
func TestRandomLabels(t *testing.T) {
	r := extracted(t, images, gaps, false, by("random"))
	r.Through(t, r.Run, label.Name)
	for h, k := range clusters {
		_, labels := bare(t, r.Run, h)
		l := solutionsOf(t, r.Run)[h].Labelling
		n := int64(len(labels))
		if l.SmallestCount != n/int64(k) || l.LargestCount != (n+int64(k)-1)/int64(k) || l.Dealt.Seed != 3 {
			t.Errorf("head %d: %d images, %+v", h, n, l)
		}
		agree := 0
		for i, label := range labels {
			if int(label) == i%k {
				agree++
			}
		}
		if float64(agree) > 2*float64(n)/float64(k) {
			t.Errorf("head %d: %d of %d labels are as if nobody had dealt them", h, agree, n)
		}
	}
	// Of equal heads each has labels of its own.
	twins := runtest.New(t, runtest.Options{Images: 60, Job: by("random")})
	twins.Through(t, twins.Run, label.Name)
	if got := sums(t, twins.Run); got[solve.AssignmentsName(0, 0)] == got[solve.AssignmentsName(1, 0)] {
		t.Error("two heads have the same labels")
	}
}

// TestTrueLabels numbers classes in the order of their names; a head of another
// number of clusters, and images without truth, are errors that say so.
func TestTrueLabels(t *testing.T) {
	table := filepath.Join(t.TempDir(), "truth.csv")
	names := []string{"zebra", "ape", "cat"}
	numbers := []int32{2, 0, 1}
	write := func(lines int) {
		t.Helper()
		text := "key,member,class\n"
		for i := range lines {
			text += fmt.Sprintf("all.tar,%05d.png,%s\n", i, names[i%3])
		}
		if err := os.WriteFile(table, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(images)
	truth := func(outputs ...string) func(*pipeline.Job) {
		return func(j *pipeline.Job) {
			j.Solve.Method, j.Solve.Truth, j.Model.Outputs = "truth", table, outputs
		}
	}
	r := extracted(t, images, gaps, false, truth("head_0"))
	r.Through(t, r.Run, label.Name)
	rows, labels := bare(t, r.Run, 0)
	listing := listed(t, r.Run)
	for i, row := range rows {
		var number int
		fmt.Sscanf(listing[row].Member, "%d.png", &number)
		if labels[i] != numbers[number%3] {
			t.Fatalf("%s has label %d, want %d", listing[row].Member, labels[i], numbers[number%3])
		}
	}
	if l := solutionsOf(t, r.Run)[0].Labelling; !slices.Equal(l.Classes, []string{"ape", "cat", "zebra"}) {
		t.Errorf("classes %v", l.Classes)
	}
	seven := extracted(t, 100, nil, false, truth("head_1"))
	fails(t, do(t, seven, seven.Run), pipeline.Config, "solve.truth", "3 classes", "ape, cat, zebra", "head 0 has 7 clusters")
	write(60)
	fails(t, do(t, seven, seven.Run), pipeline.Data, "solve.truth", "40 of 100 images", "all.tar", "00060.png")
	if err := os.Remove(table); err != nil {
		t.Fatal(err)
	}
	fails(t, do(t, seven, seven.Run), pipeline.Config, "solve.truth", "truth.csv")
	folders := extracted(t, 100, nil, false, func(j *pipeline.Job) { j.Solve.Method, j.Solve.Truth = "truth", "folders" })
	fails(t, do(t, folders, folders.Run), pipeline.Data, "solve.truth", "100 of 100 images")
}

// TestClusteredLabels: k-means parts images of 50 kinds better than chance, and
// its labelling says how.
func TestClusteredLabels(t *testing.T) {
	for _, method := range []string{"kmeans", "deepcluster"} {
		r := extracted(t, images, gaps, false, by(method))
		r.Through(t, r.Run, label.Name)
		for h := range clusters {
			rows, labels := bare(t, r.Run, h)
			c := solutionsOf(t, r.Run)[h].Labelling.Centres
			if c.Seed != 3 || c.Features != 192 || c.Iterations < 2 || c.Iterations > 20 || !(c.Objective > 0 && c.Objective < 1) || c.Matched != nil {
				t.Errorf("%s, head %d: %+v", method, h, *c)
			}
			// 49 whitened directions tell 50 kinds apart.
			if w := c.Whitened; (w != nil) != (method == "deepcluster") || w != nil && (w.Components != 49 || math.Abs(w.Variance-1) > 1e-6) {
				t.Errorf("%s, head %d: %+v", method, h, w)
			}
			kinds := map[int]int32{} // the same bytes have the same label
			listing := listed(t, r.Run)
			for i, row := range rows {
				var number int
				fmt.Sscanf(listing[row].Member, "%d.png", &number)
				if before, ok := kinds[number%50]; ok && before != labels[i] {
					t.Fatalf("%s: copies of an image have labels %d and %d", method, before, labels[i])
				}
				kinds[number%50] = labels[i]
			}
		}
	}
}
