//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"sela/stages/internal/imageio"
)

// workload is images and what is made of them.
type workload struct {
	name    string
	files   [][]byte
	folder  string // with the files
	shorter int    // 0: not resized
	crop    int
	filter  imageio.Filter
}

var (
	mean = [3]float32{0.485, 0.456, 0.406} // of ImageNet
	std  = [3]float32{0.229, 0.224, 0.225}
)

// part is how many images a candidate is timed on before the next one's turn.
const part = 40

// trial is what one candidate did with a workload.
type trial struct {
	*candidate
	rounds []measure
	exact  *difference // nil without a reference
}

// measure is one round, per image.
type measure struct {
	seconds, wall float64
	steps         *steps
	bytes         float64
	objects       float64
}

// compare has the candidates do the workload in turns, and says which did not
// and which images were left out because somebody cannot read them.
func (b *bench) compare(ctx context.Context, w *workload, candidates []*candidate) (trials []*trial, notes []string, err error) {
	if w.folder == "" {
		if w.folder, err = b.writeFiles(w.name, w.files); err != nil {
			return nil, nil, err
		}
	}
	say("%s: pixels of %d images", w.name, len(w.files))
	unread := map[int]string{}
	pixels := map[*trial][]byte{}
	var truth []byte
	for _, c := range candidates {
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		t := &trial{candidate: c}
		pix, failed, err := b.pixels(w, c)
		if why := (refused{}); errors.As(err, &why) {
			notes = append(notes, fmt.Sprintf("%s does not take part: %v.", c.name, why))
			continue
		} else if err != nil {
			return nil, nil, err
		}
		for i, why := range failed {
			unread[i] = c.name + ": " + why
		}
		if c.name == reference {
			truth = pix
		}
		pixels[t] = pix
		trials = append(trials, t)
	}
	images := make([]int, 0, len(w.files))
	for i := range w.files {
		if unread[i] == "" {
			images = append(images, i)
		}
	}
	for _, i := range slices.Sorted(maps.Keys(unread)) {
		notes = append(notes, fmt.Sprintf("Image %d is left out, for %s.", i, unread[i]))
	}
	if len(images) == 0 {
		return nil, nil, fmt.Errorf("no image of %s is read by everybody: %v", w.name, notes)
	}
	for t, pix := range pixels {
		if truth != nil {
			t.exact = compareImages(pix, truth, 3*w.crop*w.crop, images)
		}
	}
	return trials, notes, b.takeTurns(ctx, w, trials, images)
}

// pixels opens the workload and returns the candidate's uint8 pixels.
func (b *bench) pixels(w *workload, c *candidate) ([]byte, map[int]string, error) {
	open := map[string]any{"do": "open", "folder": w.folder, "shorter": w.shorter, "crop": w.crop, "filter": w.filter, "mean": mean, "std": std}
	if c.ours {
		open["order"] = b.order
	}
	if _, err := c.ask(open); err != nil {
		return nil, nil, err
	}
	path := filepath.Join(b.scratch, "pixels")
	a, err := c.ask(map[string]any{"do": "pixels", "to": path})
	if err != nil {
		return nil, nil, err
	}
	pix, err := os.ReadFile(path)
	if err == nil && len(pix) != 3*w.crop*w.crop*len(w.files) {
		err = fmt.Errorf("%s wrote %d bytes of pixels for %d images", c.name, len(pix), len(w.files))
	}
	return pix, a.Failed, errors.Join(err, os.Remove(path))
}

// takeTurns has every trial do every image once a round, a part at a time. One
// part more goes before, untimed.
func (b *bench) takeTurns(ctx context.Context, w *workload, trials []*trial, images []int) error {
	first := images[:min(part, len(images))]
	for _, t := range trials {
		if _, err := t.ask(map[string]any{"do": "round", "images": first}); err != nil {
			return err
		}
	}
	turn := 0
	for round := range b.rounds {
		say("%s: round %d of %d", w.name, round+1, b.rounds)
		sums := make([]measure, len(trials))
		for some := range slices.Chunk(images, part) {
			for i := range trials {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				i = (i + turn) % len(trials)
				a, err := trials[i].ask(map[string]any{"do": "round", "images": some})
				if err != nil {
					return err
				}
				sums[i].add(a)
			}
			turn++
		}
		for i, t := range trials {
			t.rounds = append(t.rounds, sums[i].per(len(images)))
		}
	}
	return nil
}

func (m *measure) add(a *answer) {
	m.seconds += a.Seconds
	m.wall += a.Wall
	m.bytes += a.Bytes
	m.objects += a.Objects
	if a.Steps != nil {
		if m.steps == nil {
			m.steps = new(steps)
		}
		m.steps.Decode += a.Steps.Decode
		m.steps.Resize += a.Steps.Resize
		m.steps.Normalise += a.Steps.Normalise
	}
}

// per divides by the number of images.
func (m measure) per(images int) measure {
	n := float64(images)
	out := measure{seconds: m.seconds / n, wall: m.wall / n, bytes: m.bytes / n, objects: m.objects / n}
	if m.steps != nil {
		out.steps = &steps{Decode: m.steps.Decode / n, Resize: m.steps.Resize / n, Normalise: m.steps.Normalise / n}
	}
	return out
}
