package model_test

import (
	"testing"

	"sela/stages/internal/ort/orttest"
	"sela/stages/model"
)

// A job that normalises on the device is calibrated for as one that does not:
// the network sees the same values.
func TestCalibrationForTheDevice(t *testing.T) {
	images := pictures(t, 16)
	var (
		probed []float64
		first  model.Calibrated
	)
	for _, place := range []string{"host", "device"} {
		g := network(t)
		c := model.Calibration{Images: images, Preprocess: preprocess(32), Batches: 2, Batch: 6}
		c.Preprocess.Normalise = place
		done, err := c.Apply(t.Context(), orttest.Open(t), g, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		row := probabilities(t, g, 1)[0]
		if place == "host" {
			probed, first = row, done
		}
		for k, p := range row {
			if p != probed[k] {
				t.Errorf("normalised on the %s: cluster %d has probability %v, want %v", place, k, p, probed[k])
			}
		}
		if model.Preprocessing(g) != done.Preprocessing || done != first {
			t.Errorf("%+v, the model names %q", done, model.Preprocessing(g))
		}
	}
}
