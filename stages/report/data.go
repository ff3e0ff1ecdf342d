package report

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"strings"
)

// headData is data/head-<h>.js: a call of the page's function with columns.
// Shares are in thousandths, which is all that is shown of them and short.
type headData struct {
	Head int `json:"head"`
	// By cluster.
	Size    []int64 `json:"size"`
	Sure    []int   `json:"sure"`              // mean confidence
	Pure    []int   `json:"pure,omitempty"`    // share of the commonest class; −1 where none is known
	Class   []int   `json:"class,omitempty"`   // of Classes; −1 where none is known
	Changed []int   `json:"changed,omitempty"` // share of its images with another label than before
	// Order has the clusters by rank, Count the number of images that each of
	// them shows. The columns below are by image, in that order.
	Order   []int          `json:"order"`
	Count   []int          `json:"count"`
	Folder  []int          `json:"folder"` // of Folders
	Name    []string       `json:"name"`
	Prob    []int          `json:"prob"`
	Of      []int          `json:"of,omitempty"` // class of the image
	Missing map[int]string `json:"missing,omitempty"`

	Folders []string `json:"folders"`
	Classes []string `json:"classes,omitempty"`
}

// index numbers strings in the order in which they are first asked for.
type index struct {
	number map[string]int
	names  []string
}

func (x *index) of(name string) int {
	n, ok := x.number[name]
	if !ok {
		if x.number == nil {
			x.number = map[string]int{}
		}
		n = len(x.names)
		x.number[name], x.names = n, append(x.names, name)
	}
	return n
}

// within parts an object from the member of a tar shard in it.
const within = " › "

// describe writes the data of each head.
func (r *reporter) describe(ctx context.Context) error {
	for _, h := range r.heads {
		raw, err := json.Marshal(r.data(h))
		if err != nil {
			return err
		}
		var b bytes.Buffer
		b.WriteString("report.take(")
		b.Write(raw)
		b.WriteString(");\n")
		if h.number == 0 {
			r.summary.First += int64(b.Len())
		}
		if err := r.put(ctx, headName(h.number), b.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

func (r *reporter) data(h *head) *headData {
	var folders, names index
	class := func(n int32) int {
		if n < 0 {
			return -1
		}
		return names.of(r.classes.names[n])
	}
	d := &headData{Head: h.number, Order: h.order, Missing: map[int]string{}}
	truth, before := r.classes.known > 0, h.hasPrevious()
	for k := range h.clusters {
		c := &h.clusters[k]
		d.Size, d.Sure = append(d.Size, c.size), append(d.Sure, thousandths(c.sure))
		if truth {
			pure := -1
			if c.known > 0 {
				pure = thousandths(c.purity())
			}
			d.Pure, d.Class = append(d.Pure, pure), append(d.Class, class(c.class))
		}
		if before {
			d.Changed = append(d.Changed, thousandths(float64(c.changed)/float64(max(c.before, 1))))
		}
	}
	for _, k := range h.order {
		d.Count = append(d.Count, h.clusters[k].shown)
	}
	for i, t := range h.tiles {
		text := t.key
		if t.member != "" {
			text += within + t.member
		}
		cut := strings.LastIndexByte(text, '/') + 1
		if cut == 0 && t.member != "" {
			cut = len(text) - len(t.member)
		}
		d.Folder, d.Name = append(d.Folder, folders.of(text[:cut])), append(d.Name, text[cut:])
		d.Prob = append(d.Prob, thousandths(float64(t.sure)))
		if truth {
			d.Of = append(d.Of, class(t.class))
		}
		if t.missing != "" {
			d.Missing[i] = t.missing
		}
	}
	d.Folders, d.Classes = folders.names, names.names
	return d
}

// hasPrevious tells whether images had labels in the run before.
func (h *head) hasPrevious() bool {
	for k := range h.clusters {
		if h.clusters[k].before > 0 {
			return true
		}
	}
	return false
}

func thousandths(share float64) int { return int(math.Round(1000 * share)) }
