package list

import (
	"bytes"
	"context"
	"image/jpeg"
	"os"
	"path/filepath"
	"testing"

	"sela/pipeline/bucket"
)

// TestCIFAR10 scans the two test tars of CIFAR-10 through a real file bucket.
func TestCIFAR10(t *testing.T) {
	dir, err := filepath.Abs("../../../shared/data/cifar10")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("the CIFAR-10 tars are not there: %v", err)
	}
	ctx := context.Background()
	b, err := bucket.Open(ctx, "file://"+dir, bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	f := scan(b, Options{Prefix: "cifar10-test-"})
	f.invariants(t)
	if f.err != nil || f.summary.Images != 10_000 || f.summary.Rejected != 0 || f.summary.Skipped != 0 {
		t.Fatalf("%+v, %v", f.summary, f.err)
	}
	if one := scan(b, Options{Prefix: "cifar10-test-", Concurrency: 1}); one.summary != f.summary {
		t.Errorf("%+v at concurrency 1, %+v at the default", one.summary, f.summary)
	}
	for i := 0; i < len(f.images); i += 97 {
		img := f.images[i]
		data := make([]byte, img.Size)
		if err := b.ReadRange(ctx, img.Key, img.Offset, data); err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(data, []byte{0xff, 0xd8}) || !bytes.HasSuffix(data, []byte{0xff, 0xd9}) {
			t.Errorf("row %d, %s: not the bytes of one JPEG", img.Row, img.Member)
		}
		if config, err := jpeg.DecodeConfig(bytes.NewReader(data)); err != nil || config.Width != 32 || config.Height != 32 {
			t.Errorf("row %d, %s: %v, %v", img.Row, img.Member, config, err)
		}
	}
}
