package main

import (
	"context"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/loop"
)

// loopState is a loop as `sela status` shows it.
type loopState struct {
	Loop     string    `json:"loop"`
	Created  time.Time `json:"created"`
	Rounds   int       `json:"rounds"` // R; labels are made R+1 times
	Done     int       `json:"done"`   // label sets
	Finished bool      `json:"finished"`
}

// loopStatus lists the job's loops, newest first.
func loopStatus(ctx context.Context, job *pipeline.Job, work *bucket.Bucket) ([]loopState, error) {
	specs, err := loop.Specs(ctx, work)
	if err != nil {
		return nil, err
	}
	states := []loopState{}
	table := tabwriter.NewWriter(os.Stderr, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nLOOP\tCREATED\tSTATE\tROUNDS\tLAST CHURN")
	for _, s := range specs {
		if s.Job.Name != job.Name {
			continue
		}
		rounds, err := loop.ReadRounds(ctx, work, s.Spec)
		if err != nil {
			return nil, err
		}
		state, churn := "unfinished", "-"
		if s.Finished {
			state = "finished"
		}
		if n := len(rounds); n > 0 && rounds[n-1].Churn != nil {
			churn = fmt.Sprintf("%.3f", *rounds[n-1].Churn)
		}
		states = append(states, loopState{s.Loop, s.Created, s.Rounds, len(rounds), s.Finished})
		fmt.Fprintf(table, "%s\t%s\t%s\tlabelled %d of %d times\t%s\n", s.Loop, s.Created.Format(time.RFC3339), state, len(rounds), s.Rounds+1, churn)
	}
	if len(states) == 0 {
		return states, nil
	}
	return states, table.Flush()
}
