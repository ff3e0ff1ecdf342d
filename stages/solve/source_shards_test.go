package solve_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gocloud.dev/blob/memblob"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/pipeline/bucket/buckettest"
	"sela/sinkhorn"
	"sela/stages/solve"
)

// within fails the test unless f returns soon; what f waits for takes an hour.
func within[T any](t *testing.T, what string, f func() T) (out T) {
	t.Helper()
	done := make(chan T, 1)
	go func() { done <- f() }()
	select {
	case out = <-done:
	case <-time.After(time.Minute):
		t.Fatalf("%s does not return", what)
	}
	return out
}

// TestFetchesAhead: while a shard of a remote store is read the next one comes
// into the cache. If it cannot, its reader is told, and nobody before.
func TestFetchesAhead(t *testing.T) {
	ctx := context.Background()
	r := extracted(t, images, nil, true, nil)
	fresh := func() (*pipeline.Run, *solve.Source) {
		r.Job.Local.Dir = t.TempDir()
		run := r.Open(t, "run-1")
		source, err := solve.OpenSource(run, shards(t, run), 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return run, source
	}
	var block sinkhorn.Block

	run, source := fresh()
	next := shardOf(t, r.Run, 0, 1)
	cached := func() bool {
		_, err := os.Stat(filepath.Join(r.Job.Local.Dir, "cache", next.SHA256))
		return err == nil
	}
	if cached() {
		t.Fatal("the second shard is there before")
	}
	if err := source.ReadChunk(ctx, 0, &block, nothing); err != nil {
		t.Fatal(err)
	}
	within(t, "the second shard", func() error {
		for !cached() {
			time.Sleep(time.Millisecond)
		}
		return nil
	})
	source.Close()

	sound, err := run.Work.Get(ctx, run.Path(next.Path))
	if err == nil {
		err = run.Work.Delete(ctx, run.Path(next.Path))
	}
	if err != nil {
		t.Fatal(err)
	}
	_, source = fresh()
	defer source.Close()
	for range 3 {
		if err := source.ReadChunk(ctx, 0, &block, nothing); err != nil {
			t.Error(err)
		}
	}
	fails(t, source.ReadChunk(ctx, 1, &block, nothing), pipeline.Data, next.Name, "no such object")
	if err := source.ReadChunk(ctx, 2, &block, nothing); err != nil {
		t.Error(err)
	}
	if err := run.Work.Put(ctx, run.Path(next.Path), sound); err != nil {
		t.Fatal(err)
	}
	if err := source.ReadChunk(ctx, 1, &block, nothing); err != nil {
		t.Errorf("once it is there: %v", err)
	}
}

// TestFetchAheadEnds: a store that does not answer holds up neither Close nor a
// reader whose context has ended, and a reader goes on when another one has
// given up the shard that both wait for.
func TestFetchAheadEnds(t *testing.T) {
	r := extracted(t, images, nil, true, nil)
	all := shards(t, r.Run)
	first := shardOf(t, r.Run, 0, 0)
	_, release, err := r.Run.Fetch(context.Background(), first) // into the cache
	if err != nil {
		t.Fatal(err)
	}
	release()
	run := r.Open(t, "run-1")
	run.Work = bucket.New(buckettest.Faulty(memblob.OpenBucket(nil), &buckettest.Faults{Latency: time.Hour}), "mem://work", bucket.Options{RequestTimeout: time.Hour})
	defer run.Work.Close()
	open := func() *solve.Source {
		source, err := solve.OpenSource(run, all, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return source
	}
	source := open()
	if err := source.ReadChunk(context.Background(), 0, &sinkhorn.Block{}, nothing); err != nil {
		t.Fatal(err)
	}
	within(t, "Close", func() error { source.Close(); return nil })

	source = open()
	defer source.Close()
	read := func(ctx context.Context) chan error {
		done := make(chan error, 1)
		go func() { done <- source.ReadChunk(ctx, 1, &sinkhorn.Block{}, nothing) }()
		return done
	}
	one, cancelOne := context.WithCancel(context.Background())
	two, cancelTwo := context.WithCancel(context.Background())
	a := read(one)
	time.Sleep(20 * time.Millisecond) // so that b mostly is the one who waits
	b := read(two)
	time.Sleep(20 * time.Millisecond)
	cancelOne()
	if err := within(t, "the first reader", func() error { return <-a }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	select {
	case err := <-b:
		t.Errorf("the second reader gave up, too: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	cancelTwo()
	if err := within(t, "the second reader", func() error { return <-b }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
