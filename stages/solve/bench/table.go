//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// table is what a section reports. Cells are strings, integers, float64 (shown
// with three digits) or durations, which become seconds; nil is an empty cell.
type table struct {
	Title   string   `json:"title"`
	Notes   []string `json:"notes,omitempty"`
	Columns []string `json:"columns"`
	Rows    [][]any  `json:"rows"`
}

func (t *table) add(cells ...any) {
	for i, c := range cells {
		if d, ok := c.(time.Duration); ok {
			cells[i] = d.Seconds()
		}
	}
	t.Rows = append(t.Rows, cells)
}

func (t *table) note(format string, args ...any) {
	t.Notes = append(t.Notes, fmt.Sprintf(format, args...))
}

// markdown writes the table with its columns aligned.
func (t *table) markdown(w io.Writer) error {
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
		return number(v)
	}
	return fmt.Sprint(v)
}

// number has three digits, more only before the point.
func number(x float64) string {
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

// figure is a measurement and what is wanted of it.
type figure struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Wanted string `json:"wanted"`
	Met    bool   `json:"met"`
}

// summary is the table of all figures.
func summary(figures []figure) *table {
	t := &table{Title: "Summary", Columns: []string{"figure", "measured", "wanted", "met"}}
	for _, f := range figures {
		met := "no"
		if f.Met {
			met = "yes"
		}
		t.add(f.Name, f.Value, f.Wanted, met)
	}
	return t
}

// atLeast and atMost are figures with one bound.
func atLeast(name string, value, bound float64, unit string) figure {
	return figure{name, number(value) + unit, "≥ " + number(bound) + unit, value >= bound}
}

func atMost(name string, value, bound float64, unit string) figure {
	return figure{name, number(value) + unit, "≤ " + number(bound) + unit, value <= bound}
}
