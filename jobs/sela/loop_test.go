package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"sela/stages/loop"
)

// loopRig is a rig whose job trains a small network on few images. A part of an
// epoch is 5 steps.
func loopRig(t *testing.T, training string, fields ...string) *rig {
	t.Helper()
	r := newRig(t)
	r.want(0, "model", "new", "--arch", "resnet-s", "--size", "16", "--heads", "2", "--clusters", "6", "--seed", "2", "--out", "model.onnx")
	r.loopJob(training, fields...)
	return r
}

func (r *rig) loopJob(training string, fields ...string) {
	r.t.Helper()
	if training != "" {
		training = ", " + training
	}
	r.job(append([]string{
		"images: {bucket: " + filepath.Join(fixture.dir, "images") + ", sample: 0.3, limit: 150}", "model: {path: model.onnx}", "preprocess: {resize: 16, crop: 16}",
		"train: {type: builtin, builtin: {epochs: 1, batch: 30, rate: 0.05, flip: 0, held_out: 0.1" + training + "}}",
		"loop: {calibrate: 64, truth: folders}",
	}, fields...)...)
}

// network returns the bytes of the network a finished loop has made.
func (r *rig) network(out outcome) string {
	r.t.Helper()
	where, _ := out.result["model"].(string)
	return file(r.t, strings.TrimPrefix(where, "file://"))
}

// rounds reads the records of a loop.
func (r *rig) rounds(id string, n int) []*loop.Round {
	r.t.Helper()
	all := make([]*loop.Round, n)
	for i := range all {
		var err error
		if all[i], err = loop.ParseRound([]byte(file(r.t, r.path("work/loops/"+id+"/"+loop.RoundName(i)))), id, i); err != nil {
			r.t.Fatal(err)
		}
	}
	return all
}

func TestLoop(t *testing.T) {
	r := loopRig(t, "")
	out := r.want(0, "loop", "job.yaml", "--rounds", "2", "--loop-id", "one")
	if out.result["loop"] != "one" || out.result["rounds"] != 2.0 || out.result["status"] != "done" || out.result["run"] != "one-r002" ||
		!strings.HasSuffix(out.result["labels"].(string), "/labels/runs/one-r002/") || len(out.result["rows"].([]any)) != 3 {
		t.Fatalf("result %v", out.result)
	}
	if n := strings.Count(out.stdout, "\n"); n != 1 {
		t.Errorf("stdout has %d lines, want the result alone", n)
	}
	if strings.Count(out.stderr, "round done") != 3 || !strings.Contains(out.stderr, "NMI with truth") {
		t.Errorf("no word of the rounds: %s", out.stderr)
	}
	if lines := strings.Count(file(t, r.path("work/loops/one/rounds.csv")), "\n"); lines != 4 {
		t.Errorf("rounds.csv has %d lines, want a header and 3", lines)
	}
	rounds := r.rounds("one", 3)
	for i, round := range rounds {
		// The network has been trained for i epochs, of 5 steps each.
		if round.Epoch != float64(i) || round.Images != 150 || len(round.Heads) != 2 || round.Truth == nil || round.Truth.NMIChance <= 0 ||
			round.Last != (i == 2) || (round.Training == nil) != (i == 2) || (round.Churn == nil) != (i == 0) {
			t.Errorf("round %d: %+v", i, round)
		}
		if i < 2 && round.Training.Step != int64(5*(i+1)) {
			t.Errorf("round %d ended at step %d", i, round.Training.Step)
		}
		if i > 0 && (round.Parent != rounds[i-1].Run || *round.Churn <= 0 || *round.Previous <= 0) {
			t.Errorf("round %d: parent %s, churn %v", i, round.Parent, *round.Churn)
		}
		r.want(0, "verify", "job.yaml", "--run-id", round.Run, "--no-model")
	}
	r.want(0, "verify", "job.yaml") // with the last network
	if rounds[0].Training.Rate <= rounds[1].Training.Rate || rounds[1].Training.Rate > 0.05*0.1 {
		t.Errorf("rates %v and %v are not those of one training", rounds[0].Training.Rate, rounds[1].Training.Rate)
	}
	// Only the last network is left, and the last log-probabilities.
	for pattern, want := range map[string]int{"work/runs/one-r*/model/*.onnx": 2, "work/runs/one-r001/model/*": 4, "work/runs/one-r000/model/*": 1,
		"work/runs/one-r*/logprobs/*/*": 2, "work/runs/one-r002/logprobs/*/*": 2, "local/train/*": 0} {
		if found, _ := filepath.Glob(r.path(pattern)); len(found) != want {
			t.Errorf("%d × %s, want %d: %v", len(found), pattern, want, found)
		}
	}
	again := r.want(0, "loop", "job.yaml", "--rounds", "2", "--loop-id", "one")
	if again.result["status"] != "done before" || again.result["model_sha256"] != out.result["model_sha256"] || again.result["labels"] != out.result["labels"] {
		t.Errorf("a finished loop again: %v", again.result)
	}
	status := r.want(0, "status", "job.yaml")
	if loops, _ := status.result["loops"].([]any); len(loops) != 1 || loops[0].(map[string]any)["done"] != 3.0 || loops[0].(map[string]any)["finished"] != true {
		t.Errorf("status %v", status.result["loops"])
	}

	// Another spec is another loop; a round is no run of its own.
	if refused := r.want(78, "loop", "job.yaml", "--rounds", "3", "--loop-id", "one"); !strings.Contains(refused.stderr, "--rounds: 2 → 3") {
		t.Errorf("other rounds: %s", refused.stderr)
	}
	r.loopJob("seed: 4")
	if refused := r.want(78, "loop", "job.yaml", "--rounds", "2", "--loop-id", "one"); !strings.Contains(refused.stderr, "train.builtin.seed: 0 → 4") {
		t.Errorf("another seed: %s", refused.stderr)
	}
	r.loopJob("")
	if refused := r.want(78, "run", "job.yaml", "--run-id", "one-r000"); !strings.Contains(refused.stderr, "is a round of loop") {
		t.Errorf("a round as a run: %s", refused.stderr)
	}
}

// Killed at every boundary between its steps, a loop comes to the same bytes.
func TestLoopKilledAnywhere(t *testing.T) {
	r := loopRig(t, "")
	whole := r.want(0, "loop", "job.yaml", "--rounds", "2", "--loop-id", "whole")
	args := []string{"loop", "job.yaml", "--rounds", "2", "--loop-id", "cut"}
	marks := []string{"leases/test/*.json", "loops/cut/loop.json", "loops/cut/model.onnx"}
	for _, run := range []string{"cut-r000", "cut-r001", "cut-r002"} {
		marks = append(marks, "runs/"+run+"/run.json")
		for _, stage := range []string{"list", "extract", "solve", "label", "publish", "train"} {
			marks = append(marks, "runs/"+run+"/commits/"+stage+"/*.json")
		}
		marks = append(marks, "loops/cut/round-"+run[len(run)-1:]+".json", "runs/"+run+"/_SUCCESS")
	}
	marks = append(marks, "loops/cut/rounds.csv")
	kills := 0
	for i, mark := range marks {
		if found, _ := filepath.Glob(r.path("work/" + mark)); len(found) > 0 {
			continue // it came before the last one killed it
		}
		cmd, stdout, stderr := r.command(args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		r.await("work/" + mark)
		signal := syscall.SIGKILL
		if i%3 == 0 {
			signal = syscall.SIGTERM
		}
		_ = cmd.Process.Signal(signal) // it may have ended by itself
		out := r.outcome(cmd, cmd.Wait(), stdout, stderr)
		if out.code == 0 {
			continue
		}
		kills++
		if want := map[syscall.Signal]int{syscall.SIGKILL: -1, syscall.SIGTERM: 128 + int(syscall.SIGTERM)}[signal]; out.code != want {
			t.Fatalf("at %s: exit %d: %s", mark, out.code, out.stderr)
		}
	}
	if kills < 10 {
		t.Errorf("killed %d times: the test shows little", kills)
	}
	t.Logf("killed %d times", kills)
	cut := r.want(0, args...)
	for _, round := range []string{"-r000", "-r001", "-r002"} {
		same(t, r.published("cut"+round), r.published("whole"+round))
	}
	if r.network(cut) != r.network(whole) {
		t.Error("the network differs from that of an undisturbed loop")
	}
}

func TestOneLoopAtATime(t *testing.T) {
	r := loopRig(t, "")
	first, stdout, stderr := r.command("loop", "job.yaml", "--rounds", "1")
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	r.await("work/loops/*/loop.json")
	for _, args := range [][]string{{"loop", "job.yaml", "--rounds", "1"}, {"loop", "job.yaml", "--rounds", "1", "--loop-id", "other"}, {"run", "job.yaml"}} {
		second := r.sela(args...)
		if second.code != 75 || !strings.Contains(second.stderr, "held by loop ") {
			t.Errorf("%v beside a live loop: exit %d, want 75: %s", args, second.code, second.stderr)
		}
	}
	// A holder that is known to be dead is no holder.
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if out := r.outcome(first, first.Wait(), stdout, stderr); out.code != -1 {
		t.Fatalf("exit %d: %s", out.code, out.stderr)
	}
	out := r.want(0, "loop", "job.yaml", "--rounds", "1")
	loops, err := os.ReadDir(r.path("work/loops"))
	if err != nil || len(loops) != 1 || out.result["loop"] != loops[0].Name() {
		t.Errorf("%d loops; gone on with %v", len(loops), out.result["loop"])
	}
	// Finished, it is not gone on with.
	if next := r.want(0, "loop", "job.yaml", "--rounds", "1"); next.result["loop"] == out.result["loop"] {
		t.Error("a finished loop was taken for a new one")
	}
}

// A loop by lot at first, whose labels change at (i/R)² of the training, and one
// that ends when nothing changes any more.
func TestLoopSchedules(t *testing.T) {
	r := loopRig(t, "", "loop: {calibrate: 0, start: random, schedule: power}")
	r.want(0, "loop", "job.yaml", "--rounds", "2", "--loop-id", "power")
	rounds := r.rounds("power", 3)
	if rounds[1].Epoch != 0.5 || rounds[2].Epoch != 2 || rounds[0].Training.Step != 3 || rounds[1].Training.Step != 10 || rounds[0].Truth != nil {
		t.Errorf("labels at %v and %v epochs; %+v", rounds[1].Epoch, rounds[2].Epoch, rounds[0].Training)
	}
	if h := rounds[0].Heads[0]; h.Smallest != 25 || h.Largest != 25 {
		t.Errorf("random labels are %+v, want equal shares", h)
	}
	if found, _ := filepath.Glob(r.path("work/loops/power/model.onnx")); len(found) != 0 {
		t.Error("the network was calibrated")
	}

	r.loopJob("schedule: steps, milestones: [0.25]", "loop: {calibrate: 64, stop_churn: 1}")
	out := r.want(0, "loop", "job.yaml", "--rounds", "4", "--loop-id", "early")
	if out.result["rounds"] != 2.0 || out.result["settled"] != true || out.result["run"] != "early-r002" {
		t.Errorf("result %v", out.result)
	}
	early := r.rounds("early", 3)
	if !early[2].Settled || !early[2].Last || early[2].Model != nil || early[1].Settled || math.Abs(early[1].Training.Rate-0.005) > 1e-9 {
		t.Errorf("%+v %+v %+v", early[1].Training, early[1], early[2])
	}
}

// Heads are drawn anew in each round of DeepCluster, and k-means keeps the names
// of its clusters.
func TestLoopOfOtherLabellers(t *testing.T) {
	r := loopRig(t, "")
	features := "model: {path: model.onnx, features: features}"
	for _, method := range []string{"kmeans", "deepcluster", "truth"} {
		solve := "solve: {method: " + method + ", seed: 1}"
		if method == "truth" {
			solve = "solve: {method: truth, truth: folders}" // of three classes
			r.want(0, "model", "new", "--arch", "resnet-s", "--size", "16", "--heads", "2", "--clusters", "3", "--out", "model.onnx")
		}
		r.loopJob("", solve, features, "label: {max_count_ratio: 100}", "job: "+method)
		r.want(0, "loop", "job.yaml", "--rounds", "2", "--loop-id", method)
		rounds := r.rounds(method, 3)
		if method == "truth" && (*rounds[2].Churn != 0 || rounds[2].Truth.NMI != 1) {
			t.Errorf("true labels: %+v", rounds[2].Agreement)
		}
		var record struct {
			Job struct {
				Train struct {
					Builtin struct {
						ResetHeads bool `json:"reset_heads"`
					} `json:"builtin"`
				} `json:"train"`
			} `json:"job"`
		}
		if err := json.Unmarshal([]byte(file(t, r.path("work/runs/"+method+"-r001/run.json"))), &record); err != nil || record.Job.Train.Builtin.ResetHeads != (method == "deepcluster") {
			t.Errorf("%s: heads are drawn anew: %v, %v", method, record.Job.Train.Builtin.ResetHeads, err)
		}
	}
}

// Another trainer than the built-in one has to hand a network back.
func TestLoopOfACommand(t *testing.T) {
	r := loopRig(t, "")
	r.loopJob("", "train: {type: command, command: [sh, -c, 'cp \"${SELA_MODEL#file://}\" \"$SELA_TRAINED_MODEL\"']}")
	r.want(0, "loop", "job.yaml", "--rounds", "2", "--loop-id", "copy")
	rounds := r.rounds("copy", 3)
	if *rounds[1].Churn != 0 || *rounds[2].Churn != 0 || rounds[0].Training != nil || rounds[1].Model.SHA256 != rounds[0].Model.SHA256 {
		t.Errorf("the labels of one network differ: %+v", rounds[1])
	}
	r.loopJob("", "train: {type: command, command: ['true']}")
	if out := r.want(78, "loop", "job.yaml", "--rounds", "2", "--loop-id", "none"); !strings.Contains(out.stderr, "round 0 (run none-r000): train.type command left no network") {
		t.Errorf("no network: %s", out.stderr)
	}
}

func TestLoopRefuses(t *testing.T) {
	r := loopRig(t, "")
	for _, c := range []struct {
		code  int
		field string
		args  []string
		want  string
	}{
		{64, "", []string{}, "--rounds is required"},
		{64, "", []string{"--rounds", "-1"}, "rounds"},
		{64, "", []string{"--rounds", "1", "--loop-id", ""}, "--loop-id is empty"},
		{64, "", []string{"--rounds", "1", "--loop-id", "../x"}, "loop id"},
		{78, "train: {type: none}", []string{"--rounds", "1"}, "train.type is none"},
		{78, "loop: {truth: none.csv}", []string{"--rounds", "1"}, "none.csv"},
		{78, "loop: {schedule: power, power: 9}", []string{"--rounds", "3"}, "the first of 3 rounds"},
		{65, "loop: {truth: truth.csv}", []string{"--rounds", "1"}, "149 of 150 images have no class"},
	} {
		if c.want == "149 of 150 images have no class" {
			names, _ := filepath.Glob(filepath.Join(fixture.dir, "images", "0", "*"))
			key, _ := filepath.Rel(filepath.Join(fixture.dir, "images"), slices.Min(names))
			if err := os.WriteFile(r.path("truth.csv"), []byte("key,member,class\n"+key+",,a\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		r.loopJob("", c.field, "images: {bucket: "+filepath.Join(fixture.dir, "images")+", limit: 150}")
		if out := r.want(c.code, append([]string{"loop", "job.yaml"}, c.args...)...); !strings.Contains(out.stderr, c.want) {
			t.Errorf("%v: %s, want %q", c.args, out.stderr, c.want)
		}
	}
	// Images that change between rounds would be another training's.
	if err := os.CopyFS(r.path("images"), os.DirFS(filepath.Join(fixture.dir, "images", "0"))); err != nil {
		t.Fatal(err)
	}
	r.loopJob("", "images: {bucket: images, limit: 150}", "loop: {calibrate: 0}")
	cmd, _, _ := r.command("loop", "job.yaml", "--rounds", "1", "--loop-id", "changing")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.await("work/loops/changing/round-0.json")
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	names, _ := filepath.Glob(r.path("images/*"))
	if err := os.Remove(slices.Min(names)); err != nil {
		t.Fatal(err)
	}
	if found, _ := filepath.Glob(r.path("work/runs/changing-r001/commits/list/*")); len(found) > 0 {
		t.Skip("the loop had listed the images of its last round when it was killed")
	}
	if out := r.want(65, "loop", "job.yaml", "--rounds", "1", "--loop-id", "changing"); !strings.Contains(out.stderr, "not those that the loop began with") {
		t.Errorf("an image is gone: %s", out.stderr)
	}
}

func TestObjectURL(t *testing.T) {
	for _, c := range []struct{ bucket, want string }{
		{"file:///a%20b/work", "file:///a%20b/work/loops/l/model.onnx"},
		{"file:///work?create_dir=true", "file:///work/loops/l/model.onnx?create_dir=true"},
		{"s3://bucket?region=x", "s3://bucket/loops/l/model.onnx?region=x"},
		{"s3://bucket/prefix/?endpoint=y", "s3://bucket/prefix/loops/l/model.onnx?endpoint=y"},
	} {
		if got := objectURL(c.bucket, "loops/l/model.onnx"); got != c.want {
			t.Errorf("%s: %s, want %s", c.bucket, got, c.want)
		}
	}
}
