package publish

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/schemas"
	"sela/stages/internal/runtest"
	"sela/stages/solve"
)

// by makes the labels of a data set by a method that promises no shares, and
// bounds shares as closely as can be.
func by(t *testing.T, method string) runtest.Options {
	return runtest.Options{Images: 1500, Heads: 2, Clusters: 3, Broken: 3, Job: func(j *pipeline.Job) {
		j.Solve.Method, j.Solve.Seed, j.Label.MaxCountRatio = method, 5, 1
		if method == "truth" {
			j.Solve.Truth = filepath.Join(t.TempDir(), "truth.csv")
			text := "key,member,class\n"
			for i := range 1500 {
				text += fmt.Sprintf("img/%05d.png,,%c\n", i, "aaabbbc"[i%7])
			}
			if err := os.WriteFile(j.Solve.Truth, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}}
}

// TestOtherLabellers: their labels are published whatever the clusters' sizes,
// verified against what is said of them, and described.
func TestOtherLabellers(t *testing.T) {
	for method, says := range map[string]string{
		"kmeans":      "k-means on the features that one model's heads read, each divided by its length (seed 5)",
		"deepcluster": "k-means on the whitened features",
		"random":      "Labels are random (seed 5)",
		"truth":       "Labels are the true classes",
	} {
		t.Run(method, func(t *testing.T) {
			whole := newDataSet(t, by(t, method))
			d := whole.copy(t)
			report, err := d.verify(t, VerifyOptions{Sample: 40})
			if err != nil || report.Images != 1500 || report.Heads != 2 {
				t.Fatalf("%+v, %v", report, err)
			}
			if last := report.Checks[len(report.Checks)-1]; last.Detail != "40 images, 80 labels of the model's own: all are what the model gives" {
				t.Errorf("%+v", *last)
			}
			card := string(d.read("README.md"))
			for _, must := range []string{says, "| 1 | 3 | 1500 | " + method + " | ", "null for k-means and the like"} {
				if !strings.Contains(card, must) {
					t.Errorf("the card does not say %q:\n%s", must, card)
				}
			}
			if strings.Contains(card, "optimal transport") || strings.Contains(card, "λ = ") {
				t.Errorf("the card speaks of a transport:\n%s", card)
			}
			for name, c := range map[string]struct {
				do          func(d *dataSet)
				check, says string
			}{
				"other sizes":  {func(d *dataSet) { d.labelling(func(l *solve.Labelling) { l.LargestCount++ }) }, "certificates", "its certificate says"},
				"other method": {func(d *dataSet) { d.labelling(func(l *solve.Labelling) { l.Method = "guess" }) }, "potentials", "by method guess"},
				"potentials":   {func(d *dataSet) { d.potentials(0, func(v []float64, _ map[string]string) { v[1] = 0.5 }) }, "potentials", "none but 0"},
				"damaged": {func(d *dataSet) {
					d.potentials(0, func(_ []float64, meta map[string]string) { meta["labelling"] = "{" })
				}, "potentials", "damaged"},
				"neither": {func(d *dataSet) {
					d.potentials(0, func(_ []float64, meta map[string]string) { delete(meta, "labelling") })
				}, "potentials", "damaged"},
				"probabilities": {func(d *dataSet) { d.rows(0, 1, withProb) }, "labels", "have none"},
			} {
				d := whole.copy(t)
				c.do(d)
				d.sign()
				report, err := d.verify(t, VerifyOptions{})
				if pipeline.ClassOf(err) != pipeline.Data {
					t.Errorf("%s: %v", name, err)
				}
				if !slices.ContainsFunc(report.Checks, func(k *Check) bool { return k.Name == c.check && !k.OK && strings.Contains(k.Detail, c.says) }) {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

func withProb(rows []schemas.Label) []schemas.Label {
	half := float32(0.5)
	rows[7].Prob = &half
	return rows
}

// labelling changes what the potentials of head 0 say of the labels.
func (d *dataSet) labelling(change func(*solve.Labelling)) {
	d.potentials(0, func(_ []float64, meta map[string]string) {
		l, err := solve.ReadLabelling(meta)
		d.must(err)
		change(l)
		raw, err := json.Marshal(l)
		d.must(err)
		meta["labelling"] = string(raw)
	})
}
