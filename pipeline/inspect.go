package pipeline

import (
	"context"
	"errors"
	"fmt"

	"sela/pipeline/bucket"
)

// Read opens a run to look at: its records can be read, but it has no local
// disk to fetch objects to or to do tasks on.
func Read(ctx context.Context, work *bucket.Bucket, id string) (*Run, error) {
	record, err := readRecord(ctx, work, id)
	if errors.Is(err, bucket.ErrNotFound) {
		return nil, BadConfig(fmt.Errorf("run %s does not exist in %s", id, work.URL()))
	}
	if err != nil {
		return nil, err
	}
	run := &Run{Record: record, Work: work, observer: ObserverFunc(func(Event) {})}
	run.Finished, err = exists(ctx, work, run.Path("_SUCCESS"))
	return run, err
}

// ReadFetching is [Read] with a local disk to fetch objects to, but none to do
// tasks on.
func ReadFetching(ctx context.Context, work *bucket.Bucket, id string, local Local) (*Run, error) {
	run, err := Read(ctx, work, id)
	if err != nil {
		return nil, err
	}
	if run.scratch, err = newScratch(local); err != nil {
		return nil, BadConfig(fmt.Errorf("local.dir: %w", err))
	}
	return run, nil
}

// Other opens another run of the bucket to read from: what it fetches counts
// against r's local disk. It fails with bucket.ErrNotFound where there is none.
func (r *Run) Other(ctx context.Context, id string) (*Run, error) {
	record, err := readRecord(ctx, r.Work, id)
	return &Run{Record: record, Work: r.Work, observer: r.observer, scratch: r.scratch}, err
}

// Membership is a live process of the run that holds a job's lease.
type Membership struct {
	Run    string `json:"run"`
	Holder Holder `json:"holder"`
}

// Name says in words which run, or which loop of runs, holds the lease.
func (m *Membership) Name() string { return holderName(m.Run) }

// Holds tells whether the run is worked on under the lease: as the run that holds
// it, or as a round of the loop that does.
func (m *Membership) Holds(r *Record) bool {
	return m.Run == r.Run || r.Loop != "" && m.Run == loopHolder+r.Loop
}

// LeaseHolder returns who holds the job's lease, or nil.
func LeaseHolder(ctx context.Context, work *bucket.Bucket, job string) (*Membership, error) {
	l := &Lease{work: work, job: job, self: member{Holder: Self()}}
	c, err := l.census(ctx)
	if err != nil || len(c.live) == 0 {
		return nil, wrap(err, "lease of job %s", job)
	}
	return &Membership{c.live[0].Run, c.live[0].Holder}, nil
}
