package main

import (
	"os"
	"strings"
	"testing"

	"sela/schemas"
)

// TestReadmeHasTheSchema: the README's table of label columns is what the code
// says. To renew it, put the output of `sela schema labels` between its marks.
func TestReadmeHasTheSchema(t *testing.T) {
	raw, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(raw), "<!-- generated: sela schema labels -->\n")
	table, _, ended := strings.Cut(rest, "<!-- end -->\n")
	if !found || !ended {
		t.Fatal("the README has lost the marks of the table of label columns")
	}
	if want := schemas.Markdown(schemas.LabelColumns(true)); table != want {
		t.Errorf("the README says\n%s\nsela schema labels says\n%s", table, want)
	}
}

func TestSchemaCommand(t *testing.T) {
	r := &rig{t, t.TempDir()}
	page := r.want(0, "schema").stdout
	for _, table := range schemas.Tables() {
		text := schemas.Markdown(table.Columns)
		if !strings.Contains(page, "\n## "+table.Kind+"\n\n`"+table.Files+"`: a row is "+table.Rows+".\n\n"+text) {
			t.Errorf("no table %s in\n%s", table.Kind, page)
		}
		if got := r.want(0, "schema", table.Kind).stdout; got != text {
			t.Errorf("%s:\n%s", table.Kind, got)
		}
	}
	if out := r.want(64, "schema", "clusters"); !strings.Contains(out.stderr, "labels, potentials, quarantine, evaluation") {
		t.Error(out.stderr)
	}
}
