package builtin

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"gocloud.dev/blob/memblob"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/pipeline/bucket/buckettest"
	"sela/schemas"
)

// dataSet is a bucket of images and a bucket with a run of labels for them.
type dataSet struct {
	images, labels *bucket.Bucket
	calls          *buckettest.Faults // of images, if they are not local
	files          map[string][]byte  // encoded images by key and member
	listed         []schemas.Image
}

func folder(t testing.TB) *bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(context.Background(), "file://"+t.TempDir(), bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// remote is a bucket in memory that counts its calls.
func remote(t testing.TB) (*bucket.Bucket, *buckettest.Faults) {
	t.Helper()
	f := &buckettest.Faults{}
	b := bucket.New(buckettest.Faulty(memblob.OpenBucket(nil), f), "mem://", bucket.Options{Backoff: time.Millisecond, Attempts: 2})
	t.Cleanup(func() { b.Close() })
	return b, f
}

// picture is an image of its own: a JPEG file for an odd seed, else a PNG file.
func picture(seed uint64, width, height int) []byte {
	random := rand.New(rand.NewPCG(seed, 1))
	m := image.NewNRGBA(image.Rect(0, 0, width, height))
	base := color.NRGBA{uint8(random.IntN(200)), uint8(random.IntN(200)), uint8(random.IntN(200)), 255}
	for y := range height {
		for x := range width {
			c := base
			c.R, c.G, c.B = c.R+uint8(x*50/width), c.G+uint8(y*50/height), c.B+uint8(random.IntN(56))
			m.SetNRGBA(x, y, c)
		}
	}
	var b bytes.Buffer
	err := png.Encode(&b, m)
	if seed%2 == 1 {
		b.Reset()
		err = jpeg.Encode(&b, m, &jpeg.Options{Quality: 95})
	}
	if err != nil {
		panic(err) // an image in memory always encodes
	}
	return b.Bytes()
}

func put(t testing.TB, b *bucket.Bucket, key string, data []byte) {
	t.Helper()
	if err := b.Put(context.Background(), key, data); err != nil {
		t.Fatal(err)
	}
}

func tarOf(t testing.TB, names []string, data [][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, name := range names {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(data[i])), Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// newDataSet makes loose images and, behind them, two tars with so many each.
func newDataSet(t testing.TB, local bool, looseImages, members int) *dataSet {
	t.Helper()
	d := &dataSet{labels: folder(t), files: map[string][]byte{}}
	if local {
		d.images = folder(t)
	} else {
		d.images, d.calls = remote(t)
	}
	for i := range looseImages {
		key := fmt.Sprintf("a/%03d.png", i)
		d.files[key] = picture(uint64(i), 20+i%7, 16+i%5)
		put(t, d.images, key, d.files[key])
	}
	for shard := range 2 {
		if members == 0 {
			break
		}
		key := fmt.Sprintf("b/%d.tar", shard)
		var names []string
		var data [][]byte
		for i := range members {
			names = append(names, fmt.Sprintf("x/%d.png", i))
			data = append(data, picture(uint64(1000*(shard+1)+i), 24, 24))
			d.files[key+names[i]] = data[i]
		}
		put(t, d.images, key, tarOf(t, names, data))
	}
	d.list(t)
	return d
}

func (d *dataSet) list(t testing.TB) {
	t.Helper()
	d.listed = nil
	err := d.listing()(context.Background(), func(img schemas.Image) error {
		d.listed = append(d.listed, img)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (d *dataSet) listing() Listing { return ScanListing(d.images, pipeline.Images{Sample: 1}) }

// table is one head's labels to be published: a part for each slice.
type table struct {
	clusters []int // K that each part claims
	parts    [][]schemas.Label
}

// labelOf is the label of a row in a head.
func labelOf(row int64, head, clusters int) int32 {
	return int32((row*7 + int64(head)*3) % int64(clusters))
}

// tables labels all but the images whose row number is in without, in two parts.
func (d *dataSet) tables(clusters []int, without ...int64) []table {
	skip := map[int64]bool{}
	for _, row := range without {
		skip[row] = true
	}
	var out []table
	for h, k := range clusters {
		tab := table{clusters: []int{k, k}, parts: make([][]schemas.Label, 2)}
		for i, img := range d.listed {
			if skip[img.Row] {
				continue
			}
			sum := sha256.Sum256(d.files[img.Key+img.Member])
			part := min(2*i/len(d.listed), 1)
			tab.parts[part] = append(tab.parts[part], schemas.Label{Row: img.Row, Key: img.Key, Member: img.Member,
				SHA256: hex.EncodeToString(sum[:]), Label: labelOf(img.Row, h, k), ModelProb: 0.5})
		}
		out = append(out, tab)
	}
	return out
}

// publish writes a run's folder and LATEST.
func (d *dataSet) publish(t testing.TB, run string, heads int, tables []table) {
	t.Helper()
	dir := t.TempDir()
	job := pipeline.DefaultJob()
	job.Model.Heads = heads
	record := pipeline.Record{Version: 1, Run: run, Job: job, Created: time.Unix(1e9, 0).UTC()}
	var files []pipeline.Output
	for h, tab := range tables {
		for i, rows := range tab.parts {
			name := fmt.Sprintf("labels/head=%d/part-%05d.parquet", h, i)
			path := filepath.Join(dir, "part.parquet")
			w, err := schemas.CreateLabels(path, schemas.LabelsMeta{Head: h, Clusters: tab.clusters[i]})
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range rows {
				if err := w.Write(&l); err != nil {
					t.Fatal(err)
				}
			}
			stats, err := w.Commit()
			if err != nil {
				t.Fatal(err)
			}
			if err := d.labels.Upload(context.Background(), "runs/"+run+"/"+name, path); err != nil {
				t.Fatal(err)
			}
			files = append(files, pipeline.Output{Name: name, Path: name, FileStats: stats})
		}
	}
	manifest, err := pipeline.NewManifest(&record, "listing", files).Encode()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	put(t, d.labels, "runs/"+run+"/run.json", raw)
	put(t, d.labels, "runs/"+run+"/_manifest.json", manifest)
	put(t, d.labels, "runs/"+run+"/_SUCCESS", nil)
	sum := sha256.Sum256(manifest)
	latest, _ := json.Marshal(map[string]any{"run": run, "sha256": hex.EncodeToString(sum[:])})
	put(t, d.labels, "LATEST", latest)
}

// read reads a published run.
func (d *dataSet) read(t testing.TB, run string) (*Labels, error) {
	t.Helper()
	ctx := context.Background()
	cache, err := bucket.NewCache(t.TempDir(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	p, err := OpenPublished(ctx, d.labels, run)
	if err != nil {
		return nil, err
	}
	return p.Labels(ctx, cache, d.listing())
}

// labelled publishes and reads back.
func (d *dataSet) labelled(t testing.TB, clusters ...int) *Labels {
	t.Helper()
	d.publish(t, "run-1", len(clusters), d.tables(clusters))
	l, err := d.read(t, "")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
