package loop

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"

	"sela/pipeline"
	"sela/pipeline/bucket"
)

// Recorded is a loop as [Specs] finds it.
type Recorded struct {
	*Spec
	Finished bool
}

// Specs returns the loops of a work bucket, newest first.
func Specs(ctx context.Context, work *bucket.Bucket) ([]Recorded, error) {
	var names []string
	err := work.ListDirs(ctx, "loops/", func(o bucket.Object) error {
		names = append(names, strings.TrimSuffix(strings.TrimPrefix(o.Key, "loops/"), "/"))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list loops of %s: %w", work.URL(), err)
	}
	var found []Recorded
	for _, name := range names {
		spec, finished, err := ReadSpec(ctx, work, name)
		if errors.Is(err, bucket.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found = append(found, Recorded{spec, finished})
	}
	sort.Slice(found, func(i, j int) bool {
		if a, b := found[i].Created, found[j].Created; !a.Equal(b) {
			return a.After(b)
		}
		return found[i].Loop > found[j].Loop
	})
	return found, nil
}

// ReadSpec reads a loop's record and whether it is complete.
func ReadSpec(ctx context.Context, work *bucket.Bucket, name string) (spec *Spec, finished bool, err error) {
	raw, err := work.Get(ctx, pipeline.LoopPath(name, "loop.json"))
	if err != nil {
		return nil, false, fmt.Errorf("read loop %s: %w", name, err)
	}
	if spec, err = ParseSpec(raw, name); err != nil {
		return nil, false, err
	}
	_, err = work.Stat(ctx, pipeline.LoopPath(name, "_SUCCESS"))
	if errors.Is(err, bucket.ErrNotFound) {
		return spec, false, nil
	}
	return spec, err == nil, err
}

// RoundName is the name of a round's record in the loop's folder.
func RoundName(round int) string { return fmt.Sprintf("round-%d.json", round) }

// ReadRounds reads the rounds of a loop that are done, from the first.
func ReadRounds(ctx context.Context, work *bucket.Bucket, spec *Spec) ([]*Round, error) {
	var done []*Round
	for r := range spec.Rounds + 1 {
		raw, err := work.Get(ctx, pipeline.LoopPath(spec.Loop, RoundName(r)))
		if errors.Is(err, bucket.ErrNotFound) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read round %d of loop %s: %w", r, spec.Loop, err)
		}
		round, err := ParseRound(raw, spec.Loop, r)
		if err != nil {
			return nil, err
		}
		done = append(done, round)
	}
	return done, nil
}
