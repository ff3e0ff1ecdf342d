package builtin

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math"
	"strconv"
)

// Score is how well one head, or the mean of several, predicts its labels.
type Score struct {
	Loss float64 `json:"loss"` // mean cross-entropy in nats; of multi-label targets, of a sigmoid per class
	// Accuracy is the share of rows whose largest logit is the label's; of
	// multi-label targets, the share of classes that the logit's sign tells.
	Accuracy float64 `json:"accuracy"`
}

// Scores are those of each head, and their mean. The rotation head, which no
// label table belongs to, counts in no mean.
type Scores struct {
	Score
	Heads []Score `json:"heads"`
	// MeanAP is the mean average precision of held-out images with multi-label
	// targets, and 0 otherwise.
	MeanAP float64 `json:"mean_ap,omitempty"`
}

// Metrics is a row of metrics.csv: what one epoch came to, or, of an epoch within
// which a part of a training ends, what was done of it since the row before.
type Metrics struct {
	Epoch           int     `json:"epoch"` // from 1, the one that ends or is at hand
	Step            int64   `json:"step"`  // steps since the beginning of the whole training
	Rate            float64 `json:"rate"`  // of the last step
	Train           Scores  `json:"train"` // of each batch before its step, in training mode, on augmented images
	HeldOut         *Scores `json:"held_out,omitempty"`
	ImagesPerSecond float64 `json:"images_per_second"` // of the steps, without the held-out images
	Waiting         float64 `json:"waiting"`           // share of the time in which no image was ready
	Seconds         float64 `json:"seconds"`           // of the steps
}

// sums accumulate a row of the metrics. A checkpoint holds them.
type sums struct {
	Rows    float64   `json:"rows"`
	Weight  []float64 `json:"weight"`  // by head, rows that it learned from
	Loss    []float64 `json:"loss"`    // by head, of each of these rows' loss
	Correct []float64 `json:"correct"` // by head, rows
	Seconds float64   `json:"seconds"`
	Waited  float64   `json:"waited"` // seconds
}

func newSums(heads int) sums {
	return sums{Weight: make([]float64, heads), Loss: make([]float64, heads), Correct: make([]float64, heads)}
}

// add counts a batch: its rows, and by head how many of them it learned from,
// their mean loss, and how many it got right.
func (s *sums) add(rows float64, weight []float64, losses, correct []float32) {
	s.Rows += rows
	for h := range s.Loss {
		s.Weight[h] += weight[h]
		s.Loss[h] += weight[h] * float64(losses[h])
		s.Correct[h] += float64(correct[h])
	}
}

// scores are the means over the rows, 0 for a head without any; those of the
// first labelled heads are averaged.
func (s *sums) scores(labelled int) Scores {
	out := Scores{Heads: make([]Score, len(s.Loss))}
	for h, rows := range s.Weight {
		if rows > 0 {
			out.Heads[h] = Score{s.Loss[h] / rows, s.Correct[h] / rows}
		}
		if h < labelled {
			out.Loss += out.Heads[h].Loss / float64(labelled)
			out.Accuracy += out.Heads[h].Accuracy / float64(labelled)
		}
	}
	return out
}

// metricsTable writes the rows as CSV. Where nothing was held out its cells are empty.
// Heads are numbered; the rotation head is called so.
func metricsTable(rows []Metrics, labelled int) []byte {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	header := []string{"epoch", "step", "rate", "train_loss", "train_accuracy", "held_out_loss", "held_out_accuracy", "held_out_mean_ap", "images_per_second", "waiting", "seconds"}
	heads := 0
	for _, r := range rows {
		heads = max(heads, len(r.Train.Heads))
	}
	for h := range heads {
		name := "head_" + strconv.Itoa(h)
		if h >= labelled {
			name = "rotation"
		}
		header = append(header, name+"_train_loss", name+"_train_accuracy", name+"_held_out_loss", name+"_held_out_accuracy")
	}
	_ = w.Write(header) // a buffer takes everything
	number := func(x float64) string { return strconv.FormatFloat(x, 'g', 7, 64) }
	score := func(s *Scores, h int) []string {
		switch {
		case s == nil || h >= len(s.Heads):
			return []string{"", ""}
		case h < 0:
			return []string{number(s.Loss), number(s.Accuracy)}
		}
		return []string{number(s.Heads[h].Loss), number(s.Heads[h].Accuracy)}
	}
	for _, r := range rows {
		cells := []string{strconv.Itoa(r.Epoch), strconv.FormatInt(r.Step, 10), number(r.Rate)}
		cells = append(append(cells, score(&r.Train, -1)...), score(r.HeldOut, -1)...)
		precision := ""
		if r.HeldOut != nil && r.HeldOut.MeanAP > 0 {
			precision = number(r.HeldOut.MeanAP)
		}
		cells = append(cells, precision, number(r.ImagesPerSecond), number(r.Waiting), number(r.Seconds))
		for h := range heads {
			cells = append(append(cells, score(&r.Train, h)...), score(r.HeldOut, h)...)
		}
		_ = w.Write(cells)
	}
	w.Flush()
	return b.Bytes()
}

// notFinite returns the first head whose loss is NaN or infinite, or −1.
func notFinite(losses []float32) int {
	for h, x := range losses {
		if !finite(float64(x)) {
			return h
		}
	}
	return -1
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

func headName(h, labelled int) string {
	if h >= labelled {
		return "the rotation head"
	}
	return fmt.Sprintf("head %d", h)
}
