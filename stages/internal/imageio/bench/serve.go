//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/image/bmp"
	"golang.org/x/sys/unix"

	"sela/stages/internal/imageio"
	"sela/stages/internal/imageio/resample"
)

// serveFlag makes this program a candidate.
const serveFlag = "serve"

// request is a request to a candidate of ours: peers.py says what they mean.
type request struct {
	Do      string
	Folder  string
	Shorter int
	Crop    int
	Filter  imageio.Filter
	Order   imageio.Order
	Mean    [3]float32
	Std     [3]float32
	To      string
	Images  []int
}

// server is the other end of a candidate that is ours.
type server struct {
	decode imageio.Decode
	files  [][]byte
	open   request // the last of its kind

	tensor, pixels *imageio.Worker
	resizer        resample.Resizer
	scaled         []byte
	out            []float32
}

// serve answers requests until they end.
func serve(decode imageio.Decode, in io.Reader, out io.Writer) error {
	runtime.LockOSThread() // for the thread's clock
	defer runtime.UnlockOSThread()
	s := &server{decode: decode}
	requests, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var r request
		if err := requests.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		a, err := s.answer(&r)
		if err != nil {
			a = &answer{Error: err.Error()}
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
}

func (s *server) answer(r *request) (*answer, error) {
	switch r.Do {
	case "hello":
		return &answer{Package: "this, " + jpegName()}, nil
	case "open":
		return new(answer), s.configure(r)
	case "pixels":
		return s.writePixels(r.To)
	case "round":
		return s.round(r.Images)
	case "machine":
		return &answer{Copy: copyRate(), Multiply: multiplyRate()}, nil
	}
	return nil, fmt.Errorf("cannot %q", r.Do)
}

// jpegName is the JPEG decoder's name in a fingerprint's text.
func jpegName() string {
	for line := range strings.Lines(imageio.Spec{}.Canonical()) {
		if name, ok := strings.CutPrefix(line, "jpeg "); ok {
			return strings.TrimSpace(name)
		}
	}
	return "unknown JPEG decoder"
}

func (s *server) configure(r *request) error {
	s.open = *r
	spec := imageio.Spec{
		Decode: s.decode, Resize: imageio.Resize{Shorter: r.Shorter}, Crop: imageio.Size{Height: r.Crop, Width: r.Crop},
		Filter: r.Filter, Order: r.Order,
	}
	asBytes := spec
	asBytes.DType, asBytes.Layout = imageio.Uint8, imageio.NHWC
	spec.Mean, spec.Std = r.Mean, r.Std
	tensor, err := imageio.New(spec)
	if err != nil {
		return err
	}
	pixels, err := imageio.New(asBytes)
	if err != nil {
		return err
	}
	s.tensor, s.pixels = tensor.NewWorker(), pixels.NewWorker()
	s.out, s.scaled = make([]float32, spec.Len()), make([]byte, spec.Len())
	return s.read(r.Folder)
}

// read replaces the files by those of a folder.
func (s *server) read(folder string) error {
	for _, data := range s.files {
		if err := unix.Munmap(data); err != nil {
			return err
		}
	}
	s.files = nil
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err == nil {
			data, err = outside(data)
		}
		if err != nil {
			return err
		}
		s.files = append(s.files, data)
	}
	return nil
}

// outside returns a copy outside Go's heap: so many megabytes there
// would have the collector run less often than it does in a job.
func outside(data []byte) ([]byte, error) {
	m, err := unix.Mmap(-1, 0, len(data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("memory for an image of %d bytes: %w", len(data), err)
	}
	copy(m, data)
	return m, nil
}

func (s *server) writePixels(to string) (*answer, error) {
	a := &answer{Failed: map[int]string{}}
	var all []byte
	pix := make([]byte, len(s.out))
	for i, data := range s.files {
		if err := s.pixels.Uint8(data, pix); err != nil {
			a.Failed[i] = err.Error()
			clear(pix)
		}
		all = append(all, pix...)
	}
	return a, os.WriteFile(to, all, 0o666)
}

// round times the images whole, then resize and normalise by themselves.
func (s *server) round(images []int) (*answer, error) {
	a := new(answer)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	var err error
	a.Seconds, err = timed(func() error {
		for _, i := range images {
			if err := s.tensor.Float32(s.files[i], s.out); err != nil {
				return fmt.Errorf("image %d: %w", i, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	a.Wall = time.Since(start).Seconds()
	runtime.ReadMemStats(&after)
	a.Bytes, a.Objects = float64(after.TotalAlloc-before.TotalAlloc), float64(after.Mallocs-before.Mallocs)
	if s.decode != imageio.Exact {
		return a, nil // decodes fewer pixels, of which it does not say how many
	}
	a.Steps = new(steps)
	if a.Steps.Resize, err = s.resizing(images); err != nil {
		return nil, err
	}
	if a.Steps.Normalise, err = s.normalising(len(images)); err != nil {
		return nil, err
	}
	a.Steps.Decode = a.Seconds - a.Steps.Resize - a.Steps.Normalise
	return a, nil
}

// resizing times resize and crop right after each image's decoding, when its
// pixels are as near as they are in a job.
func (s *server) resizing(images []int) (float64, error) {
	var spent time.Duration
	for _, i := range images {
		m, err := s.tensor.Decode(s.files[i])
		if err != nil {
			return 0, fmt.Errorf("image %d: %w", i, err)
		}
		z := scaling(m.Width, m.Height, &s.open)
		if z.From == z.Keep.Size() {
			continue
		}
		start, err := coreTime(unix.CLOCK_THREAD_CPUTIME_ID)
		if err != nil {
			return 0, err
		}
		s.resizer.Resize(s.scaled, 3*s.open.Crop, m.Pix, 3*m.Width, z)
		end, err := coreTime(unix.CLOCK_THREAD_CPUTIME_ID)
		if err != nil {
			return 0, err
		}
		spent += end - start
	}
	return spent.Seconds(), nil
}

// scaling is torchvision's Resize(shorter) and CenterCrop(crop) of an image
// that is no smaller than the crop.
func scaling(width, height int, r *request) resample.Scaling {
	to := image.Pt(width, height)
	switch {
	case r.Shorter == 0:
	case width <= height:
		to = image.Pt(r.Shorter, r.Shorter*height/width)
	default:
		to = image.Pt(r.Shorter*width/height, r.Shorter)
	}
	left, top := math.RoundToEven(float64(to.X-r.Crop)/2), math.RoundToEven(float64(to.Y-r.Crop)/2)
	return resample.Scaling{
		From: image.Pt(width, height), To: to, Keep: image.Rect(0, 0, r.Crop, r.Crop).Add(image.Pt(int(left), int(top))),
		Filter: r.Filter, Order: r.Order,
	}
}

// normalising times n tensors of a picture of one pixel, which the crop pads
// with black, less that pixel's decoding: what is left over besides, filling
// with black, is a small share.
func (s *server) normalising(n int) (float64, error) {
	var pixel bytes.Buffer
	if err := bmp.Encode(&pixel, image.NewRGBA(image.Rect(0, 0, 1, 1))); err != nil {
		return 0, err
	}
	p, err := imageio.New(imageio.Spec{Crop: imageio.Size{Height: s.open.Crop, Width: s.open.Crop}, Mean: s.open.Mean, Std: s.open.Std})
	if err != nil {
		return 0, err
	}
	w := p.NewWorker()
	whole := func() error { return w.Float32(pixel.Bytes(), s.out) }
	if err := whole(); err != nil { // takes its memory
		return 0, err
	}
	all, err := timed(repeated(n, whole))
	if err != nil {
		return 0, err
	}
	decoding, err := timed(repeated(n, func() error {
		_, err := w.Decode(pixel.Bytes())
		return err
	}))
	return all - decoding, err
}

func repeated(n int, f func() error) func() error {
	return func() error {
		for range n {
			if err := f(); err != nil {
				return err
			}
		}
		return nil
	}
}

// timed returns the seconds of the core's time that f takes.
func timed(f func() error) (float64, error) {
	start, err := coreTime(unix.CLOCK_PROCESS_CPUTIME_ID)
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	end, err := coreTime(unix.CLOCK_PROCESS_CPUTIME_ID)
	return (end - start).Seconds(), err
}

// coreTime is the core's time that this process or thread has had.
func coreTime(clock int32) (time.Duration, error) {
	var t unix.Timespec
	err := unix.ClockGettime(clock, &t)
	return time.Duration(t.Nano()), err
}
