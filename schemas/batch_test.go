package schemas

import (
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/apache/arrow/go/v15/arrow/memory"
)

func TestBatchReleasesOnce(t *testing.T) {
	v := someVectors(newRand(1), 50, 3, true)
	for name, b := range map[string]func(func()) *Batch{
		"with digests": v.batch,
		"without":      func(f func()) *Batch { return NewBatch(v.rows, v.values, nil, 3, f) },
		"empty":        func(f func()) *Batch { return NewBatch(nil, nil, nil, 3, f) },
		"refused":      func(f func()) *Batch { return NewBatch(v.rows, nil, nil, 3, f) },
	} {
		var calls atomic.Int32
		batch := b(func() { calls.Add(1) })
		want := len(v.rows)
		if name == "empty" || name == "refused" {
			want = 0
		}
		if n := batch.NumRows(); n != want {
			t.Errorf("%s: %d rows", name, n)
		}
		if calls.Load() != 0 {
			t.Errorf("%s: released at once", name)
		}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(batch.Release)
		}
		wg.Wait()
		if calls.Load() != 1 {
			t.Errorf("%s: release called %d times", name, calls.Load())
		}
	}
}

// A batch is a view of the caller's memory.
func TestBatchDoesNotCopy(t *testing.T) {
	v := someVectors(newRand(1), 5, 3, true)
	b := v.batch(nil)
	defer b.Release()
	if &b.rows()[0] != &v.rows[0] || &b.values()[0] != &v.values[0] || &b.sha256()[0] != &v.sha[0][0] {
		t.Error("the memory is another")
	}
	if len(b.rows()) != 5 || len(b.values()) != 15 || len(b.sha256()) != 160 {
		t.Error("the lengths are others")
	}
}

// Every byte that Arrow takes from the allocator goes back to it.
func TestArrowMemory(t *testing.T) {
	checked := memory.NewCheckedAllocator(memory.NewGoAllocator())
	old := allocator
	allocator = checked
	defer func() { allocator = old }()
	defer checked.AssertSize(t, 0)

	dir := t.TempDir()
	r := newRand(2)
	v := someVectors(r, 3000, 17, true)
	path := filepath.Join(dir, "blocks")
	released := 0
	w, err := CreateBlocks(path, BlocksMeta{Kind: KindLogprobs, Width: 17, WithSHA256: true, BlockRows: 512})
	check(t, err)
	for i := 0; i < 3000; i += 100 {
		b := v.slice(i, i+100).batch(func() { released++ })
		check(t, w.Write(b))
		b.Release()
	}
	_, err = w.Commit()
	check(t, err)
	if released != 30 {
		t.Errorf("%d of 30 batches released", released)
	}
	w, err = CreateBlocks(path, BlocksMeta{Kind: KindLogprobs, Width: 17, WithSHA256: true, BlockRows: 512})
	check(t, err)
	b := v.batch(nil)
	check(t, w.Write(b))
	b.Release()
	check(t, w.Abort())

	images, quarantine, labels := filepath.Join(dir, "i"), filepath.Join(dir, "q"), filepath.Join(dir, "l")
	writeImages(t, images, ImagesMeta{}, someImages(r, 0, 5000))
	check(t, ReadImages(images, 0, 5000, func(Image) error { return nil }))
	writeQuarantine(t, quarantine, QuarantineMeta{}, someQuarantine(r, 500))
	check(t, ReadQuarantine(quarantine, func(Quarantine) error { return nil }))
	writeLabels(t, labels, LabelsMeta{Clusters: 10, TopK: true}, someLabels(r, 5000, 10, true))
	readLabels(t, labels)
	_, err = WritePotentials(filepath.Join(dir, "p"), []float64{1, 2}, nil)
	check(t, err)
}
