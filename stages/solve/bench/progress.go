//go:build linux

package main

import (
	"fmt"
	"os"
	"sync"
	"time"
)

// say tells a person on standard error what is being done.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

// progress tells how far a long step is, at most every ten seconds.
type progress struct {
	mu          sync.Mutex
	what        string
	done, total int64
	start, told time.Time
}

func newProgress(what string, total int64) *progress {
	say("%s", what)
	return &progress{what: what, total: total, start: time.Now(), told: time.Now()}
}

func (p *progress) step() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	if time.Since(p.told) > 10*time.Second {
		p.told = time.Now()
		left := time.Duration(float64(time.Since(p.start)) * float64(p.total-p.done) / float64(p.done))
		say("%s: %d of %d, %s left", p.what, p.done, p.total, left.Round(time.Second))
	}
}

func (p *progress) end() {
	if d := time.Since(p.start); d > 5*time.Second {
		say("%s: took %s", p.what, d.Round(100*time.Millisecond))
	}
}
