package loop

import (
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"

	"sela/stages/label"
	"sela/stages/solve"
	"sela/stages/train"
)

// timed are the stages whose time a table has a column of. The others take next
// to none.
var timed = []string{"extract", solve.Name, label.Name, train.Name}

// WriteCSV writes rounds.csv: a line for each round with the means over the
// heads, and then churn, NMI with the round before and NMI with the truth of each
// head. What there is none of is empty.
func WriteCSV(out io.Writer, rounds []*Round) error {
	w := csv.NewWriter(out)
	header := []string{"round", "run", "epoch", "images", "churn", "nmi_previous", "nmi", "nmi_by_chance", "purity", "purity_by_chance",
		"passes", "list_length", "marginal_l1", "smallest", "largest",
		"train_loss", "train_accuracy", "held_out_loss", "held_out_accuracy", "rate", "images_per_second"}
	for _, stage := range timed {
		header = append(header, stage+"_seconds")
	}
	heads := 0
	for _, r := range rounds {
		heads = max(heads, len(r.Heads))
	}
	for h := range heads {
		header = append(header, fmt.Sprintf("head_%d_churn", h), fmt.Sprintf("head_%d_nmi_previous", h), fmt.Sprintf("head_%d_nmi", h))
	}
	_ = w.Write(header) // Flush has its error
	for _, r := range rounds {
		s := r.summary()
		cells := []string{strconv.Itoa(r.Round), r.Run, number(r.Epoch), strconv.FormatInt(r.Images, 10), optional(r.Churn), optional(r.Previous)}
		cells = append(cells, r.Truth.cells()...)
		cells = append(cells, number(s.passes), number(s.length), number(s.marginal), strconv.FormatInt(s.smallest, 10), strconv.FormatInt(s.largest, 10))
		cells = append(cells, r.training()...)
		for _, stage := range timed {
			cells = append(cells, number(r.Seconds[stage]))
		}
		for h := range heads {
			if h >= len(r.Heads) {
				cells = append(cells, "", "", "")
				continue
			}
			a := r.Heads[h].Agreement
			cells = append(cells, optional(a.Churn), optional(a.Previous), a.Truth.cells()[0])
		}
		_ = w.Write(cells)
	}
	w.Flush()
	return w.Error()
}

// summary is what a line of a table says of all heads together.
type summary struct {
	passes, length    float64 // means
	marginal          float64 // largest
	smallest, largest int64   // cluster of any head
}

func (r *Round) summary() summary {
	s := summary{smallest: math.MaxInt64}
	for _, h := range r.Heads {
		s.passes += float64(h.Passes) / float64(len(r.Heads))
		s.length += h.ListLength / float64(len(r.Heads))
		s.marginal = max(s.marginal, h.MarginalL1)
		s.smallest, s.largest = min(s.smallest, h.Smallest), max(s.largest, h.Largest)
	}
	return s
}

func (t *Truth) cells() []string {
	if t == nil {
		return []string{"", "", "", ""}
	}
	return []string{number(t.NMI), number(t.NMIChance), number(t.Purity), number(t.PurityChance)}
}

func (r *Round) training() []string {
	t := r.Training
	if t == nil {
		return []string{"", "", "", "", "", ""}
	}
	held := []string{"", ""}
	if t.HeldOut != nil {
		held = []string{number(t.HeldOut.Loss), number(t.HeldOut.Accuracy)}
	}
	return append(append([]string{number(t.Train.Loss), number(t.Train.Accuracy)}, held...), number(t.Rate), number(t.ImagesPerSecond))
}

func number(x float64) string { return strconv.FormatFloat(x, 'g', 6, 64) }

func optional(x *float64) string {
	if x == nil {
		return ""
	}
	return number(*x)
}

// WriteTable writes the rounds for people.
func WriteTable(out io.Writer, rounds []*Round) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	truth := len(rounds) > 0 && rounds[0].Truth != nil
	head := "round\tepoch\tchurn\tNMI with last\t"
	if truth {
		head += "NMI with truth\tby chance\tpurity\tby chance\t"
	}
	fmt.Fprintln(w, head+"passes\tlist\tlargest/smallest\tloss\theld out\trate\timages/s\textract\tsolve\tlabel\ttrain\t")
	share := func(x *float64) string {
		if x == nil {
			return "-"
		}
		return fmt.Sprintf("%.3f", *x)
	}
	for _, r := range rounds {
		s := r.summary()
		cells := []string{strconv.Itoa(r.Round), fmt.Sprintf("%.4g", r.Epoch), share(r.Churn), share(r.Previous)}
		if t := r.Truth; t != nil {
			cells = append(cells, share(&t.NMI), share(&t.NMIChance), share(&t.Purity), share(&t.PurityChance))
		} else if truth {
			cells = append(cells, "-", "-", "-", "-")
		}
		list := "-"
		if s.length > 0 {
			list = fmt.Sprintf("%.1f", s.length)
		}
		cells = append(cells, fmt.Sprintf("%.3g", s.passes), list, fmt.Sprintf("%d/%d", s.largest, s.smallest))
		if t := r.Training; t != nil {
			held := "-"
			if t.HeldOut != nil {
				held = share(&t.HeldOut.Accuracy)
			}
			cells = append(cells, fmt.Sprintf("%.3f", t.Train.Loss), held, fmt.Sprintf("%.2g", t.Rate), fmt.Sprintf("%.0f", t.ImagesPerSecond))
		} else {
			cells = append(cells, "-", "-", "-", "-")
		}
		for _, stage := range timed {
			cells = append(cells, fmt.Sprintf("%.1f s", r.Seconds[stage]))
		}
		fmt.Fprintln(w, strings.Join(cells, "\t")+"\t")
	}
	return w.Flush()
}
