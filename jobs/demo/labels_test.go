package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/schemas"
)

// publishLabels lays out a labels bucket's folder with one run of the given
// heads, each in two parts.
func publishLabels(t *testing.T, folder string, heads []*labels) {
	t.Helper()
	base := filepath.Join(folder, "runs", "r1")
	var files []pipeline.Output
	for _, l := range heads {
		half := len(l.names) / 2
		for part, span := range [][2]int{{0, half}, {half, len(l.names)}} {
			object := fmt.Sprintf("labels/head=%d/part-%05d.parquet", l.head, part)
			file := filepath.Join(base, object)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			w, err := schemas.CreateLabels(file, schemas.LabelsMeta{Head: l.head, Clusters: l.proof.Clusters})
			if err != nil {
				t.Fatal(err)
			}
			for row := span[0]; row < span[1]; row++ {
				prob := &l.sure[row]
				if l.head == 1 {
					prob = nil // labels without a probability of their own
				}
				err := w.Write(&schemas.Label{
					Row: int64(row), Key: l.names[row].Key, Member: l.names[row].Member, SHA256: strings.Repeat("0", 64),
					Label: l.label[row], Prob: prob, ModelLabel: l.label[row], ModelProb: l.sure[row],
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			stats, err := w.Commit()
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, pipeline.Output{Name: object, Path: object, FileStats: stats})
		}
		object := fmt.Sprintf("potentials/head-%d.parquet", l.head)
		if err := os.MkdirAll(filepath.Join(base, "potentials"), 0o755); err != nil {
			t.Fatal(err)
		}
		proof, err := json.Marshal(l.proof)
		if err != nil {
			t.Fatal(err)
		}
		stats, err := schemas.WritePotentials(filepath.Join(base, object), make([]float64, l.proof.Clusters), map[string]string{"certificate": string(proof)})
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, pipeline.Output{Name: object, Path: object, FileStats: stats})
	}
	manifest, err := pipeline.NewManifest(&pipeline.Record{Run: "r1", Job: &pipeline.Job{Name: "demo"}}, "listing", files).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(base, "_manifest.json"), manifest, 0o644); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(manifest)
	latest, err := json.Marshal(map[string]string{"run": "r1", "manifest": "runs/r1/_manifest.json", "sha256": hex.EncodeToString(sum[:])})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "LATEST"), latest, 0o644); err != nil {
		t.Fatal(err)
	}
}

// fromTruth are labels that equal the truth of a written data set, surest
// first within each letter by name.
func fromTruth(t *testing.T, dir string, head int) *labels {
	t.Helper()
	truth, err := readTruth(filepath.Join(dir, truthFile))
	if err != nil {
		t.Fatal(err)
	}
	l := &labels{head: head}
	for n := range truth {
		l.names = append(l.names, n)
	}
	slices.SortFunc(l.names, func(a, b name) int { return strings.Compare(a.Key+a.Member, b.Key+b.Member) })
	for i, n := range l.names {
		l.label = append(l.label, truth[n])
		l.sure = append(l.sure, 1/float32(i+1))
		l.proof.Clusters = max(l.proof.Clusters, int(truth[n])+1)
	}
	l.proof.Passes = 12
	return l
}

func TestReadPublished(t *testing.T) {
	dir, folder := t.TempDir(), t.TempDir()
	mustWrite(t, dir, small(), 2)
	want := []*labels{fromTruth(t, dir, 0), fromTruth(t, dir, 1), fromTruth(t, dir, 10)}
	publishLabels(t, folder, want)
	run, got, err := readPublished(folder)
	if err != nil {
		t.Fatal(err)
	}
	if run != "r1" || len(got) != len(want) {
		t.Fatalf("run %q with %d heads", run, len(got))
	}
	for i, l := range got {
		w := want[i]
		if l.head != w.head || !slices.Equal(l.names, w.names) || !slices.Equal(l.label, w.label) || !slices.Equal(l.sure, w.sure) || l.proof != w.proof {
			t.Errorf("head %d differs from what was published", w.head)
		}
	}
}

func TestDamagedPartIsRefused(t *testing.T) {
	dir, folder := t.TempDir(), t.TempDir()
	mustWrite(t, dir, small(), 2)
	publishLabels(t, folder, []*labels{fromTruth(t, dir, 0)})
	part := filepath.Join(folder, "runs/r1/labels/head=0/part-00001.parquet")
	data, err := os.ReadFile(part)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(part, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := readPublished(folder); err == nil || !strings.Contains(err.Error(), part) {
		t.Errorf("damaged part: %v, want an error that names it", err)
	}
}

func TestMostProbable(t *testing.T) {
	l := &labels{proof: certificate{Clusters: 5}}
	for i, row := range []struct {
		label int32
		sure  float32
	}{{2, 0.5}, {0, 0.1}, {2, 0.9}, {0, 0.3}, {2, 0.9}, {4, 1}, {3, 1}} {
		l.names = append(l.names, name{Key: fmt.Sprint(i)})
		l.label = append(l.label, row.label)
		l.sure = append(l.sure, row.sure)
	}
	got := mostProbable(l, 3, 2)
	want := []pick{
		{0, []name{{Key: "3"}, {Key: "1"}}},
		{2, []name{{Key: "2"}, {Key: "4"}}},
		{3, []name{{Key: "6"}}},
	}
	if !slices.EqualFunc(got, want, func(a, b pick) bool { return a.cluster == b.cluster && slices.Equal(a.names, b.names) }) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The mosaic shows the right pictures at their places, from files and tars.
func TestMosaicShowsTheImages(t *testing.T) {
	dir := t.TempDir()
	p := small()
	p.Count, p.Members = 260, 130
	mustWrite(t, dir, p, 2)
	l := fromTruth(t, dir, 0)
	out := filepath.Join(t.TempDir(), "mosaic.png")
	if err := writeMosaic(out, filepath.Join(dir, imagesDir), l); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sheet, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	picks := mostProbable(l, mosaicClusters, mosaicImages)
	if len(picks) != mosaicClusters {
		t.Fatalf("%d clusters", len(picks))
	}
	images, err := loadImages(filepath.Join(dir, imagesDir), picks)
	if err != nil {
		t.Fatal(err)
	}
	const lines = mosaicClusters / mosaicColumns
	width := sheet.Bounds().Dx() / mosaicColumns
	tars := 0
	for i, p := range picks {
		for j, n := range p.names {
			if n.Member != "" {
				tars++
			}
			x := i/lines*width + margin + gutter + j*(tile+gap)
			y := i%lines*(tile+gap) + margin
			for _, at := range []image.Point{{0, 0}, {20, 31}, {63, 63}} {
				r, g, b, _ := sheet.At(x+at.X, y+at.Y).RGBA()
				wr, wg, wb, _ := images[n].At(at.X/2, at.Y/2).RGBA()
				if [3]uint32{r >> 8, g >> 8, b >> 8} != [3]uint32{wr >> 8, wg >> 8, wb >> 8} {
					t.Fatalf("cluster %d, image %d: another pixel than %v has at %v", p.cluster, j, n, at)
				}
			}
		}
	}
	if tars == 0 {
		t.Error("no tar member among the picks")
	}
}

func TestMosaicNamesWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, dir, small(), 2)
	images := filepath.Join(dir, imagesDir)
	for _, n := range []name{{Key: "0000/nothing.jpg"}, {"shard-0000.tar", "nothing.jpg"}, {Key: "../stamp.json"}} {
		_, err := loadImages(images, []pick{{0, []name{n}}})
		if err == nil || !strings.Contains(err.Error(), n.Key) {
			t.Errorf("%v: %v, want an error that names it", n, err)
		}
	}
}

func TestPlaceKeepsShape(t *testing.T) {
	for _, size := range []image.Point{{32, 32}, {10, 40}, {500, 20}, {1, 900}} {
		src := image.NewRGBA(image.Rectangle{Max: size})
		for i := range src.Pix {
			src.Pix[i] = 0xff
		}
		dst := image.NewRGBA(image.Rect(0, 0, tile+20, tile+20))
		cell := image.Rect(10, 10, 10+tile, 10+tile)
		place(dst, cell, src)
		var seen image.Rectangle
		for y := range dst.Rect.Dy() {
			for x := range dst.Rect.Dx() {
				if dst.RGBAAt(x, y) != (color.RGBA{}) {
					seen = seen.Union(image.Rect(x, y, x+1, y+1))
				}
			}
		}
		longer := max(size.X, size.Y)
		want := image.Pt(max(size.X*tile/longer, 1), max(size.Y*tile/longer, 1))
		if seen.Size() != want || !seen.In(cell) {
			t.Errorf("%v drawn to %v, want size %v within %v", size, seen, want, cell)
		}
	}
}
