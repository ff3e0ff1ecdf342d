package loop

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"time"

	"sela/pipeline"
)

// MaxRounds bounds the rounds of a loop, whose number a run's name has in three
// digits.
const MaxRounds = 999

// Spec is loop.json: what a loop is. It is written first and never changes.
type Spec struct {
	Version    int                 `json:"version"`
	Loop       string              `json:"loop"`
	Rounds     int                 `json:"rounds"` // R: parts of the training
	Job        *pipeline.Job       `json:"job"`
	Provenance pipeline.Provenance `json:"provenance"` // its model is the one before calibration
	Created    time.Time           `json:"created"`
}

// loopID is a run's id with room for the round.
var loopID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,122}$`)

// Check refuses what cannot be a loop. The error is of class Usage or Config.
func (s *Spec) Check() error {
	t, b := &s.Job.Train, &s.Job.Train.Builtin
	bad := func(format string, args ...any) error { return pipeline.BadConfig(fmt.Errorf(format, args...)) }
	switch {
	case !loopID.MatchString(s.Loop):
		return pipeline.BadUsage(fmt.Errorf("loop id %q: use letters, digits, dot, dash and underscore, at most 123", s.Loop))
	case s.Rounds < 1 || s.Rounds > MaxRounds:
		return pipeline.BadUsage(fmt.Errorf("%d rounds: a loop has from 1 to %d", s.Rounds, MaxRounds))
	case t.Type == "none":
		return bad("train.type is none: a loop trains between its rounds; set it to builtin")
	case t.Type == "http" || t.Type == "airflow":
		return bad("train.type is %s, from which no trained network comes back: a loop needs builtin, or a command that writes {trained_model}", t.Type)
	case t.Type != "builtin" && (s.Job.Loop.Schedule != "even" || s.Job.Loop.StopChurn > 0):
		return bad("loop.schedule power and loop.stop_churn need train.type builtin: nothing else tells how far a training is")
	case b.After != "" || b.Until != 0:
		return bad("train.builtin.after and train.builtin.until are the loop's to set: leave them out")
	case t.Type == "builtin" && b.Init != "":
		return bad("train.builtin.init: the first labels would be another network's than the one that is trained; give the network to begin with as model.path")
	case s.Job.Solve.Method == "fixed":
		return bad("solve.method is fixed: the potentials of one network do not label the next")
	}
	return nil
}

// Total is the number of epochs of the whole training.
func (s *Spec) Total() int { return s.Rounds * s.Job.Train.Builtin.Epochs }

// Run is the id of a round's run.
func (s *Spec) Run(round int) string { return fmt.Sprintf("%s-r%03d", s.Loop, round) }

// Epoch is the position in the whole training, in epochs, at which the labels of
// a round are made.
func (s *Spec) Epoch(round int) float64 {
	if round == 0 {
		return 0
	}
	return Ends(s.Job.Loop, s.Rounds, s.Job.Train.Builtin.Epochs)[round-1]
}

// RoundJob derives the job of a round. first is where the network lies that no
// part has trained yet, before the round before, nil for round 0; place tells the
// URL of an object of the work bucket.
//
// The training of every part is that of the whole: train.builtin.epochs of each
// round come to rounds times as many, over which warm-up and decay stretch; and so
// do the milestones, which are epochs of the first round in the loop's job.
func (s *Spec) RoundJob(round int, first string, before *Round, place func(key string) string) *pipeline.Job {
	job := *s.Job
	b := &job.Train.Builtin
	b.Epochs, b.Milestones = s.Total(), slices.Clone(b.Milestones)
	for i := range b.Milestones {
		b.Milestones[i] *= float64(s.Rounds)
	}
	job.Model.Path, job.Label.Previous = first, ""
	if before == nil && job.Loop.Start == "random" {
		job.Solve.Method, job.Solve.Balance, job.Solve.Start, job.Solve.Anneal, job.Solve.Truth = "random", "none", "", nil, ""
	}
	if before != nil {
		job.Label.Previous = before.Run
		job.Model.Path = place(before.Model.Key)
		if before.Checkpoint != nil {
			b.After = place(before.Checkpoint.Key)
		}
		b.ResetHeads = job.Solve.Method == "deepcluster"
	}
	if round < s.Rounds {
		b.Until = s.Epoch(round + 1)
	} else {
		job.Train = pipeline.Train{Type: "none", Builtin: s.Job.Train.Builtin}
	}
	return &job
}

// Fits refuses a schedule whose first part is less than a step of a training on
// so many images.
func (s *Spec) Fits(images int64) error {
	b := s.Job.Train.Builtin
	steps := math.Ceil(float64(images) * (1 - b.HeldOut) / float64(b.Batch))
	if first := s.Epoch(1) * steps; s.Job.Train.Type == "builtin" && first < 1 {
		return pipeline.BadConfig(fmt.Errorf("the first of %d rounds would be %.2g steps of training, of %d images each: take fewer rounds, a lower loop.power, a smaller train.builtin.batch or more train.builtin.epochs",
			s.Rounds, first, b.Batch))
	}
	return nil
}

// Difference lists what would make other another loop, as "field: s's value →
// other's". How a machine does the work is not among it, nor what the labels are
// compared with.
func (s *Spec) Difference(other *Spec) []string {
	diff := s.Job.Difference(other.Job)
	if s.Rounds != other.Rounds {
		diff = append(diff, fmt.Sprintf("--rounds: %d → %d", s.Rounds, other.Rounds))
	}
	free := []string{"threads", "checkpoint", "truth"}
	if s.Job.Train.Type != other.Job.Train.Type {
		diff = append(diff, fmt.Sprintf("train.type: %s → %s", s.Job.Train.Type, other.Job.Train.Type))
	}
	diff = append(diff, fields("train.builtin.", s.Job.Train.Builtin, other.Job.Train.Builtin, free...)...)
	diff = append(diff, fields("loop.", s.Job.Loop, other.Job.Loop, free...)...)
	return append(diff, fields("", s.Provenance, other.Provenance)...)
}

// fields lists the fields, other than free ones, in which two structs of one
// type differ.
func fields(prefix string, one, two any, free ...string) (diff []string) {
	v, w := reflect.ValueOf(one), reflect.ValueOf(two)
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("json")
		a, b := fmt.Sprint(v.Field(i)), fmt.Sprint(w.Field(i))
		if a != b && !slices.Contains(free, name) {
			diff = append(diff, fmt.Sprintf("%s%s: %.60s → %.60s", prefix, name, a, b))
		}
	}
	return diff
}

// ParseSpec reads a loop.json.
func ParseSpec(raw []byte, loop string) (*Spec, error) {
	var s Spec
	err := json.Unmarshal(raw, &s)
	if err == nil && (s.Loop != loop || s.Job == nil || s.Rounds < 1) {
		err = errors.New("it is of another loop")
	}
	if err != nil {
		return nil, pipeline.BadData(fmt.Errorf("loop %s: loop.json is damaged: %w", loop, err))
	}
	if s.Version != 1 {
		return nil, pipeline.BadConfig(fmt.Errorf("loop %s was written by another version of sela (record version %d)", loop, s.Version))
	}
	return &s, nil
}
