package builtin

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/grad"
	"sela/stages/internal/ort"
	"sela/stages/internal/ort/orttest"
)

// formStep is the step of a small network, whose gradients have several forms.
func formStep(t *testing.T, forms grad.Forms) *grad.Step {
	t.Helper()
	m, err := onnx.NewNetwork("resnet-s", onnx.NetworkOptions{ImageSize: 8, Heads: 1, Clusters: 3, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	s, err := grad.NewStep(m, grad.Options{Input: "images", Heads: []string{"head_0"}, Batch: 2, Loss: grad.CrossEntropy, Forms: forms})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Every problem is measured once on a machine, and the step accepts what is
// chosen.
func TestChooseForms(t *testing.T) {
	rt, dir, scratch := orttest.Open(t), filepath.Join(t.TempDir(), "cache"), t.TempDir()
	problems := formStep(t, nil).Problems
	count := func(threads int) (grad.Forms, int) {
		t.Helper()
		measured := 0
		forms, err := newFormChooser(rt, ort.Options{Threads: threads}, dir, scratch).choose(t.Context(), problems, func(int, grad.Problem) { measured++ })
		if err != nil {
			t.Fatal(err)
		}
		return forms, measured
	}
	first, measured := count(1)
	if measured != len(problems) || len(first) != len(problems) {
		t.Fatalf("%d of %d problems measured, %d forms", measured, len(problems), len(first))
	}
	for _, p := range problems {
		if !slices.Contains(p.Forms, first[p.Key]) {
			t.Errorf("%s: form %q", p.Key, first[p.Key])
		}
	}
	formStep(t, first)
	if again, measured := count(1); measured != 0 || !maps.Equal(again, first) {
		t.Errorf("%d problems measured again", measured)
	}
	if _, measured := count(2); measured != len(problems) {
		t.Errorf("%d problems measured for another number of threads", measured)
	}
	if left, err := os.ReadDir(scratch); err != nil || len(left) != 0 {
		t.Errorf("%v left in scratch (%v)", left, err)
	}
}

// A cache that cannot be used is none: damaged, of forms that there are no more.
func TestFormCacheUnusable(t *testing.T) {
	rt, problems := orttest.Open(t), formStep(t, nil).Problems[:1]
	for name, content := range map[string]func(c *formChooser) string{
		"damaged":       func(*formChooser) string { return `{"machine":` },
		"other machine": func(*formChooser) string { return `{"forms":{}}` },
	} {
		t.Run(name, func(t *testing.T) {
			c := newFormChooser(rt, ort.Options{}, t.TempDir(), t.TempDir())
			measured := 0
			c.time = func(context.Context, grad.Problem) ([]time.Duration, error) {
				measured++
				return []time.Duration{2, 1}, nil
			}
			path := c.path(c.machine())
			if err := os.WriteFile(path, []byte(content(c)), 0o644); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				forms, err := c.choose(t.Context(), problems, nil)
				if err != nil || forms[problems[0].Key] != problems[0].Forms[1] {
					t.Fatalf("%v, %v", forms, err)
				}
			}
			if measured != 1 {
				t.Errorf("measured %d times", measured)
			}
			// A form of that name is no more.
			if err := writeChoices(path, choices{c.machine(), grad.Forms{problems[0].Key: "none"}}); err != nil {
				t.Fatal(err)
			}
			if _, err := c.choose(t.Context(), problems, nil); err != nil || measured != 2 {
				t.Errorf("measured %d times, %v", measured, err)
			}
		})
	}
}

func TestFormChooserFails(t *testing.T) {
	c := newFormChooser(orttest.Open(t), ort.Options{}, t.TempDir(), t.TempDir())
	bad := errors.New("bad")
	c.time = func(context.Context, grad.Problem) ([]time.Duration, error) { return nil, bad }
	if _, err := c.choose(t.Context(), formStep(t, nil).Problems, nil); !errors.Is(err, bad) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.time = c.measure
	if _, err := c.choose(ctx, formStep(t, nil).Problems, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	c = newFormChooser(c.runtime, ort.Options{}, t.TempDir(), filepath.Join(t.TempDir(), "missing"))
	if _, err := c.choose(t.Context(), formStep(t, nil).Problems, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// The default stays unless another form is clearly faster.
func TestFastest(t *testing.T) {
	for _, test := range []struct {
		times []time.Duration
		want  int
	}{
		{[]time.Duration{100}, 0},
		{[]time.Duration{100, 95, 200}, 0},
		{[]time.Duration{100, 92, 200}, 1},
		{[]time.Duration{100, 92, 90}, 2},
		{[]time.Duration{100, 200}, 0},
	} {
		if got := fastest(test.times); got != test.want {
			t.Errorf("%v: %d, want %d", test.times, got, test.want)
		}
	}
}

func TestFormsEverywhere(t *testing.T) {
	problems := []grad.Problem{{Key: "pool", Forms: []string{"unpool", "scatter"}}, {Key: "conv", Forms: []string{"chunks", "conv"}}}
	got, err := everywhere(t.Context(), problems, nil)
	if err != nil || !reflect.DeepEqual(got, grad.Forms{"pool": "scatter", "conv": "chunks"}) {
		t.Errorf("%v, %v", got, err)
	}
	if onlyCPU([]ort.Provider{{Name: "cuda"}, {Name: ort.CPU}}) || !onlyCPU(nil) || !onlyCPU([]ort.Provider{{Name: ort.CPU}}) {
		t.Error("providers are mistaken")
	}
}
