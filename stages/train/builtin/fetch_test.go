package builtin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sela/pipeline"
	"sela/schemas"
)

// TestRejected spoils images after they were labelled.
func TestRejected(t *testing.T) {
	for _, local := range []bool{true, false} {
		d := newDataSet(t, local, 30, 10)
		broken := []byte("no image")
		d.files["a/003.png"] = broken
		put(t, d.images, "a/003.png", broken)
		big := picture(2, 200, 200)
		d.files["a/008.png"] = big
		put(t, d.images, "a/008.png", big)
		d.list(t)
		labels := d.labelled(t, 3)
		remove(t, d.images, "a/005.png")
		put(t, d.images, "a/006.png", d.files["a/006.png"][:20])
		put(t, d.images, "a/007.png", append(d.files["a/004.png"], d.files["a/007.png"]...))
		raw, err := d.images.Get(context.Background(), "b/0.tar")
		if err != nil {
			t.Fatal(err)
		}
		raw[labels.Image(31).Offset+40] ^= 1
		put(t, d.images, "b/0.tar", raw)

		o := options()
		o.HeldOut, o.MaxRejected = 0, 0.12
		o.Preprocess.Limits.MaxBytes = 50_000
		if int64(len(big)) <= o.Preprocess.Limits.MaxBytes {
			t.Fatalf("the large image has %d bytes", len(big))
		}
		want := map[int64]string{3: "decode", 5: "gone", 6: "ends at byte 20", 7: "sha256", 8: "max_bytes", 31: "sha256"}
		l := newLoader(t, d, labels, o)
		for epoch := range 2 {
			weight := float32(0)
			err := drain(t, l, o.Batch, func(ctx context.Context, free <-chan *Slot, ready chan<- *Slot) error {
				return l.Run(ctx, epoch, 0, free, ready)
			}, func(s *Slot) {
				for b, row := range s.Rows {
					weight += s.Weights[b]
					if _, bad := want[row]; !bad {
						continue
					}
					if s.Weights[b] != 0 || s.Labels[b] != int64(labelOf(row, 0, 3)) {
						t.Errorf("row %d: weight %v, label %d", row, s.Weights[b], s.Labels[b])
					}
					for i, x := range s.Images[b*len(l.black):][:len(l.black)] {
						if c := i / (side * side); x != l.values[c][0] {
							t.Fatalf("row %d is not black", row)
						}
					}
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if weight != 50-6 || l.Rejected() != 6 {
				t.Errorf("local %v: weights sum to %v, %d rejected", local, weight, l.Rejected())
			}
		}
		got := l.Rejections()
		if len(got) != len(want) {
			t.Errorf("%+v", got)
		}
		for _, r := range got {
			if !strings.Contains(r.Reason, want[r.Row]) || want[r.Row] == "" || r.Key != d.listed[r.Row].Key || r.Member != d.listed[r.Row].Member {
				t.Errorf("%+v, want %q", r, want[r.Row])
			}
		}

		o.MaxRejected = 0.1
		l = newLoader(t, d, labels, o)
		err = drain(t, l, o.Batch, func(ctx context.Context, free <-chan *Slot, ready chan<- *Slot) error {
			return l.Run(ctx, 0, 0, free, ready)
		}, func(*Slot) {})
		if err == nil || pipeline.ClassOf(err) != pipeline.Data || !strings.Contains(err.Error(), "6 of 50 images cannot be used") {
			t.Errorf("too many rejections: %v", err)
		}
	}
}

// TestFromCache deletes the images after the first epoch: those that the cache
// holds are still there in the second.
func TestFromCache(t *testing.T) {
	d := newDataSet(t, false, 30, 10)
	labels := d.labelled(t, 3)
	o := options()
	o.MaxRejected = 1
	epochs := func(o LoaderOptions) (l *Loader) {
		l = newLoader(t, d, labels, o)
		epochOf(t, l, 0, 0)
		for _, key := range []string{"b/0.tar", "a/001.png", "a/002.png"} {
			raw, err := d.images.Get(context.Background(), key)
			if err != nil {
				t.Fatal(err)
			}
			remove(t, d.images, key)
			defer put(t, d.images, key, raw)
		}
		epochOf(t, l, 1, 0)
		return l
	}
	if l := epochs(o); l.Rejected() != 0 {
		t.Errorf("%d images were fetched again: %+v", l.Rejected(), l.Rejections())
	}
	o.MemoryBytes = 0
	if l := epochs(o); l.Rejected() < 5 {
		t.Errorf("only %d images were fetched again, without a cache", l.Rejected())
	}
}

// TestSpan cuts a tar's images into stretches: neighbours, one request's bytes,
// nothing that is not to be read.
func TestSpan(t *testing.T) {
	l := &Labels{}
	offset := int64(512)
	add := func(key, member string, size int64) {
		l.add(int64(l.Len()), key, member, 0)
		l.locate(l.Len()-1, schemas.Image{Size: size, Offset: offset})
		offset += size + 1024
	}
	for i := range 40 {
		add("a.tar", fmt.Sprint(i), 100_000)
	}
	add("a.tar", "large", 5_000_000)
	add("a.tar", "behind", 10)
	offset = 512
	add("b.tar", "first", 10)
	add("b.tar", "second", 10)
	offset = 0
	add("c.png", "", 10)
	f := &fetcher{Loader: &Loader{labels: l, limit: 1_000_000}}
	spans := map[int]bool{}
	for i := range l.Len() {
		if i == 40 {
			continue // never asked for: too large
		}
		from, to, n := f.span(i)
		first, last := l.Image(from), l.Image(to-1)
		if i < from || i >= to || first.Key != last.Key || n != last.Offset+last.Size-first.Offset || from <= 40 && to > 40 {
			t.Errorf("image %d is in %d to %d, %d bytes", i, from, to, n)
		}
		if last.Offset-first.Offset >= spanBytes || (from > 0 && i < 40 && l.Image(from-1).Offset/spanBytes == first.Offset/spanBytes) {
			t.Errorf("image %d: the span is from byte %d to %d", i, first.Offset, last.Offset)
		}
		spans[from] = true
	}
	if len(spans) != 4+1+1+1 {
		t.Errorf("%d spans: %v", len(spans), spans)
	}
}

// TestRequests counts requests: images of a tar come together.
func TestRequests(t *testing.T) {
	d := newDataSet(t, false, 0, 100)
	labels := d.labelled(t, 3)
	o := options()
	before := d.calls.Calls()
	l := newLoader(t, d, labels, o)
	want := epochOf(t, l, 0, 0)
	if n := d.calls.Calls() - before; n > 4 {
		t.Errorf("%d requests for the images of two small tars", n)
	}
	before = d.calls.Calls()
	epochOf(t, l, 1, 0)
	if n := d.calls.Calls() - before; n > 0 {
		t.Errorf("%d requests for images that were read before", n)
	}
	o.MemoryBytes = 0
	before = d.calls.Calls()
	l = newLoader(t, d, labels, o)
	if got := epochOf(t, l, 0, 0); !slices.Equal(got, want) {
		t.Error("other batches without a cache")
	}
	if train, _ := l.Images(); d.calls.Calls()-before < int(train) {
		t.Errorf("%d requests for %d images that nothing keeps", d.calls.Calls()-before, train)
	}
}

// TestStoreFails ends with the store's error, and resumes behind it.
func TestStoreFails(t *testing.T) {
	d := newDataSet(t, false, 40, 0)
	labels := d.labelled(t, 3)
	o := options()
	o.MemoryBytes = 0
	d.calls.Refuse = 2
	good := 0
	l := newLoader(t, d, labels, o)
	run := func(ctx context.Context, free <-chan *Slot, ready chan<- *Slot) error {
		return l.Run(ctx, 0, good, free, ready)
	}
	err := drain(t, l, o.Batch, run, func(s *Slot) { good++ })
	if err == nil {
		d.calls.Refuse = 1
		err = drain(t, l, o.Batch, run, func(s *Slot) { good++ })
	}
	if pipeline.ClassOf(err) != pipeline.Transient || l.Rejected() != 0 {
		t.Errorf("%v (%v), %d rejected", err, pipeline.ClassOf(err), l.Rejected())
	}
	d.calls.Refuse = 0
	want := epochOf(t, newLoader(t, d, labels, o), 0, good)
	if got := epochOf(t, l, 0, good); !slices.Equal(got, want) {
		t.Error("other batches after a failure")
	}
}

// TestCancel ends a loader that waits for slots, and one that waits for the
// store.
func TestCancel(t *testing.T) {
	d := newDataSet(t, false, 40, 10)
	labels := d.labelled(t, 3)
	for _, latency := range []time.Duration{0, time.Hour} {
		d.calls.Latency = latency
		l := newLoader(t, d, labels, options())
		free, ready := make(chan *Slot, 1), make(chan *Slot, 1)
		free <- newSlot(l, l.o.Batch)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- l.Run(ctx, 0, 0, free, ready) }()
		if latency == 0 {
			<-ready
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("latency %v: %v", latency, err)
		}
	}
}
