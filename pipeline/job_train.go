package pipeline

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Builtin says how the built-in trainer trains the job's network on a published
// label set (package builtin).
type Builtin struct {
	Epochs      int       `yaml:"epochs" json:"epochs" doc:"passes over the training images"`
	Batch       int       `yaml:"batch" json:"batch" doc:"images per step"`
	Seed        int64     `yaml:"seed" json:"seed" doc:"of the order of the images, their augmentation and dropout"`
	After       string    `yaml:"after" json:"after" doc:"checkpoint (file or bucket URL) of the part before, when this is a part of a longer training: parameters, momenta, statistics and position go on from there; empty = from the beginning"`
	Until       float64   `yaml:"until" json:"until" doc:"epochs, or a fraction of one, after which this part of a training of so many epochs ends; 0 = at its end"`
	ResetHeads  bool      `yaml:"reset_heads" json:"reset_heads" doc:"heads are drawn anew at the start of a part, as DeepCluster does"`
	Init        string    `yaml:"init" json:"init" doc:"ONNX file or bucket URL whose parameters the trunk starts from, by equal name and shape; empty = the model's own"`
	Schedule    string    `yaml:"schedule" json:"schedule" doc:"of the learning rate: cosine (to 0 at the end) or steps (times factor at each milestone)"`
	Rate        float64   `yaml:"rate" json:"rate" doc:"learning rate at the start, after the warm-up"`
	Warmup      float64   `yaml:"warmup" json:"warmup" doc:"share of all steps in which the rate rises linearly from 0: [0, 1)"`
	Milestones  []float64 `yaml:"milestones" json:"milestones" doc:"schedule steps: ascending epochs"`
	Factor      float64   `yaml:"factor" json:"factor" doc:"schedule steps: what the rate is multiplied by at each milestone"`
	Momentum    float64   `yaml:"momentum" json:"momentum" doc:"of stochastic gradient descent: [0, 1)"`
	Nesterov    bool      `yaml:"nesterov" json:"nesterov" doc:"Nesterov's momentum"`
	Frozen      []string  `yaml:"frozen" json:"frozen" doc:"names of the network's tensors that are not trained, or patterns such as layer1.*: a part of the trunk, a fixed position embedding"`
	WeightDecay float64   `yaml:"weight_decay" json:"weight_decay" doc:"added to the gradient times the weight"`
	DecayAll    bool      `yaml:"decay_all" json:"decay_all" doc:"weight decay on biases and normalisation layers too"`
	Clip        float64   `yaml:"clip" json:"clip" doc:"most the norm of all gradients together may be; 0 = no limit"`

	Scale        [2]float64 `yaml:"scale" json:"scale" doc:"random crop: smallest and largest share of the image's area, up to 1; [1, 1] = the evaluation's crop"`
	Ratio        [2]float64 `yaml:"ratio" json:"ratio" doc:"random crop: smallest and largest width over height"`
	Flip         float64    `yaml:"flip" json:"flip" doc:"probability of a horizontal flip"`
	Jitter       [4]float64 `yaml:"jitter" json:"jitter" doc:"most change of brightness, contrast, saturation and hue; 0 = none"`
	Grayscale    float64    `yaml:"grayscale" json:"grayscale" doc:"probability of a gray image"`
	Rotate       float64    `yaml:"rotate" json:"rotate" doc:"largest angle of a random rotation, degrees up to 45"`
	RotationHead bool       `yaml:"rotation_head" json:"rotation_head" doc:"a further head of 4 outputs learns by how many quarter turns each image was turned, the others from the unturned quarter of the images; it is not exported"`

	HeldOut    float64  `yaml:"held_out" json:"held_out" doc:"share of the images, chosen by a hash of key and member, to measure on and never train on: [0, 0.5]"`
	Checkpoint Duration `yaml:"checkpoint" json:"checkpoint" doc:"pause between two checkpoints within an epoch; one is made at the end of each epoch anyway"`
	Forms      string   `yaml:"forms" json:"forms" doc:"how gradients are computed: fixed (the same on every machine), or measured (the fastest on this one: it decides the last bits of the result)"`
	Threads    int      `yaml:"threads" json:"threads" doc:"threads of a step on the CPU; 0 = the number of cores"`
}

// defaultBuiltin has the SeLa reference's optimiser and augmentation.
func defaultBuiltin() Builtin {
	return Builtin{
		Epochs: 1, Batch: 128, Schedule: "cosine", Rate: 0.03, Factor: 0.1, Momentum: 0.9, WeightDecay: 1e-5,
		Scale: [2]float64{0.08, 1}, Ratio: [2]float64{0.75, 4.0 / 3}, Flip: 0.5, Jitter: [4]float64{0.4, 0.4, 0.4, 0.4}, Grayscale: 0.2,
		HeldOut: 0.02, Checkpoint: Duration(10 * 60 * 1e9), Forms: "fixed",
	}
}

// Check returns every problem of the fields, named as in a job file.
func (b *Builtin) Check() error {
	var found []error
	bad := func(path, format string, args ...any) {
		found = append(found, fmt.Errorf("%s %s", path, fmt.Sprintf(format, args...)))
	}
	b.check(bad, func(path, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			bad(path, "is %q; it must be one of %s", value, strings.Join(allowed, ", "))
		}
	})
	return errors.Join(found...)
}

func (b *Builtin) check(bad func(string, string, ...any), oneOf func(string, string, ...string)) {
	const section = "train.builtin."
	within := func(name string, value, least, most float64) {
		if !(value >= least && value <= most) {
			bad(section+name, "is %v; it must be from %v to %v", value, least, most)
		}
	}
	below := func(name string, value, least, end float64) {
		if !(value >= least && value < end) {
			bad(section+name, "is %v; it must be at least %v and below %v", value, least, end)
		}
	}
	atLeast := func(name string, value, least int) {
		if value < least {
			bad(section+name, "is %d; it must be at least %d", value, least)
		}
	}
	notNegative := func(name string, value float64) {
		if !(value >= 0 && finite(value)) {
			bad(section+name, "is %v; it must be at least 0", value)
		}
	}
	atLeast("epochs", b.Epochs, 1)
	atLeast("batch", b.Batch, 1)
	atLeast("threads", b.Threads, 0)
	oneOf(section+"forms", b.Forms, "fixed", "measured")
	oneOf(section+"schedule", b.Schedule, "cosine", "steps")
	if !(b.Rate > 0 && finite(b.Rate)) {
		bad(section+"rate", "is %v; it must be positive", b.Rate)
	}
	below("warmup", b.Warmup, 0, 1)
	b.checkMilestones(bad)
	below("momentum", b.Momentum, 0, 1)
	if b.Nesterov && b.Momentum == 0 {
		bad(section+"nesterov", "needs a momentum above 0")
	}
	for _, pattern := range b.Frozen {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			bad(section+"frozen", "has %q, which is no name or pattern", pattern)
		}
	}
	notNegative("weight_decay", b.WeightDecay)
	notNegative("clip", b.Clip)
	if s := b.Scale; !(s[0] > 0 && s[0] <= s[1] && s[1] <= 1) {
		bad(section+"scale", "is %v; it must be two ascending shares above 0, at most 1", s)
	}
	if r := b.Ratio; !(r[0] >= 0.001 && r[0] <= r[1] && r[1] <= 1000) {
		bad(section+"ratio", "is %v; it must be two ascending ratios from 0.001 to 1000", r)
	}
	within("flip", b.Flip, 0, 1)
	within("grayscale", b.Grayscale, 0, 1)
	for i, most := range []float64{100, 100, 100, 0.5} {
		within("jitter", b.Jitter[i], 0, most)
	}
	within("rotate", b.Rotate, 0, 45)
	within("held_out", b.HeldOut, 0, 0.5)
	within("until", b.Until, 0, float64(b.Epochs))
	if b.ResetHeads && b.After == "" {
		bad(section+"reset_heads", "needs train.builtin.after: a training that begins has drawn its heads")
	}
	if b.Init != "" && b.After != "" {
		bad(section+"init", "and train.builtin.after exclude each other")
	}
	if b.Checkpoint <= 0 {
		bad(section+"checkpoint", "must be above 0s")
	}
}

func (b *Builtin) checkMilestones(bad func(string, string, ...any)) {
	last := 0.0
	for _, m := range b.Milestones {
		if !(m > last && m < float64(b.Epochs)) {
			bad("train.builtin.milestones", "is %v; it must ascend, between 0 and train.builtin.epochs (%d)", b.Milestones, b.Epochs)
			break
		}
		last = m
	}
	if len(b.Milestones) > 0 && b.Schedule == "cosine" {
		bad("train.builtin.milestones", "is for schedule steps")
	}
	if !(b.Factor > 0 && b.Factor <= 1) {
		bad("train.builtin.factor", "is %v; it must be above 0 and at most 1", b.Factor)
	}
}

// dagID is what Airflow allows as the id of a DAG; "." and ".." would be cut out
// of a URL's path.
var dagID = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,249}$`)

// check is the part of [Job.check] about the trigger.
func (t *Train) check(bad func(string, string, ...any), oneOf func(string, string, ...string)) {
	oneOf("train.type", t.Type, "none", "command", "http", "airflow", "builtin")
	if (t.Type == "command") != (len(t.Command) > 0) {
		bad("train.command", "is for train.type command: give both or neither")
	}
	posts := t.Type == "http" || t.Type == "airflow"
	if posts != (t.URL != "") {
		bad("train.url", "is for train.type http or airflow: give both or neither")
	}
	if (t.Type == "airflow") != (t.DAG != "") {
		bad("train.dag", "is for train.type airflow: give both or neither")
	}
	if t.DAG != "" && !dagID.MatchString(t.DAG) {
		bad("train.dag", "is %q, which is no id of a DAG: letters, digits, dot, dash and underscore, at most 250", t.DAG)
	}
	if t.URL != "" {
		if u, err := url.Parse(t.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
			bad("train.url", "must be an http or https URL without a password (use train.token_env)")
		} else if t.Type == "airflow" && (u.RawQuery != "" || u.Fragment != "") {
			bad("train.url", "is the base of the API server's paths: without a query")
		}
	}
	if t.TokenEnv != "" && !posts {
		bad("train.token_env", "is for train.type http or airflow")
	}
	if t.LoginEnv != "" && t.Type != "airflow" {
		bad("train.login_env", "is for train.type airflow")
	}
	if t.LoginEnv != "" && t.TokenEnv != "" {
		bad("train.login_env", "and train.token_env exclude each other")
	}
	t.Builtin.check(bad, oneOf)
}
