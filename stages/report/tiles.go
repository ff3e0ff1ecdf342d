package report

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	"image/draw"
	"image/jpeg"
	"io"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/internal/imageio"
)

// tile is an image that is shown.
type tile struct {
	key, member, sha256 string
	sure, model         float32 // confidence in the label, and the model's own
	class               int32   // −1 where it is not known

	place   *schemas.Image // in the bucket; nil where the listing lacks it
	missing string         // why it cannot be shown; "" where it is
}

// A file of images has them side by side, so many in a row.
const (
	tilesPerRow  = 16
	tilesPerFile = tilesPerRow * tilesPerRow
)

func tilesName(head, file int) string { return fmt.Sprintf("data/tiles-%d-%03d.jpg", head, file) }

func headName(head int) string { return fmt.Sprintf("data/head-%d.js", head) }

// ours tells whether a name is one that some report writes.
func ours(name string) bool {
	var head, file int
	if n, _ := fmt.Sscanf(name, "data/tiles-%d-%d.jpg", &head, &file); n == 2 && name == tilesName(head, file) {
		return true
	}
	n, _ := fmt.Sscanf(name, "data/head-%d.js", &head)
	return n == 1 && name == headName(head)
}

// draw writes the images of all heads.
func (r *reporter) draw(ctx context.Context) error {
	s, err := r.newStudio()
	if err != nil {
		return err
	}
	for _, h := range r.heads {
		for first := 0; first < len(h.tiles); first += tilesPerFile {
			tiles := h.tiles[first:min(first+tilesPerFile, len(h.tiles))]
			sheet, err := s.sheet(ctx, tiles)
			if err != nil {
				return err
			}
			if err := r.put(ctx, tilesName(h.number, first/tilesPerFile), sheet); err != nil {
				return err
			}
			for _, t := range tiles {
				if t.missing == "" {
					r.summary.Images++
				} else {
					r.summary.Missing++
				}
			}
		}
	}
	return nil
}

// locate finds where the bytes of the chosen images lie, which the listing
// tells and the label tables do not.
func (r *reporter) locate(ctx context.Context) error {
	type name struct{ key, member string }
	wanted := map[name][]*tile{}
	for _, h := range r.heads {
		for _, t := range h.tiles {
			n := name{t.key, t.member}
			wanted[n] = append(wanted[n], t)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	return r.shards.Listing.Read(ctx, 0, r.shards.Listing.Images, func(img schemas.Image) error {
		for _, t := range wanted[name{img.Key, img.Member}] {
			t.place = &schemas.Image{Key: t.key, Member: t.member, Size: img.Size, Offset: img.Offset}
		}
		return nil
	})
}

// Bounds of the reading of images: bytes held at a time, requests under way at a
// time, and failures of the store, one after the other, after which it is left
// alone.
const (
	maxHeld     = 64 << 20
	maxRequests = 64
	maxFailures = 32
)

// studio fetches images and draws them small. It is safe for concurrent use.
type studio struct {
	images   *bucket.Bucket
	side     int
	quality  int
	maxBytes int64
	held     *semaphore.Weighted
	painters chan *imageio.Worker
	failures atomic.Int32
}

func (r *reporter) newStudio() (*studio, error) {
	p := r.Run.Job.Preprocess
	spec := imageio.Spec{
		Decode: imageio.Scaled, Orientation: imageio.Orientation(p.Orientation),
		Resize: imageio.Resize{Shorter: r.side}, Crop: imageio.Size{Height: r.side, Width: r.side},
		Layout: imageio.NHWC, DType: imageio.Uint8,
		Limits: imageio.Limits{MaxBytes: min(int64(p.MaxBytes), maxHeld), MaxPixels: p.MaxPixels},
	}
	pre, err := imageio.New(spec)
	if err != nil { // without libjpeg-turbo nothing is decoded at a fraction of its size
		spec.Decode = imageio.Exact
		pre, err = imageio.New(spec)
	}
	if err != nil {
		return nil, err
	}
	total := 0
	for _, h := range r.heads {
		total += len(h.tiles)
	}
	s := &studio{images: r.Images, side: r.side, quality: gradeOf(total).quality, maxBytes: spec.Limits.MaxBytes,
		held: semaphore.NewWeighted(maxHeld), painters: make(chan *imageio.Worker, runtime.GOMAXPROCS(0))}
	for range cap(s.painters) {
		s.painters <- pre.NewWorker()
	}
	return s, nil
}

// background is what a missing image leaves, in both colour schemes.
var background = image.Gray{Pix: []uint8{0x80}, Stride: 1, Rect: image.Rect(0, 0, 1, 1)}

// sheet draws tiles side by side and returns the JPEG. It fails only with the
// context.
func (s *studio) sheet(ctx context.Context, tiles []*tile) ([]byte, error) {
	rows := (len(tiles) + tilesPerRow - 1) / tilesPerRow
	img := image.NewRGBA(image.Rect(0, 0, tilesPerRow*s.side, rows*s.side))
	draw.Draw(img, img.Rect, image.NewUniform(background.GrayAt(0, 0)), image.Point{}, draw.Src)
	group, running := errgroup.WithContext(ctx)
	group.SetLimit(maxRequests)
	for i, t := range tiles {
		group.Go(func() error {
			corner := image.Pt(i%tilesPerRow*s.side, i/tilesPerRow*s.side)
			t.missing = s.paint(running, t, img, corner)
			return running.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return nil, cmp.Or(ctx.Err(), err)
	}
	var b bytes.Buffer
	err := jpeg.Encode(&b, img, &jpeg.Options{Quality: s.quality})
	return b.Bytes(), err
}

// paint draws a tile, or says why it cannot.
func (s *studio) paint(ctx context.Context, t *tile, img *image.RGBA, corner image.Point) (missing string) {
	switch {
	case t.place == nil:
		return "it is not in the run's listing"
	case t.place.Size > s.maxBytes:
		return fmt.Sprintf("its %d bytes are too many for a report", t.place.Size)
	case s.failures.Load() >= maxFailures:
		return "the images' store does not answer"
	}
	if s.held.Acquire(ctx, t.place.Size) != nil {
		return "interrupted"
	}
	defer s.held.Release(t.place.Size)
	data := make([]byte, t.place.Size)
	if err := s.images.ReadRange(ctx, t.place.Key, t.place.Offset, data); err != nil {
		switch {
		case errors.Is(err, bucket.ErrNotFound):
			return "it is gone"
		case errors.Is(err, io.ErrUnexpectedEOF):
			return "it has changed since it was labelled"
		}
		s.failures.Add(1)
		return "it cannot be read any more"
	}
	s.failures.Store(0)
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != t.sha256 {
		return "it has changed since it was labelled"
	}
	painter := <-s.painters
	defer func() { s.painters <- painter }()
	pixels := make([]byte, 3*s.side*s.side)
	if err := painter.Uint8(data, pixels); err != nil {
		return "it cannot be decoded"
	}
	for y := range s.side {
		line := img.Pix[img.PixOffset(corner.X, corner.Y+y):]
		for x := range s.side {
			from := pixels[3*(y*s.side+x):]
			line[4*x], line[4*x+1], line[4*x+2] = from[0], from[1], from[2]
		}
	}
	return ""
}
