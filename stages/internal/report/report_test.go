package report

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	tests := map[string]struct {
		cells []any
		want  string
	}{
		"numbers":   {[]any{1, 0.12345, 12.345}, "| 1 | 0.123  | 12.3 |"},
		"large":     {[]any{int64(7), 123.6, 1e9}, "| 7 | 124    | 1e+09 |"},
		"missing":   {[]any{"x", nil}, "| x |        |   |"},
		"durations": {[]any{"x", 1500 * time.Millisecond, "µs"}, "| x | 1.50   | µs |"},
		"bars":      {[]any{"|", 0.0, 1e-7}, `| \| | 0      | 1e-07 |`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			table := &Table{Title: "T", Columns: []string{"a", "second", "c"}}
			table.Add(test.cells...)
			table.Note("n = %d", 1)
			var b bytes.Buffer
			if err := table.Markdown(&b); err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(b.String(), "\n")
			if len(lines) != 9 || lines[1] != "### T" || lines[5] != test.want || lines[7] != "- n = 1" {
				t.Errorf("%q, want the row %q", lines, test.want)
			}
			if len(lines[3]) != len(lines[4]) {
				t.Errorf("columns are not aligned: %q", lines[3:6])
			}
		})
	}
}

func TestFigures(t *testing.T) {
	for _, test := range []struct {
		figure Figure
		want   Figure
	}{
		{AtLeast("rate", 1.5, 1.5, " ×"), Figure{"rate", "1.50 ×", "≥ 1.50 ×", true}},
		{AtLeast("rate", 1.4, 1.5, ""), Figure{"rate", "1.40", "≥ 1.50", false}},
		{AtMost("difference", 0, 0, ""), Figure{"difference", "0", "≤ 0", true}},
		{AtMost("difference", 1, 0, ""), Figure{"difference", "1.00", "≤ 0", false}},
	} {
		if test.figure != test.want {
			t.Errorf("%+v, want %+v", test.figure, test.want)
		}
	}
	if rows := Summary([]Figure{AtMost("d", 1, 0, "")}).Rows; len(rows) != 1 || rows[0][3] != "no" {
		t.Errorf("%v", rows)
	}
}

func TestProcLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "info")
	if err := os.WriteFile(path, []byte("first\t: 1\nmodel name\t: Some: Processor\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"model name": "Some: Processor", "first": "1", "last": "unknown"} {
		if got := procLine(path, key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
}
