//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"sela/sinkhorn"
	"sela/stages/internal/report"
)

// pass measures one pass over shards in the page cache against reading the same
// files, and what its parts cost.
func (b *bench) pass(ctx context.Context) (err error) {
	rows, clusters := b.rows(400_000), 3000
	if b.quick {
		rows, clusters = 32_768, 1000
	}
	sets, err := b.make(ctx, "B", rows, clusters, float32Form, uint16Form)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove(sets)) }()
	for _, d := range sets {
		if err := b.passOver(ctx, d); err != nil {
			return fmt.Errorf("%s: %w", d.Form, err)
		}
	}
	return nil
}

func (b *bench) passOver(ctx context.Context, d *dataset) error {
	files, err := d.files(ctx)
	if err != nil {
		return err
	}
	solved, err := (&request{Dataset: *d, Method: string(sinkhorn.MethodLists), Workers: b.workers, Sampled: true}).run(ctx)
	if err != nil {
		return err
	}
	p, err := openProblem(ctx, d)
	if err != nil {
		return err
	}
	defer p.close()
	if err := warm(ctx, files, b.workers); err != nil {
		return err
	}
	say("measuring passes over %s", d.Form)
	m := passMeasure{source: p.source, files: files, workers: b.workers, v: solved.v}
	var all bests
	for i := range b.repeat + 1 {
		if i == 1 {
			all = bests{} // the first round also checked the digests of the shards
		}
		if err := m.round(ctx, &all); err != nil {
			return err
		}
	}
	return b.reportPass(d, m, &all)
}

// bests holds the shortest time of each measurement by name, in order of first
// appearance.
type bests struct {
	names []string
	times map[string]time.Duration
}

func (b *bests) add(name string, took time.Duration) {
	if b.times == nil {
		b.times = map[string]time.Duration{}
	}
	best, ok := b.times[name]
	if !ok {
		b.names = append(b.names, name)
	}
	if !ok || took < best {
		b.times[name] = took
	}
}

func (b *bests) time(name string, f func() error) error {
	start := time.Now()
	err := f()
	b.add(name, time.Since(start))
	return err
}

// Names of measurements, beside those of passKinds.
const (
	preadName  = "pread"
	sourceName = "source alone"
)

// passKinds are the passes that a solve makes.
var passKinds = []struct {
	name           string
	certify, lists bool
}{
	{"masses", false, false}, {"masses, certificate", true, false}, {"masses, certificate, lists", true, true},
}

type passMeasure struct {
	source  sinkhorn.Source
	files   []string
	workers int
	v       []float64
	bytes   int64 // of the files
	size    int   // of the fastest reads
	fastest time.Duration
}

// round measures everything once: what is compared is measured side by side,
// so that the load of a busy machine meets it alike.
func (m *passMeasure) round(ctx context.Context, all *bests) error {
	for _, size := range readSizes {
		r, err := pread(ctx, m.files, size, m.workers)
		if err != nil {
			return err
		}
		all.add(preadName, r.took)
		if m.bytes = r.bytes; m.fastest == 0 || r.took < m.fastest {
			m.fastest, m.size = r.took, size
		}
	}
	if err := all.time(sourceName, func() error { return drain(ctx, m.source, m.workers) }); err != nil {
		return err
	}
	rows, clusters := m.source.Dims()
	x, err := sampleBlock(ctx, m.source)
	if err != nil {
		return err
	}
	chunks := m.source.Chunks()
	sources := map[string]sinkhorn.Source{
		"":         m.source,
		"kernel: ": &repeated{rows: rows, clusters: clusters, perChunk: sinkhorn.ChunkRows, x: x},
		"chunks: ": &repeated{rows: int64(chunks), clusters: clusters, perChunk: 1, x: x},
	}
	margin := make([]float64, clusters)
	for k := range margin {
		margin[k] = 45
	}
	for _, kind := range passKinds {
		for _, prefix := range []string{"", "kernel: ", "chunks: "} {
			req := sinkhorn.Request{Lambda: sinkhorn.DefaultLambda, V: m.v, Certify: kind.certify}
			if kind.lists {
				req.Lists = &sinkhorn.ListRequest{Margin: margin, Into: sinkhorn.NewLists(1<<40, nil)}
			}
			cpu := sinkhorn.NewCPU(sources[prefix], m.workers)
			err := all.time(prefix+kind.name, func() error {
				_, err := cpu.Pass(ctx, req)
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// drain reads all chunks and does nothing with them.
func drain(ctx context.Context, src sinkhorn.Source, workers int) error {
	group, ctx := errgroup.WithContext(ctx)
	next := make(chan int)
	group.Go(func() error {
		defer close(next)
		for i := range src.Chunks() {
			select {
			case next <- i:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range workers {
		group.Go(func() error {
			var buf sinkhorn.Block
			for i := range next {
				if err := src.ReadChunk(ctx, i, &buf, func(*sinkhorn.Block) error { return nil }); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

var errEnough = errors.New("enough")

// sampleBlock returns the values of the first block of a source.
func sampleBlock(ctx context.Context, src sinkhorn.Source) (x []float32, err error) {
	var buf sinkhorn.Block
	err = src.ReadChunk(ctx, 0, &buf, func(b *sinkhorn.Block) error {
		x = append(x, b.X...)
		return errEnough
	})
	if !errors.Is(err, errEnough) {
		return nil, errors.Join(err, errors.New("the first chunk is empty"))
	}
	return x, nil
}

// repeated is a source whose every block is the same memory, which stays in
// each core's cache: what is left of a pass is its arithmetic.
type repeated struct {
	rows     int64
	clusters int
	perChunk int
	x        []float32
}

func (r *repeated) Dims() (int64, int) { return r.rows, r.clusters }
func (r *repeated) Chunks() int        { return int((r.rows + int64(r.perChunk) - 1) / int64(r.perChunk)) }

func (r *repeated) ReadChunk(_ context.Context, i int, buf *sinkhorn.Block, yield func(*sinkhorn.Block) error) error {
	left := int(min(int64(r.perChunk), r.rows-int64(i*r.perChunk)))
	for row := int64(i) * sinkhorn.ChunkRows; left > 0; {
		n := min(left, len(r.x)/r.clusters)
		buf.Rows = buf.Rows[:0]
		for range n {
			buf.Rows = append(buf.Rows, row)
			row++
		}
		if err := yield(&sinkhorn.Block{Rows: buf.Rows, X: r.x[:n*r.clusters]}); err != nil {
			return err
		}
		left -= n
	}
	return nil
}

func (b *bench) reportPass(d *dataset, m passMeasure, all *bests) error {
	t := &report.Table{
		Title:   fmt.Sprintf("One pass: %d × %d as %s, page cache warm, %d workers", d.Rows, d.Clusters, d.Form, b.workers),
		Columns: []string{"what", "s", "GB/s", "of pread", "reading", "kernel", "chunks", "rest"},
	}
	base := all.times[preadName].Seconds()
	rate := func(took time.Duration) (gbs, ratio float64) {
		return float64(m.bytes) / took.Seconds() / 1e9, base / took.Seconds()
	}
	gbs, ratio := rate(all.times[preadName])
	t.Add(preadName+", pieces of "+sizeName(m.size), all.times[preadName], gbs, ratio)
	source := all.times[sourceName]
	gbs, ratio = rate(source)
	t.Add(sourceName, source, gbs, ratio)
	for _, kind := range passKinds {
		took := all.times[kind.name]
		gbs, ratio := rate(took)
		chunks := all.times["chunks: "+kind.name]
		kernel := all.times["kernel: "+kind.name] - chunks
		share := func(d time.Duration) string { return fmt.Sprintf("%.0f %%", 100*d.Seconds()/took.Seconds()) }
		t.Add(kind.name, took, gbs, ratio, share(source), share(kernel), share(chunks), share(took-source-kernel-chunks))
		if b.full() && !kind.lists {
			b.figures = append(b.figures, report.AtLeast(fmt.Sprintf("pass over %s (%s) / pread", d.Form, kind.name), ratio, 0.6, ""))
		}
	}
	t.Note("pread: the fastest of pieces of 256 KiB to 16 MiB, into a buffer for each worker; GB are those of the files")
	t.Note("reading: the source without an evaluator; kernel: a pass over one block that stays in the cache, as many rows; chunks: a pass over one row of each chunk, which is the sums' merging; each alone, so that the rest may be negative")
	return b.report(t)
}
