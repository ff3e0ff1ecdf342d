package report

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/stages/solve"
)

func TestDeal(t *testing.T) {
	for _, c := range []struct {
		name      string
		available []int
		budget    int
		want      []int
	}{
		{"enough for all", []int{3, 2, 3}, 100, []int{3, 2, 3}},
		{"the same to all", []int{8, 8, 8}, 6, []int{2, 2, 2}},
		{"what is left goes to the ends", []int{8, 8, 8, 8}, 11, []int{5, 2, 2, 2}},
		{"then inwards", []int{3, 8, 8, 3}, 10, []int{3, 2, 2, 3}},
		{"less than one each", []int{8, 8, 8, 8, 8}, 3, []int{1, 1, 0, 0, 1}},
		{"empty clusters take none", []int{8, 8, 0}, 3, []int{2, 1, 0}},
		{"no budget", []int{8, 8}, 0, []int{0, 0}},
		{"nothing there", nil, 5, []int{}},
	} {
		if got := deal(c.available, c.budget); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// Many images are drawn so small that the report stays within its size.
func TestGrades(t *testing.T) {
	last := grade{side: 1 << 20}
	for _, n := range []int{0, 832, 10240, 16384, 32768, 1 << 20} {
		g := gradeOf(n)
		if g.side > last.side || g.side%16 != 0 { // JPEG's chroma would mix neighbours
			t.Errorf("%d images: side %d after %d", n, g.side, last.side)
		}
		if n <= pipeline.DefaultJob().Report.Images && n*g.bytes > tilesBytes {
			t.Errorf("%d images take %d bytes", n, n*g.bytes)
		}
		last = g
	}
}

func TestRankWithoutTruth(t *testing.T) {
	h := &head{clusters: []cluster{{size: 1, sure: 0.5}, {}, {size: 2, sure: 0.9}, {size: 3, sure: 0.5}}}
	new(reporter).rank(h)
	if !slices.Equal(h.order, []int{2, 0, 3, 1}) {
		t.Errorf("order %v", h.order)
	}
}

func TestOurs(t *testing.T) {
	for name, want := range map[string]bool{headName(0): true, headName(12): true, tilesName(3, 1000): true, tilesName(0, 7): true,
		"data/head-1.json": false, "data/head-01.js": false, "data/tiles-1-7.jpg": false, "data/other.js": false, "index.html": false} {
		if ours(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}

// Nothing that may hold a secret is shown.
func TestPublicJob(t *testing.T) {
	job := pipeline.DefaultJob()
	job.Images.Bucket = "s3://bucket/prefix?endpoint=https://user:SEKRET@store"
	job.Loop.Truth = "https://user:SEKRET@host/truth.csv?sig=SEKRET"
	job.Solve.Truth = "s3://%zz:SEKRET@x"
	job.Train = pipeline.Train{Type: "http", URL: "https://hooks/SEKRET", Command: []string{"SEKRET"}, Builtin: job.Train.Builtin}
	before := *job
	shown, err := publicJob(job)
	if err != nil || strings.Contains(shown, "SEKRET") {
		t.Errorf("%v\n%s", err, shown)
	}
	for _, part := range []string{`"s3://bucket/prefix"`, `"https://host/truth.csv"`, `"lambda": 25`, `"type": "http"`} {
		if !strings.Contains(shown, part) {
			t.Errorf("it lacks %s", part)
		}
	}
	if !reflect.DeepEqual(before, *job) {
		t.Error("the job itself was changed")
	}
}

func TestCharts(t *testing.T) {
	h := &head{rows: 100, mean: 0.5, clusters: []cluster{{size: 10}, {size: 20}, {size: 30}, {size: 40}}}
	b := h.sizeBars(true)
	if len(b.Bars) < 2 || b.Bars[0].Height != 100 || b.Left != "10" || b.Right != "41" && b.Right != "40" || b.Mark <= 0 || b.Mark >= 100 || b.Marked != "equal share 25" {
		t.Errorf("%+v", b)
	}
	one := (&head{rows: 5, clusters: []cluster{{size: 5}}}).sizeBars(true)
	if len(one.Bars) != 1 || one.Left != "5" || one.Right != "5" {
		t.Errorf("%+v", one)
	}
	trace := func(errs ...float64) *head {
		s := &solve.Solution{}
		for i, e := range errs {
			s.Trace = append(s.Trace, solve.Pass{Pass: i + 1, MarginalL1: e})
		}
		return &head{solution: s}
	}
	r := &reporter{heads: []*head{trace(1, 0.01, 1e-7), trace(0.1)}}
	c := r.convergence()
	if c == nil || len(c.Lines) != 2 || c.Lines[0].Points != "0,0 50,28.57 100,100" || c.Lines[1].Points != "0,14.29" || len(c.Across) != 3 || c.Up[0].Text != "10⁻⁷" {
		t.Errorf("%+v", c)
	}
	if r := (&reporter{heads: []*head{trace()}}); r.convergence() != nil || r.history() != nil {
		t.Error("charts of nothing")
	}
	if ticks := across(1, 2201); len(ticks) == 0 || len(ticks) > 7 {
		t.Errorf("%d ticks: %v", len(ticks), ticks)
	}
}

func TestNumbers(t *testing.T) {
	for got, want := range map[string]string{
		count(0): "0", count(999): "999", count(1281167): "1,281,167", count(int64(-1234)): "-1,234",
		small(4.94e-7): "4.9 × 10⁻⁷", small(0): "0", small(0.0123): "0.012", decimal(13.5): "13.5", decimal(154): "154",
		percent(0.00002): "less than 0.1 %", percent(0.93): "93 %", percent(0): "0 %",
		seconds(0.614): "0.61 s", seconds(61): "61 s", seconds(600): "10 min", seconds(7200): "2 h", superscript(-12): "⁻¹²",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
