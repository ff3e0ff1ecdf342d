package report

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/sinkhorn"
	"sela/stages/extract"
	"sela/stages/internal/imageio"
	"sela/stages/list"
	"sela/stages/solve"
)

// BenchmarkTenHeads writes the report of 10 heads of 3,000 clusters each, on
// photographs of ImageNet, and fails if it takes 10 MB in all. It is about size:
// the photographs were made smaller before, and the labels are made up.
func BenchmarkTenHeads(b *testing.B) {
	dir, err := filepath.Abs("../../../shared/data/imagenet-samples")
	if err == nil {
		_, err = os.Stat(dir)
	}
	if err != nil {
		b.Skip("shared/data/imagenet-samples is not above this folder")
	}
	small := b.TempDir()
	photographs := shrinkPhotographs(b, dir, small)
	images, err := bucket.Open(b.Context(), "file://"+small, bucket.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer images.Close()
	out := os.Getenv("SELA_REPORT_OUT")
	if out == "" {
		out = b.TempDir()
	}
	to, err := bucket.Open(b.Context(), "file://"+out+"?create_dir=true", bucket.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer to.Close()
	for b.Loop() {
		r := tenHeads(photographs)
		r.Images, r.To = images, to
		for _, step := range []func(context.Context) error{r.choose, r.place, r.draw, r.describe, r.page, r.sweep} {
			if err := step(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		if r.summary.Missing > 0 || r.summary.Images < 30_000 {
			b.Fatalf("%+v", r.summary)
		}
		if r.summary.Bytes >= 10e6 {
			b.Errorf("%d bytes, more than 10 MB", r.summary.Bytes)
		}
		b.ReportMetric(float64(r.summary.Bytes)/1e6, "MB")
		b.ReportMetric(float64(r.summary.First)/1e6, "MB-first")
		b.ReportMetric(float64(r.summary.Files), "files")
		b.ReportMetric(float64(r.summary.Images), "images")
	}
}

// synthetic is a reporter of made-up labels: tiles know their places already.
type synthetic struct{ *reporter }

func (synthetic) place(context.Context) error { return nil }

type photograph struct {
	schemas.Image
	sha256 string
}

// shrinkPhotographs writes the photographs of dir to small, 128 pixels wide and
// high.
func shrinkPhotographs(b *testing.B, dir, small string) (all []photograph) {
	const side = 128
	f, err := os.Open(filepath.Join(dir, "imagenet-samples-00000.tar"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	pre, err := imageio.New(imageio.Spec{Resize: imageio.Resize{Shorter: side}, Crop: imageio.Size{Height: side, Width: side}, Layout: imageio.NHWC, DType: imageio.Uint8})
	if err != nil {
		b.Fatal(err)
	}
	worker, pixels := pre.NewWorker(), make([]byte, pre.Len())
	archive := tar.NewReader(f)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			b.Fatal(err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(archive)
		if err == nil {
			err = worker.Uint8(data, pixels)
		}
		if err != nil {
			b.Fatal(err)
		}
		img := image.NewRGBA(image.Rect(0, 0, side, side))
		for i := range side * side {
			img.Pix[4*i], img.Pix[4*i+1], img.Pix[4*i+2], img.Pix[4*i+3] = pixels[3*i], pixels[3*i+1], pixels[3*i+2], 255
		}
		var encoded bytes.Buffer
		if err := jpeg.Encode(&encoded, img, &jpeg.Options{Quality: 95}); err != nil {
			b.Fatal(err)
		}
		name := fmt.Sprintf("%03d.jpg", len(all))
		if err := os.WriteFile(filepath.Join(small, name), encoded.Bytes(), 0o600); err != nil {
			b.Fatal(err)
		}
		sum := sha256.Sum256(encoded.Bytes())
		all = append(all, photograph{schemas.Image{Key: name, Size: int64(encoded.Len())}, hex.EncodeToString(sum[:])})
	}
}

func tenHeads(photographs []photograph) synthetic {
	const heads, clusters, perCluster = 10, 3000, 427
	random := rand.New(rand.NewPCG(1, 2))
	job := pipeline.DefaultJob()
	job.Name = "synthetic"
	record := pipeline.Record{Run: "synthetic", Job: job, Created: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)}
	r := &reporter{Options: Options{Run: &pipeline.Run{Record: record}, Spec: job.Report}, written: map[string]bool{}, shards: &extract.Shards{Listing: &list.Listing{}}}
	for class := range 1000 {
		r.classes.names = append(r.classes.names, fmt.Sprintf("n%08d", 1_000_000+7919*class))
	}
	r.classes.known = heads
	r.solutions = make([]solve.Solution, heads)
	for n := range heads {
		s := &r.solutions[n]
		s.Certificate = sinkhorn.Certificate{Clusters: clusters, Rows: clusters * perCluster, Passes: 2, MarginalL1: 1e-7}
		s.Trace = []solve.Pass{{Pass: 1, MarginalL1: 1e-3}, {Pass: 2, MarginalL1: 1e-7}}
		h := &head{number: n, solution: s, rows: clusters * perCluster, mean: 0.9}
		for range clusters {
			c := cluster{size: perCluster + random.Int64N(60) - 30, sure: 0.5 + random.Float64()/2, before: 400, changed: random.Int64N(200), known: 400,
				class: int32(random.IntN(1000)), common: random.Int64N(400)}
			for range job.Report.ImagesPerCluster {
				p := &photographs[random.IntN(len(photographs))]
				// Names as ImageNet has them.
				class := random.IntN(1000)
				c.best = append(c.best, &tile{key: fmt.Sprintf("train/%s/%s_%d.JPEG", r.classes.names[class], r.classes.names[class], random.IntN(20000)),
					sha256: p.sha256, sure: random.Float32(), class: int32(class), place: &p.Image})
			}
			h.clusters = append(h.clusters, c)
		}
		r.heads = append(r.heads, h)
	}
	return synthetic{r}
}
