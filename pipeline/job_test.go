package pipeline

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// required is the smallest job file; it has four lines.
const required = "images: {bucket: in}\nwork: {bucket: work}\nlabels: {bucket: out}\nmodel: {path: m.onnx}\n"

func parse(t *testing.T, yaml string) *Job {
	t.Helper()
	j, err := ParseJob([]byte(yaml), "/home/job")
	if err != nil {
		t.Fatalf("%v in\n%s", err, yaml)
	}
	return j
}

func TestDefaults(t *testing.T) {
	j := parse(t, required)
	want := map[string]string{
		"job": "labels", "images.bucket": "file:///home/job/in", "images.prefix": `""`, "images.glob": `""`, "images.limit": "0", "images.only": `""`,
		"images.sample": "1", "images.max_rejected": "0.05", "work.bucket": "file:///home/job/work", "labels.bucket": "file:///home/job/out",
		"model.path": "/home/job/m.onnx", "model.input": `""`, "model.outputs": "[]", "model.kind": "logits", "model.features": `""`,
		"model.heads": "0", "model.clusters": "0", "preprocess.resize": "256", "preprocess.crop": "224", "preprocess.filter": "bilinear",
		"preprocess.order":  "horizontal-first",
		"preprocess.decode": "exact", "preprocess.orientation": "ignore", "preprocess.normalise": "host",
		"preprocess.mean": "[0.485, 0.456, 0.406]", "preprocess.std": "[0.229, 0.224, 0.225]", "preprocess.layout": "auto",
		"preprocess.max_pixels": "100000000", "preprocess.max_bytes": "256MiB", "runtime.library": `""`, "runtime.providers": "[cpu]",
		"runtime.device": "0", "runtime.threads": "0", "runtime.batch": "0", "runtime.precision": "float32", "extract.shard_rows": "8192", "extract.stored": "float32",
		"extract.reuse": "latest", "extract.decoders": "0", "extract.read_ahead": "64MiB", "extract.requests": "0", "solve.method": "lists", "solve.lambda": "25", "solve.tolerance": "0",
		"solve.marginals": "[]", "solve.power": "0", "solve.balance": "none", "solve.anneal": "[]", "solve.start": `""`, "solve.device": "cpu", "solve.memory": "1GiB",
		"solve.max_iterations": "20000", "solve.workers": "0", "solve.from": `""`, "solve.seed": "0", "solve.truth": `""`, "label.top_k": "0", "label.part_rows": "983040",
		"label.previous": `""`, "label.max_count_ratio": "1.5", "gate.max_churn": "1", "gate.min_nmi": "0", "gate.max_quarantine": "1", "gate.max_marginal_error": "2", "report.write": "true", "report.images_per_cluster": "8", "report.images": "32768", "train.type": "none", "train.command": "[]", "train.url": `""`, "train.dag": `""`,
		"train.token_env": `""`, "train.login_env": `""`, "train.timeout": "0s", "local.dir": `""`, "local.bytes": "16GiB", "keep.logprobs": "1",
		"timeouts.request": "1m", "timeouts.task": "2h", "retries.request": "10", "retries.task": "3", "limits.requests": "256",
		"train.builtin.epochs": "1", "train.builtin.batch": "128", "train.builtin.seed": "0", "train.builtin.after": `""`, "train.builtin.until": "0", "train.builtin.reset_heads": "false", "train.builtin.init": `""`, "train.builtin.schedule": "cosine",
		"train.builtin.rate": "0.03", "train.builtin.warmup": "0", "train.builtin.milestones": "[]", "train.builtin.factor": "0.1", "train.builtin.momentum": "0.9",
		"train.builtin.nesterov": "false", "train.builtin.frozen": "[]", "train.builtin.weight_decay": "1e-05", "train.builtin.decay_all": "false", "train.builtin.clip": "0", "train.builtin.scale": "[0.08, 1]",
		"train.builtin.ratio": "[0.75, 1.3333333333333333]", "train.builtin.flip": "0.5", "train.builtin.jitter": "[0.4, 0.4, 0.4, 0.4]", "train.builtin.grayscale": "0.2", "train.builtin.rotate": "0",
		"train.builtin.rotation_head": "false", "train.builtin.held_out": "0.02", "train.builtin.checkpoint": "10m", "train.builtin.forms": "fixed", "train.builtin.threads": "0",
		"loop.start": "model", "loop.calibrate": "1024", "loop.schedule": "even", "loop.power": "2", "loop.stop_churn": "0", "loop.truth": `""`,
	}
	for _, f := range j.fields(func(string, string) {}) {
		if f.value != want[f.path] {
			t.Errorf("%s is %s, want %s", f.path, f.value, want[f.path])
		}
		delete(want, f.path)
	}
	if len(want) > 0 {
		t.Errorf("no such fields: %v", want)
	}
}

func TestTruthsPlace(t *testing.T) {
	for text, want := range map[string]string{"folders": "folders", "truth.csv": "/home/job/truth.csv", "/a/../t.csv": "/t.csv", "s3://b/t.csv": "s3://b/t.csv", `""`: ""} {
		if j := parse(t, required+"loop: {truth: "+text+"}\n"); j.Loop.Truth != want {
			t.Errorf("%s is taken for %q, want %q", text, j.Loop.Truth, want)
		}
	}
}

func TestDefaultsSurviveEmptySections(t *testing.T) {
	want := parse(t, required)
	for _, more := range []string{"solve:\n", "solve: {}\n", "solve:\n  # lambda: 3\n", "solve:\n  lambda:\n", "local: ~\n", "--- \n"[4:]} {
		if got := parse(t, required+more); !reflect.DeepEqual(got, want) {
			t.Errorf("%q changes the job: %v", more, want.Difference(got))
		}
	}
}

func TestTemplateRoundTrip(t *testing.T) {
	jobs := map[string]func(*Job){
		"defaults": func(*Job) {},
		"odd strings": func(j *Job) {
			j.Images.Prefix, j.Images.Glob = "a b: #c's \"quoted\" \\ back\ttab", "**/*.[jp]*"
			j.Model.Input, j.Model.Outputs, j.Model.Features = "null", []string{"true", "1e3", "a, b", "ümlaut", "-", ""}, "0x10"
			j.Model.Path = "/models/50% off/größe.onnx"
		},
		"everything else": func(j *Job) {
			j.Preprocess.Resize, j.Preprocess.Crop = nil, Size{96, 64}
			j.Preprocess.Mean = [3]float64{1e-7, -1e21, 0}
			j.Local = Local{Dir: "/tmp/x", Bytes: 300<<20 + 1}
			j.Timeouts = Timeouts{Request: Duration(1500 * time.Millisecond), Task: Duration(3661 * time.Second)}
			j.Train.Type, j.Train.Command = "command", []string{"sh", "-c", "echo '{manifest}' | mail"}
			j.Train.Builtin.Nesterov, j.Train.Builtin.Schedule, j.Train.Builtin.Epochs = true, "steps", 90
			j.Train.Builtin.Milestones, j.Train.Builtin.Init = []float64{30, 60.5}, "/models/trunk.onnx"
			j.Train.Builtin.Frozen = []string{"layer[12].*", "position"}
			j.Keep.LogProbs = "12"
			j.Solve.Method, j.Solve.From = "fixed", "20260102t030405z-abcdef"
		},
	}
	for name, change := range jobs {
		t.Run(name, func(t *testing.T) {
			want := parse(t, required)
			change(want)
			got := parse(t, JobTemplate(want))
			if diff := want.Difference(got); len(diff) > 0 {
				t.Errorf("differs: %v", diff)
			}
			if a, b := JobTemplate(want), JobTemplate(got); a != b {
				t.Errorf("templates differ:\n%s\n%s", a, b)
			}
			raw, err := json.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			var back Job
			if err := json.Unmarshal(raw, &back); err != nil {
				t.Fatal(err)
			}
			if a, b := JobTemplate(want), JobTemplate(&back); a != b {
				t.Errorf("JSON changes the job:\n%s\n%s", a, b)
			}
		})
	}
}

func TestTemplateIsShort(t *testing.T) {
	j := DefaultJob()
	j.Images.Bucket, j.Work.Bucket, j.Labels.Bucket, j.Model.Path = "images", "work", "labels", "model.onnx"
	text := JobTemplate(j)
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) > 160 {
		t.Errorf("%d lines: nobody reads so much", len(lines))
	}
	for _, l := range lines {
		if l != "" && !strings.Contains(l, "# ") {
			t.Errorf("no comment: %q", l)
		}
		if strings.HasSuffix(l, "# ") {
			t.Errorf("empty comment: %q", l)
		}
	}
	parse(t, text)
}

func TestJobErrors(t *testing.T) {
	cases := []struct{ yaml, want string }{
		{"", "images.bucket is required; work.bucket is required; labels.bucket is required; model.path is required"},
		{"# nothing\n", "images.bucket is required"},
		{"work: {bucket: w}\nimages:\n  prefix: x\n", "line 2: images.bucket is required"},
		{"[]", "line 1: must be a mapping"},
		{"\xff\xfe", "UTF-8"},
		{required + "solv: {lambda: 1}\n", "line 5: solv is an unknown field"},
		{required + "solve:\n  # comment\n  lamda: 1\n", "line 7: solve.lamda is an unknown field; known here: method, lambda"},
		{required + "solve:\n  lambda: warm\n", `line 6: solve.lambda is "warm"; it must be a number`},
		{required + "solve:\n  lambda: \"25\"\n", "line 6: solve.lambda"},
		{required + "solve:\n  lambda: [1]\n", "line 6: solve.lambda must be a single value"},
		{required + "solve:\n\n  lambda: 0\n", "line 7: solve.lambda is 0; it must be positive"},
		{required + "solve:\n  lambda: .inf\n", "line 6: solve.lambda"},
		{required + "solve:\n  tolerance: .nan\n", "line 6: solve.tolerance"},
		{required + "solve:\n  lambda: 1\n  lambda: 2\n", "line 7: mapping key \"lambda\" already defined"},
		{required + "work: {bucket: w2}\n", "line 5: mapping key \"work\" already defined"},
		{required + "label: {top_k: 1.5}\n", "line 5: label.top_k is \"1.5\"; it must be a whole number"},
		{required + "label: {top_k: 99999999999999999999}\n", "line 5: label.top_k"},
		{required + "label: {part_rows: 1000}\n", "line 5: label.part_rows"},
		{required + "extract: {stored: float16}\n", "line 5: extract.stored is \"float16\"; it must be one of float32, uint16"},
		{required + "extract: {shard_rows: 1000}\n", "line 5: extract.shard_rows is 1000; it must be a positive multiple of 1024"},
		{required + "local: {bytes: 16XB}\n", "line 5: local.bytes is \"16XB\""},
		{required + "local: {bytes: 1KiB}\n", "line 5: local.bytes is 1KiB"},
		{required + "timeouts:\n  request: 5s\n  task: 3\n", "line 7: timeouts.task is \"3\", which is not a duration"},
		{required + "timeouts: {task: -3s}\n", "line 5: timeouts.task"},
		{required + "timeouts: {request: 0s}\n", "line 5: timeouts.request must be above 0s"},
		{required + "preprocess: {resize: -5}\n", "line 5: preprocess.resize is not a size"},
		{required + "preprocess: {resize: [1, 2, 3]}\n", "line 5: preprocess.resize is not a size"},
		{required + "preprocess: {crop: [0, 2]}\n", "line 5: preprocess.crop is not a size"},
		{required + "preprocess: {mean: [1, 2]}\n", "line 5: preprocess.mean must be a list of 3 values; it has 2"},
		{required + "preprocess: {mean: [1, 2, 3, 4]}\n", "line 5: preprocess.mean must be a list of 3 values; it has 4"},
		{required + "preprocess: {std: [1, 0, 1]}\n", "line 5: preprocess.std channel 1 is 0"},
		{required + "runtime: {providers: cpu}\n", "line 5: runtime.providers must be a list"},
		{required + "runtime: {providers: []}\n", "line 5: runtime.providers is empty"},
		{required + "runtime: {providers: [tpu]}\n", `line 5: runtime.providers is "tpu"; it must be one of cpu, cuda, tensorrt`},
		{required + "runtime: {providers: [cpu, cpu]}\n", "line 5: runtime.providers names a provider twice"},
		{required + "runtime: {precision: tf32}\n", "line 5: runtime.precision is tf32, which needs"},
		{required + "runtime: {precision: float16, providers: [cuda]}\n", "line 5: runtime.precision is float16, which needs"},
		{required + "train: {command: [a]}\n", "line 5: train.command is for train.type command"},
		{required + "train:\n  type: http\n", "line 5: train.url is for train.type http"},
		{required + "train:\n  type: airflow\n  dag: d\n", "line 5: train.url is for train.type http or airflow"},
		{required + "train:\n  type: airflow\n  dag: d\n  url: https://host?a=b\n", "line 8: train.url is the base"},
		{required + "train:\n  type: airflow\n  url: https://host\n", "line 5: train.dag is for train.type airflow"},
		{required + "train:\n  type: http\n  url: https://host\n  dag: d\n", "line 8: train.dag is for train.type airflow"},
		{required + "train:\n  type: airflow\n  url: https://host\n  dag: a/../b\n", "line 8: train.dag is \"a/../b\""},
		{required + "train:\n  type: airflow\n  url: https://host\n  dag: ..\n", "line 8: train.dag is \"..\""},
		{required + "train:\n  type: http\n  url: https://host\n  login_env: L\n", "line 8: train.login_env is for train.type airflow"},
		{required + "train:\n  type: airflow\n  url: https://host\n  dag: d\n  token_env: T\n  login_env: L\n", "line 10: train.login_env and train.token_env exclude each other"},
		{required + "train:\n  type: http\n  url: https://user:secret@host/x\n", "line 7: train.url must be an http or https URL without a password"},
		{required + "train:\n  type: http\n  url: ftp://host/x\n", "line 7: train.url"},
		{required + "train: {token_env: T}\n", "line 5: train.token_env is for train.type http"},
		{required + "train:\n  type: builtin\n  builtin: {epoch: 3}\n", "line 7: train.builtin.epoch is an unknown field; known here: epochs"},
		{required + "train:\n  builtin:\n    nesterov: yes\n", "line 7: train.builtin.nesterov is \"yes\"; it must be true or false"},
		{required + "train:\n  builtin: {epochs: 0}\n", "line 6: train.builtin.epochs is 0"},
		{required + "train: {builtin: {batch: 0}}\n", "line 5: train.builtin.batch is 0"},
		{required + "train: {builtin: {rate: 0}}\n", "line 5: train.builtin.rate is 0; it must be positive"},
		{required + "train: {builtin: {warmup: 1}}\n", "line 5: train.builtin.warmup is 1"},
		{required + "train: {builtin: {schedule: linear}}\n", "line 5: train.builtin.schedule is \"linear\"; it must be one of cosine, steps"},
		{required + "train: {builtin: {milestones: [0.5]}}\n", "line 5: train.builtin.milestones is for schedule steps"},
		{required + "train: {builtin: {schedule: steps, epochs: 9, milestones: [6, 3]}}\n", "line 5: train.builtin.milestones is [6 3]; it must ascend"},
		{required + "train: {builtin: {schedule: steps, milestones: [1]}}\n", "line 5: train.builtin.milestones is [1]; it must ascend, between 0 and train.builtin.epochs (1)"},
		{required + "train: {builtin: {factor: 2}}\n", "line 5: train.builtin.factor is 2"},
		{required + "train: {builtin: {momentum: 1}}\n", "line 5: train.builtin.momentum is 1"},
		{required + "train: {builtin: {momentum: 0, nesterov: true}}\n", "line 5: train.builtin.nesterov needs a momentum"},
		{required + "train: {builtin: {weight_decay: -1}}\n", "line 5: train.builtin.weight_decay is -1"},
		{required + "train: {builtin: {frozen: [conv1.*, 'layer[']}}\n", "line 5: train.builtin.frozen has \"layer[\""},
		{required + "train: {builtin: {clip: .inf}}\n", "line 5: train.builtin.clip is +Inf"},
		{required + "train: {builtin: {scale: [0.5, 0.2]}}\n", "line 5: train.builtin.scale is [0.5 0.2]"},
		{required + "train: {builtin: {ratio: [0, 1]}}\n", "line 5: train.builtin.ratio is [0 1]"},
		{required + "train: {builtin: {flip: 2}}\n", "line 5: train.builtin.flip is 2"},
		{required + "train: {builtin: {jitter: [0, 0, 0, 0.6]}}\n", "line 5: train.builtin.jitter is 0.6"},
		{required + "train: {builtin: {rotate: 90}}\n", "line 5: train.builtin.rotate is 90"},
		{required + "train: {builtin: {held_out: 0.9}}\n", "line 5: train.builtin.held_out is 0.9"},
		{required + "train: {builtin: {checkpoint: 0s}}\n", "line 5: train.builtin.checkpoint must be above 0s"},
		{required + "train: {builtin: {until: 2}}\n", "line 5: train.builtin.until is 2"},
		{required + "train: {builtin: {reset_heads: true}}\n", "line 5: train.builtin.reset_heads needs"},
		{required + "train: {builtin: {init: a, after: b}}\n", "line 5: train.builtin.init and train.builtin.after"},
		{required + "train: {builtin: {after: 's3://key:secret@b/c'}}\n", "line 5: train.builtin.after holds a user name"},
		{required + "loop: {start: lottery}\n", "line 5: loop.start is \"lottery\""},
		{required + "loop: {schedule: log}\n", "line 5: loop.schedule is \"log\""},
		{required + "loop: {power: 0}\n", "line 5: loop.power is 0"},
		{required + "loop: {calibrate: -1}\n", "line 5: loop.calibrate is -1"},
		{required + "loop: {stop_churn: 2}\n", "line 5: loop.stop_churn is 2"},
		{required + "gate: {max_churn: 1.5}\n", "line 5: gate.max_churn is 1.5; it must be from 0 to 1"},
		{required + "gate: {min_nmi: -0.1}\n", "line 5: gate.min_nmi is -0.1"},
		{required + "gate: {max_quarantine: .inf}\n", "line 5: gate.max_quarantine is +Inf"},
		{required + "gate: {max_marginal_error: 2.1}\n", "line 5: gate.max_marginal_error is 2.1; it must be from 0 to 2"},
		{required + "solve: {method: kmeans, device: cuda}\n", "line 5: solve.device cuda is for"},
		{required + "solve: {method: random, power: 1}\n", "line 5: solve.marginals and solve.power are for"},
		{required + "solve: {method: kmeans}\nlabel: {top_k: 2}\n", "line 6: label.top_k needs"},
		{required + "solve: {method: truth}\n", "line 5: solve.truth says"},
		{required + "solve: {truth: folders}\n", "line 5: solve.truth says"},
		{required + "solve: {method: kmeans, balance: exact}\n", "line 5: solve.balance exact needs"},
		{required + "solve: {method: fixed}\n", "line 5: solve.from names the run"},
		{required + "solve: {method: sinkhorn, start: run-1}\n", "line 5: solve.start is for methods lists and lbfgs"},
		{required + "solve: {start: ../x}\n", "line 5: solve.start is \"../x\""},
		{required + "solve: {balance: some}\n", "line 5: solve.balance is \"some\""},
		{required + "solve: {balance: exact, device: cuda}\n", "line 5: solve.balance exact needs"},
		{required + "solve: {device: gpu}\n", "line 5: solve.device is \"gpu\""},
		{required + "solve: {memory: 1KiB}\n", "line 5: solve.memory is 1KiB"},
		{required + "solve: {marginals: [0.5, 0.6]}\n", "line 5: solve.marginals sums to 1.1"},
		{required + "solve: {marginals: [1, 0]}\n", "line 5: solve.marginals gives cluster 1 a share of 0"},
		{required + "solve: {marginals: [0.5, 0.5], power: 1}\n", "line 5: solve.power and solve.marginals"},
		{required + "solve: {power: -1}\n", "line 5: solve.power is -1"},
		{required + "solve: {anneal: [10, 5]}\n", "line 5: solve.anneal is [10 5]"},
		{required + "solve: {anneal: [5, 25]}\n", "line 5: solve.anneal is [5 25]"},
		{required + "solve: {method: sinkhorn, anneal: [5]}\n", "line 5: solve.anneal is for methods"},
		{required + "solve: {from: run-1}\n", "line 5: solve.from names the run"},
		{required + "solve: {method: fixed, from: ../x}\n", "line 5: solve.from is \"../x\""},
		{required + "label: {previous: a/b}\n", "line 5: label.previous"},
		{required + "keep: {logprobs: 0}\n", "line 5: keep.logprobs is \"0\""},
		{required + "keep: {logprobs: forever}\n", "line 5: keep.logprobs"},
		{required + "retries: {task: 0}\n", "line 5: retries.task is 0"},
		{required + "extract: {requests: 257}\n", "line 5: extract.requests is 257, more than limits.requests (256)"},
		{required + "job: My Job\n", `line 5: job is "My Job"`},
		{required + "---\njob: b\n", "line 6: a second YAML document"},
		{required + "solve: &a {lambda: 3}\n", "line 5: solve uses an anchor"},
		{required + "<<: {job: b}\n", "line 5: << is an unknown field"},
		{"images: {bucket: in}\nwork: {bucket: x/}\nlabels: {bucket: ./x}\nmodel: {path: m, outputs: [a, b], heads: 3}\n",
			"line 3: labels.bucket is the work bucket; labels are published to a place of their own; line 4: model.heads is 3, but model.outputs names 2"},
		{"images: {bucket: s3://key:secret@b}\nwork: {bucket: w}\nlabels: {bucket: l}\nmodel: {path: m, outputs: [a, a]}\n",
			"line 1: images.bucket holds a user name, a password or a key; credentials come from the environment; line 4: model.outputs names an output twice"},
		{"images: {bucket: in\n", "line 1: "},
		{strings.Repeat("#", maxJobBytes+1), "at most 32KiB"},
	}
	for _, c := range cases {
		_, err := ParseJob([]byte(c.yaml), "/d")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q:\n got %v\nwant %s", strings.TrimPrefix(c.yaml, required), err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("shows the password: %v", err)
		}
	}
}

func TestSeveralProblemsAtOnce(t *testing.T) {
	_, err := ParseJob([]byte(required+"solve: {lambda: 0, method: magic}\nretries: {task: 0}\n"), "/d")
	for _, want := range []string{"line 5: solve.lambda", "line 5: solve.method", "line 6: retries.task"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}

func TestBombsAreHarmless(t *testing.T) {
	var bomb strings.Builder
	bomb.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 40; i++ {
		fmt.Fprintf(&bomb, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), ", "))
	}
	for _, s := range []string{bomb.String(), required + "---\n" + bomb.String(), strings.Repeat("[", 4<<10), strings.Repeat("- ", 2<<10),
		"x: &x\n  y: *x\n"} {
		if _, err := ParseJob([]byte(s), "/d"); err == nil {
			t.Errorf("%.20q… is accepted", s)
		}
	}
}

func TestPaths(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"a b/50%", "file:///home/job/a%20b/50%25"},
		{"?x#y", "file:///home/job/%3Fx%23y"},
		{"../up", "file:///home/up"},
		{"/abs/./x/", "file:///abs/x"},
		{"größe", "file:///home/job/gr%C3%B6%C3%9Fe"},
		{"file:rel/x", "file:///home/job/rel/x"},
		{"file:///abs/x%20y/", "file:///abs/x%20y"},
		{"file:///abs?create_dir=true", "file:///abs?create_dir=true"},
		{"s3://bucket/prefix?region=x", "s3://bucket/prefix?region=x"},
		{"mem://", "mem://"},
	} {
		if got := bucketURL("/home/job", c.in); got != c.want {
			t.Errorf("%s becomes %s, want %s", c.in, got, c.want)
		}
	}
	j := parse(t, "images: {bucket: in}\nwork: {bucket: work}\nlabels: {bucket: out}\nmodel: {path: ../m 1.onnx}\nlocal: {dir: ./scratch}\nruntime: {library: lib/x.so}\n")
	if got := []string{j.Model.Path, j.Local.Dir, j.Runtime.Library}; !slices.Equal(got, []string{"/home/m 1.onnx", "/home/job/scratch", "/home/job/lib/x.so"}) {
		t.Errorf("paths are %q", got)
	}
}

func TestLoadJob(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "job.yaml")
	_, err := LoadJob(path)
	if ClassOf(err) != Config || !strings.Contains(err.Error(), "sela job init") {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte(required+"solve: {lambda: 0}\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	_, err = LoadJob(path)
	if ClassOf(err) != Config || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "line 5") {
		t.Errorf("bad file: %v", err)
	}
	if err := os.WriteFile(path, []byte(required), 0o666); err != nil {
		t.Fatal(err)
	}
	j, err := LoadJob(path)
	if err != nil || j.Model.Path != filepath.Join(dir, "m.onnx") {
		t.Errorf("model is %v, %v", j, err)
	}
}

// TestIdentity changes every field there is, so that a new one cannot be
// forgotten in Digest and Difference.
func TestIdentity(t *testing.T) {
	base := parse(t, required)
	free := map[string]bool{
		"images.max_rejected": true, "model.path": true, "runtime.library": true, "runtime.device": true, "runtime.threads": true,
		"extract.reuse": true, "extract.decoders": true, "extract.read_ahead": true, "extract.requests": true, "solve.workers": true, "solve.max_iterations": true, "label.max_count_ratio": true,
		"train.type": true, "train.command": true, "train.url": true, "train.token_env": true, "train.dag": true, "train.login_env": true, "train.timeout": true, "local.dir": true, "local.bytes": true,
		"solve.memory": true, "keep.logprobs": true, "timeouts.request": true, "timeouts.task": true, "retries.request": true, "retries.task": true, "limits.requests": true,
	}
	digests := map[string]string{base.Digest(): "no change"}
	var visit func(get func(*Job) reflect.Value, path string)
	visit = func(get func(*Job) reflect.Value, path string) {
		if v := get(base); v.Kind() == reflect.Struct {
			for i := range v.NumField() {
				f := v.Type().Field(i)
				if f.Tag.Get("yaml") == "" || f.Tag.Get("json") != f.Tag.Get("yaml") || f.Tag.Get("doc") == "" {
					t.Errorf("%s.%s lacks a tag", path, f.Name)
				}
				visit(func(j *Job) reflect.Value { return get(j).Field(i) }, strings.TrimPrefix(path+"."+f.Tag.Get("yaml"), "."))
			}
			return
		}
		changed := parse(t, required)
		v := get(changed)
		switch {
		case v.Type() == reflect.TypeFor[Size]():
			v.Set(reflect.ValueOf(Size{7, 9}))
		case v.Kind() == reflect.String:
			v.SetString(v.String() + "x")
		case v.CanInt():
			v.SetInt(v.Int() + 1)
		case v.Kind() == reflect.Bool:
			v.SetBool(!v.Bool())
		case v.Kind() == reflect.Float64:
			v.SetFloat(v.Float()/2 + 0.1)
		case v.Kind() == reflect.Array:
			v.Index(1).SetFloat(0.25)
		case v.Kind() == reflect.Slice:
			value := reflect.ValueOf("x")
			if v.Type().Elem().Kind() == reflect.Float64 {
				value = reflect.ValueOf(0.5)
			}
			v.Set(reflect.Append(v, value))
		default:
			t.Fatalf("%s: this test does not know a %s", path, v.Type())
		}
		diff, digest := base.Difference(changed), changed.Digest()
		if free[path] || strings.HasPrefix(path, "train.builtin.") || strings.HasPrefix(path, "loop.") || strings.HasPrefix(path, "gate.") || strings.HasPrefix(path, "report.") {
			if len(diff) > 0 || digest != base.Digest() {
				t.Errorf("%s is free, but counts: %v", path, diff)
			}
			return
		}
		if len(diff) != 1 || !strings.HasPrefix(diff[0], path+": ") {
			t.Errorf("%s: difference is %v", path, diff)
		}
		if other, taken := digests[digest]; taken {
			t.Errorf("%s: the digest is that of %s", path, other)
		}
		digests[digest] = path
	}
	visit(func(j *Job) reflect.Value { return reflect.ValueOf(j).Elem() }, "")
}

func TestUnits(t *testing.T) {
	for text, want := range map[string]Bytes{"0": 0, "1": 1, "1B": 1, "64MiB": 64 << 20, "2GB": 2e9, "1.5 KiB": 1536, "9007199254740993": 9007199254740993, "7TiB": 7 << 40} {
		var b Bytes
		if err := b.parse(text); err != nil || b != want {
			t.Errorf("%s is %d, %v", text, b, err)
		}
		var again Bytes
		if err := again.parse(b.String()); err != nil || again != b {
			t.Errorf("%s is written as %s, read as %d, %v", text, b, again, err)
		}
	}
	for _, text := range []string{"", "-1", "nan", "inf", "nanB", "InfB", "1XB", "9e18KiB", "0.5B", "MiB", "1e400MiB", "9223372036854775808"} {
		if b := new(Bytes); b.parse(text) == nil {
			t.Errorf("%q is accepted as %d", text, *b)
		}
	}
	for text, want := range map[string]string{"90s": "1m30s", "1h": "1h", "60m": "1h", "1h30m": "1h30m", "10m": "10m", "100ms": "100ms", "0s": "0s", "1h0m5s": "1h0m5s", "30h": "30h"} {
		var d, again Duration
		if err := d.parse(text); err != nil || d.String() != want {
			t.Errorf("%s is %s, %v", text, d, err)
		}
		raw, _ := json.Marshal(d)
		if err := json.Unmarshal(raw, &again); err != nil || again != d {
			t.Errorf("%s is written as %s, read as %s, %v", text, raw, again, err)
		}
	}
}

func FuzzParseJob(f *testing.F) {
	f.Add([]byte(required))
	f.Add([]byte(JobTemplate(DefaultJob())))
	for _, s := range []string{"a: &a [*a]", "? [a]: b", "- - -", "{a: {b: [", "x: !!binary =", "images: {bucket: |\n  a\n}", "%TAG ! x\n---\n", "\"\\", "a: >-\n b"} {
		f.Add([]byte(s))
		f.Add([]byte(required + s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		j, err := ParseJob(raw, "/d")
		if err != nil {
			return
		}
		again, err := ParseJob([]byte(JobTemplate(j)), "/elsewhere")
		if err != nil {
			t.Fatalf("template of an accepted job is refused: %v\n%s", err, JobTemplate(j))
		}
		if diff := j.Difference(again); len(diff) > 0 || JobTemplate(again) != JobTemplate(j) {
			t.Fatalf("template changes the job: %v", diff)
		}
	})
}
