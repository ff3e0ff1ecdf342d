// Package report holds what a benchmark command prints: tables in Markdown and
// JSON, and figures held against what is wanted of them.
package report

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// Table is one measurement. Cells are strings, integers, float64 (shown as
// [Number] does) or durations, which become seconds; nil is an empty cell.
type Table struct {
	Title   string   `json:"title"`
	Notes   []string `json:"notes,omitempty"`
	Columns []string `json:"columns"`
	Rows    [][]any  `json:"rows"`
}

// Add appends a row, which may be shorter than the columns.
func (t *Table) Add(cells ...any) {
	for i, c := range cells {
		if d, ok := c.(time.Duration); ok {
			cells[i] = d.Seconds()
		}
	}
	t.Rows = append(t.Rows, cells)
}

// Note appends a line that is printed below the table.
func (t *Table) Note(format string, args ...any) {
	t.Notes = append(t.Notes, fmt.Sprintf(format, args...))
}

// Markdown writes the table with its columns aligned.
func (t *Table) Markdown(w io.Writer) error {
	cells := [][]string{t.Columns}
	for _, row := range t.Rows {
		line := make([]string, len(t.Columns))
		for i := range line {
			if i < len(row) {
				line[i] = strings.ReplaceAll(cell(row[i]), "|", `\|`)
			}
		}
		cells = append(cells, line)
	}
	width := make([]int, len(t.Columns))
	for _, row := range cells {
		for i, c := range row {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n### %s\n\n", t.Title)
	for r, row := range cells {
		for i, c := range row {
			fmt.Fprintf(&b, "| %s%s ", c, strings.Repeat(" ", width[i]-utf8.RuneCountInString(c)))
		}
		b.WriteString("|\n")
		if r == 0 {
			for _, n := range width {
				b.WriteString("|" + strings.Repeat("-", n+2))
			}
			b.WriteString("|\n")
		}
	}
	for i, n := range t.Notes {
		if i == 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "- %s\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func cell(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case float64:
		return Number(v)
	}
	return fmt.Sprint(v)
}

// Number has three digits, more only before the point.
func Number(x float64) string {
	switch a := math.Abs(x); {
	case a >= 100 && a < 1e7:
		return fmt.Sprintf("%.0f", x)
	case a >= 10 && a < 100:
		return fmt.Sprintf("%.1f", x)
	case a >= 1 && a < 10:
		return fmt.Sprintf("%.2f", x)
	}
	return fmt.Sprintf("%.3g", x)
}

// Figure is a measurement and what is wanted of it.
type Figure struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Wanted string `json:"wanted"`
	Met    bool   `json:"met"`
}

// AtLeast is a figure with a lower bound; unit follows both numbers.
func AtLeast(name string, value, bound float64, unit string) Figure {
	return Figure{name, Number(value) + unit, "≥ " + Number(bound) + unit, value >= bound}
}

// AtMost is a figure with an upper bound.
func AtMost(name string, value, bound float64, unit string) Figure {
	return Figure{name, Number(value) + unit, "≤ " + Number(bound) + unit, value <= bound}
}

// Summary is the table of all figures.
func Summary(figures []Figure) *Table {
	t := &Table{Title: "Summary", Columns: []string{"figure", "measured", "wanted", "met"}}
	for _, f := range figures {
		met := "no"
		if f.Met {
			met = "yes"
		}
		t.Add(f.Name, f.Value, f.Wanted, met)
	}
	return t
}
