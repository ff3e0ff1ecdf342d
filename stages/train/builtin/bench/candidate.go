//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// candidate is a process that takes training steps.
type candidate struct {
	name    string
	command *exec.Cmd
	in      io.WriteCloser
	out     *json.Decoder
	opened  *answer
	wall    []float64 // seconds of the fastest step of each round
	cpu     []float64 // likewise
	loss    float64
	peak    float64
}

// start starts a candidate's process, limited to the threads.
func start(ctx context.Context, name string, threads int, command ...string) (*candidate, error) {
	c := &candidate{name: name, command: exec.CommandContext(ctx, command[0], command[1:]...)}
	n := strconv.Itoa(threads)
	c.command.Env = append(os.Environ(), "GOMAXPROCS="+n, "OMP_NUM_THREADS="+n, "MKL_NUM_THREADS="+n)
	c.command.Stderr = os.Stderr
	c.command.WaitDelay = 10 * time.Second
	in, err := c.command.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.in, c.out = in, json.NewDecoder(out)
	if err := c.command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return c, nil
}

// ask returns the candidate's answer.
func (c *candidate) ask(r request) (*answer, error) {
	raw, err := json.Marshal(r)
	if err == nil {
		_, err = c.in.Write(append(raw, '\n'))
	}
	a := new(answer)
	if err == nil {
		err = c.out.Decode(a)
	}
	if err == nil && a.Error != "" {
		err = errors.New(a.Error)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", c.name, r.Do, err)
	}
	return a, nil
}

func (c *candidate) stop() error {
	if err := errors.Join(c.in.Close(), c.command.Wait()); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	return nil
}
