package main

import (
	"log/slog"
	"sync"
	"time"

	"sela/pipeline"
)

// tellWaits is the pause between two lines about a store that makes the run
// wait: hundreds of requests can fail at once.
const tellWaits = 5 * time.Second

// storeWaits returns a function that logs failures of a store that are waited
// out.
func (p *progress) storeWaits() func(err error, wait time.Duration) {
	var mu sync.Mutex
	var told time.Time
	untold := 0
	return func(err error, wait time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(told) < tellWaits {
			untold++
			return
		}
		p.line(slog.LevelWarn, "a request to a store failed and is made again", pipeline.Event{},
			slog.String("error", err.Error()), slog.Duration("wait", wait.Round(time.Millisecond)), slog.Int("more_since_last", untold))
		told, untold = time.Now(), 0
	}
}
