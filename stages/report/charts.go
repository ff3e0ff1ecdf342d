package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// bars is a histogram. Text and bars are laid out by the page, so that they
// stay legible at any width.
type bars struct {
	Title  string
	Label  string // what it shows, for those who do not see it
	Bars   []bar
	Left   string // values at the axis's ends
	Right  string
	Middle string
	Most   string // at the highest bar
	Mark   float64
	Marked string // what lies at Mark, a percentage of the width; "" for nothing
}

type bar struct {
	Height float64 // percent of the highest
	Text   string
}

func newBars(title, axis string, counts []int64, edge func(i int) string, unit string) bars {
	b := bars{Title: title, Left: edge(0), Right: edge(len(counts)), Most: count(slices.Max(counts)) + " " + unit, Middle: axis}
	most := float64(max(slices.Max(counts), 1))
	for i, n := range counts {
		b.Bars = append(b.Bars, bar{Height: rounded(100 * float64(n) / most), Text: fmt.Sprintf("%s to %s: %s %s", edge(i), edge(i+1), count(n), unit)})
	}
	b.Label = fmt.Sprintf("Histogram of %s, from %s to %s; the highest bar has %s.", axis, b.Left, b.Right, b.Most)
	return b
}

// sizeBars is the histogram of cluster sizes.
func (h *head) sizeBars(wanted bool) bars {
	sizes := make([]int64, len(h.clusters))
	for k := range h.clusters {
		sizes[k] = h.clusters[k].size
	}
	low, high := slices.Min(sizes), slices.Max(sizes)
	width := max((high-low)/24+1, 1)
	for _, nice := range []int64{1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 5000, 10000} {
		if nice >= width {
			width = nice
			break
		}
	}
	first := low / width * width
	counts := make([]int64, (high-first)/width+1)
	for _, n := range sizes {
		counts[(n-first)/width]++
	}
	b := newBars("Cluster sizes", "images in a cluster", counts, func(i int) string { return count(first + int64(i)*width) }, "clusters")
	b.Right = count(first + int64(len(counts))*width - 1) // sizes are whole numbers
	if mean := float64(h.rows) / float64(len(sizes)); wanted {
		b.Mark, b.Marked = rounded(100*(mean-float64(first)+0.5)/float64(int64(len(counts))*width)), "equal share "+decimal(mean)
	}
	return b
}

// sureBars is the histogram of confidence.
func (h *head) sureBars(what string) bars {
	b := newBars("Confidence", what, h.sure[:], func(i int) string { return strconv.FormatFloat(float64(i)/sureBins, 'g', 3, 64) }, "images")
	b.Mark, b.Marked = rounded(100*h.mean), "mean "+share(h.mean)
	return b
}

// curves is a line chart.
type curves struct {
	Title  string
	Label  string
	Lines  []curve
	Across []tick // of the horizontal axis
	Up     []tick // of the vertical axis
	Axis   string // what the horizontal axis counts
}

type curve struct {
	Name   string
	Class  string // of the page's style
	Points string // of an SVG polyline in a square of 100, y downwards
	Dots   []dot  // where there are few
	Head   int    // that the page may emphasise; −1 for none
}

type dot struct {
	X, Y float64
	Text string
}

// tick is a value at a percentage of its axis, from the left or the bottom.
type tick struct {
	At   float64
	Text string
}

type point struct{ x, y float64 }

// fewDots is up to how many points a curve shows each.
const fewDots = 40

// plot adds a curve of points within [x0, x1] × [y0, y1].
func (c *curves) plot(name, class string, head int, points []point, x0, x1, y0, y1 float64, text func(point) string) {
	line := curve{Name: name, Class: class, Head: head}
	var b strings.Builder
	for _, p := range points {
		x := rounded(100 * (p.x - x0) / max(x1-x0, 1e-9))
		y := rounded(100 * (1 - (p.y-y0)/(y1-y0)))
		fmt.Fprintf(&b, "%s,%s ", number(x), number(y))
		if len(points) <= fewDots {
			line.Dots = append(line.Dots, dot{x, y, text(p)})
		}
	}
	line.Points = strings.TrimSuffix(b.String(), " ")
	c.Lines = append(c.Lines, line)
}

// across puts at most six ticks at whole numbers from first to last.
func across(first, last int) (ticks []tick) {
	step := 1
	for _, s := range []int{1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 5000} {
		if step = s; (last-first)/s <= 6 {
			break
		}
	}
	for v := first; v <= last; v++ {
		if v%step == 0 || first == last {
			ticks = append(ticks, tick{rounded(100 * float64(v-first) / float64(max(last-first, 1))), count(int64(v))})
		}
	}
	return ticks
}

// convergence is the error of the shares, pass by pass, of every head that has
// a record of them; nil where none has.
func (r *reporter) convergence() *curves {
	low, high, last := math.Inf(1), math.Inf(-1), 1
	for _, h := range r.heads {
		for _, p := range h.solution.Trace {
			y := math.Log10(p.MarginalL1)
			low, high, last = min(low, y), max(high, y), max(last, p.Pass)
		}
	}
	if low > high {
		return nil
	}
	low, high = math.Floor(low), math.Ceil(high)
	if high == low {
		high++
	}
	c := &curves{Title: "Error of the clusters’ shares (L1), pass by pass", Axis: "full pass over the log-probabilities", Across: across(1, last)}
	every := int(math.Ceil((high - low) / 5))
	for e := int(low); e <= int(high); e += every {
		c.Up = append(c.Up, tick{rounded(100 * (float64(e) - low) / (high - low)), "10" + superscript(e)})
	}
	final := 0.0
	for _, h := range r.heads {
		var points []point
		for _, p := range h.solution.Trace {
			points = append(points, point{float64(p.Pass), math.Log10(p.MarginalL1)})
		}
		if len(points) == 0 {
			continue
		}
		final = max(final, h.solution.Trace[len(h.solution.Trace)-1].MarginalL1)
		c.plot(fmt.Sprintf("head %d", h.number), "faint", h.number, points, 1, float64(last), low, high,
			func(p point) string {
				return fmt.Sprintf("head %d, pass %d: %.2g", h.number, int(p.x), math.Pow(10, p.y))
			})
	}
	c.Label = fmt.Sprintf("Line chart: the error of the shares of %d heads over up to %d passes, on a logarithmic scale. At the end it is at most %.2g.", len(c.Lines), last, final)
	return c
}

// history is how the rounds of a loop went; nil of a run that is none, or the
// first.
func (r *reporter) history() *curves {
	if len(r.rounds) < 2 {
		return nil
	}
	last := float64(len(r.rounds) - 1)
	c := &curves{Title: "Agreement, round by round (means over the heads)", Axis: "round", Across: across(0, len(r.rounds)-1)}
	for i := range 5 {
		c.Up = append(c.Up, tick{float64(25 * i), number(float64(i) / 4)})
	}
	for _, s := range []struct {
		name, class string
		of          func(i int) *float64
	}{
		{"churn", "first", func(i int) *float64 { return r.rounds[i].Churn }},
		{"NMI with the round before", "second", func(i int) *float64 { return r.rounds[i].Previous }},
		{"NMI with the truth", "third", func(i int) *float64 {
			if t := r.rounds[i].Truth; t != nil {
				return &t.NMI
			}
			return nil
		}},
	} {
		var points []point
		for i := range r.rounds {
			if y := s.of(i); y != nil {
				points = append(points, point{float64(i), *y})
			}
		}
		if len(points) == 0 {
			continue
		}
		c.plot(s.name, s.class, -1, points, 0, last, 0, 1, func(p point) string {
			return fmt.Sprintf("round %d: %s %s", int(p.x), s.name, share(p.y))
		})
		c.Label += fmt.Sprintf(" %s: %s at last.", s.name, share(points[len(points)-1].y))
	}
	c.Label = fmt.Sprintf("Line chart over %d rounds.%s", len(r.rounds), c.Label)
	return c
}
