package report

import (
	"strings"
	"testing"

	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/sinkhorn"
	"sela/stages/loop"
	"sela/stages/solve"
	"sela/stages/train/builtin"
)

// tiny is a reporter with one head of two clusters and no images.
func tiny(t *testing.T) *reporter {
	t.Helper()
	to, err := bucket.Open(t.Context(), "mem://", bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { to.Close() })
	r := tenHeads([]photograph{{Image: schemas.Image{Key: "a.jpg", Size: 1}}}).reporter
	r.To, r.heads, r.solutions = to, r.heads[:1], r.solutions[:1]
	h := r.heads[0]
	h.clusters = []cluster{{size: 30, sure: 0.75, class: -1}, {class: -1}}
	h.rows, h.mean = 30, 0.75
	r.classes = classes{}
	return r
}

func render(t *testing.T, r *reporter) string {
	t.Helper()
	for _, step := range []func() error{func() error { return r.choose(t.Context()) }, func() error { return r.draw(t.Context()) },
		func() error { return r.describe(t.Context()) }, func() error { return r.page(t.Context()) }} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := r.To.Get(t.Context(), "index.html")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// Each kind of run has the parts that it has something to say in.
func TestParts(t *testing.T) {
	number := func(x float64) *float64 { return &x }
	for _, c := range []struct {
		name   string
		change func(*reporter)
		has    []string
		lacks  []string
	}{
		{"a run of its own", func(*reporter) {},
			[]string{"Error of the clusters’ shares", "Every image could be used", "1 × 2", "error of shares", `aria-label="Line chart: the error of the shares of 1 heads over up to 2 passes`},
			[]string{"Rounds", ">churn<", "purity", "NMI"}},
		{"solved by a version without a record", func(r *reporter) { r.solutions[0].Trace = nil },
			[]string{"No passes are on record"}, []string{"Error of the clusters’ shares"}},
		{"k-means", func(r *reporter) {
			r.solutions[0] = solve.Solution{Result: solve.Result{Labelling: &solve.Labelling{Method: "kmeans", Clusters: 2, Rows: 30}}}
		}, []string{"these labels have none", "No passes are on record"}, []string{"error of shares</dt>"}},
		{"warned of", func(r *reporter) {
			r.solutions[0].Certificate = sinkhorn.Certificate{Clusters: 2, Warnings: []string{"collapse: <all> rows"}}
		}, []string{"collapse: &lt;all&gt; rows"}, nil},
		{"a round of a loop", func(r *reporter) {
			r.classes.known, r.heads[0].clusters[0].known, r.classes.names, r.heads[0].clusters[0].class, r.heads[0].clusters[0].before = 30, 30, []string{"cat"}, 0, 30
			truth := &loop.Truth{NMI: 0.25, NMIChance: 0.125, Purity: 0.5, PurityChance: 0.375}
			r.heads[0].agreement = loop.Agreement{Churn: number(0.0625), Previous: number(0.875), Truth: truth}
			r.rounds = []*loop.Round{
				{Loop: "l", Agreement: loop.Agreement{Truth: truth}, Training: &builtin.Metrics{Train: builtin.Scores{Score: builtin.Score{Loss: 2.5}}}},
				{Loop: "l", Round: 1, Epoch: 3, Agreement: r.heads[0].agreement, Last: true},
			}
		}, []string{"round 1 of loop <code>l</code>", "Rounds</h2>", "0.062", "0.875", "0.250", "0.125", "0.375", "2.500", "NMI with the truth: 0.250 at last"},
			nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := tiny(t)
			c.change(r)
			text := render(t, r)
			body := text[strings.Index(text, "<body>"):strings.Index(text, `<script type="application/json"`)]
			for _, part := range c.has {
				if !strings.Contains(body, part) {
					t.Errorf("it lacks %q", part)
				}
			}
			for _, part := range c.lacks {
				if strings.Contains(body, part) {
					t.Errorf("it says %q", part)
				}
			}
		})
	}
}
