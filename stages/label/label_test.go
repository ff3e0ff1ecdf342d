package label_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/label"
)

// holes leaves out rows here and there, all of the second part of 2,048 rows,
// and the end.
func holes(_ int, row int64) bool {
	return row%7 != 3 && (row < 2048 || row >= 4096) && row < 6990
}

// TestLabels compares every row of every head with its definition.
func TestLabels(t *testing.T) {
	for topK, work := range map[int]*bucket.Bucket{0: memory(t), 5: folder(t)} {
		t.Run(fmt.Sprintf("top_k=%d", topK), func(t *testing.T) {
			s := &synthetic{images: 7000, clusters: []int{10, 3, 128}, usable: holes, work: work, job: func(j *pipeline.Job) { j.Label.TopK = topK }}
			run := s.open(t)
			files := s.label(t, run, 3)
			var names []string
			for _, f := range files {
				names = append(names, f.Name)
			}
			var want []string
			for h := range s.clusters {
				for _, part := range []int{0, 2, 3} { // part 1 has no usable image, and no file
					want = append(want, label.PartName(h, part))
				}
			}
			if !slices.Equal(names, want) {
				t.Fatalf("files %q, want %q", names, want)
			}
			for h := range s.clusters {
				got := rows(t, run, files, h)
				for row := range s.images {
					want, ok := s.want(h, row, topK)
					if !ok {
						continue
					}
					if len(got) == 0 {
						t.Fatalf("head %d ends before row %d", h, row)
					}
					compare(t, h, got[0], want)
					got = got[1:]
				}
				if len(got) > 0 {
					t.Errorf("head %d has %d rows too many, from %d", h, len(got), got[0].Row)
				}
			}
			for _, f := range files {
				checkPart(t, run, f, topK)
			}
		})
	}
}

func compare(t *testing.T, head int, got, want schemas.Label) {
	t.Helper()
	// The float32 of a float64 exp may be rounded the other way.
	if math.Abs(float64(got.ModelProb-want.ModelProb)) > 1e-7*float64(want.ModelProb) {
		t.Fatalf("head %d, row %d: model_prob %v, want %v", head, want.Row, got.ModelProb, want.ModelProb)
	}
	got.ModelProb = want.ModelProb
	a, b := text(got), text(want)
	if a != b {
		t.Fatalf("head %d: row\n%s\nwant\n%s", head, a, b)
	}
}

// text shows a row with what it points to.
func text(l schemas.Label) string {
	var prob, prev any = "null", "null"
	if l.Prob != nil {
		prob = *l.Prob
	}
	if l.PrevLabel != nil {
		prev = *l.PrevLabel
	}
	return fmt.Sprint(l.Row, " ", l.Key, " ", l.Member, " ", l.SHA256, " ", l.Label, " ", prob, " ", l.ModelLabel, " ", l.ModelProb, " ", prev, " ", l.TopK)
}

// checkPart looks at one file: its rows lie in the part's range, the column
// top_k is there only if it was asked for, sorted and at most K long, with a
// mass of at most 1.
func checkPart(t *testing.T, run *pipeline.Run, f pipeline.Output, topK int) {
	t.Helper()
	var head, part int
	if _, err := fmt.Sscanf(f.Name, "labels/head=%d/part-%d.parquet", &head, &part); err != nil {
		t.Fatal(err)
	}
	local, release, err := run.Fetch(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	raw, err := os.ReadFile(local)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(raw), "top_k") != (topK > 0) {
		t.Errorf("%s: has a column top_k: %t", f.Name, topK == 0)
	}
	_, _, _, kv, err := schemas.Inspect(local)
	if err != nil {
		t.Fatal(err)
	}
	var clusters int
	fmt.Sscan(kv["sela.clusters"], &clusters)
	err = schemas.ReadLabels(local, func(l *schemas.Label) error {
		if l.Row/2048 != int64(part) {
			return fmt.Errorf("row %d in part %d", l.Row, part)
		}
		if len(l.TopK) > min(topK, clusters) || topK > 0 && (len(l.TopK) == 0 || l.TopK[0].Label != l.Label || l.TopK[0].Prob != *l.Prob) {
			return fmt.Errorf("row %d: label %d, top_k %v of %d clusters", l.Row, l.Label, l.TopK, clusters)
		}
		sum := 0.0
		for i, c := range l.TopK {
			if i > 0 && c.Prob > l.TopK[i-1].Prob {
				return fmt.Errorf("row %d: top_k %v is not sorted", l.Row, l.TopK)
			}
			sum += float64(c.Prob)
		}
		if sum > 1+1e-6 {
			return fmt.Errorf("row %d: top_k %v sums to %v", l.Row, l.TopK, sum)
		}
		return nil
	})
	if err != nil {
		t.Errorf("%s: %v", f.Name, err)
	}
}

// digests are the sha256 of a run's label files by name.
func digests(files []pipeline.Output) map[string]string {
	sums := map[string]string{}
	for _, f := range files {
		sums[f.Name] = fmt.Sprint(f.Rows, f.Bytes, f.SHA256)
	}
	return sums
}

// TestPartsAreTheSameBytes for any number of workers, any shards, another run,
// and a run that was killed between two parts.
func TestPartsAreTheSameBytes(t *testing.T) {
	make := func(shardRows int64, id string) *synthetic {
		return &synthetic{images: 7000, clusters: []int{10, 5}, usable: holes, id: id, job: func(j *pipeline.Job) {
			j.Extract.ShardRows, j.Label.TopK = shardRows, 2
		}}
	}
	first := make(1024, "run-1")
	run := first.open(t)
	want := digests(first.label(t, run, 1))
	if len(want) != 6 {
		t.Fatalf("%d files", len(want))
	}
	for _, shardRows := range []int64{1024, 3072, 8192} {
		s := make(shardRows, "another-run")
		if got := digests(s.label(t, s.open(t), 4)); !maps.Equal(got, want) {
			t.Errorf("shards of %d rows: %v, want %v", shardRows, got, want)
		}
	}
	for _, task := range []string{"head-0-part-00002", "head-1-part-00000"} {
		if err := first.work.Delete(t.Context(), run.Path("commits/label/"+task+".json")); err != nil {
			t.Fatal(err)
		}
	}
	if got := digests(first.label(t, run, 2)); !maps.Equal(got, want) {
		t.Errorf("after a resumption: %v, want %v", got, want)
	}
}

func TestMetadata(t *testing.T) {
	s := &synthetic{images: 1500, clusters: []int{4, 6}}
	run := s.open(t)
	for h, f := range s.label(t, run, 1) {
		local, release, err := run.Fetch(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		kind, version, n, kv, err := schemas.Inspect(local)
		release()
		want := map[string]string{
			"sela.kind": "labels", "sela.version": "1", "sela.head": fmt.Sprint(h), "sela.clusters": fmt.Sprint(s.clusters[h]),
			"labeller": "lists", "balance": "none", "lambda": "7", "tolerance": "1e-06", "marginal_error_l1": "0.125",
			"model": "model digest", "preprocessing": "fingerprint", "library": "library digest", "processor": "processor",
			"listing": "listing digest", "code": "code", "head_output": fmt.Sprintf("output-%d", h),
		}
		if err != nil || kind != schemas.KindLabels || version != schemas.Version || n != 1500 || !maps.Equal(kv, want) {
			t.Errorf("%s: %s %d, %d rows, %v, %v; want %v", f.Name, kind, version, n, kv, err, want)
		}
	}
}

// scratchless is the stage without its estimate of scratch, which would let
// fewer tasks run at a time than the cache does.
type scratchless struct{ label.Stage }

func (s *scratchless) Plan(ctx context.Context, run *pipeline.Run) ([]pipeline.Task, error) {
	tasks, err := s.Stage.Plan(ctx, run)
	for i := range tasks {
		tasks[i].Scratch = 0
	}
	return tasks, err
}

// largest returns the size of the largest object under a prefix.
func largest(t *testing.T, b *bucket.Bucket, prefix string) (bytes int64) {
	t.Helper()
	err := b.List(t.Context(), prefix, func(o bucket.Object) error {
		bytes = max(bytes, o.Size)
		return nil
	})
	if err != nil || bytes == 0 {
		t.Fatalf("%s: %d bytes, %v", prefix, bytes, err)
	}
	return bytes
}

// TestSmallCache labels from remote buckets through a cache that just holds what
// one task needs at once: tasks side by side must wait for each other, never
// for themselves.
func TestSmallCache(t *testing.T) {
	labels, clusters := memory(t), []int{10, 40, 40}
	previous := &synthetic{images: 6000, clusters: clusters, id: "round-0"}
	want := previous.open(t)
	publishFiles(t, labels, want, previous.label(t, want, 2))

	s := &synthetic{images: 6000, clusters: clusters, work: memory(t), labels: labels, parent: "round-0"}
	run := s.open(t)
	var need int64
	for h := range clusters {
		need = max(need, largest(t, s.work, run.Path(fmt.Sprintf("logprobs/head-%d/", h)))+largest(t, labels, fmt.Sprintf("runs/round-0/labels/head=%d/", h)))
	}
	need += largest(t, s.work, run.Path("images/")) + largest(t, s.work, run.Path("logprobs/head-0/"))
	reopen := func(bytes int64) *pipeline.Run {
		job := *run.Job
		job.Local = pipeline.Local{Dir: t.TempDir(), Bytes: pipeline.Bytes(bytes)}
		return s.reopen(t, &job)
	}
	_, err := runner(1).Run(t.Context(), reopen(2*need-2), &scratchless{label.Stage{Labels: labels}})
	if pipeline.ClassOf(err) != pipeline.Config || !strings.Contains(err.Error(), "local.bytes") {
		t.Errorf("a cache one byte too small: %v", err)
	}
	run = reopen(2 * need)
	if _, err := runner(4).Run(t.Context(), run, &scratchless{label.Stage{Labels: labels}}); err != nil {
		t.Fatal(err)
	}
	for h := range clusters {
		a, b := rows(t, want, labelFiles(t, want), h), rows(t, run, labelFiles(t, run), h)
		if len(a) != 6000 || len(b) != 6000 {
			t.Fatalf("%d and %d rows", len(a), len(b))
		}
		for i := range a {
			a[i].PrevLabel = &a[i].Label
			compare(t, h, b[i], a[i])
		}
	}
}

// publishFiles puts a run's label files where published ones lie, complete with
// manifest and mark.
func publishFiles(t testing.TB, labels *bucket.Bucket, run *pipeline.Run, files []pipeline.Output) {
	t.Helper()
	prefix := "runs/" + run.Run + "/"
	put := func(name string, data []byte) {
		if err := labels.Put(t.Context(), prefix+name, data); err != nil {
			t.Fatal(err)
		}
	}
	var published []pipeline.Output
	for _, f := range files {
		raw, err := run.Work.Get(t.Context(), run.Path(f.Path))
		if err != nil {
			t.Fatal(err)
		}
		put(f.Name, raw)
		f.Path = f.Name
		published = append(published, f)
	}
	raw, err := pipeline.NewManifest(&run.Record, "listing digest", published).Encode()
	if err != nil {
		t.Fatal(err)
	}
	put("_manifest.json", raw)
	put("_SUCCESS", nil)
}

// TestPreviousLabels joins a run to one with other images, other parts, fewer
// heads and another K.
func TestPreviousLabels(t *testing.T) {
	labels := folder(t)
	// Every third key is new, every fifth is gone; in tars of 100 members the
	// order is reversed.
	name := func(row int64, reversed bool) (string, string) {
		if row%1000 >= 900 {
			if member := row % 100; reversed {
				return fmt.Sprintf("k%06d.tar", row/100*100), fmt.Sprintf("m%02d", 99-member)
			}
			return fmt.Sprintf("k%06d.tar", row/100*100), fmt.Sprintf("m%02d", row%100)
		}
		return fmt.Sprintf("k%06d.jpg", row), ""
	}
	before := &synthetic{images: 5200, clusters: []int{9}, id: "round-0", job: func(j *pipeline.Job) { j.Label.PartRows = 1024 },
		usable: func(_ int, row int64) bool { return row%5 != 0 },
		key:    func(row int64) (string, string) { return name(row+row/2000, false) }}
	run := before.open(t)
	publishFiles(t, labels, run, before.label(t, run, 2))
	had := map[[2]string]int32{}
	for _, l := range rows(t, run, labelFiles(t, run), 0) {
		had[[2]string{l.Key, l.Member}] = l.Label
	}

	now := &synthetic{images: 7000, clusters: []int{4, 4}, labels: labels, parent: "round-0",
		usable: func(_ int, row int64) bool { return row%3 != 0 },
		key:    func(row int64) (string, string) { return name(row, true) }}
	run = now.open(t)
	files := now.label(t, run, 2)
	found := 0
	for h := range now.clusters {
		for _, l := range rows(t, run, files, h) {
			want, ok := had[[2]string{l.Key, l.Member}]
			if ok = ok && h == 0; ok {
				found++
			}
			if (l.PrevLabel != nil) != ok || ok && *l.PrevLabel != want {
				t.Fatalf("head %d: %s; it had %d, %t", h, text(l), want, ok)
			}
		}
	}
	if found < 2000 || found > 4000 {
		t.Errorf("%d images had a label", found)
	}

	relabel := func(change func()) error {
		change()
		run := now.reopen(t, run.Job)
		if err := now.work.Delete(t.Context(), run.Path("commits/label/head-0-part-00001.json")); err != nil {
			t.Fatal(err)
		}
		_, err := runner(1).Run(t.Context(), run, &label.Stage{Labels: labels})
		return err
	}
	if err := relabel(func() {}); err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		name   string
		change func()
		class  pipeline.Class
		says   string
	}{
		{"damaged part", func() { damage(t, labels, "runs/round-0/labels/head=0/part-00002.parquet") }, pipeline.Data, "head=0/part-00002.parquet"},
		{"missing part", func() { remove(t, labels, "runs/round-0/labels/head=0/part-00002.parquet") }, pipeline.Data, "head=0/part-00002.parquet"},
		{"damaged manifest", func() { damage(t, labels, "runs/round-0/_manifest.json") }, pipeline.Data, "_manifest.json"},
		{"half published", func() { remove(t, labels, "runs/round-0/_SUCCESS") }, pipeline.Config, "run round-0 is not published"},
		{"unpublished", func() { remove(t, labels, "runs/round-0/_manifest.json") }, pipeline.Config, "label.previous"},
	} {
		if err := relabel(f.change); pipeline.ClassOf(err) != f.class || !strings.Contains(err.Error(), f.says) {
			t.Errorf("%s: %v", f.name, err)
		}
	}
}

// damage changes a byte in the middle of the first object under a prefix.
func damage(t *testing.T, b *bucket.Bucket, prefix string) {
	t.Helper()
	key := ""
	err := b.List(t.Context(), prefix, func(o bucket.Object) error {
		if key == "" {
			key = o.Key
		}
		return nil
	})
	if err != nil || key == "" {
		t.Fatalf("no object under %s: %v", prefix, err)
	}
	raw, err := b.Get(t.Context(), key)
	if err == nil {
		raw[len(raw)/2] ^= 1
		err = b.Put(t.Context(), key, raw)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, b *bucket.Bucket, key string) {
	t.Helper()
	if err := b.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
}

func TestRefusals(t *testing.T) {
	for _, f := range []struct {
		name   string
		run    synthetic
		change func(s *synthetic, run *pipeline.Run)
		says   string
	}{
		{"shard", synthetic{}, func(s *synthetic, r *pipeline.Run) { damage(t, s.work, r.Path("logprobs/head-1/part-00001.")) }, "logprobs/head-1/part-00001.parquet"},
		{"potentials", synthetic{}, func(s *synthetic, r *pipeline.Run) { damage(t, s.work, r.Path("potentials/head-0.")) }, "potentials/head-0.parquet"},
		{"images", synthetic{}, func(s *synthetic, r *pipeline.Run) { damage(t, s.work, r.Path("images/")) }, "images/part-00000.parquet"},
		{"rows", synthetic{usable: func(head int, row int64) bool { return row != 1500+int64(head) }}, func(*synthetic, *pipeline.Run) {}, "row 1501"},
	} {
		s := f.run
		s.images, s.clusters = 3000, []int{5, 5}
		run := s.open(t)
		f.change(&s, run)
		_, err := runner(2).Run(t.Context(), run, &label.Stage{})
		if pipeline.ClassOf(err) != pipeline.Data || !strings.Contains(err.Error(), f.says) {
			t.Errorf("%s: %v", f.name, err)
		}
	}
}
