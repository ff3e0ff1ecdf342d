package extract_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/pipeline/bucket/buckettest"
	"sela/schemas"
	"sela/stages/extract"
	"sela/stages/internal/onnx/onnxtest"
	"sela/stages/internal/runtest"
	"sela/stages/label"
	"sela/stages/list"
	"sela/stages/solve"
)

// huge is a PNG whose header claims 60,000 × 60,000 pixels.
func huge(t testing.TB) []byte {
	data := bytes.Clone(pngOf(t, 1))
	binary.BigEndian.PutUint32(data[16:], 60000)
	binary.BigEndian.PutUint32(data[20:], 60000)
	binary.BigEndian.PutUint32(data[29:], crc32.ChecksumIEEE(data[12:29]))
	return data
}

// TestBadImages: each unusable image is a quarantine row that says why; the run
// goes on to its labels, every other image has its row, and the counts are
// right.
func TestBadImages(t *testing.T) {
	good := func(seed uint64) []byte { return pngOf(t, seed) }
	large := encode(t, "png", picture(1, 40)) // some 5,000 bytes
	files := map[string][]byte{
		// Good, under names that are not.
		"a b/c'd\"e.png": good(1), "100%25 é#?.png": good(2), "x=1&y=2/ü\\.png": good(3), "..dots/....png": good(4),
		"tar of 'all' 100%.tar": tarOf(t,
			member{"first.png", good(5)},
			member{"../../x.png", good(6)},
			member{"same.png", good(7)},
			member{"same.png", good(8)},
			member{"with space and 'quote' 50%.png", good(9)},
			member{"latin\xe9.png", good(10)},
			member{"large.png", large},
			member{"cut.png", good(11)[:70]},
			member{"empty.png", nil},
			member{"last.png", good(12)}),
		// Bad.
		"bad/cut.jpg":   encode(t, "jpg", picture(3, 30))[:400],
		"bad/empty.png": {},
		"bad/huge.png":  huge(t),
		"bad/large.png": large,
		"bad/text.jpg":  []byte("this is not an image, whatever its name says\n"),
		"bad/black.png": black(t),
		"bad/\xff.png":  good(13),
		"gone/a.png":    good(14),
		"gone/b.png":    good(15),
		"gone/c.png":    good(16),
		"gone/tar.tar":  tarOf(t, member{"1.png", good(17)}, member{"2.png", good(18)}),
		"gone/end.tar":  tarOf(t, member{"1.png", good(19)}, member{"2.png", good(20)}),
	}
	maps.Copy(files, pictures(t, 30))
	r := world(t, files, onnxtest.Classifier{NaNOnBlack: true, Clusters: []int{3, 2}}, func(j *pipeline.Job) {
		noMean(j)
		j.Preprocess.MaxBytes, j.Images.MaxRejected = 4000, 0.9
	})
	r.Through(t, r.Run, list.Name)
	// Between listing and extract, files are deleted, changed and cut.
	if err := os.Remove(filepath.Join(r.Dir, "mine", "gone", "a.png")); err != nil {
		t.Fatal(err)
	}
	remake(t, r, "gone/b.png", append(bytes.Clone(good(14)), 0))
	remake(t, r, "gone/c.png", good(13)[:20])
	remake(t, r, "gone/tar.tar", tarOf(t, member{"1.png", good(3)}, member{"2.png", good(4)}, member{"3.png", good(5)}))
	remake(t, r, "gone/end.tar", files["gone/end.tar"][:700])
	r.Through(t, r.Run, label.Name)

	want := map[string]string{ // what: stage class
		"tar of 'all' 100%.tar | ../../x.png": "list bad-name",
		"tar of 'all' 100%.tar | same.png":    "list duplicate",
		"hex | latin":                         "list not-utf8",
		"tar of 'all' 100%.tar | empty.png":   "list empty",
		"bad/empty.png | ":                    "list empty",
		"hex | ":                              "list not-utf8",
		"tar of 'all' 100%.tar | large.png":   "extract too-large",
		"tar of 'all' 100%.tar | cut.png":     "extract truncated",
		"bad/cut.jpg | ":                      "extract truncated",
		"bad/huge.png | ":                     "extract too-large",
		"bad/large.png | ":                    "extract too-large",
		"bad/text.jpg | ":                     "extract format",
		"bad/black.png | ":                    "extract nan",
		"gone/a.png | ":                       "extract missing",
		"gone/b.png | ":                       "extract changed",
		"gone/c.png | ":                       "extract changed",
		"gone/tar.tar | 1.png":                "extract changed",
		"gone/tar.tar | 2.png":                "extract changed",
		"gone/end.tar | 1.png":                "extract changed",
		"gone/end.tar | 2.png":                "extract changed",
	}
	messages := map[string]string{}
	images := listed(t, r.Run)
	rejected := map[int64]bool{}
	for _, q := range quarantined(t, r.Run) {
		name := q.Key + " | " + q.Member
		if q.KeyHex {
			name = "hex | "
			if q.Member != "" {
				name = "hex | latin"
			}
		}
		if got := q.Stage + " " + q.Class; got != want[name] {
			t.Errorf("%s: %q, want %q: %s", name, got, want[name], q.Message)
		}
		delete(want, name)
		messages[name] = q.Message
		if (q.Row == nil) != (q.Stage == list.Name) {
			t.Errorf("%s: row %v of stage %s", name, q.Row, q.Stage)
		}
		if q.Row != nil {
			if img := images[*q.Row]; img.Key != q.Key || img.Member != q.Member {
				t.Errorf("%s: row %d is %q %q", name, *q.Row, img.Key, img.Member)
			}
			rejected[*q.Row] = true
		}
	}
	for name := range want {
		t.Errorf("%s is not in quarantine", name)
	}
	for name, words := range map[string][]string{
		"bad/large.png | ":                  {"preprocess.max_bytes (4000)"},
		"tar of 'all' 100%.tar | large.png": {"preprocess.max_bytes (4000)"},
		"gone/a.png | ":                     {"deleted after it was listed"},
		"gone/b.png | ":                     {"changed after it was listed", "bytes and has"},
		"gone/tar.tar | 1.png":              {"changed after it was listed", "entity tag"},
		"gone/end.tar | 2.png":              {"changed after it was listed"},
		"bad/black.png | ":                  {"head 0 (head_0)", "NaN"},
		"bad/huge.png | ":                   {"60000"},
	} {
		for _, w := range words {
			if !strings.Contains(messages[name], w) {
				t.Errorf("%s: %q is not in %q", name, w, messages[name])
			}
		}
	}
	complete(t, r, rejected)
}

// complete checks that every listed image that is not rejected has its row, in
// order, in every table of every head, and a label.
func complete(t testing.TB, r *runtest.Run, rejected map[int64]bool) {
	t.Helper()
	images := listed(t, r.Run)
	var want []int64
	for _, img := range images {
		if !rejected[img.Row] {
			want = append(want, img.Row)
		}
	}
	shards, err := extract.OpenShards(context.Background(), r.Run)
	if err != nil {
		t.Fatal(err)
	}
	if shards.Usable() != int64(len(want)) || shards.Rejected != shards.Listing.Rejected+int64(len(rejected)) {
		t.Errorf("usable %d, rejected %d; want %d and %d", shards.Usable(), shards.Rejected, len(want), shards.Listing.Rejected+int64(len(rejected)))
	}
	for h := range shards.Heads {
		got := read(t, r.Run, fmt.Sprintf("logprobs/head-%d", h))
		if !slices.Equal(got.numbers, want) {
			t.Errorf("head %d: rows %v, want %v", h, got.numbers, want)
		}
		if h == 0 && len(got.sums) != len(want) {
			t.Errorf("%d sha256, want %d", len(got.sums), len(want))
		}
	}
	commits, err := r.AllCommits(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var labels int64
	for _, c := range commits {
		if c.Stage == label.Name {
			labels += c.Counts["labels"]
		}
	}
	if labels != int64(len(want)*len(shards.Heads)) {
		t.Errorf("%d labels, want %d for each of %d heads", labels, len(want), len(shards.Heads))
	}
}

// TestNaNLeavesOthersAlone: the rows of the other images are those they have
// without the image for which the model fails.
func TestNaNLeavesOthersAlone(t *testing.T) {
	files := pictures(t, 40)
	model := onnxtest.Classifier{NaNOnBlack: true}
	without := world(t, files, model, noMean)
	without.Through(t, without.Run, extract.Name)
	files["999.png"] = black(t)
	with := world(t, files, model, noMean)
	with.Through(t, with.Run, extract.Name)
	a, b := read(t, without.Run, "logprobs/head-0"), read(t, with.Run, "logprobs/head-0")
	if !slices.Equal(a.numbers, b.numbers) || !slices.Equal(a.values, b.values) {
		t.Error("rows differ")
	}
	if q := quarantined(t, with.Run); len(q) != 1 || q[0].Class != "nan" || *q[0].Row != 40 {
		t.Errorf("quarantine %+v", q)
	}
}

// TestImageLargerThanReadAhead: the budget is a bound for what is read ahead,
// not for images.
func TestImageLargerThanReadAhead(t *testing.T) {
	files := pictures(t, 40)
	big := encode(t, "png", picture(1, 200)) // some 120 kB
	files["005x.png"], files["z.tar"] = big, tarOf(t, member{"a.png", pngOf(t, 3)}, member{"b.png", big}, member{"c.png", pngOf(t, 4)})
	r := world(t, files, onnxtest.Classifier{}, func(j *pipeline.Job) { j.Extract.ReadAhead = 300 })
	r.Through(t, r.Run, label.Name)
	complete(t, r, nil)
}

// TestUnusableBatchAndShard: nothing usable in a whole batch, and in a whole
// shard; the stages that follow cope with a shard without rows.
func TestUnusableBatchAndShard(t *testing.T) {
	var members []member
	bad := map[int64]bool{}
	for i := range 2100 {
		data := pngOf(t, uint64(i%50))
		if i >= 32 && i < 80 || i >= 1024 && i < 2048 {
			data, bad[int64(i)] = []byte("x"), true
		}
		members = append(members, member{fmt.Sprintf("%04d.png", i), data})
	}
	r := world(t, map[string][]byte{"all.tar": tarOf(t, members...)}, onnxtest.Classifier{Clusters: []int{3, 5}, Hidden: 4}, func(j *pipeline.Job) {
		withFeatures(j)
		j.Images.MaxRejected = 0.9
	})
	r.Through(t, r.Run, label.Name)
	complete(t, r, bad)
	empty := 0
	for _, o := range outputs(t, r.Run) {
		if strings.HasSuffix(o.Name, "part-00001.parquet") && o.Rows == 0 {
			empty++
		}
	}
	if empty != 5 {
		t.Errorf("%d files without rows in shard 1, want those of 2 heads, 2 samples and the features", empty)
	}
}

// TestNothingUsable: all images of a run may be rejected only where the job
// says so; then there is nothing to solve.
func TestNothingUsable(t *testing.T) {
	files := map[string][]byte{}
	for i := range 30 {
		files[fmt.Sprintf("%02d.png", i)] = []byte("not an image")
	}
	r := world(t, files, onnxtest.Classifier{}, func(j *pipeline.Job) { j.Images.MaxRejected = 1 })
	r.Through(t, r.Run, extract.Name)
	_, err := runtest.Runner().Run(context.Background(), r.Run, r.Stages()[2])
	fails(t, err, pipeline.Data, "no rows")
	if stage := r.Stages()[2]; stage.Name() != solve.Name {
		t.Error(stage.Name())
	}
}

// TestTooManyRejected: beyond the job's share the stage stops, says what is
// wrong with the images, and commits nothing of the task.
func TestTooManyRejected(t *testing.T) {
	files := pictures(t, 90)
	for i := range 10 {
		files[fmt.Sprintf("%03d.png", 40+i)] = []byte("not an image")
	}
	files["050.png"] = files["051.png"][:60]
	r := world(t, files, onnxtest.Classifier{}, func(j *pipeline.Job) { j.Images.MaxRejected = 0.12 })
	err := attempt(context.Background(), t, r, r.Run)
	fails(t, err, pipeline.Data, "11 of 90 images cannot be used", "images.max_rejected (0.12)", "format 10, truncated 1", `"040.png"`)
	if len(outputs(t, r.Run)) > 0 {
		t.Error("outputs were committed")
	}
	// The share is free to change between attempts.
	r.Job.Images.MaxRejected = 0.13
	if err := attempt(context.Background(), t, r, r.Open(t, "run-1")); err != nil {
		t.Error(err)
	}
}

// TestUnreadableImage: what the store refuses to hand out is no image's fault;
// the run stops, since tomorrow it may be every image.
func TestUnreadableImage(t *testing.T) {
	r := world(t, pictures(t, 40), onnxtest.Classifier{}, nil)
	r.Through(t, r.Run, list.Name)
	plain := r.Images
	r.Images = over(t, filepath.Join(r.Dir, "mine"), func(b *blob.Bucket) *blob.Bucket {
		return buckettest.Faulty(b, &buckettest.Faults{Refuse: 21, Code: gcerrors.PermissionDenied})
	})
	fails(t, attempt(context.Background(), t, r, r.Run), pipeline.Config, "read image", ".png", "refused")
	if os.Geteuid() == 0 {
		t.Log("not tried on a file without permissions: root may read it")
		return
	}
	r.Images = plain
	if err := os.Chmod(filepath.Join(r.Dir, "mine", "007.png"), 0); err != nil {
		t.Fatal(err)
	}
	fails(t, attempt(context.Background(), t, r, r.Run), pipeline.Config, "read image 007.png", "permission denied")
}

// TestShortObjectInOtherStores: S3 and memory refuse a range beyond an object's
// end in ways of their own.
func TestShortObjectInOtherStores(t *testing.T) {
	s3 := buckettest.S3(t, "images")
	for name, url := range map[string]string{"s3": s3.String(), "mem": "mem://"} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			b, err := bucket.Open(ctx, url, bucket.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			whole := tarOf(t, member{"1.png", pngOf(t, 1)}, member{"2.png", pngOf(t, 2)})
			if err := b.Put(ctx, "all.tar", whole); err != nil {
				t.Fatal(err)
			}
			r := world(t, pictures(t, 1), onnxtest.Classifier{}, func(j *pipeline.Job) { j.Images.MaxRejected = 1 })
			r.Images = b
			r.Through(t, r.Run, list.Name)
			for i, cut := range []int{600, 1600} {
				if err := b.Put(ctx, "all.tar", whole[:cut]); err != nil {
					t.Fatal(err)
				}
				run := r.Run
				if i > 0 {
					run = again(t, r, run)
				}
				if err := attempt(ctx, t, r, run); err != nil {
					t.Fatal(err)
				}
				for _, q := range quarantined(t, run) {
					if q.Class != "changed" {
						t.Errorf("cut to %d: class %q: %s", cut, q.Class, q.Message)
					}
				}
				if got := len(quarantined(t, run)); got != 2 {
					t.Errorf("cut to %d: %d in quarantine, want 2", cut, got)
				}
			}
		})
	}
}

// again makes a run whose extract stage is as if never done.
func again(t testing.TB, r *runtest.Run, run *pipeline.Run) *pipeline.Run {
	t.Helper()
	r.Forget(t, extract.Name)
	return run
}

// TestOddBytesInMessages: a quarantine row is UTF-8 whatever an image holds.
func TestOddBytesInMessages(t *testing.T) {
	files := pictures(t, 30)
	files["odd.png"] = bytes.Repeat([]byte{0xff, 0xfe, 0x80, 0}, 20)
	r := world(t, files, onnxtest.Classifier{}, nil)
	r.Through(t, r.Run, extract.Name)
	found := slices.IndexFunc(quarantined(t, r.Run), func(q schemas.Quarantine) bool {
		return q.Class == "format" && strings.ToValidUTF8(q.Message, "") == q.Message
	})
	if found < 0 {
		t.Errorf("%+v", quarantined(t, r.Run))
	}
}
