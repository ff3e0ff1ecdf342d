package builtin

import (
	"context"
	"fmt"
	"hash/fnv"
	"image"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"sela/stages/internal/imageio"
	"sela/stages/internal/imageio/augment"
	"sela/stages/internal/onnx/grad"
)

// side is that of the tensors in these tests.
const side = 12

// options vary images in every way.
func options() LoaderOptions {
	return LoaderOptions{
		Batch: 8, Seed: 3, HeldOut: 0.2, Rotations: true, Workers: 3, MemoryBytes: 1 << 20, MaxRejected: 0.1,
		Preprocess: imageio.Spec{Resize: imageio.Resize{Shorter: side + 2}, Crop: imageio.Size{Height: side, Width: side},
			Mean: [3]float32{0.5, 0.4, 0.3}, Std: [3]float32{0.2, 0.3, 0.4}},
		Augment: augment.Spec{Size: image.Pt(side, side), Gray: 0.2, Brightness: 0.4, Contrast: 0.4, Saturation: 0.4, Hue: 0.1, Flip: 0.5, Rotate: 5},
		Masks:   []grad.Mask{{Dims: []int64{8, 5}, Ratio: 0.5}, {Dims: []int64{8, 2, 2}, Ratio: 0.1}},
	}
}

func newLoader(t testing.TB, d *dataSet, l *Labels, o LoaderOptions) *Loader {
	t.Helper()
	loader, err := NewLoader(d.images, l, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := loader.Close(); err != nil {
			t.Error(err)
		}
	})
	return loader
}

// newSlot makes a slot whose memory is full of what must not remain.
func newSlot(l *Loader, batch int) *Slot {
	s := &Slot{Images: make([]float32, batch*len(l.black)), Weights: make([]float32, batch), Rows: make([]int64, batch)}
	if n := len(l.labels.Classes); n > 0 {
		s.Targets = make([]float32, n*batch)
	} else {
		s.Labels = make([]int64, (len(l.labels.Heads)+1)*batch)
	}
	for _, m := range l.o.Masks {
		n := int64(1)
		for _, d := range m.Dims {
			n *= d
		}
		s.Masks = append(s.Masks, make([]float32, n))
	}
	for _, f := range append([][]float32{s.Images, s.Weights, s.Targets}, s.Masks...) {
		for i := range f {
			f[i] = float32(math.NaN())
		}
	}
	for i := range s.Labels {
		s.Labels[i] = -7
	}
	return s
}

// drain runs a loader on three slots and gives each to use, in order.
func drain(t testing.TB, l *Loader, batch int, run func(ctx context.Context, free <-chan *Slot, ready chan<- *Slot) error, use func(*Slot)) error {
	t.Helper()
	free, ready, ended := make(chan *Slot, 3), make(chan *Slot, 3), make(chan error, 1)
	for range 3 {
		free <- newSlot(l, batch)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	go func() {
		err := run(ctx, free, ready)
		close(ready)
		ended <- err
	}()
	for s := range ready {
		use(s)
		free <- s
	}
	return <-ended
}

func (s *Slot) digest() string {
	h := fnv.New64a()
	fmt.Fprint(h, s.Step, s.Labels, s.Weights, s.Rows, s.Targets, s.Masks)
	for _, x := range s.Images {
		fmt.Fprintf(h, "%08x", math.Float32bits(x))
	}
	return fmt.Sprintf("%x", h.Sum64())
}

// epochOf returns what each batch of an epoch holds.
func epochOf(t testing.TB, l *Loader, epoch, from int) (out []string) {
	t.Helper()
	err := drain(t, l, l.o.Batch, func(ctx context.Context, free <-chan *Slot, ready chan<- *Slot) error {
		return l.Run(ctx, epoch, from, free, ready)
	}, func(s *Slot) { out = append(out, s.digest()) })
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestBatches compares every batch with what its definition says.
func TestBatches(t *testing.T) {
	clusters := []int{5, 40}
	d := newDataSet(t, true, 20, 10)
	labels := d.labelled(t, clusters...)
	for _, whole := range []bool{false, true} {
		o := options()
		if whole {
			o.Augment.Size = image.Point{}
			o.Preprocess.Layout = imageio.NHWC
		}
		l := newLoader(t, d, labels, o)
		decoder, err := imageio.New(l.plain.Spec())
		if err != nil {
			t.Fatal(err)
		}
		decode := decoder.NewWorker()
		vary, err := o.Augment.NewWorker()
		if err != nil {
			t.Fatal(err)
		}
		for epoch := range 2 {
			seen := map[int64]bool{}
			var first []int64
			turned := [4]int{}
			steps := 0
			err := drain(t, l, o.Batch, func(ctx context.Context, free <-chan *Slot, ready chan<- *Slot) error {
				return l.Run(ctx, epoch, 0, free, ready)
			}, func(s *Slot) {
				if s.Step != steps {
					t.Fatalf("step %d after %d", s.Step, steps-1)
				}
				steps++
				for b := range o.Batch {
					row := s.Rows[b]
					img := d.listed[row]
					if heldOut(img.Key, img.Member, o.HeldOut) {
						t.Fatalf("row %d is trained on", row)
					}
					if s.Weights[b] == 1 {
						if seen[row] {
							t.Fatalf("row %d comes twice", row)
						}
						seen[row] = true
						first = append(first, row)
					} else if pad := s.Step*o.Batch + b - len(first); s.Step != l.Steps()-1 || row != first[pad] {
						t.Fatalf("step %d has row %d as padding", s.Step, row)
					}
					for h, k := range clusters {
						if got := s.Labels[h*o.Batch+b]; got != int64(labelOf(row, h, k)) {
							t.Fatalf("row %d has label %d in head %d", row, got, h)
						}
					}
					turns := s.Labels[2*o.Batch+b]
					turned[turns]++

					m, err := decode.Decode(d.files[img.Key+img.Member])
					if err != nil {
						t.Fatal(err)
					}
					pix, width, height := m.Pix, m.Width, m.Height
					if whole {
						pix, width, height = make([]byte, 3*side*side), side, side
						if err := decode.Uint8(d.files[img.Key+img.Member], pix); err != nil {
							t.Fatal(err)
						}
					}
					varied, want := make([]byte, 3*side*side), make([]byte, 3*side*side)
					choices := o.Augment.Draw(augment.Key{Seed: o.Seed, Epoch: uint32(epoch), Row: uint64(row)}, width, height)
					if err := vary.Apply(varied, pix, width, height, choices); err != nil {
						t.Fatal(err)
					}
					augment.QuarterTurns(want, varied, side, side, int(turns))
					got := s.Images[3*side*side*b:][:3*side*side]
					for p := range side * side {
						for c := range 3 {
							x := (float32(want[3*p+c])/255 - o.Preprocess.Mean[c]) / o.Preprocess.Std[c]
							at := c*side*side + p
							if whole {
								at = 3*p + c
							}
							if math.Abs(float64(got[at]-x)) > 1e-6 {
								t.Fatalf("row %d, pixel %d, channel %d: %v, want %v", row, p, c, got[at], x)
							}
						}
					}
				}
				for m, mask := range s.Masks {
					n := len(mask) / o.Batch
					want := make([]float32, n)
					for b, row := range s.Rows {
						var d draws
						d.begin(forMask, o.Seed, epoch, row, m)
						d.mask(want, o.Masks[m].Ratio)
						if got := mask[b*n : (b+1)*n]; !slices.Equal(got, want) {
							t.Fatalf("row %d has mask %v, want %v", row, got, want)
						}
					}
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			train, held := l.Images()
			if steps != l.Steps() || int64(len(seen)) != train || train+held != int64(labels.Len()) || held == 0 {
				t.Errorf("%d steps, %d images of %d, %d held out", steps, len(seen), train, held)
			}
			if slices.Contains(turned[:], 0) {
				t.Errorf("turns %v", turned)
			}
		}
	}
}

// TestSameForAnyWorkers loads an epoch in all kinds of ways: the same bits.
func TestSameForAnyWorkers(t *testing.T) {
	var want []string
	for _, local := range []bool{true, false} {
		d := newDataSet(t, local, 20, 10)
		labels := d.labelled(t, 5, 40)
		for name, change := range map[string]func(*LoaderOptions){
			"one worker":       func(o *LoaderOptions) { o.Workers = 1 },
			"eight workers":    func(o *LoaderOptions) { o.Workers = 8 },
			"no cache":         func(o *LoaderOptions) { o.MemoryBytes = 0 },
			"a little memory":  func(o *LoaderOptions) { o.MemoryBytes = 20_000 },
			"a little disk":    func(o *LoaderOptions) { o.MemoryBytes, o.CacheDir, o.CacheBytes = 0, t.TempDir(), 20_000 },
			"no pixels kept":   func(o *LoaderOptions) { o.MemoryBytes = 300 * 40 },
			"one request":      func(o *LoaderOptions) { o.Requests = 1 },
			"small read-ahead": func(o *LoaderOptions) { o.ReadAhead = 100 },
		} {
			o := options()
			change(&o)
			l := newLoader(t, d, labels, o)
			var got []string
			for epoch := range 3 {
				got = append(got, epochOf(t, l, epoch, 0)...)
			}
			if want == nil {
				want = got
			}
			if !slices.Equal(got, want) {
				t.Errorf("local %v, %s: other batches", local, name)
			}
		}
	}
	if distinct := slices.Compact(slices.Sorted(slices.Values(want))); len(distinct) != len(want) {
		t.Errorf("%d batches, %d of them different", len(want), len(distinct))
	}
}

// TestResume begins an epoch at each of its steps, in a new loader.
func TestResume(t *testing.T) {
	d := newDataSet(t, false, 20, 10)
	labels := d.labelled(t, 5)
	whole := newLoader(t, d, labels, options())
	epochOf(t, whole, 0, 0)
	want := epochOf(t, whole, 1, 0)
	for step := range len(want) + 1 {
		if got := epochOf(t, newLoader(t, d, labels, options()), 1, step); !slices.Equal(got, want[step:]) {
			t.Errorf("from step %d: other batches", step)
		}
	}
}

// TestHeldOutBatches compares held-out images with the labels' preprocessing,
// in slots of another size than that of the steps.
func TestHeldOutBatches(t *testing.T) {
	d := newDataSet(t, false, 20, 20)
	labels := d.labelled(t, 5, 40)
	l := newLoader(t, d, labels, options())
	p, err := imageio.New(l.o.Preprocess)
	if err != nil {
		t.Fatal(err)
	}
	w := p.NewWorker()
	want := make([]float32, p.Len())
	for range 2 {
		var rows []int64
		padding := 0
		err := drain(t, l, 5, l.HeldOut, func(s *Slot) {
			for b, row := range s.Rows {
				got := s.Images[b*p.Len():][:p.Len()]
				if row < 0 {
					padding++
					if s.Weights[b] != 0 || s.Labels[b] != 0 || got[0] != (0-l.o.Preprocess.Mean[0])/l.o.Preprocess.Std[0] {
						t.Errorf("padding has weight %v, label %d, pixel %v", s.Weights[b], s.Labels[b], got[0])
					}
					continue
				}
				rows = append(rows, row)
				img := d.listed[row]
				if err := w.Float32(d.files[img.Key+img.Member], want); err != nil {
					t.Fatal(err)
				}
				if s.Weights[b] != 1 || s.Labels[5+b] != int64(labelOf(row, 1, 40)) || !slices.Equal(got, want) {
					t.Errorf("row %d: weight %v, label %d, or other pixels", row, s.Weights[b], s.Labels[5+b])
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, held := l.Images(); int64(len(rows)) != held || !slices.IsSorted(rows) || padding >= 5 {
			t.Errorf("rows %v of %d, %d of padding", rows, held, padding)
		}
	}
}

func TestTargetBatches(t *testing.T) {
	d := newDataSet(t, true, 10, 0)
	var table strings.Builder
	table.WriteString("key,member,odd,even,all\n")
	for i := range 10 {
		fmt.Fprintf(&table, "a/%03d.png,,%d,%d,1\n", i, i%2, 1-i%2)
	}
	labels, err := ReadTargets(context.Background(), strings.NewReader(table.String()), "t", d.listing())
	if err != nil {
		t.Fatal(err)
	}
	o := options()
	o.Rotations = false
	l := newLoader(t, d, labels, o)
	images := 0
	use := func(s *Slot) {
		for b, row := range s.Rows {
			want := []float32{0, 0, 0}
			if row >= 0 {
				want = []float32{float32(row % 2), float32(1 - row%2), 1}
				images++
			}
			if got := s.Targets[3*b : 3*b+3]; !slices.Equal(got, want) {
				t.Errorf("row %d has targets %v", row, got)
			}
		}
	}
	err = drain(t, l, o.Batch, func(ctx context.Context, free <-chan *Slot, ready chan<- *Slot) error {
		return l.Run(ctx, 0, 0, free, ready)
	}, use)
	if err == nil {
		err = drain(t, l, 4, l.HeldOut, use)
	}
	if err != nil || images < 10 {
		t.Errorf("%d images, %v", images, err)
	}
	o.Rotations = true
	if _, err := NewLoader(d.images, labels, o); err == nil || !strings.Contains(err.Error(), "rotations") {
		t.Error(err)
	}
}

func TestLoaderOptions(t *testing.T) {
	d := newDataSet(t, true, 3, 0)
	labels := d.labelled(t, 3)
	for _, c := range []struct {
		change func(o *LoaderOptions)
		want   string
	}{
		{func(o *LoaderOptions) { o.Batch = 0 }, "0 images"},
		{func(o *LoaderOptions) { o.HeldOut = 1 }, "1 of the images are held out"},
		{func(o *LoaderOptions) { o.HeldOut = math.NaN() }, "NaN"},
		{func(o *LoaderOptions) { o.HeldOut = 0.999999 }, "all of 3 images are held out"},
		{func(o *LoaderOptions) { o.Preprocess.DType = imageio.Float16 }, "float16"},
		{func(o *LoaderOptions) { o.Preprocess.Filter = "x" }, "filter"},
		{func(o *LoaderOptions) { o.Augment.Gray = 2 }, "gray"},
		{func(o *LoaderOptions) { o.Augment.Size = image.Pt(5, 5) }, "5×5"},
		{func(o *LoaderOptions) { o.Preprocess.Crop.Width++; o.Augment.Size.X++ }, "square"},
		{func(o *LoaderOptions) { o.Masks[0].Dims[0] = 7 }, "batch of 8"},
		{func(o *LoaderOptions) { o.Masks[1].Ratio = 1 }, "ratio"},
		{func(o *LoaderOptions) { o.CacheDir, o.CacheBytes = "/nowhere/at/all", 1 }, "cache"},
	} {
		o := options()
		c.change(&o)
		if _, err := NewLoader(d.images, labels, o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}
