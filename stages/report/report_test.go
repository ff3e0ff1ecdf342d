package report_test

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sela/schemas"
	"sela/stages/internal/runtest"
	"sela/stages/report"
)

func TestReport(t *testing.T) {
	w := newWorld(t)
	t.Run("says what the tables say", func(t *testing.T) { saysWhatTheTablesSay(t, w) })
	t.Run("same bytes again", func(t *testing.T) { sameBytesAgain(t, w) })
	t.Run("escapes", func(t *testing.T) { escapes(t, w) })
	t.Run("fewer images", func(t *testing.T) { fewerImages(t, w) })
	t.Run("store is down", func(t *testing.T) { storeIsDown(t, w) })
	t.Run("ended by its context", func(t *testing.T) { endedByItsContext(t, w) })
	t.Run("images are gone", func(t *testing.T) { imagesAreGone(t, w) }) // it spoils the world
}

// The data of a head agree with its label table, counted again here.
func saysWhatTheTablesSay(t *testing.T, w *world) {
	files, sum := made(t, w.options(t))
	if sum.Missing != 0 || sum.Images == 0 {
		t.Errorf("%d images drawn, %d missing", sum.Images, sum.Missing)
	}
	for head := range 2 {
		c := parse(t, files, head)
		size, best := make([]int, 6), make([][]string, 6)
		sure := make([]float64, 6)
		classes := make([]map[string]int, 6)
		type labelled struct {
			name string
			prob float32
			own  float32
		}
		all := make([][]labelled, 6)
		w.each(t, head, func(l *schemas.Label) {
			k := l.Label
			size[k]++
			sure[k] += float64(*l.Prob)
			name := l.Key
			if l.Member != "" {
				name += " › " + l.Member
			}
			all[k] = append(all[k], labelled{strings.Clone(name), *l.Prob, l.ModelProb})
			if class, ok := w.truth.Class(l.Key, l.Member); ok {
				if classes[k] == nil {
					classes[k] = map[string]int{}
				}
				classes[k][class]++
			}
		})
		if !slices.Equal(c.Size, size) {
			t.Errorf("head %d: sizes %v, want %v", head, c.Size, size)
		}
		shown := map[int][]string{}
		next := 0
		for place, k := range c.Order {
			for range c.Count[place] {
				shown[k] = append(shown[k], c.image(next))
				next++
			}
			if place > 0 && c.Pure[k] > c.Pure[c.Order[place-1]] {
				t.Errorf("head %d: cluster %d of purity %d comes after one of %d", head, k, c.Pure[k], c.Pure[c.Order[place-1]])
			}
		}
		for k := range size {
			slices.SortStableFunc(all[k], func(a, b labelled) int {
				switch {
				case a.prob != b.prob && a.prob > b.prob, a.prob == b.prob && a.own > b.own:
					return -1
				case a.prob == b.prob && a.own == b.own:
					return 0
				}
				return 1
			})
			for _, i := range all[k][:min(8, len(all[k]))] {
				best[k] = append(best[k], i.name)
			}
			if !slices.Equal(shown[k], best[k]) {
				t.Errorf("head %d, cluster %d shows %q, its surest images are %q", head, k, shown[k], best[k])
			}
			if got, want := float64(c.Sure[k])/1000, sure[k]/float64(size[k]); got < want-0.0006 || got > want+0.0006 {
				t.Errorf("head %d, cluster %d: confidence %g, want %g", head, k, got, want)
			}
			most, known := 0, 0
			for _, n := range classes[k] {
				most, known = max(most, n), known+n
			}
			if got, want := float64(c.Pure[k])/1000, float64(most)/float64(known); got < want-0.0006 || got > want+0.0006 || classes[k][c.Classes[c.Class[k]]] != most {
				t.Errorf("head %d, cluster %d: purity %g for %s, want %g of %v", head, k, got, c.Classes[c.Class[k]], want, classes[k])
			}
		}
		for _, name := range []string{fmt.Sprintf("data/tiles-%d-000.jpg", head)} {
			img, err := jpeg.Decode(strings.NewReader(files[name]))
			if err != nil || img.Bounds().Dx() != 16*32 || img.Bounds().Dy() != (len(c.Name)+15)/16*32 {
				t.Fatalf("%s: %v, %v", name, img.Bounds(), err)
			}
			for i := range c.Name {
				got := average(img, image.Rect(i%16*32+4, i/16*32+4, i%16*32+28, i/16*32+28))
				file, member, inTar := strings.Cut(c.image(i), " › ")
				want := average(w.image(t, file, member, inTar), image.Rect(1, 1, 7, 7))
				for channel := range 3 {
					if d := got[channel] - want[channel]; d < -12 || d > 12 {
						t.Fatalf("%s, image %d (%s): mean colour %v, the image's is %v", name, i, c.image(i), got, want)
					}
				}
			}
		}
	}
	for _, part := range []string{">90<", "11 quarantined", "no known image format", "6 clusters"} {
		if !strings.Contains(files["index.html"], part) && part != "6 clusters" {
			t.Errorf("index.html lacks %q", part)
		}
	}
}

// average is the mean colour of a part of an image, in levels.
func average(img image.Image, part image.Rectangle) (sum [3]float64) {
	n := float64(part.Dx() * part.Dy())
	for y := part.Min.Y; y < part.Max.Y; y++ {
		for x := part.Min.X; x < part.Max.X; x++ {
			r, g, b, _ := img.At(x, y).RGBA()
			sum[0], sum[1], sum[2] = sum[0]+float64(r>>8)/n, sum[1]+float64(g>>8)/n, sum[2]+float64(b>>8)/n
		}
	}
	return sum
}

func sameBytesAgain(t *testing.T, w *world) {
	first, _ := made(t, w.options(t))
	second, _ := made(t, w.options(t))
	if len(first) != len(second) {
		t.Fatalf("%d and %d files", len(first), len(second))
	}
	for name, content := range first {
		if second[name] != content {
			t.Errorf("%s differs", name)
		}
	}
}

// Names of keys and classes never become a part of the page's language.
func escapes(t *testing.T, w *world) {
	files, _ := made(t, w.options(t))
	for name, content := range files {
		for _, evil := range []string{"<script>alert", "<img src=x", `"onerror="`} {
			if strings.Contains(content, evil) {
				t.Errorf("%s holds %s as it is", name, evil)
			}
		}
	}
	found := false
	for i, c := 0, parse(t, files, 0); i < len(c.Name); i++ {
		found = found || c.image(i) == hostileKey || c.image(i) == hostileQuote
	}
	if !found {
		t.Error("no hostile key is among the images shown: the test shows nothing")
	}
}

// A smaller budget leaves no file of the larger report behind.
func fewerImages(t *testing.T, w *world) {
	o := w.options(t)
	before, _ := made(t, o)
	if err := o.To.Put(context.Background(), o.Prefix+"data/notes.txt", []byte("not ours")); err != nil {
		t.Fatal(err)
	}
	o.Spec.ImagesPerCluster = 0
	sum, err := report.Write(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	after := runtest.Objects(t, o.To, o.Prefix)
	if len(after) != sum.Files+1 || len(after) >= len(before)+1 || after[o.Prefix+"data/notes.txt"] == "" {
		t.Errorf("%d files after %d, the summary says %d", len(after), len(before), sum.Files)
	}
	o = w.options(t)
	o.Spec.Images = 7
	if _, sum := made(t, o); sum.Images != 7 {
		t.Errorf("%d images for a budget of 7", sum.Images)
	}
	o.Images = nil
	if _, sum := made(t, o); sum.Images != 0 || sum.Missing != 0 {
		t.Errorf("without a bucket of images: %+v", sum)
	}
}

// A store that answers no read is left alone, and the report is there.
func storeIsDown(t *testing.T, w *world) {
	o := w.options(t)
	dir := t.TempDir()
	o.Images = runtest.Bucket(t, "file://"+dir)
	if err := os.Mkdir(filepath.Join(dir, "shard.tar"), 0o700); err != nil { // not even a file
		t.Fatal(err)
	}
	_, sum := made(t, o)
	if sum.Images != 0 || sum.Missing == 0 {
		t.Errorf("%+v", sum)
	}
}

func endedByItsContext(t *testing.T, w *world) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := report.Write(ctx, w.options(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: %v", err)
	}
}

// Whatever has become of an image, a placeholder stands for it with the reason.
func imagesAreGone(t *testing.T, w *world) {
	o := w.options(t)
	files, _ := made(t, o)
	c := parse(t, files, 0)
	want := map[string]string{}
	for i := range c.Name {
		name := c.image(i)
		if strings.Contains(name, "›") {
			continue
		}
		path := filepath.Join(w.Dir, "images", filepath.FromSlash(name))
		var err error
		switch len(want) {
		case 0:
			err, want[name] = os.Remove(path), "it is gone"
		case 1:
			err, want[name] = os.WriteFile(path, []byte("short"), 0o600), "it has changed since it was labelled"
		case 2:
			var raw []byte
			if raw, err = os.ReadFile(path); err == nil {
				raw[len(raw)/2] ^= 1
				err, want[name] = os.WriteFile(path, raw, 0o600), "it has changed since it was labelled"
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	again, sum := made(t, o)
	c = parse(t, again, 0)
	found := 0
	for i := range c.Name {
		if reason := want[c.image(i)]; reason != c.Missing[fmt.Sprint(i)] {
			t.Errorf("%s: %q, want %q", c.image(i), c.Missing[fmt.Sprint(i)], reason)
		} else if reason != "" {
			found++
		}
	}
	if found != 3 || sum.Missing < 3 || !strings.Contains(again["index.html"], "could not be had") {
		t.Errorf("%d placeholders, %+v", found, sum)
	}
}
