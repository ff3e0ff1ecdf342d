package loop

import (
	"encoding/json"
	"errors"
	"fmt"

	"sela/pipeline"
	"sela/stages/evaluate"
	"sela/stages/train/builtin"
)

// Round is round-<r>.json: what a round came to. It is written when the round is
// done and never changes.
type Round struct {
	Version  int     `json:"version"`
	Loop     string  `json:"loop"`
	Round    int     `json:"round"`
	Run      string  `json:"run"`
	Parent   string  `json:"parent,omitempty"` // run of the round before
	Epoch    float64 `json:"epoch"`            // position in the whole training at which the labels were made
	Images   int64   `json:"images"`           // labelled
	Listing  string  `json:"listing"`          // digest of the images' listing
	Labels   string  `json:"labels"`           // URL of the published folder
	Manifest string  `json:"manifest_digest"`  // of the published manifest

	Heads []Head `json:"heads,omitempty"`
	// Churn and the other agreements are the means over the heads.
	Agreement

	Training *builtin.Metrics `json:"training,omitempty"` // of the part's last epoch; only the built-in trainer tells
	Model    *File            `json:"model,omitempty"`    // trained on the labels; nil of the last round
	// Checkpoint is what the next part goes on from; nil of an external trainer.
	Checkpoint *File `json:"checkpoint,omitempty"`

	// Seconds are those of each stage: wall time, or the sum of its tasks' where
	// it was cut off.
	Seconds map[string]float64 `json:"seconds"`
	Last    bool               `json:"last,omitempty"`    // of the loop
	Settled bool               `json:"settled,omitempty"` // it ends the loop early: see [Spec.Settled]
}

// File is an object of the work bucket.
type File struct {
	Key    string `json:"key"`
	SHA256 string `json:"sha256"`
}

// Head is the labels of one head and how they were found.
type Head struct {
	Clusters   int     `json:"clusters"`
	Passes     int     `json:"passes"`                // full ones, over the log-probabilities; of k-means iterations
	ListLength float64 `json:"list_length,omitempty"` // mean entries of a row's list
	MarginalL1 float64 `json:"marginal_l1"`           // error of the clusters' shares
	Smallest   int64   `json:"smallest"`              // cluster, images
	Largest    int64   `json:"largest"`
	Agreement
}

// Agreement is that of labels with those before and with the truth; nil where
// there are none.
type Agreement struct {
	// Churn is the share of the images, of those labelled in both rounds, whose
	// label is another than in the round before.
	Churn    *float64 `json:"churn,omitempty"`
	Previous *float64 `json:"nmi_previous,omitempty"` // NMI with the labels of the round before
	Truth    *Truth   `json:"truth,omitempty"`
}

// Truth is the agreement with the true classes, and that of labels dealt at
// random to clusters of the same sizes, which is not 0.
type Truth struct {
	NMI          float64 `json:"nmi"`
	NMIChance    float64 `json:"nmi_by_chance"`
	Purity       float64 `json:"purity"`
	PurityChance float64 `json:"purity_by_chance"`
}

// chanceDraws is how many random labellings a value by chance is the mean of.
const chanceDraws = 3

// noLabel stands for the label of an image that had none.
const noLabel = -1

// Agree compares the labels of a head with those before and with the truth, row
// by row. previous may hold −1 where an image had no label; truth is nil where
// none is known.
func Agree(labels, previous, truth []int32) (Agreement, error) {
	var a Agreement
	var mine, theirs []int32
	changed := 0
	for i, p := range previous {
		if p == noLabel {
			continue
		}
		mine, theirs = append(mine, labels[i]), append(theirs, p)
		if p != labels[i] {
			changed++
		}
	}
	if len(mine) > 0 {
		churn := float64(changed) / float64(len(mine))
		same, err := evaluate.Compare(mine, theirs)
		if err != nil {
			return a, err
		}
		a.Churn, a.Previous = &churn, &same.NMI
	}
	if truth == nil {
		return a, nil
	}
	found, err := evaluate.Compare(labels, truth)
	if err != nil {
		return a, err
	}
	chance, err := evaluate.Chance(labels, truth, 1, chanceDraws)
	if err != nil {
		return a, err
	}
	a.Truth = &Truth{found.NMI, chance.NMI, found.Purity, chance.Purity}
	return a, nil
}

// Mean returns the means over the heads of what all of them have.
func Mean(heads []Head) (m Agreement) {
	mean := func(of func(*Head) *float64) *float64 {
		sum := 0.0
		for i := range heads {
			x := of(&heads[i])
			if x == nil {
				return nil
			}
			sum += *x
		}
		sum /= float64(max(len(heads), 1))
		return &sum
	}
	m.Churn = mean(func(h *Head) *float64 { return h.Churn })
	m.Previous = mean(func(h *Head) *float64 { return h.Previous })
	var t Truth
	for _, f := range []func(*Truth) *float64{
		func(t *Truth) *float64 { return &t.NMI }, func(t *Truth) *float64 { return &t.NMIChance },
		func(t *Truth) *float64 { return &t.Purity }, func(t *Truth) *float64 { return &t.PurityChance },
	} {
		x := mean(func(h *Head) *float64 {
			if h.Truth == nil {
				return nil
			}
			return f(h.Truth)
		})
		if x == nil {
			return m
		}
		*f(&t) = *x
	}
	if len(heads) > 0 {
		m.Truth = &t
	}
	return m
}

// ParseRound reads a round-<r>.json.
func ParseRound(raw []byte, loop string, round int) (*Round, error) {
	var r Round
	err := json.Unmarshal(raw, &r)
	if err == nil && (r.Loop != loop || r.Round != round || r.Version != 1 || !r.Last && r.Model == nil) {
		err = errors.New("it is of another round, or incomplete")
	}
	if err != nil {
		return nil, pipeline.BadData(fmt.Errorf("loop %s: round-%d.json is damaged: %w", loop, round, err))
	}
	return &r, nil
}
