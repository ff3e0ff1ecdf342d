// Command sela makes balanced labels for a bucket of images and publishes them
// as Parquet tables.
//
// It is the one place that reads the environment, chooses storage providers,
// configures logging and ends the process. The last line of a command's
// standard output is one JSON object; logs and progress go to standard error.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sela/jobs/observe"
	"sela/pipeline"
)

func main() {
	os.Exit(execute(os.Args[1:]))
}

// execute runs a command line and returns the exit code.
func execute(args []string) int {
	ctx, interrupt := withSignals()
	defer interrupt.release()
	app := &app{interrupt: interrupt}
	root := app.command()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	app.finish(err)
	code := pipeline.ExitCode(err, interrupt.number())
	if app.nothingNewOK && pipeline.ClassOf(err) == pipeline.NothingNew {
		code = 0
	}
	if app.result != nil || err != nil {
		if printErr := app.printResult(err, code); printErr != nil && code == 0 {
			fmt.Fprintln(os.Stderr, "sela: the result cannot be written:", printErr)
			return pipeline.ExitCode(pipeline.Retryable(printErr), 0)
		}
	}
	return code
}

// app is what all commands share.
type app struct {
	interrupt *interrupts
	logFormat string
	verbose   bool
	// nothingNewOK has a run that finds nothing new exit with 0.
	nothingNewOK bool
	progress     *progress
	result       map[string]any // printed as the last line of standard output
	watch        *observe.Watch // of a command that works on runs, else nil
	made         observe.Outcome
}

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "sela",
		Short: "Balanced labels for unlabelled images",
		Long:  "sela runs a classifier over a bucket of images, finds the balanced assignment of images to clusters that fits its log-probabilities best, and publishes the labels as Parquet tables.\n\n" + exitTable(),
		Args:  cobra.NoArgs, SilenceErrors: true, SilenceUsage: true, Version: version(),
		PersistentPreRunE: func(*cobra.Command, []string) error {
			p, err := newProgress(a.logFormat, a.verbose)
			a.progress = p
			return err
		},
	}
	root.PersistentFlags().StringVar(&a.logFormat, "log-format", "auto", "auto (progress bars on a terminal, else text), text or json")
	root.PersistentFlags().BoolVarP(&a.verbose, "verbose", "v", false, "log every task")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return pipeline.BadUsage(err) })
	root.AddCommand(a.watched(a.runCommand()), a.planCommand(), a.statusCommand(), a.verifyCommand(), a.exportCommand(), a.diffCommand(), a.gcCommand(), a.watched(a.loopCommand()), a.evaluateCommand(),
		a.reportCommand(), a.jobCommand(), a.modelCommand(), a.schemaCommand(), a.doctorCommand())
	root.AddCommand(a.stageCommands()...)
	root.CompletionOptions.HiddenDefaultCmd = true
	strict(root)
	return root
}

// strict makes wrong arguments and unknown commands errors of class Usage.
func strict(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return pipeline.BadUsage(fmt.Errorf("%w (see: %s --help)", err, c.CommandPath()))
			}
			return nil
		}
	}
	if cmd.HasSubCommands() && cmd.RunE == nil {
		cmd.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	}
	for _, sub := range cmd.Commands() {
		strict(sub)
	}
}

func exitTable() string {
	var b strings.Builder
	b.WriteString("Exit codes:\n")
	for _, c := range pipeline.ExitCodes {
		fmt.Fprintf(&b, "  %3d  %s\n", c.Code, c.Meaning)
	}
	return b.String()
}

// finish ends the progress display and logs the error.
func (a *app) finish(err error) {
	if a.progress == nil {
		a.progress, _ = newProgress("text", false) // a wrong flag came before the display
	}
	a.progress.close()
	if err != nil {
		a.progress.failed(err)
	}
}

func (a *app) printResult(err error, code int) error {
	out := a.result
	if out == nil {
		out = map[string]any{}
	}
	out["exit_code"] = code
	if err != nil {
		out["class"], out["error"] = pipeline.ClassOf(err).String(), err.Error()
	}
	raw, encodeErr := json.Marshal(out)
	if encodeErr != nil {
		raw = fmt.Appendf(nil, `{"exit_code":%d}`, code)
	}
	_, writeErr := fmt.Printf("%s\n", raw)
	return writeErr
}

// drain is how long tasks in flight may go on after a first signal. Airflow
// kills a process five seconds after it asked it to end.
const drain = 3 * time.Second

// interrupts turns signals into an orderly end: the first closes stop, so that
// no new task starts; after drain, or with a second signal, the context is
// cancelled.
type interrupts struct {
	stop     chan struct{}
	signals  chan os.Signal
	received chan os.Signal
	cancel   context.CancelFunc
	first    syscall.Signal
}

func withSignals() (context.Context, *interrupts) {
	ctx, cancel := context.WithCancel(context.Background())
	i := &interrupts{stop: make(chan struct{}), signals: make(chan os.Signal, 2), received: make(chan os.Signal, 1), cancel: cancel}
	signal.Notify(i.signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		s, ok := <-i.signals
		if !ok {
			return
		}
		i.received <- s
		close(i.stop)
		select {
		case <-i.signals:
		case <-time.After(drain):
		}
		cancel()
	}()
	return ctx, i
}

// number returns the number of the signal that was received, or 0.
func (i *interrupts) number() int {
	select {
	case s := <-i.received:
		if n, ok := s.(syscall.Signal); ok {
			i.first = n
		}
	default:
	}
	return int(i.first)
}

func (i *interrupts) release() {
	signal.Stop(i.signals)
	i.cancel()
}
