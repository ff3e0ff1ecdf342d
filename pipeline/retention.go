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
// log-probabilities of finished runs beyond keep.logprobs, the networks of a
// loop's earlier rounds, and, in finished runs, checkpoints and objects of
// attempts that were never committed. With abandoned set, it lists unfinished
// runs that are older than a finished one too, whole, but for the round at which
// a loop stands; their lease must not be live, which is the caller's to know.
func FindGarbage(ctx context.Context, work *bucket.Bucket, job *Job, abandoned bool) ([]Garbage, error) {
	records, err := Records(ctx, work)
	if err != nil {
		return nil, err
	}
	var out []Garbage
	finished, models := 0, map[string]int{}
	for _, r := range records {
		if r.Job.Name != job.Name {
			continue
		}
		var g Garbage
		switch {
		case r.finished:
			finished++
			g, err = finishedGarbage(ctx, work, &r.Record, job.Keep.LogProbs, finished, models)
		case abandoned && finished > 0:
			var standing bool
			if standing, err = unfinishedLoop(ctx, work, r.Loop); err == nil && !standing {
				g, err = wholeRun(ctx, work, &r.Record)
			}
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

// LoopPath returns the key of an object of a loop.
func LoopPath(loop, name string) string { return "loops/" + loop + "/" + name }

// unfinishedLoop tells whether there is a loop of the name that is not complete.
func unfinishedLoop(ctx context.Context, work *bucket.Bucket, loop string) (bool, error) {
	if loop == "" {
		return false, nil
	}
	done, err := exists(ctx, work, LoopPath(loop, "_SUCCESS"))
	return !done, err
}

// network tells whether a committed object is what a training goes on from,
// rather than what it came to.
func network(name string) bool {
	return strings.HasPrefix(name, "model/") && !strings.HasSuffix(name, ".csv")
}

// finishedGarbage is that of the n-th newest finished run, from 1. models counts,
// by loop, the finished rounds with a network so far: the newest is what the loop
// goes on from, or its result, and stays under any policy.
func finishedGarbage(ctx context.Context, work *bucket.Bucket, r *Record, policy string, n int, models map[string]int) (Garbage, error) {
	g := Garbage{Run: r.Run, Reason: "uncommitted attempts and checkpoints"}
	run := &Run{Record: *r, Work: work}
	commits, err := run.AllCommits(ctx)
	if err != nil {
		return g, err
	}
	committed, networks := map[string]bool{}, false
	for _, c := range commits {
		for _, o := range c.Outputs {
			committed[o.Path] = true
			networks = networks || network(o.Path)
		}
	}
	keepBulky, keepNetworks := keeps(policy, n), true
	if r.Loop != "" && networks {
		models[r.Loop]++
		keepNetworks = models[r.Loop] == 1 || keeps(policy, models[r.Loop])
	}
	err = work.List(ctx, run.Path(""), func(o bucket.Object) error {
		name := strings.TrimPrefix(o.Key, run.Path(""))
		own := name == "run.json" || name == "_manifest.json" || name == "_SUCCESS" || strings.HasPrefix(name, "commits/") || strings.HasPrefix(name, "report/")
		keep := keepNetworks || !network(name)
		for _, folder := range bulky {
			keep = keep && (keepBulky || !strings.HasPrefix(name, folder))
		}
		switch {
		case own, committed[name] && keep:
			return nil
		case committed[name]:
			g.Reason = "log-probabilities beyond keep.logprobs"
			if r.Loop != "" {
				g.Reason = "log-probabilities and networks of an earlier round"
			}
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
