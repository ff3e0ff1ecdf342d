package builtin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"image"
	"runtime"
	"slices"
	"sync"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/internal/imageio"
	"sela/stages/internal/imageio/augment"
	"sela/stages/internal/onnx/grad"
)

// LoaderOptions say how images become batches.
type LoaderOptions struct {
	Batch   int     // images of a step
	Seed    uint64  // of everything that is drawn
	HeldOut float64 // share of the images that are not trained on, [0, 1)
	// Preprocess is what the labels' model does to an image; the network's input
	// is like that one's: float32 of the spec's size.
	Preprocess imageio.Spec
	// Augment varies training images. Its size is Preprocess's, or zero: then the
	// image that is varied is the preprocessed one.
	Augment augment.Spec
	// Rotations turns each training image by 0 to 3 quarter turns, drawn anew in
	// each epoch, and labels it with their number in one more head.
	Rotations bool
	Masks     []grad.Mask // of Dropouts; their first dimension is the batch

	Workers int // goroutines that decode; 0 means the number of processors
	// CacheBytes bounds the file in the folder CacheDir and MemoryBytes the
	// memory that hold images after they were first read. An empty CacheDir is
	// none.
	CacheDir                string
	CacheBytes, MemoryBytes int64
	Requests                int     // to a remote bucket under way at once; 0 means 256
	ReadAhead               int64   // bytes that they bring in and nobody has decoded; 0 means 64 MiB
	MaxRejected             float64 // a larger share of images that cannot be used is an error
}

// Slot is room for one batch of B = len(Weights) images. Its memory is its
// maker's, such as the tensors of a step's inputs: it is filled, never replaced.
type Slot struct {
	Step    int       // of the epoch, from 0
	Images  []float32 // [B, 3, height, width] or [B, height, width, 3]
	Labels  []int64   // [T, B], with rotations [T+1, B]; nil with targets
	Targets []float32 // [B, K], 0 or 1; nil without targets
	// Weights are 1 for images and 0 for padding and for images that cannot be
	// used, which are black.
	Weights []float32
	Masks   [][]float32 // by mask of the options, each [B, …]; nil for held-out images
	Rows    []int64     // row numbers, -1 for padding of held-out images
}

// Rejection is an image that cannot be used.
type Rejection struct {
	Row         int64
	Key, Member string
	Reason      string
}

// Loader turns labelled images into batches. Every batch is a function of the
// options, the epoch and the step: not of the workers, the cache or of what was
// loaded before. [Loader.Run] and [Loader.HeldOut] must not run at the same
// time; the other methods may be called at any time.
type Loader struct {
	o           LoaderOptions
	images      *bucket.Bucket
	labels      *Labels
	plain       *imageio.Preprocessor // to bytes
	size        image.Point           // of a tensor
	values      *[3][256]float32      // of samples
	black       []byte                // a black image's samples
	limit       int64                 // bytes of an encoded image
	train, held []uint32              // indices
	order       []uint32              // of train in the epoch at hand
	cache       *cache
	share       int // bytes of the cache for each image

	mu       sync.Mutex
	rejected map[int]struct{}
	first    []Rejection // by row
}

// NewLoader checks the options and splits the images. What is wrong with the
// options is an error of class Config. The bucket stays the caller's.
func NewLoader(images *bucket.Bucket, labels *Labels, o LoaderOptions) (*Loader, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	o.Requests, o.ReadAhead = cmp.Or(o.Requests, 256), cmp.Or(o.ReadAhead, 64<<20)
	l := &Loader{o: o, images: images, labels: labels, rejected: map[int]struct{}{}}
	if err := l.prepare(); err != nil {
		return nil, pipeline.BadConfig(fmt.Errorf("training data: %w", err))
	}
	l.train, l.held = labels.split(o.HeldOut)
	if len(l.train) == 0 {
		return nil, pipeline.BadConfig(fmt.Errorf("training data: all of %d images are held out: lower the share", len(l.held)))
	}
	var err error
	l.cache, err = newCache(labels.Len(), o.MemoryBytes, o.CacheDir, o.CacheBytes)
	if err == nil {
		l.share = int(l.cache.room() / int64(labels.Len()))
	}
	return l, err
}

func (l *Loader) prepare() error {
	o := &l.o
	switch {
	case o.Batch < 1:
		return fmt.Errorf("a batch has %d images", o.Batch)
	case !(o.HeldOut >= 0 && o.HeldOut < 1):
		return fmt.Errorf("%v of the images are held out: want 0 or more, and less than 1", o.HeldOut)
	case o.Preprocess.DType != imageio.Float32 && o.Preprocess.DType != "":
		return fmt.Errorf("the network's input is %s: only float32 is trained", o.Preprocess.DType)
	case o.Rotations && l.labels.Classes != nil:
		return errors.New("rotations need labels of clusters, not of classes")
	}
	normal, err := imageio.New(o.Preprocess)
	if err != nil {
		return err
	}
	o.Preprocess = normal.Spec()
	spec := o.Preprocess
	l.values, l.limit = normalised(spec.Mean, spec.Std), spec.Limits.MaxBytes
	l.size = image.Pt(spec.Size().Width, spec.Size().Height)
	spec.DType, spec.Layout, spec.Mean, spec.Std = imageio.Uint8, imageio.NHWC, [3]float32{}, [3]float32{}
	if l.plain, err = imageio.New(spec); err != nil {
		return err
	}
	l.black = make([]byte, l.plain.Len())
	if err := o.Augment.Validate(); err != nil {
		return err
	}
	if a := o.Augment.Size; a != (image.Point{}) && a != l.size {
		return fmt.Errorf("images are cut to %d×%d pixels, the network takes %d×%d", a.X, a.Y, l.size.X, l.size.Y)
	}
	if o.Rotations && l.size.X != l.size.Y {
		return fmt.Errorf("images of %d×%d pixels cannot be turned by quarter turns: they must be square", l.size.X, l.size.Y)
	}
	for _, m := range o.Masks {
		if len(m.Dims) == 0 || m.Dims[0] != int64(o.Batch) || !(m.Ratio >= 0 && m.Ratio < 1) {
			return fmt.Errorf("mask %s of ratio %v has the shape %v: want a batch of %d, and a ratio below 1", m.Input, m.Ratio, m.Dims, o.Batch)
		}
	}
	return nil
}

// Close gives the cache's room back. Nothing may be under way.
func (l *Loader) Close() error { return l.cache.close() }

// Steps returns the number of steps of an epoch.
func (l *Loader) Steps() int { return (len(l.train) + l.o.Batch - 1) / l.o.Batch }

// Images returns how many images are trained on and how many are held out.
func (l *Loader) Images() (training, heldOut int64) { return int64(len(l.train)), int64(len(l.held)) }

// Rejected returns how many images could not be used so far.
func (l *Loader) Rejected() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.rejected))
}

// Rejections returns those of them with the smallest row numbers, at most 20.
func (l *Loader) Rejections() []Rejection {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.first)
}

const maxRejections = 20

// reject notes an image that cannot be used.
func (l *Loader) reject(i int, reason string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.rejected[i]; ok {
		return nil
	}
	l.rejected[i] = struct{}{}
	img := l.labels.Image(i)
	r := Rejection{img.Row, img.Key, img.Member, reason}
	at, _ := slices.BinarySearchFunc(l.first, r, func(a, b Rejection) int { return cmp.Compare(a.Row, b.Row) })
	if l.first = slices.Insert(l.first, at, r); len(l.first) > maxRejections {
		l.first = l.first[:maxRejections]
	}
	if n, all := len(l.rejected), l.labels.Len(); float64(n) > l.o.MaxRejected*float64(all) {
		return pipeline.BadData(fmt.Errorf("%d of %d images cannot be used for training, more than the share %v that is allowed; the first: row %d, %q %q: %s: mend the images, or label them anew",
			n, all, l.o.MaxRejected, l.first[0].Row, l.first[0].Key, l.first[0].Member, l.first[0].Reason))
	}
	return nil
}

func (l *Loader) isRejected(i int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.rejected[i]
	return ok
}

// Run fills slots of [LoaderOptions].Batch images with the steps of an epoch, in
// order from fromStep on: it takes them from free, which nobody may close, and
// sends them on ready, which it does not close. Step s has the images s·B to
// (s+1)·B of the epoch's order; the last is filled up with the first images of
// that order, at weight 0, so that all steps have one shape and
// BatchNormalization sees images.
//
// It returns when all steps are sent, at an error, or when ctx ends. Then nobody
// touches a slot any more; after an error those that were taken do not come
// back. Errors are those of the store, or of class Data where more images than
// allowed cannot be used.
func (l *Loader) Run(ctx context.Context, epoch, fromStep int, free <-chan *Slot, ready chan<- *Slot) error {
	l.order = append(l.order[:0], l.train...)
	shuffle(l.order, l.o.Seed, epoch)
	n := len(l.order)
	p := pass{epoch: epoch, step: fromStep, from: fromStep * l.o.Batch, to: l.Steps() * l.o.Batch, at: func(pos int) (int, float32) {
		if pos < n {
			return int(l.order[pos]), 1
		}
		return int(l.order[pos%n]), 0
	}}
	if err := l.run(ctx, &p, free, ready); err != nil {
		return fmt.Errorf("load epoch %d: %w", epoch, err)
	}
	return nil
}

// HeldOut fills slots with the held-out images in the order of the table, as the
// labels' model saw them, and sends them on ready, which it does not close. A
// slot may have any number of images; the last is filled up with black ones of
// row -1 at weight 0. Masks and the labels of rotations are left alone. Ending
// and errors are as [Loader.Run]'s.
func (l *Loader) HeldOut(ctx context.Context, free <-chan *Slot, ready chan<- *Slot) error {
	p := pass{evaluate: true, to: len(l.held), at: func(pos int) (int, float32) { return int(l.held[pos]), 1 }}
	if err := l.run(ctx, &p, free, ready); err != nil {
		return fmt.Errorf("load held-out images: %w", err)
	}
	return nil
}
