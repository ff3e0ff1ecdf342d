package main

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"text/template"
)

// training are the fields of train.builtin, the optimiser and the augmentation, in
// which rows hardly differ.
func (j job) Training() [][2]string {
	return [][2]string{
		{"epochs", fmt.Sprint(j.Epochs)}, {"seed", fmt.Sprint(j.Seed)}, {"batch", "128"},
		{"schedule", "cosine"}, {"rate", "0.1"}, {"warmup", "0.02"}, {"momentum", "0.9"}, {"weight_decay", "5e-4"}, {"held_out", "0.02"},
		{"scale", fmt.Sprintf("[%g, 1]", j.Scale)}, {"flip", "0.5"}, {"jitter", fmt.Sprintf("[0.4, 0.4, 0.4, %g]", j.Hue)}, {"grayscale", "0.2"},
	}
}

// trainingFlags are the same for sela train.
func (j job) trainingFlags() (flags []string) {
	for _, f := range j.Training() {
		flags = append(flags, "--"+strings.ReplaceAll(f[0], "_", "-"), strings.ReplaceAll(strings.Trim(f[1], "[]"), " ", ""))
	}
	return flags
}

var jobText = template.Must(template.New("job").Parse(`job: {{.Name}}
images: {bucket: {{.Data}}, glob: "cifar10-train-*.tar"{{with .Only}}, only: {{.}}{{end}}}
work: {bucket: work}
labels: {bucket: labels}
model: {path: model.onnx}
preprocess: {resize: 0, crop: 32}
solve: {method: {{.Method}}, seed: {{.Seed}}{{if .Lambda}}, lambda: {{.Lambda}}{{end}}{{with .Balance}}, balance: {{.}}{{end}}{{if eq .Method "truth"}}, truth: folders{{end}}}
train:
  type: builtin
  builtin: {{"{"}}{{range $i, $f := .Training}}{{if $i}}, {{end}}{{index $f 0}}: {{index $f 1}}{{end}}{{"}"}}
loop: {truth: folders}
{{with .Providers}}runtime: {providers: [{{.}}]}
{{end}}local: {dir: local}
`))

// job is what a row's job file says. Without Only it is the one by which networks
// are measured: on the whole training split, whatever part they were trained on.
type job struct {
	Name, Data, Only, Method, Balance string
	Providers                         string // separated by commas; "" is the default
	Lambda, Scale, Hue                float64
	Epochs, Rounds                    int
	Seed                              int
}

func (j *job) yaml() (string, error) {
	var b strings.Builder
	err := jobText.Execute(&b, j)
	return b.String(), err
}

// jobOf returns the job of a row on so many images: so many epochs, or where that
// is 0 as many as come nearest to the budget, each a round of its own unless
// labels are made once.
func jobOf(r *row, images, budget int64, epochs, seed int) job {
	if epochs == 0 {
		epochs = max(1, int(math.Round(float64(budget)*cmp.Or(r.budget, 1)/float64(images))))
	}
	j := job{Name: r.name, Method: r.method, Balance: r.balance, Lambda: r.lambda, Scale: cmp.Or(r.scale, 0.2), Hue: cmp.Or(r.hue, 0.4), Epochs: 1, Rounds: epochs, Seed: seed}
	if r.once {
		j.Epochs, j.Rounds = epochs, 1
	}
	return j
}

// networkFlags are those of sela model new.
func networkFlags(r *row, seed int) []string {
	f := []string{"--arch", cmp.Or(r.arch, "resnet-s"), "--head", cmp.Or(r.head, "linear"), "--heads", fmt.Sprint(r.heads), "--clusters", fmt.Sprint(r.clusters), "--seed", fmt.Sprint(seed + 1)}
	if r.temperature != 0 {
		f = append(f, "--temperature", fmt.Sprint(r.temperature))
	}
	return f
}
