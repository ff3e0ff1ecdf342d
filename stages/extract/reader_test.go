package extract_test

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"slices"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/schemas"
	"sela/stages/extract"
	"sela/stages/internal/onnx/onnxtest"
	"sela/stages/internal/ort/orttest"
	"sela/stages/internal/runtest"
	"sela/stages/list"
	"sela/stages/model"
)

func designOf(t *testing.T, job *pipeline.Job) *extract.Design {
	t.Helper()
	graph, _, err := model.Load(t.Context(), job.Model.Path)
	if err != nil {
		t.Fatal(err)
	}
	d, err := extract.NewDesign(job, graph)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// reader opens a reader of the run's network.
func reader(t *testing.T, job *pipeline.Job, tensors []string, heads bool) *extract.Reader {
	t.Helper()
	r, err := extract.OpenReader(t.Context(), orttest.Open(t), job, designOf(t, job), tensors, heads, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// everything is what a reader tells of a run's images.
type everything struct {
	heads, tensors [][]float32 // of usable images
	bad            []string
}

func readAll(t *testing.T, r *runtest.Run, from *extract.Reader) everything {
	t.Helper()
	images, err := list.First(t.Context(), r.Images, r.Job.Images, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	all := everything{make([][]float32, len(from.Heads)), make([][]float32, len(from.Shapes)), nil}
	next := 0
	err = from.Read(t.Context(), r.Images, images, func(b *extract.Batch) error {
		if b.First != next || !slices.EqualFunc(b.Images, images[next:next+len(b.Images)], func(a, b schemas.Image) bool { return a.Row == b.Row }) {
			return fmt.Errorf("a batch begins with image %d, want %d", b.First, next)
		}
		next += len(b.Images)
		for i := range b.Images {
			if b.Bad[i] != nil {
				all.bad = append(all.bad, b.Images[i].Key)
				continue
			}
			for h, v := range b.Heads {
				w := len(v) / len(b.Images)
				all.heads[h] = append(all.heads[h], v[i*w:(i+1)*w]...)
			}
			for h, v := range b.Tensors {
				w := len(v) / len(b.Images)
				all.tensors[h] = append(all.tensors[h], v[i*w:(i+1)*w]...)
			}
		}
		return nil
	})
	if err != nil || next != len(images) {
		t.Fatalf("%d of %d images: %v", next, len(images), err)
	}
	return all
}

// TestReaderAgreesWithTheShards reads what a run's extract stage wrote, to the
// bit, with any number of threads, and leaves the same images out.
func TestReaderAgreesWithTheShards(t *testing.T) {
	for _, threads := range []int{1, 3} {
		r := runtest.New(t, runtest.Options{Images: 50, Broken: 3, Job: func(j *pipeline.Job) { j.Runtime.Threads = threads }})
		r.Through(t, r.Run, extract.Name)
		from := reader(t, r.Job, nil, true)
		for range 2 { // it can be used again
			got := readAll(t, r, from)
			if !slices.Equal(got.bad, []string{"img/zz-0.png", "img/zz-1.png", "img/zz-2.png"}) {
				t.Errorf("bad images are %q", got.bad)
			}
			for h := range from.Heads {
				if want := read(t, r.Run, fmt.Sprintf("logprobs/head-%d", h)).values; !slices.Equal(got.heads[h], want) {
					t.Errorf("%d threads: head %d: %d values that are not the %d of the shards", threads, h, len(got.heads[h]), len(want))
				}
			}
		}
	}
}

// TestReaderTensors reads an inner value and the images themselves, normalised
// on the host and on the device.
func TestReaderTensors(t *testing.T) {
	for _, where := range []string{"host", "device"} {
		grey := image.NewGray(image.Rect(0, 0, runtest.Size, runtest.Size))
		for i := range grey.Pix {
			grey.Pix[i] = 51
		}
		grey.SetGray(1, 0, color.Gray{255})
		r := world(t, map[string][]byte{"a.png": encode(t, "png", grey)}, onnxtest.Classifier{Hidden: 5}, func(j *pipeline.Job) {
			j.Preprocess.Normalise, j.Preprocess.Mean, j.Preprocess.Std = where, [3]float64{0.2, 0, 0}, [3]float64{1, 1, 0.5}
		})
		from := reader(t, r.Job, []string{"hidden", "images"}, false)
		if len(from.Heads) != 0 || !slices.Equal(from.Shapes[0], []int{5}) || !slices.Equal(from.Shapes[1], []int{3, runtest.Size, runtest.Size}) {
			t.Fatalf("heads %v, shapes %v", from.Heads, from.Shapes)
		}
		got := readAll(t, r, from)
		pixels, plane := got.tensors[1], runtest.Size*runtest.Size
		near := func(a float32, b float64) bool { return float64(a)-b < 1e-6 && b-float64(a) < 1e-6 }
		if len(pixels) != 3*plane || !near(pixels[0], 0) || !near(pixels[1], 0.8) || !near(pixels[plane], 0.2) || !near(pixels[2*plane], 0.4) {
			t.Errorf("%s: pixels are %v", where, pixels[:2])
		}
		if len(got.tensors[0]) != 5 {
			t.Errorf("%s: %d hidden values", where, len(got.tensors[0]))
		}
	}
}

func TestReaderRefuses(t *testing.T) {
	r := world(t, map[string][]byte{"a.png": pngOf(t, 1)}, onnxtest.Classifier{Hidden: 5}, nil)
	if _, err := designOf(t, r.Job).FindTensors([]string{"", "hiden"}); pipeline.ClassOf(err) != pipeline.Config || !strings.Contains(err.Error(), `"hiden"; similar: hidden`) {
		t.Errorf("a tensor that is not there: %v", err)
	}
	if names, err := designOf(t, r.Job).FindTensors([]string{"", "hidden"}); err != nil || !slices.Equal(names, []string{"hidden", "hidden"}) {
		t.Errorf("found %q, %v", names, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	images, err := list.First(t.Context(), r.Images, r.Job.Images, 10)
	if err != nil {
		t.Fatal(err)
	}
	from := reader(t, r.Job, []string{"hidden"}, false)
	if err := from.Read(ctx, r.Images, images, func(*extract.Batch) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: %v", err)
	}
	enough := errors.New("enough")
	if err := from.Read(t.Context(), r.Images, images, func(*extract.Batch) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("an error of the caller's becomes %v", err)
	}
}

// TestReaderLeavesNaNOut has a network that gives NaN for one image.
func TestReaderLeavesNaNOut(t *testing.T) {
	r := world(t, map[string][]byte{"a.png": pngOf(t, 1), "b.png": black(t), "c.png": pngOf(t, 2)}, onnxtest.Classifier{NaNOnBlack: true}, func(j *pipeline.Job) {
		j.Preprocess.Mean, j.Preprocess.Std = [3]float64{}, [3]float64{1, 1, 1}
	})
	names := designOf(t, r.Job).Outputs
	if got := readAll(t, r, reader(t, r.Job, names, false)); !slices.Equal(got.bad, []string{"b.png"}) || len(got.tensors[0]) != 8 {
		t.Errorf("bad images are %q, %d values", got.bad, len(got.tensors[0]))
	}
}
