package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sela/pipeline"
)

func TestPixelsFit(t *testing.T) {
	for _, c := range []struct {
		side, size   int
		resize, crop int
	}{
		{0, 224, 256, 224}, {0, 32, 32, 32}, {40, 32, 40, 32}, {240, 224, 240, 224}, {32, 32, 32, 32},
	} {
		p := pixels{side: c.side, filter: "box", mean: [3]float64{1, 2, 3}, std: [3]float64{4, 5, 6}}
		to := pipeline.DefaultJob().Preprocess
		if err := p.fit(&to, c.size); err != nil {
			t.Fatal(err)
		}
		if to.Resize[0] != c.resize || to.Crop[0] != c.crop || to.Filter != "box" || to.Mean != p.mean || to.Std != p.std {
			t.Errorf("%+v: %+v", c, to)
		}
	}
	p := pixels{side: 20}
	if err := p.fit(new(pipeline.Preprocess), 32); pipeline.ClassOf(err) != pipeline.Usage || !strings.Contains(err.Error(), "smaller than the network's images, which have 32 pixels") {
		t.Errorf("a side below the network's: %v", err)
	}
}

// The flags decide what a network is fed: another mean is another training.
func TestTrainOnTargetsPixels(t *testing.T) {
	r := newRig(t)
	images := filepath.Join(fixture.dir, "images")
	var table strings.Builder
	table.WriteString("key,member,even,odd\n")
	names, err := filepath.Glob(filepath.Join(images, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names[:40] {
		key, err := filepath.Rel(images, name)
		if err != nil {
			t.Fatal(err)
		}
		table.WriteString(key + ",," + []string{"1,0", "0,1"}[i%2] + "\n")
	}
	if err := os.WriteFile(r.path("targets.csv"), []byte(table.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	args := func(more ...string) []string {
		return append([]string{"train", "--targets", "targets.csv", "--images", images, "--arch", "resnet-s", "--size", "16", "--out", "o", "--batch", "8", "--epochs", "1",
			"--held-out", "0.2", "--local", "local"}, more...)
	}
	r.want(0, args("--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25", "--resize", "20", "--filter", "box")...)
	for _, other := range [][]string{
		{"--mean", "0.5,0.5,0.4", "--std", "0.25,0.25,0.25", "--resize", "20", "--filter", "box"},
		{"--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.2", "--resize", "20", "--filter", "box"},
		{"--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25", "--filter", "box"},
		{"--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25", "--resize", "20"},
	} {
		if out := r.want(78, args(other...)...); !strings.Contains(out.stderr, "another training (preprocessing:") {
			t.Errorf("%v: %s", other, out.stderr)
		}
	}
	if out := r.want(64, args("--resize", "15")...); !strings.Contains(out.stderr, "--resize 15 is smaller than the network's images, which have 16 pixels") {
		t.Errorf("stderr: %s", out.stderr)
	}
}
