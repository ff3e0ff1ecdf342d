package main

import (
	"cmp"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"sela/jobs/observe"
	"sela/pipeline"
	"sela/stages/label"
	"sela/stages/list"
	"sela/stages/publish"
)

// The variables that say who is told how a command goes, in the place of flags:
// the URLs may hold a secret, which everybody sees in a command line.
const (
	pingVariable        = "SELA_PING_URL"
	pushgatewayVariable = "SELA_PUSHGATEWAY_URL"
	textfilesVariable   = "SELA_TEXTFILE_DIR"
)

// watched has a command that works on runs watched: see package observe.
func (a *app) watched(cmd *cobra.Command) *cobra.Command {
	var ping, pushgateway, textfiles string
	cmd.Flags().StringVar(&ping, "ping", "", "URL of a health check, pinged at start (/start) and end (bare, or /<exit code>); else $"+pingVariable)
	cmd.Flags().StringVar(&pushgateway, "pushgateway", "", "URL of a Prometheus Pushgateway, told at the end; else $"+pushgatewayVariable)
	cmd.Flags().StringVar(&textfiles, "textfile-dir", "", "folder of a Prometheus node exporter's text files, written to at the end; else $"+textfilesVariable)
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a.watch = observe.Begin(observe.Options{Command: cmd.Name(), Version: version(), Getenv: os.Getenv,
			Ping: cmp.Or(ping, os.Getenv(pingVariable)), Pushgateway: cmp.Or(pushgateway, os.Getenv(pushgatewayVariable)), Textfiles: cmp.Or(textfiles, os.Getenv(textfilesVariable)),
			Warn: func(message string, err error) {
				a.progress.line(slog.LevelWarn, message, pipeline.Event{}, slog.String("error", err.Error()))
			}})
		err := run(cmd, args)
		a.made.Err, a.made.Code = err, pipeline.ExitCode(err, a.interrupt.number())
		a.watch.End(a.made)
		return err
	}
	return cmd
}

// observer tells the display and the watch what happens in a run.
func (a *app) observer() pipeline.Observer {
	return pipeline.ObserverFunc(func(e pipeline.Event) {
		a.progress.Observe(e)
		a.watch.Observe(e)
	})
}

// remember keeps what the end of the watch tells of a run's commits.
func (a *app) remember(command string, commits []*pipeline.Commit, published publish.Result) {
	a.made = observe.Outcome{}
	if command == "run" || command == publish.Name {
		a.made.Labels, a.made.Manifest, a.made.Rows = published.Folder, published.Digest, published.Labels
	}
	for _, c := range commits {
		a.made.Rejected += c.Counts["rejected"]
		switch c.Stage {
		case list.Name:
			a.made.Images = c.Counts["images"] + c.Counts["rejected"]
		case label.Name:
			for _, o := range c.Outputs {
				a.made.Files++
				a.made.Bytes += o.Bytes
			}
		}
	}
}
