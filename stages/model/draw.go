package model

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/internal/imageio"
	"sela/stages/list"
)

// drawn is an image with the hash by which it is chosen.
type drawn struct {
	hash  [sha256.Size]byte
	image schemas.Image
}

func compareDrawn(a, b drawn) int {
	return cmp.Or(bytes.Compare(a.hash[:], b.hash[:]), cmp.Compare(a.image.Row, b.image.Row))
}

// draw lists the images and returns the n with the smallest hashes of key and
// member, in that order, or all where there are fewer. It holds 2n at most.
func draw(ctx context.Context, images *bucket.Bucket, spec pipeline.Images, n int) ([]schemas.Image, error) {
	options := list.Options{Prefix: spec.Prefix, Glob: spec.Glob, Only: spec.Only, Limit: spec.Limit, Sample: spec.Sample, Extensions: imageio.Extensions}
	var kept []drawn
	_, err := list.Scan(ctx, images, options, func(img schemas.Image) error {
		d := drawn{sha256.Sum256([]byte("sela model.calibrate\x00" + img.Key + "\x00" + img.Member)), img}
		if kept = append(kept, d); len(kept) == 2*n {
			slices.SortFunc(kept, compareDrawn)
			kept = kept[:n]
		}
		return nil
	}, func(schemas.Quarantine) error { return nil })
	if err != nil {
		return nil, err
	}
	slices.SortFunc(kept, compareDrawn)
	kept = kept[:min(n, len(kept))]
	out := make([]schemas.Image, len(kept))
	for i, d := range kept {
		out[i] = d.image
	}
	return out, nil
}

// loader fetches and preprocesses images, several at once.
type loader struct {
	images   *bucket.Bucket
	pre      *imageio.Preprocessor
	workers  chan *imageio.Worker
	rejected int
	first    error // why the first image was rejected
}

func newLoader(images *bucket.Bucket, pre *imageio.Preprocessor) *loader {
	// More than cores, since a fetch waits for the store.
	l := &loader{images: images, pre: pre, workers: make(chan *imageio.Worker, 2*runtime.GOMAXPROCS(0))}
	for range cap(l.workers) {
		l.workers <- pre.NewWorker()
	}
	return l
}

// fill puts candidates into the tensors of dst, in an order that depends on
// nothing but which of them can be used. It returns how many tensors, from the
// first on, it filled, and the candidates that are left.
func (l *loader) fill(ctx context.Context, candidates []schemas.Image, dst []float32) (filled int, rest []schemas.Image, err error) {
	width := l.pre.Len()
	tensor := func(i int) []float32 { return dst[i*width : (i+1)*width] }
	for size := len(dst) / width; filled < size && len(candidates) > 0; {
		batch := candidates[:min(size-filled, len(candidates))]
		candidates = candidates[len(batch):]
		bad := make([]error, len(batch))
		group, running := errgroup.WithContext(ctx)
		group.SetLimit(cap(l.workers))
		for i, img := range batch {
			to := tensor(filled + i)
			group.Go(func() (err error) {
				bad[i], err = l.load(running, img, to)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return 0, nil, err
		}
		start := filled
		for i, reason := range bad {
			if reason != nil {
				l.reject(batch[i], reason)
				continue
			}
			copy(tensor(filled), tensor(start+i))
			filled++
		}
	}
	return filled, candidates, nil
}

func (l *loader) reject(img schemas.Image, reason error) {
	l.rejected++
	if l.first == nil {
		l.first = fmt.Errorf("%s %s: %w", img.Key, img.Member, reason)
	}
}

// load writes an image's tensor. bad says what is wrong with the image, err what
// is wrong with anything else.
func (l *loader) load(ctx context.Context, img schemas.Image, dst []float32) (bad, err error) {
	if limit := l.pre.Spec().Limits.MaxBytes; img.Size > limit {
		return fmt.Errorf("%d bytes are more than preprocess.max_bytes (%d) allows", img.Size, limit), nil
	}
	r, err := l.images.NewReader(ctx, img.Key, img.Offset, img.Size)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data := make([]byte, img.Size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, fmt.Errorf("read %s: %w", img.Key, err)
	}
	w := <-l.workers
	defer func() { l.workers <- w }()
	err = w.Float32(data, dst)
	var unusable *imageio.Error
	if errors.As(err, &unusable) {
		return err, nil
	}
	return nil, err
}
