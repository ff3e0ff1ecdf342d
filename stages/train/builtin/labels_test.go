package builtin

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/internal/runtest"
	"sela/stages/label"
	"sela/stages/list"
	"sela/stages/publish"
)

func TestLabels(t *testing.T) {
	d := newDataSet(t, true, 9, 5)
	clusters := []int{4, 300, 2}
	d.publish(t, "run-0", 3, d.tables(clusters))
	d.publish(t, "run-1", 3, d.tables(clusters, 0, 8, 12))
	for _, run := range []string{"", "run-1", "run-0"} {
		l, err := d.read(t, run)
		if err != nil {
			t.Fatal(err)
		}
		want := 19
		if run != "run-0" {
			want = 16
		}
		if l.Len() != want || !slices.Equal(l.Heads, clusters) || l.Digest == "" {
			t.Fatalf("run %q: %d images, heads %v, digest %q", run, l.Len(), l.Heads, l.Digest)
		}
		for i := range l.Len() {
			got := l.Image(i)
			img := d.listed[got.Row]
			img.ETag = ""
			if got != img {
				t.Errorf("image %d is %+v, want %+v", i, got, img)
			}
			for h, k := range clusters {
				if got := l.Label(i, h); got != labelOf(img.Row, h, k) {
					t.Errorf("row %d, head %d: label %d", img.Row, h, got)
				}
			}
			if !l.holds(i, d.files[img.Key+img.Member]) || l.holds(i, []byte("x")) {
				t.Errorf("row %d: its sum is wrong", img.Row)
			}
		}
	}
}

// TestLabelsElsewhere finds the images after a tar was written anew in another
// order and among new images.
func TestLabelsElsewhere(t *testing.T) {
	d := newDataSet(t, false, 3, 4)
	d.publish(t, "run-1", 1, d.tables([]int{3}))
	names := []string{"x/9.png", "x/3.png", "x/0.png", "x/2.png", "x/7.png", "x/1.png"}
	var data [][]byte
	for _, name := range names {
		if file := d.files["b/0.tar"+name]; file != nil {
			data = append(data, file)
		} else {
			data = append(data, picture(99, 5, 5))
		}
	}
	put(t, d.images, "b/0.tar", tarOf(t, names, data))
	put(t, d.images, "a/001-new.png", data[0])
	put(t, d.images, "a/first.tar", tarOf(t, names, data))
	old := d.listed
	d.list(t)
	l, err := d.read(t, "")
	if err != nil {
		t.Fatal(err)
	}
	if l.Len() != 11 {
		t.Errorf("%d images", l.Len())
	}
	for i := range l.Len() {
		got := l.Image(i)
		raw := make([]byte, got.Size)
		if err := d.images.ReadRange(context.Background(), got.Key, got.Offset, raw); err != nil {
			t.Fatal(err)
		}
		if img := old[got.Row]; got.Key != img.Key || got.Member != img.Member || string(raw) != string(d.files[img.Key+img.Member]) {
			t.Errorf("row %d is at %+v", got.Row, got)
		}
	}
}

// TestPublishedRun reads what the pipeline published, by its own listing and by
// one made anew.
func TestPublishedRun(t *testing.T) {
	ctx := context.Background()
	r := runtest.New(t, runtest.Options{Images: 40, Broken: 3})
	r.Through(t, r.Run, label.Name)
	if _, err := runtest.Runner().Run(ctx, r.Run, &publish.Stage{Labels: r.Labels}); err != nil {
		t.Fatal(err)
	}
	listing, err := list.Open(ctx, r.Run)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := bucket.NewCache(t.TempDir(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	p, err := OpenPublished(ctx, r.Labels, "")
	if err != nil {
		t.Fatal(err)
	}
	if p.Run != "run-1" || p.Record.Job.Images.Bucket != r.Job.Images.Bucket {
		t.Errorf("run %s with images %s", p.Run, p.Record.Job.Images.Bucket)
	}
	var both []*Labels
	for _, of := range []Listing{RunListing(listing), ScanListing(r.Images, p.Record.Job.Images)} {
		l, err := p.Labels(ctx, cache, of)
		if err != nil {
			t.Fatal(err)
		}
		if l.Len() != 40 || !slices.Equal(l.Heads, []int{3, 3}) || l.Digest != p.Manifest.Digest {
			t.Errorf("%d images, heads %v, digest %s", l.Len(), l.Heads, l.Digest)
		}
		both = append(both, l)
	}
	if !reflect.DeepEqual(both[0], both[1]) {
		t.Error("the listings give other labels")
	}
}

// TestMemory holds the type of a row to what is promised.
func TestMemory(t *testing.T) {
	if n := unsafe.Sizeof(row{}); n != 40 {
		t.Errorf("a row takes %d bytes", n)
	}
}

func TestHostileLabels(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(tabs []table) []table
		want   string
	}{
		{"a head is missing", func(tabs []table) []table { return tabs[:1] }, "head 1 of 2 has no label table"},
		{"a head too many", func(tabs []table) []table { return append(tabs, tabs[0]) }, "label tables of 3 heads, run.json says 2"},
		{"a row is missing in a head", func(tabs []table) []table {
			tabs[1].parts[1] = tabs[1].parts[1][1:]
			return tabs
		}, "head 0 has another image there"},
		{"the last row is missing in a head", func(tabs []table) []table {
			tabs[1].parts[1] = tabs[1].parts[1][:1]
			return tabs
		}, "head 1 labels"},
		{"other bytes in a head", func(tabs []table) []table {
			tabs[1].parts[0][2].SHA256 = strings.Repeat("0", 64)
			return tabs
		}, "head=1/part-00000.parquet: row 2: head 0 has another image there"},
		{"other member in a head", func(tabs []table) []table {
			tabs[1].parts[1][2].Member = "?"
			return tabs
		}, "head 0 has another image there"},
		{"no digest", func(tabs []table) []table {
			tabs[0].parts[0][1].SHA256 = "beef"
			return tabs
		}, `its sha256 is "beef"`},
		{"an image twice", func(tabs []table) []table {
			tabs[0].parts[0][1].Key = tabs[0].parts[0][0].Key
			return tabs
		}, "has two rows"},
		{"a member twice", func(tabs []table) []table {
			for h := range tabs {
				tabs[h].parts[1][3].Member = tabs[h].parts[1][2].Member
			}
			return tabs
		}, "1 images have two rows"},
		{"a row twice", func(tabs []table) []table {
			tabs[0].parts[1][0].Row = 0
			return tabs
		}, "it follows row"},
		{"keys out of order", func(tabs []table) []table {
			tabs[0].parts[0][1].Key = "0"
			return tabs
		}, "in the order of their keys"},
		{"no key", func(tabs []table) []table {
			tabs[0].parts[0][0].Key = ""
			return tabs
		}, "no key"},
		{"parts of other heads", func(tabs []table) []table {
			tabs[0].clusters[1] = 5
			return tabs
		}, `"5" clusters; head 0 has 3`},
		{"an unknown image", func(tabs []table) []table {
			for h := range tabs {
				tabs[h].parts[0][1].Key = "a/000.png.png"
			}
			return tabs
		}, `1 of 11 labelled images are not in the listing, the first is row 1, "a/000.png.png"`},
		{"an unknown image behind all", func(tabs []table) []table {
			for h := range tabs {
				last := &tabs[h].parts[1][len(tabs[h].parts[1])-1]
				last.Key, last.Member = "z.png", ""
			}
			return tabs
		}, `the first is row 10, "z.png"`},
		{"an unknown member", func(tabs []table) []table {
			for h := range tabs {
				tabs[h].parts[1][1].Member = "x/none.png"
			}
			return tabs
		}, `"b/1.tar" "x/none.png"`},
		{"no rows", func(tabs []table) []table {
			for h := range tabs {
				tabs[h].parts[0], tabs[h].parts[1] = nil, nil
			}
			return tabs
		}, "no rows"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDataSet(t, true, 3, 4)
			d.publish(t, "run-1", 2, c.change(d.tables([]int{3, 4})))
			_, err := d.read(t, "")
			if err == nil || !strings.Contains(err.Error(), c.want) || pipeline.ClassOf(err) != pipeline.Data {
				t.Errorf("%v (%v), want %q", err, pipeline.ClassOf(err), c.want)
			}
		})
	}
}

func TestLabelOutOfRange(t *testing.T) {
	for _, label := range []int32{-1, 3} {
		r := &tableReader{Labels: &Labels{Heads: []int{3}}, last: -1}
		if err := r.row(&schemas.Label{Key: "a", SHA256: strings.Repeat("0", 64), Label: label}); err == nil || !strings.Contains(err.Error(), "of 3 clusters") {
			t.Errorf("label %d: %v", label, err)
		}
	}
}

// TestHostileFolder spoils what lies around the tables.
func TestHostileFolder(t *testing.T) {
	const run, part = "runs/run-1/", "labels/head=1/part-00001.parquet"
	for _, c := range []struct {
		name string
		do   func(t *testing.T, d *dataSet)
		run  string
		want string
	}{
		{"nothing published", func(t *testing.T, d *dataSet) { remove(t, d.labels, "LATEST") }, "", "no LATEST"},
		{"no such run", func(*testing.T, *dataSet) {}, "run-7", "run run-7 is not published"},
		{"not complete", func(t *testing.T, d *dataSet) { remove(t, d.labels, run+"_SUCCESS") }, "", "not completely"},
		{"no manifest", func(t *testing.T, d *dataSet) { remove(t, d.labels, run+"_manifest.json") }, "", "_manifest.json"},
		{"no record", func(t *testing.T, d *dataSet) { remove(t, d.labels, run+"run.json") }, "", "run.json"},
		{"another record", func(t *testing.T, d *dataSet) {
			put(t, d.labels, run+"run.json", []byte(`{"version":1,"run":"run-2","job":{}}`))
		}, "", "run-2"},
		{"another manifest", func(t *testing.T, d *dataSet) { put(t, d.labels, run+"_manifest.json", []byte("{}")) }, "", "LATEST says"},
		{"damaged manifest", func(t *testing.T, d *dataSet) { put(t, d.labels, run+"_manifest.json", []byte("{")) }, "run-1", "manifest is damaged"},
		{"a part is gone", func(t *testing.T, d *dataSet) { remove(t, d.labels, run+part) }, "", part},
		{"a part is damaged", func(t *testing.T, d *dataSet) {
			raw, err := d.labels.Get(context.Background(), run+part)
			if err != nil {
				t.Fatal(err)
			}
			raw[len(raw)/2] ^= 4
			remove(t, d.labels, run+part)
			put(t, d.labels, run+part, raw)
		}, "", part},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDataSet(t, true, 3, 4)
			d.publish(t, "run-1", 2, d.tables([]int{3, 4}))
			c.do(t, d)
			_, err := d.read(t, c.run)
			if err == nil || !strings.Contains(err.Error(), c.want) || pipeline.ClassOf(err) != pipeline.Data {
				t.Errorf("%v (%v), want %q", err, pipeline.ClassOf(err), c.want)
			}
		})
	}
}

func remove(t *testing.T, b *bucket.Bucket, key string) {
	t.Helper()
	if err := b.Delete(context.Background(), key); err != nil {
		t.Fatal(err)
	}
}

// TestListingFails passes an error of the listing on.
func TestListingFails(t *testing.T) {
	d := newDataSet(t, true, 3, 0)
	l := &Labels{}
	l.add(0, "a/002.png", "", 0)
	broken := errors.New("broken")
	err := l.join(context.Background(), func(_ context.Context, fn func(schemas.Image) error) error {
		return errors.Join(fn(d.listed[0]), broken)
	})
	if !errors.Is(err, broken) {
		t.Error(err)
	}
}
