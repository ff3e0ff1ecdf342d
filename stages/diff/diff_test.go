package diff

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/evaluate"
	"sela/stages/label/published"
	"sela/stages/solve"
)

// labelled is the label of an image.
type labelled struct {
	key, member string
	label       int32
}

// publishRun puts a published run of the given heads, each ordered by key, into
// labels, in files of at most 50 rows.
func publishRun(t *testing.T, labels *bucket.Bucket, id string, clusters []int, heads ...[]labelled) *published.Run {
	t.Helper()
	ctx, dir := context.Background(), t.TempDir()
	var files []pipeline.Output
	put := func(name string, local string, stats schemas.FileStats) {
		if err := labels.Upload(ctx, "runs/"+id+"/"+name, local); err != nil {
			t.Fatal(err)
		}
		files = append(files, pipeline.Output{Name: name, Path: name, FileStats: stats})
	}
	for h, rows := range heads {
		local := filepath.Join(dir, fmt.Sprint(h))
		stats, err := schemas.WritePotentials(local, make([]float64, clusters[h]), nil)
		if err != nil {
			t.Fatal(err)
		}
		put(solve.PotentialsName(h), local, stats)
		for part := 0; part*50 < len(rows); part++ {
			w, err := schemas.CreateLabels(local, schemas.LabelsMeta{Head: h, Clusters: 1000})
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range rows[part*50 : min(part*50+50, len(rows))] {
				if err := w.Write(&schemas.Label{Row: int64(part*50 + i), Key: r.key, Member: r.member, SHA256: strings.Repeat("0", 64), Label: r.label}); err != nil {
					t.Fatal(err)
				}
			}
			stats, err := w.Commit()
			if err != nil {
				t.Fatal(err)
			}
			put(fmt.Sprintf("labels/head=%d/part-%05d.parquet", h, part), local, stats)
		}
	}
	manifest := pipeline.NewManifest(&pipeline.Record{Run: id, Job: &pipeline.Job{Name: "test"}, Created: time.Unix(0, 0)}, "", files)
	raw, err := manifest.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"_manifest.json": raw, "_SUCCESS": nil} {
		if err := labels.Put(ctx, "runs/"+id+"/"+name, data); err != nil {
			t.Fatal(err)
		}
	}
	run, err := published.Open(ctx, labels, id)
	if err != nil {
		t.Fatal(err)
	}
	return run
}

// shelf is a labels bucket of which files are fetched by a cache.
type shelf struct {
	*bucket.Bucket
	cache *bucket.Cache
}

func (s *shelf) FetchFrom(ctx context.Context, from *bucket.Bucket, key string, o pipeline.Output) (string, func(), error) {
	return s.cache.Fetch(ctx, from, key, o.SHA256, o.Bytes)
}

func newShelf(t *testing.T, url string) *shelf {
	t.Helper()
	b, err := bucket.Open(context.Background(), url, bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	cache, err := bucket.NewCache(t.TempDir(), 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	return &shelf{b, cache}
}

func (s *shelf) compare(t *testing.T, before, after *published.Run, o Options) (*Comparison, error) {
	t.Helper()
	tables, err := Tables(after, s)
	if err != nil {
		return nil, err
	}
	return Runs(context.Background(), before, s, tables, o)
}

var roomy = Options{Memory: 1 << 20, Cache: 64 << 20, Moved: 3}

// draw draws labels of about two thirds of 300 images: loose ones and members of
// tars.
func draw(r *rand.Rand, clusters int) (all []labelled) {
	for i := range 300 {
		if r.IntN(3) == 0 {
			continue
		}
		key, member := fmt.Sprintf("%03d", i), ""
		if i%3 > 0 {
			key, member = fmt.Sprintf("%03d", i/30*30), fmt.Sprint(i)
		}
		all = append(all, labelled{key, member, int32(r.IntN(clusters))})
	}
	slices.SortStableFunc(all, func(a, b labelled) int { return strings.Compare(a.key, b.key) })
	return all
}

// TestRunsAreAMapJoin compares with what maps and every one-to-one matching of
// clusters say.
func TestRunsAreAMapJoin(t *testing.T) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := newShelf(t, "mem://")
		k := [2]int{2 + r.IntN(4), 2 + r.IntN(4)}
		before, after := draw(r, k[0]), draw(r, k[1])
		was := map[[2]string]int32{}
		for _, l := range before {
			was[[2]string{l.key, l.member}] = l.label
		}
		for i := range after { // most labels stay, under another number
			if label, ok := was[[2]string{after[i].key, after[i].member}]; ok && r.IntN(4) > 0 && seed%3 > 0 {
				after[i].label = (label + 1) % int32(k[1])
			}
		}
		var mine, theirs []int32
		for _, l := range after {
			if label, ok := was[[2]string{l.key, l.member}]; ok {
				theirs, mine = append(theirs, label), append(mine, l.label)
			}
		}
		c, err := s.compare(t, publishRun(t, s.Bucket, "a", []int{k[0]}, before), publishRun(t, s.Bucket, "b", []int{k[1]}, after), roomy)
		if err != nil {
			t.Fatal(err)
		}
		h := c.Heads[0]
		both := int64(len(mine))
		if h.Images != both || h.Earlier != int64(len(before))-both || h.Later != int64(len(after))-both || h.Clusters != k || c.Run != "a" {
			t.Errorf("seed %d: %+v; %d images in both", seed, h, both)
		}
		churn, nmi := 0, 0.0
		for i := range mine {
			if mine[i] != theirs[i] {
				churn++
			}
		}
		scores, err := evaluate.Compare(mine, theirs)
		if err != nil {
			t.Fatal(err)
		}
		nmi = scores.NMI
		if got := *h.Churn; got != float64(churn)/float64(both) || *c.Churn != got {
			t.Errorf("seed %d: churn %v, want %d of %d", seed, got, churn, both)
		}
		if math.Abs(*h.NMI-nmi) > 1e-12 {
			t.Errorf("seed %d: NMI %v, want %v", seed, *h.NMI, nmi)
		}
		best := 0
		permute(max(k[0], k[1]), func(to []int) {
			same := 0
			for i := range mine {
				if to[theirs[i]] == int(mine[i]) {
					same++
				}
			}
			best = max(best, same)
		})
		if want := float64(len(mine)-best) / float64(both); *h.Matched != want {
			t.Errorf("seed %d: matched churn %v, want %v", seed, *h.Matched, want)
		}
		last := int64(math.MaxInt64)
		for _, m := range h.Moved {
			images, there := int64(0), int64(0)
			for i := range mine {
				if int(theirs[i]) == m.Cluster {
					images++
					if int(mine[i]) == m.To {
						there++
					}
				}
			}
			if left := m.Images - m.Stayed; m.Images != images || m.Went != there || left <= 0 || left > last {
				t.Errorf("seed %d: %+v; it had %d images, %d are in %d", seed, m, images, there, m.To)
			} else {
				last = left
			}
		}
		if len(h.Moved) > 3 {
			t.Errorf("%d clusters are named, 3 were asked for", len(h.Moved))
		}
	}
}

// permute calls fn with every order of the numbers below n.
func permute(n int, fn func([]int)) {
	p := make([]int, n)
	for i := range p {
		p[i] = i
	}
	var step func(i int)
	step = func(i int) {
		if i == n {
			fn(p)
			return
		}
		for j := i; j < n; j++ {
			p[i], p[j] = p[j], p[i]
			step(i + 1)
			p[i], p[j] = p[j], p[i]
		}
	}
	step(0)
}

func TestRenumberedClusters(t *testing.T) {
	s := newShelf(t, "mem://")
	var before, after []labelled
	for i := range 120 {
		before = append(before, labelled{fmt.Sprintf("%03d", i), "", int32(i % 3)})
		after = append(after, labelled{fmt.Sprintf("%03d", i), "", int32((i + 1) % 3)})
	}
	c, err := s.compare(t, publishRun(t, s.Bucket, "a", []int{3}, before), publishRun(t, s.Bucket, "b", []int{3}, after), roomy)
	if err != nil {
		t.Fatal(err)
	}
	if h := c.Heads[0]; *h.Churn != 1 || *h.Matched != 0 || *h.NMI != 1 || h.Renumbered != 3 || len(h.Moved) != 0 {
		t.Errorf("%+v", h)
	}
}

func TestWhatCannotBeCompared(t *testing.T) {
	s := newShelf(t, "mem://")
	rows := func(prefix string, label int32) []labelled {
		return []labelled{{prefix + "0", "", 0}, {prefix + "1", "", label}}
	}
	a := publishRun(t, s.Bucket, "a", []int{2, 2}, rows("x", 1), rows("x", 1))
	b := publishRun(t, s.Bucket, "b", []int{2}, rows("y", 1))
	c, err := s.compare(t, a, b, roomy)
	if err != nil || len(c.Heads) != 1 || c.Churn != nil || c.Heads[0].NMI != nil || c.Heads[0].Earlier != 2 || c.Heads[0].Later != 2 {
		t.Errorf("no image in common: %+v, %v", c, err)
	}
	for _, test := range []struct {
		name  string
		after *published.Run
		o     Options
		class pipeline.Class
		says  string
	}{
		{"label out of range", publishRun(t, s.Bucket, "c", []int{2}, rows("x", 2)), roomy, pipeline.Data, "label 2 of 2 clusters"},
		{"memory", publishRun(t, s.Bucket, "d", []int{2}, rows("x", 1)), Options{Memory: 31, Cache: 64 << 20}, pipeline.Config, "solve.memory"},
		{"cache", publishRun(t, s.Bucket, "e", []int{2}, rows("x", 1)), Options{Memory: 32, Cache: 100}, pipeline.Config, "local.bytes"},
	} {
		if _, err := s.compare(t, a, test.after, test.o); pipeline.ClassOf(err) != test.class || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	damaged := newShelf(t, "file://"+t.TempDir())
	one := publishRun(t, damaged.Bucket, "one", []int{2}, rows("x", 1))
	two := publishRun(t, damaged.Bucket, "two", []int{2}, rows("x", 1))
	path, _ := damaged.LocalPath("runs/one/labels/head=0/part-00000.parquet")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := damaged.compare(t, one, two, roomy); pipeline.ClassOf(err) != pipeline.Data || !strings.Contains(err.Error(), "runs/one") {
		t.Errorf("a flipped bit in the earlier run: %v", err)
	}
}

// BenchmarkMatch compares heads of 3,000 clusters and 1.26 million images: of
// related ones a third changed their cluster, to one drawn at random.
func BenchmarkMatch(b *testing.B) {
	const k = 3000
	for name, stay := range map[string]int{"related": 280, "unrelated": 0} {
		b.Run(name, func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 1))
			both := make([][]float64, k)
			for i := range both {
				both[i] = make([]float64, k)
				both[i][(i*7)%k] = float64(stay)
				for range 420 - stay {
					both[i][r.IntN(k)]++
				}
			}
			for b.Loop() {
				h := &Head{Images: k * 420}
				h.match(both, 10)
			}
		})
	}
}
