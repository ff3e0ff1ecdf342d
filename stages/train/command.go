package train

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sela/pipeline"
)

// Command runs a program for each published manifest. The program reads the
// manifest from standard input, or from the file SELA_MANIFEST; it also gets
// SELA_LABELS, SELA_RUN, SELA_DIGEST and SELA_MODEL. If it writes a model to the
// file SELA_TRAINED_MODEL, that becomes part of the run.
//
// Its exit status is read as this program's own would be: 75 may be tried
// again, everything else but 0 may not.
type Command struct {
	// Args are the program and its arguments. {manifest}, {labels}, {run},
	// {digest}, {model} and {trained_model} are replaced by the same values.
	Args  []string
	Env   []string      // the environment the program's own is added to
	Log   io.Writer     // receives both outputs of the program
	Limit time.Duration // of one attempt; 0 is none
	Grace time.Duration // how long the program may take to end after SIGTERM; 0 is ten seconds
}

// Fire implements [Trigger]. When ctx ends, the program and all it started in its
// process group get SIGTERM and, those that are left when Grace is over,
// SIGKILL; Fire returns when they have ended.
func (c Command) Fire(ctx context.Context, e Event) (*Outcome, error) {
	manifest, trained := filepath.Join(e.Dir, "manifest.json"), filepath.Join(e.Dir, "trained.onnx")
	if err := os.WriteFile(manifest, e.Manifest, 0o600); err != nil {
		return nil, fmt.Errorf("train command: %w", err)
	}
	values := []struct{ name, value string }{
		{"manifest", manifest}, {"labels", e.Labels}, {"run", e.Run}, {"digest", e.Digest}, {"model", e.Model}, {"trained_model", trained},
	}
	var replace []string
	env := c.Env
	for _, v := range values {
		replace = append(replace, "{"+v.name+"}", v.value)
		env = append(env[:len(env):len(env)], "SELA_"+strings.ToUpper(v.name)+"="+v.value)
	}
	replacer := strings.NewReplacer(replace...)
	args := make([]string, len(c.Args))
	for i, a := range c.Args {
		args[i] = replacer.Replace(a)
	}
	if c.Limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.Limit, fmt.Errorf("took longer than train.timeout (%s): %w", pipeline.Duration(c.Limit), context.DeadlineExceeded))
		defer cancel()
	}
	grace := c.Grace
	if grace == 0 {
		grace = 10 * time.Second
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, bytes.NewReader(e.Manifest), c.Log, c.Log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = grace
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil {
		err = nil // it ended well; what it left running holds on to its outputs
	}
	if err != nil {
		if ctx.Err() != nil {
			if cmd.Process != nil {
				endGroup(cmd.Process.Pid, grace)
			}
			return nil, fmt.Errorf("train command %s: %w", args[0], context.Cause(ctx))
		}
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == tryAgain {
			return nil, pipeline.Retryable(fmt.Errorf("train command %s: %w: the labels stay published", args[0], err))
		}
		return nil, pipeline.BadConfig(fmt.Errorf("train command %s: %w: the labels stay published; mend it and run the same command again", args[0], err))
	}
	o := &Outcome{Type: "command", Detail: args[0] + ": exit status 0"}
	if _, err := os.Stat(trained); err == nil {
		o.Model = trained
	}
	return o, nil
}

// tryAgain is the exit status of a program that may succeed later (EX_TEMPFAIL
// of sysexits.h).
const tryAgain = 75

// endGroup waits until a process group that was asked to end has no member, and
// kills what is left of it after grace.
func endGroup(group int, grace time.Duration) {
	for wait := time.Millisecond; grace > 0; wait = min(2*wait, 100*time.Millisecond) {
		if syscall.Kill(-group, 0) != nil {
			return
		}
		time.Sleep(wait)
		grace -= wait
	}
	_ = syscall.Kill(-group, syscall.SIGKILL) // it may have ended just now
}
