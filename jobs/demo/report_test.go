package main

import (
	"slices"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	a, b, c := name{Key: "a.jpg"}, name{"s.tar", "b.jpg"}, name{"s.tar", "c.jpg"}
	l := &labels{head: 3, names: []name{a, b, c}, label: []int32{1, 0, 1}, proof: certificate{2, 12, 1e-5}}
	truth := map[name]int32{a: 4, b: 9, c: 2, {Key: "unlabelled.jpg"}: 1}

	classes, err := l.classes(truth)
	if err != nil || !slices.Equal(classes, []int32{4, 9, 2}) {
		t.Errorf("classes %v, %v", classes, err)
	}
	var out strings.Builder
	if err := writeReport(&out, "r1", []*labels{l}, truth); err != nil {
		t.Fatal(err)
	}
	var got [][]string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.Fields(line))
	}
	// Three classes of one image each against clusters of two and one:
	// NMI = 2·0.6365/(0.6365 + 1.0986), and so is that of any other such labels.
	want := []string{"3", "2", "12", "1.0e-05", "1", "2", "0.734", "0.734", "0.667", "0.667"}
	if len(got) != 4 || !slices.Equal(got[0], []string{"run", "r1:", "3", "images"}) || !slices.Equal(got[3], want) {
		t.Errorf("report is\n%s", out.String())
	}

	delete(truth, c)
	if err := writeReport(&out, "r1", []*labels{l}, truth); err == nil || !strings.Contains(err.Error(), "c.jpg") {
		t.Errorf("an image without truth: %v, want an error that names it", err)
	}
}

func TestDifferences(t *testing.T) {
	names := []name{{Key: "a"}, {Key: "b"}}
	one := &labels{head: 2, names: names, label: []int32{0, 1}}
	var out strings.Builder
	if err := differences(&out, []*labels{one}, []*labels{{head: 2, names: names, label: []int32{0, 2}}}); err != nil || out.String() != "head 2: 1 of 2 labels differ\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	if err := differences(&out, []*labels{one}, []*labels{{head: 2, names: names[:1], label: []int32{0}}}); err == nil {
		t.Error("runs over different images were compared")
	}
}
