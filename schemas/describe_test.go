package schemas

import (
	"os"
	"strings"
	"testing"
)

// TestTables compares what is told of the tables with files of them.
func TestTables(t *testing.T) {
	files := map[string]string{KindLabels: "labels-topk", KindPotentials: "potentials", KindQuarantine: "quarantine", KindEvaluation: "evaluation"}
	for _, table := range Tables() {
		f, err := os.Open(goldenPath(files[table.Kind]))
		check(t, err)
		defer f.Close()
		ft, err := readFooter(f)
		check(t, err)
		if got := ft.kv[keyKind]; got != table.Kind {
			t.Errorf("%s is a table of %s", f.Name(), got)
		}
		if got := described(table.Columns); got != ft.columns {
			t.Errorf("%s: told\n%s\nthe file has\n%s", table.Kind, got, ft.columns)
		}
		text := Markdown(table.Columns)
		for _, c := range table.Columns {
			for _, c := range append(c.Fields, c) {
				if c.Meaning == "" || strings.ContainsAny(c.Meaning, "|\n") {
					t.Errorf("%s.%s means %q", table.Kind, c.Name, c.Meaning)
				}
			}
			if !strings.Contains(text, "| `"+c.Name+"` | "+c.TypeName()+" | ") {
				t.Errorf("no %s in\n%s", c.Name, text)
			}
		}
	}
	plain := LabelColumns(false)
	if got := described(plain); got != labelsColumns {
		t.Errorf("without top_k: %s", got)
	}
	if got := LabelColumns(true)[len(plain)].TypeName(); got != "list of (label: int32, prob: float32)" {
		t.Error(got)
	}
}

// described writes columns as describe does.
func described(columns []Column) string {
	physical := map[string]string{}
	for p, name := range typeNames {
		physical[name] = p
	}
	var parts []string
	for _, c := range columns {
		if c.Type == "list" {
			parts = append(parts, c.Name+":1 list:1* element:"+string(rune('0'+len(c.Fields))), described(c.Fields))
			continue
		}
		null := ""
		if c.Null {
			null = "?"
		}
		parts = append(parts, c.Name+":"+physical[c.Type]+null)
	}
	return strings.Join(parts, " ")
}
