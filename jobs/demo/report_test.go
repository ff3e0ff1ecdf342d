package main

import (
	"slices"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	a, b, c := name{Key: "a.jpg"}, name{"s.tar", "b.jpg"}, name{"s.tar", "c.jpg"}
	l := &labels{head: 3, names: []name{a, b, c}, label: []int32{1, 0, 1}, sure: make([]float32, 3), largest: 1}
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
	want := [][]string{{"run", "r1:", "3", "images"}, {"head", "clusters", "smallest", "largest"}, {"3", "2", "1", "2"}}
	if !slices.EqualFunc(got, want, slices.Equal[[]string]) {
		t.Errorf("report is\n%s", out.String())
	}

	delete(truth, c)
	if err := writeReport(&out, "r1", []*labels{l}, truth); err == nil || !strings.Contains(err.Error(), "c.jpg") {
		t.Errorf("an image without truth: %v, want an error that names it", err)
	}
}
