package loop

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/stages/evaluate"
	"sela/stages/train/builtin"
)

const required = "images: {bucket: in}\nwork: {bucket: work}\nlabels: {bucket: out}\nmodel: {path: m.onnx}\n"

func spec(t *testing.T, rounds int, fields ...string) *Spec {
	t.Helper()
	job, err := pipeline.ParseJob([]byte(required+strings.Join(fields, "\n")), "/d")
	if err != nil {
		t.Fatal(err)
	}
	return &Spec{Version: 1, Loop: "l", Rounds: rounds, Job: job, Provenance: pipeline.Provenance{Model: "m", Code: "c"}}
}

func TestEnds(t *testing.T) {
	for _, c := range []struct {
		schedule       string
		power          float64
		rounds, epochs int
		want           []float64
	}{
		{"even", 2, 3, 2, []float64{2, 4, 6}},
		{"even", 2, 1, 1, []float64{1}},
		{"power", 2, 4, 1, []float64{0.25, 1, 2.25, 4}},
		{"power", 1, 3, 1, []float64{1, 2, 3}},
		{"power", 3, 2, 4, []float64{1, 8}},
	} {
		got := Ends(pipeline.Loop{Schedule: c.schedule, Power: c.power}, c.rounds, c.epochs)
		if !slices.EqualFunc(got, c.want, func(a, b float64) bool { return math.Abs(a-b) < 1e-12 }) {
			t.Errorf("%s %v, %d × %d epochs: %v, want %v", c.schedule, c.power, c.rounds, c.epochs, got, c.want)
		}
		if got[c.rounds-1] != float64(c.rounds*c.epochs) {
			t.Errorf("the last part ends at %v", got[c.rounds-1])
		}
	}
}

// The label passes of the reference, as its main.py computes them for 400 epochs
// and 100 passes, in epochs: (E + 1.01)·linspace(0, 1, nopts)².
func TestPowerScheduleIsTheReferences(t *testing.T) {
	const nopts, duration = 100, 401.01
	reference := []float64{0, .04, .16, .37, .65, 1.02} // the first, to two digits
	ends := Ends(pipeline.Loop{Schedule: "power", Power: 2}, nopts-1, 1)
	for i := 1; i < nopts; i++ {
		want := math.Pow(float64(i)/(nopts-1), 2)
		if share := ends[i-1] / (nopts - 1); math.Abs(share-want) > 1e-12 {
			t.Errorf("pass %d is at %v of the training, the reference's at %v", i, share, want)
		}
		if i < len(reference) && math.Abs(duration*want-reference[i]) > 0.005 {
			t.Errorf("pass %d at %.3f epochs, the reference's at %v", i, duration*want, reference[i])
		}
	}
}

func TestSettled(t *testing.T) {
	s := spec(t, 10, "train: {type: builtin, builtin: {rate: 0.1, warmup: 0.2, epochs: 1}}", "loop: {stop_churn: 0.05}")
	for _, c := range []struct {
		round       int
		churn, rate float64
		want        bool
	}{
		{5, 0.01, 0.01, true},
		{5, 0.01, 0.0101, false}, // the rate has not fallen far enough
		{5, 0.05, 0.001, false},  // as much churn as that
		{5, 0.01, 0.1 * 0.1, true},
		{2, 0.01, 0.001, false}, // in the warm-up
		{3, 0.01, 0.001, true},
	} {
		if got := s.Settled(c.round, c.churn, c.rate); got != c.want {
			t.Errorf("round %d, churn %v, rate %v: %v", c.round, c.churn, c.rate, got)
		}
	}
	s.Job.Loop.StopChurn = 0
	if s.Settled(9, 0, 0) {
		t.Error("a loop that never stops early did")
	}
}

func TestRoundJobs(t *testing.T) {
	place := func(key string) string { return "s3://work/" + key }
	s := spec(t, 4, "train: {type: builtin, builtin: {epochs: 2, schedule: steps, milestones: [0.5, 1.5], seed: 3}}",
		"loop: {schedule: power, start: random}", "solve: {method: deepcluster, seed: 5}", "label: {previous: other}")
	first := s.RoundJob(0, "s3://work/loops/l/model.onnx", nil, place)
	b := first.Train.Builtin
	if first.Model.Path != "s3://work/loops/l/model.onnx" || first.Label.Previous != "" || first.Solve.Method != "random" || first.Solve.Seed != 5 ||
		b.Epochs != 8 || b.Until != 0.5 || b.After != "" || b.ResetHeads || !slices.Equal(b.Milestones, []float64{2, 6}) {
		t.Errorf("round 0: %+v %+v %+v", first.Model, first.Solve, b)
	}
	before := &Round{Round: 0, Run: "l-r000", Model: &File{Key: "runs/l-r000/model/trained.x.onnx"}, Checkpoint: &File{Key: "runs/l-r000/model/checkpoint.x.sela"}}
	second := s.RoundJob(1, "", before, place)
	b = second.Train.Builtin
	if second.Model.Path != "s3://work/runs/l-r000/model/trained.x.onnx" || second.Label.Previous != "l-r000" || second.Solve.Method != "deepcluster" ||
		b.After != "s3://work/runs/l-r000/model/checkpoint.x.sela" || b.Until != 2 || b.Epochs != 8 || !b.ResetHeads {
		t.Errorf("round 1: %+v %+v %+v", second.Model, second.Label, b)
	}
	before = &Round{Round: 3, Run: "l-r003", Model: &File{Key: "m"}}
	last := s.RoundJob(4, "", before, place)
	if last.Train.Type != "none" || last.Label.Previous != "l-r003" || last.Train.Builtin.After != "" {
		t.Errorf("round 4: %+v", last.Train)
	}
	for r, job := range []*pipeline.Job{first, second, last} {
		if err := job.Train.Builtin.Check(); err != nil {
			t.Errorf("the job of round %d: %v", r, err)
		}
	}
	if s.Job.Label.Previous != "other" || s.Job.Train.Builtin.Epochs != 2 || s.Job.Train.Builtin.Milestones[0] != 0.5 {
		t.Error("the loop's job was changed")
	}
	// Equal methods in every round keep their heads.
	s.Job.Solve.Method, s.Job.Loop.Start = "kmeans", "model"
	if j := s.RoundJob(1, "", before, place); j.Train.Builtin.ResetHeads || j.Solve.Method != "kmeans" {
		t.Errorf("k-means: %+v", j.Train.Builtin)
	}
	if s.Run(7) != "l-r007" || s.Total() != 8 {
		t.Errorf("%s of %d epochs", s.Run(7), s.Total())
	}
}

func TestCheck(t *testing.T) {
	builtin := "train: {type: builtin}"
	for _, c := range []struct {
		rounds int
		fields []string
		class  pipeline.Class
		want   string
	}{
		{3, []string{builtin}, pipeline.Bug, ""},
		{3, []string{"train: {type: command, command: [a]}"}, pipeline.Bug, ""},
		{0, []string{builtin}, pipeline.Usage, "0 rounds"},
		{1000, []string{builtin}, pipeline.Usage, "1000 rounds"},
		{3, nil, pipeline.Config, "train.type is none"},
		{3, []string{"train: {type: http, url: 'http://h/x'}"}, pipeline.Config, "train.type is http"},
		{3, []string{"train: {type: command, command: [a]}", "loop: {stop_churn: 0.1}"}, pipeline.Config, "loop.stop_churn need"},
		{3, []string{"train: {type: command, command: [a]}", "loop: {schedule: power}"}, pipeline.Config, "loop.schedule power"},
		{3, []string{"train: {type: builtin, builtin: {until: 0.5}}"}, pipeline.Config, "the loop's to set"},
		{3, []string{"train: {type: builtin, builtin: {after: x}}"}, pipeline.Config, "the loop's to set"},
		{3, []string{"train: {type: builtin, builtin: {init: x}}"}, pipeline.Config, "train.builtin.init"},
		{3, []string{builtin, "solve: {method: fixed, from: r}"}, pipeline.Config, "solve.method is fixed"},
	} {
		s := spec(t, c.rounds, c.fields...)
		err := s.Check()
		if (err == nil) != (c.want == "") || err != nil && (pipeline.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%d rounds, %v: %v", c.rounds, c.fields, err)
		}
	}
	s := spec(t, 3, builtin)
	for _, id := range []string{"", "a b", "../x", "-x", strings.Repeat("x", 124)} {
		if s.Loop = id; pipeline.ClassOf(s.Check()) != pipeline.Usage {
			t.Errorf("loop id %q is taken", id)
		}
	}
}

func TestFits(t *testing.T) {
	s := spec(t, 10, "train: {type: builtin, builtin: {batch: 100, held_out: 0}}", "loop: {schedule: power, power: 2}")
	// The first part is (1/10)² of 10 epochs.
	if err := s.Fits(1000); err != nil {
		t.Error(err)
	}
	if err := s.Fits(900); pipeline.ClassOf(err) != pipeline.Config || !strings.Contains(err.Error(), "0.9 steps") {
		t.Errorf("less than a step: %v", err)
	}
	s.Job.Loop.Schedule = "even"
	if err := s.Fits(1); err != nil {
		t.Error(err)
	}
}

func TestDifference(t *testing.T) {
	base := spec(t, 3, "train: {type: builtin}")
	for _, c := range []struct {
		change func(*Spec)
		want   string
	}{
		{func(s *Spec) {}, ""},
		{func(s *Spec) { s.Job.Train.Builtin.Threads = 7 }, ""},
		{func(s *Spec) { s.Job.Local.Dir = "elsewhere" }, ""},
		{func(s *Spec) { s.Job.Loop.Truth = "folders" }, ""},
		{func(s *Spec) { s.Rounds = 4 }, "--rounds: 3 → 4"},
		{func(s *Spec) { s.Job.Solve.Lambda = 10 }, "solve.lambda: 25 → 10"},
		{func(s *Spec) { s.Job.Train.Builtin.Rate = 1 }, "train.builtin.rate: 0.03 → 1"},
		{func(s *Spec) { s.Job.Train.Type = "command" }, "train.type: builtin → command"},
		{func(s *Spec) { s.Job.Loop.Start = "random" }, "loop.start: model → random"},
		{func(s *Spec) { s.Provenance.Model = "n" }, "model: m → n"},
	} {
		other := spec(t, 3, "train: {type: builtin}")
		c.change(other)
		if got := strings.Join(base.Difference(other), "; "); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	raw, err := json.Marshal(base)
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseSpec(raw, "l")
	if err != nil || len(back.Difference(base)) > 0 {
		t.Errorf("read back: %v, %v", back.Difference(base), err)
	}
	for _, damaged := range []string{"{", "{}", strings.Replace(string(raw), `"rounds":3`, `"rounds":0`, 1)} {
		if _, err := ParseSpec([]byte(damaged), "l"); pipeline.ClassOf(err) != pipeline.Data {
			t.Errorf("%.40s: %v", damaged, err)
		}
	}
}

func TestAgree(t *testing.T) {
	labels := []int32{0, 0, 1, 1, 2, 2}
	a, err := Agree(labels, []int32{0, 1, 1, 1, -1, 2}, []int32{5, 5, 6, 6, 6, 7})
	if err != nil {
		t.Fatal(err)
	}
	same, _ := evaluate.Compare([]int32{0, 0, 1, 1, 2}, []int32{0, 1, 1, 1, 2})
	truth, _ := evaluate.Compare(labels, []int32{5, 5, 6, 6, 6, 7})
	if *a.Churn != 0.2 || *a.Previous != same.NMI || a.Truth.NMI != truth.NMI || a.Truth.Purity != truth.Purity {
		t.Errorf("%v %v %+v", *a.Churn, *a.Previous, a.Truth)
	}
	if a.Truth.NMIChance <= 0 || a.Truth.NMIChance >= 1 {
		t.Errorf("by chance %v", a.Truth.NMIChance)
	}
	if a, err = Agree(labels, []int32{-1, -1, -1, -1, -1, -1}, nil); err != nil || a.Churn != nil || a.Previous != nil || a.Truth != nil {
		t.Errorf("nothing to compare with: %+v, %v", a, err)
	}
}

func TestTables(t *testing.T) {
	x := func(v float64) *float64 { return &v }
	rounds := []*Round{
		{Round: 0, Run: "l-r000", Images: 8, Heads: []Head{{Passes: 9, ListLength: 4, MarginalL1: 1e-7, Smallest: 3, Largest: 5, Agreement: Agreement{Truth: &Truth{0.25, 0.125, 0.5, 0.375}}},
			{Passes: 10, ListLength: 6, MarginalL1: 1e-6, Smallest: 2, Largest: 6, Agreement: Agreement{Truth: &Truth{0.75, 0.125, 0.5, 0.375}}}},
			Training: &builtin.Metrics{Rate: 0.5, ImagesPerSecond: 100, Train: builtin.Scores{Score: builtin.Score{Loss: 2, Accuracy: 0.25}}}, Seconds: map[string]float64{"extract": 1.5, "train": 9}},
		{Round: 1, Run: "l-r001", Epoch: 1, Images: 8, Heads: []Head{{Passes: 2, Agreement: Agreement{Churn: x(0.25), Previous: x(0.5)}}, {Passes: 3, Agreement: Agreement{Churn: x(0.75), Previous: x(1)}}}, Last: true},
	}
	for _, r := range rounds {
		r.Agreement = Mean(r.Heads)
	}
	if m := rounds[0].Agreement; m.Churn != nil || m.Truth.NMI != 0.5 {
		t.Errorf("mean %+v", m)
	}
	if m := rounds[1].Agreement; *m.Churn != 0.5 || *m.Previous != 0.75 || m.Truth != nil {
		t.Errorf("mean %+v", m)
	}
	var table strings.Builder
	if err := WriteCSV(&table, rounds); err != nil {
		t.Fatal(err)
	}
	want := "round,run,epoch,images,churn,nmi_previous,nmi,nmi_by_chance,purity,purity_by_chance,passes,list_length,marginal_l1,smallest,largest,train_loss,train_accuracy,held_out_loss,held_out_accuracy,rate,images_per_second,extract_seconds,solve_seconds,label_seconds,train_seconds,head_0_churn,head_0_nmi_previous,head_0_nmi,head_1_churn,head_1_nmi_previous,head_1_nmi\n" +
		"0,l-r000,0,8,,,0.5,0.125,0.5,0.375,9.5,5,1e-06,2,6,2,0.25,,,0.5,100,1.5,0,0,9,,,0.25,,,0.75\n" +
		"1,l-r001,1,8,0.5,0.75,,,,,2.5,0,0,0,0,,,,,,,0,0,0,0,0.25,0.5,,0.75,1,\n"
	if table.String() != want {
		t.Errorf("rounds.csv is\n%s", table.String())
	}
	table.Reset()
	if err := WriteTable(&table, rounds); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(table.String(), "\n")
	if len(lines) != 4 || !slices.Equal(strings.Fields(lines[1])[:8], []string{"0", "0", "-", "-", "0.500", "0.125", "0.500", "0.375"}) {
		t.Errorf("the table is\n%s", table.String())
	}
	raw, err := json.Marshal(rounds[1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseRound(raw, "", 1); err == nil {
		t.Error("a record without a version is read")
	}
	rounds[1].Version, rounds[1].Loop = 1, "l"
	raw, _ = json.Marshal(rounds[1])
	if back, err := ParseRound(raw, "l", 1); err != nil || *back.Churn != 0.5 {
		t.Errorf("read back: %v, %v", back, err)
	}
	if _, err := ParseRound(raw, "l", 2); pipeline.ClassOf(err) != pipeline.Data {
		t.Errorf("another round's record: %v", err)
	}
}
