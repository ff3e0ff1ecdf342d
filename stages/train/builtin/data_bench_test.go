package builtin

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"image"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/internal/imageio"
	"sela/stages/internal/imageio/augment"
)

// realImages labels the images of a tar of the shared data for ten heads.
func realImages(b *testing.B, tar string) (*bucket.Bucket, *Labels, [][]byte) {
	b.Helper()
	dir, err := filepath.Abs("../../../../shared/data")
	if shared := os.Getenv("SHARED"); shared != "" {
		dir = shared
	}
	if err == nil {
		_, err = os.Stat(filepath.Join(dir, tar))
	}
	if err != nil {
		b.Skip("no shared data: ", err)
	}
	images, err := bucket.Open(context.Background(), "file://"+dir, bucket.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { images.Close() })
	l := &Labels{Heads: slices.Repeat([]int{128}, 10), checked: true}
	var files [][]byte
	err = ScanListing(images, pipeline.Images{Prefix: tar, Sample: 1})(context.Background(), func(img schemas.Image) error {
		data := make([]byte, img.Size)
		sum := sha256.New()
		if err := images.ReadRange(context.Background(), img.Key, img.Offset, data); err != nil {
			return err
		}
		sum.Write(data)
		l.add(img.Row, img.Key, img.Member, binary.BigEndian.Uint64(sum.Sum(nil)))
		l.locate(l.Len()-1, img)
		l.labels = append(l.labels, make([]int32, 10)...)
		files = append(files, data)
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return images, l, files
}

// processorTime is what this process has used of all cores.
func processorTime(b *testing.B) time.Duration {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		b.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// BenchmarkLoader loads batches of 128 with the augmentation of the SeLa
// reference, beside the decoder alone. Processor time is of all goroutines and
// the least of several epochs: images per second of one core, milliseconds per
// batch, and for a step of 100 ms on two cores, the share of them.
func BenchmarkLoader(b *testing.B) {
	for _, c := range []struct {
		name, tar    string
		side, images int
		spec         imageio.Spec
		memory       int64
	}{
		{"cifar", "cifar10/cifar10-train-00000.tar", 32, 5000, imageio.Spec{Crop: imageio.Size{Height: 32, Width: 32}}, 64 << 20},
		{"cifar-without-cache", "cifar10/cifar10-train-00000.tar", 32, 5000, imageio.Spec{Crop: imageio.Size{Height: 32, Width: 32}}, 0},
		{"imagenet", "imagenet-samples/imagenet-samples-00000.tar", 224, 384,
			imageio.Spec{Resize: imageio.Resize{Shorter: 256}, Crop: imageio.Size{Height: 224, Width: 224}}, 64 << 20},
	} {
		b.Run(c.name, func(b *testing.B) {
			images, labels, files := realImages(b, c.tar)
			const batch = 128
			l, err := NewLoader(images, labels, LoaderOptions{Batch: batch, Workers: 1, MemoryBytes: c.memory, MaxRejected: 0.01, Preprocess: c.spec,
				Augment: augment.Spec{Size: image.Pt(c.side, c.side), Gray: 0.2, Brightness: 0.4, Contrast: 0.4, Saturation: 0.4, Hue: 0.4, Flip: 0.5}})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			worker := l.plain.NewWorker()
			load, decode, first := time.Hour, time.Hour, time.Duration(0)
			for epoch := range max(b.N, 5) {
				start := processorTime(b)
				for _, data := range files {
					if _, err := worker.Decode(data); err != nil {
						b.Fatal(err)
					}
				}
				decode = min(decode, (processorTime(b)-start)/time.Duration(len(files)))
				start = processorTime(b)
				err := drain(b, l, batch, func(ctx context.Context, free <-chan *Slot, ready chan<- *Slot) error {
					return l.Run(ctx, epoch, 0, free, ready)
				}, func(*Slot) {})
				if err != nil {
					b.Fatal(err)
				}
				spent := (processorTime(b) - start) / time.Duration(l.Steps()*batch)
				if epoch == 0 {
					first = spent
				}
				load = min(load, spent)
			}
			ms := func(d time.Duration) float64 { return float64(batch*d) / 1e6 }
			b.ReportMetric(1/load.Seconds(), "images/s/core")
			b.ReportMetric(1/decode.Seconds(), "decoded/s/core")
			b.ReportMetric(float64(decode)/float64(load), "of-decoder")
			b.ReportMetric(ms(first), "ms/batch-first-epoch")
			b.ReportMetric(ms(load), "ms/batch")
			b.ReportMetric(ms(load)/2, "%-of-2-cores-at-100-ms")
			b.ReportMetric(0, "ns/op")
		})
	}
}
