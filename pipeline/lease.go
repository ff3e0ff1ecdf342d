package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sela/pipeline/bucket"
)

// Lease says which run of a job is being worked on. It is a sequence of
// numbered epochs: an epoch is begun with create-if-absent, so that of any
// number of processes one wins, by a record that names the process which began
// it. Other processes of the same run join the epoch with records of their own.
// The lease is held while one of these records is live: not released, not
// expired, its process not known to be dead.
//
//	<work>/leases/<job>/<epoch>.json            the process that began the epoch
//	<work>/leases/<job>/<epoch>/<member>.json   a process of the same run that joined
//
// The record of the newest epoch outlives its release, so that numbers never
// come again. Whoever writes a record looks once more afterwards and withdraws
// if another run's record is there: of two that overlook each other's first
// steps at least one sees the other now.
//
// A lease spares two schedules from doing the same work; it is no lock that
// correctness rests on. A holder that was paused for longer than [LeaseTTL]
// goes on beside its successor, and expiry is the holder's clock compared with
// the reader's, so that a difference between their clocks shortens or lengthens
// the lifetime by as much.
type Lease struct {
	work  *bucket.Bucket
	job   string
	key   string // of this process's record
	begun bool   // the record is that of an epoch
	self  member
	ttl   time.Duration
	stop  context.CancelFunc
	ended chan struct{}
}

// member is the record of one process.
type member struct {
	Run     string    `json:"run"`
	Holder  Holder    `json:"holder"`
	Expires time.Time `json:"expires"` // zero once released

	key   string
	epoch int64
}

// LeaseTTL is how long a lease outlives the last sign of its holder.
const LeaseTTL = 60 * time.Second

// Acquire takes the job's lease for the run, or joins it where the run has it.
// With alone set, a live process of the same run is not joined either. A
// refusal is of class [Transient] and names the holder. The lease is renewed
// until Release, even when ctx ends before: work in flight is still work.
func (r *Run) Acquire(ctx context.Context, alone bool) (*Lease, error) {
	return acquire(ctx, r.Work, r.Job.Name, r.Run, alone, Self(), LeaseTTL)
}

// AcquireLoop is [Run.Acquire], alone, for all the runs of a loop, which are
// done under its lease and take none of their own.
func AcquireLoop(ctx context.Context, work *bucket.Bucket, job, loop string) (*Lease, error) {
	return acquire(ctx, work, job, loopHolder+loop, true, Self(), LeaseTTL)
}

// loopHolder begins the name under which a loop holds a lease. No run has such
// a name.
const loopHolder = "loop "

// holderName says who holds a lease.
func holderName(run string) string {
	if strings.HasPrefix(run, loopHolder) {
		return run
	}
	return "run " + run
}

func acquire(ctx context.Context, work *bucket.Bucket, job, run string, alone bool, self Holder, ttl time.Duration) (*Lease, error) {
	l := &Lease{work: work, job: job, ttl: ttl, ended: make(chan struct{}), self: member{Run: run, Holder: self}}
	for {
		held, err := l.announce(ctx, alone)
		if err != nil {
			return nil, wrap(err, "lease of job %s", job)
		}
		if held {
			break
		}
	}
	rctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	go l.renew(rctx)
	return l, nil
}

// announce looks who holds the lease, writes this process's record if nobody
// stands in the way, and looks again. It returns false when that must be tried
// once more because somebody else was faster.
func (l *Lease) announce(ctx context.Context, alone bool) (held bool, err error) {
	before, err := l.census(ctx)
	if err != nil {
		return false, err
	}
	for _, m := range before.live {
		if m.Run != l.self.Run || alone {
			help := ""
			if !strings.HasPrefix(m.Run, loopHolder) {
				help = ", or name that run with --run-id to help it"
			}
			return false, Retryable(fmt.Errorf("held by %s (process %d on %s) until %s: wait%s",
				holderName(m.Run), m.Holder.PID, m.Holder.Host, m.Expires.Format(time.RFC3339), help))
		}
	}
	epoch := before.epoch
	l.begun = len(before.live) == 0
	if l.begun {
		epoch++
		l.key = l.prefix() + epochName(epoch) + ".json"
		err = l.work.Create(ctx, l.key, l.record(time.Now().Add(l.ttl)))
		if errors.Is(err, bucket.ErrExists) {
			return false, nil
		}
	} else {
		l.key = l.prefix() + epochName(epoch) + "/" + randomHex(6) + ".json"
		err = l.extend(ctx)
	}
	if err != nil {
		return false, err
	}
	after, err := l.census(ctx)
	if err != nil {
		return false, errors.Join(err, l.withdraw(context.WithoutCancel(ctx)))
	}
	clear := after.epoch == epoch
	for _, m := range after.live {
		// Who is in the epoch that this process began has joined it.
		if m.key != l.key && (m.Run != l.self.Run || alone && m.epoch < epoch) {
			clear = false
		}
	}
	if !clear {
		return false, l.withdraw(ctx)
	}
	if l.begun {
		for _, key := range after.past {
			_ = l.work.Delete(ctx, key) // the next epoch's process tries again
		}
	}
	return true, nil
}

// census is what the records of a lease say.
type census struct {
	epoch int64    // the newest
	live  []member // of any epoch, in the order of their keys
	past  []string // keys of the epochs before the newest
}

// census reads the lease's records and changes nothing.
func (l *Lease) census(ctx context.Context) (census, error) {
	var c census
	var members []member
	err := l.work.List(ctx, l.prefix(), func(o bucket.Object) error {
		name, _, _ := strings.Cut(strings.TrimPrefix(o.Key, l.prefix()), "/")
		epoch, err := strconv.ParseInt(strings.TrimSuffix(name, ".json"), 10, 64)
		if err != nil || epoch < 1 {
			return BadData(fmt.Errorf("%s is not a lease: remove it", o.Key))
		}
		c.epoch = max(c.epoch, epoch)
		members = append(members, member{key: o.Key, epoch: epoch})
		return nil
	})
	if err != nil {
		return c, err
	}
	for _, m := range members {
		if m.epoch < c.epoch {
			c.past = append(c.past, m.key)
		}
		raw, err := l.work.Get(ctx, m.key)
		if errors.Is(err, bucket.ErrNotFound) {
			continue
		}
		if err != nil {
			return c, err
		}
		if err := json.Unmarshal(raw, &m); err != nil {
			return c, BadData(fmt.Errorf("lease %s is damaged: %w; remove it", m.key, err))
		}
		if time.Now().Before(m.Expires) && !m.Holder.dead(l.self.Holder) {
			c.live = append(c.live, m)
		}
	}
	return c, nil
}

func (l *Lease) prefix() string { return "leases/" + l.job + "/" }

// epochName pads the number so that keys sort as numbers do.
func epochName(epoch int64) string { return fmt.Sprintf("%012d", epoch) }

func (l *Lease) record(expires time.Time) []byte {
	m := l.self
	m.Expires = expires.UTC()
	raw, _ := json.Marshal(m) // plain data cannot fail
	return append(raw, '\n')
}

func (l *Lease) extend(ctx context.Context) error {
	return l.work.Put(ctx, l.key, l.record(time.Now().Add(l.ttl)))
}

// withdraw takes this process's record back.
func (l *Lease) withdraw(ctx context.Context) error {
	if l.begun {
		return l.work.Put(ctx, l.key, l.record(time.Time{}))
	}
	return l.work.Delete(ctx, l.key)
}

// renew extends the lease three times per lifetime. A failed renewal is tried
// again at the next turn: the lease saves work, no more.
func (l *Lease) renew(ctx context.Context) {
	defer close(l.ended)
	tick := time.NewTicker(l.ttl / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			wctx, cancel := context.WithTimeout(ctx, l.ttl/3)
			_ = l.extend(wctx)
			cancel()
		}
	}
}

// Release ends the membership, so that the next run need not wait until it
// expires. The other processes of the run keep theirs.
func (l *Lease) Release(ctx context.Context) error {
	l.stop()
	<-l.ended
	return wrap(l.withdraw(ctx), "release lease of job %s", l.job)
}
