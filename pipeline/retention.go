package pipeline

import (
	"context"
	"strconv"
	"strings"

	"sela/pipeline/bucket"
)

// Garbage is what retention lets go of in one run.
type Garbage struct {
	Run     string   `json:"run"`
	Reason  string   `json:"reason"`
	Objects int      `json:"objects"`
	Bytes   int64    `json:"bytes"`
	keys    []string // absolute
}

// bulky are the folders of a run that keep.logprobs is about.
var bulky = []string{"logprobs/", "features/", "sample/"}

// FindGarbage lists, run by run, what the job's retention lets go of: the
// log-probabilities of finished runs beyond keep.logprobs, and, in finished
// runs, checkpoints and objects of attempts that were never committed. With
// abandoned set, it lists unfinished runs that are older than a finished one
// too, whole; their lease must not be live, which is the caller's to know.
func FindGarbage(ctx context.Context, work *bucket.Bucket, job *Job, abandoned bool) ([]Garbage, error) {
	records, err := Records(ctx, work)
	if err != nil {
		return nil, err
	}
	var out []Garbage
	finished := 0
	for _, r := range records {
		if r.Job.Name != job.Name {
			continue
		}
		var g Garbage
		switch {
		case r.finished:
			finished++
			g, err = finishedGarbage(ctx, work, &r.Record, keeps(job.Keep.LogProbs, finished))
		case abandoned && finished > 0:
			g, err = wholeRun(ctx, work, &r.Record)
		}
		if err != nil {
			return nil, wrap(err, "retention of run %s", r.Run)
		}
		if g.Objects > 0 {
			out = append(out, g)
		}
	}
	return out, nil
}

// keeps tells whether the n-th newest finished run, from 1, keeps its
// log-probabilities.
func keeps(policy string, n int) bool {
	switch policy {
	case "always":
		return true
	case "until_published":
		return false
	default:
		limit, _ := strconv.Atoi(policy) // checked with the job
		return n <= limit
	}
}

func finishedGarbage(ctx context.Context, work *bucket.Bucket, r *Record, keepBulky bool) (Garbage, error) {
	g := Garbage{Run: r.Run, Reason: "uncommitted attempts and checkpoints"}
	run := &Run{Record: *r, Work: work}
	commits, err := run.AllCommits(ctx)
	if err != nil {
		return g, err
	}
	committed := map[string]bool{}
	for _, c := range commits {
		for _, o := range c.Outputs {
			committed[o.Path] = true
		}
	}
	err = work.List(ctx, run.Path(""), func(o bucket.Object) error {
		name := strings.TrimPrefix(o.Key, run.Path(""))
		own := name == "run.json" || name == "_manifest.json" || name == "_SUCCESS" || strings.HasPrefix(name, "commits/")
		isBulky := false
		for _, folder := range bulky {
			isBulky = isBulky || strings.HasPrefix(name, folder)
		}
		switch {
		case own, committed[name] && (!isBulky || keepBulky):
			return nil
		case committed[name]:
			g.Reason = "log-probabilities beyond keep.logprobs"
		}
		g.add(o)
		return nil
	})
	return g, err
}

func wholeRun(ctx context.Context, work *bucket.Bucket, r *Record) (Garbage, error) {
	g := Garbage{Run: r.Run, Reason: "abandoned: unfinished, and a later run is published"}
	objects, err := deletionOrder(ctx, work, r.Run)
	for _, o := range objects {
		g.add(o)
	}
	return g, err
}

func (g *Garbage) add(o bucket.Object) {
	g.Objects++
	g.Bytes += o.Size
	g.keys = append(g.keys, o.Key)
}

// Delete removes what was found.
func (g *Garbage) Delete(ctx context.Context, work *bucket.Bucket) error {
	for _, key := range g.keys {
		if err := work.Delete(ctx, key); err != nil {
			return wrap(err, "retention of run %s", g.Run)
		}
	}
	return nil
}
