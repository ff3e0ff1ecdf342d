// Command demo is what `make run` shows the pipeline on: it makes a bucket of
// images whose true classes are known, and afterwards compares the labels that
// a run published with that truth.
//
//	demo images --out DIR     draw the images (DIR/images) and the truth (DIR/truth)
//	demo report --labels DIR --truth FILE
//	                          agreement of each head of the published run with the truth
//	demo compare --labels DIR --other DIR
//	                          labels in which two runs differ
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"sela/jobs/demo/letters"
	"sela/pipeline"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:           "demo",
		Short:         "Images with known classes, and what a run made of them",
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return pipeline.BadUsage(err) })
	root.AddCommand(imagesCommand(), reportCommand(), compareCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(pipeline.ExitCode(err, 0))
	}
}

func imagesCommand() *cobra.Command {
	p := params{Version: letters.Version, Group: 1000}
	var out string
	var workers int
	cmd := &cobra.Command{
		Use:   "images --out DIR",
		Short: "Draw images of letters, unless they are there already",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("members") {
				p.Members = p.Count / 4
			}
			made, err := writeDataset(cmd.Context(), out, p, workers)
			if err != nil {
				return err
			}
			verb := "found"
			if made {
				verb = "made"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s %d images in %s: %d files, %d in tar shards\n",
				verb, p.Count, filepath.Join(out, imagesDir), p.Count-p.Members, p.Members)
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&out, "out", ".demo", "folder to make the images in")
	flags.IntVar(&p.Count, "count", 4000, "number of images")
	flags.IntVar(&p.Members, "members", 0, "how many of these, the last ones, go into tar shards (default a quarter)")
	flags.Uint64Var(&p.Seed, "seed", 1, "seed of everything random")
	flags.IntVar(&workers, "workers", runtime.GOMAXPROCS(0), "images drawn at a time")
	return cmd
}

func reportCommand() *cobra.Command {
	var published, truthPath string
	cmd := &cobra.Command{
		Use:   "report --labels DIR --truth FILE",
		Short: "Print the agreement of each head of the published run with the truth",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if published == "" || truthPath == "" {
				return pipeline.BadUsage(errors.New("report needs --labels and --truth"))
			}
			truth, err := readTruth(truthPath)
			if err != nil {
				return err
			}
			run, heads, err := readPublished(published)
			if err != nil {
				return err
			}
			return writeReport(cmd.OutOrStdout(), run, heads, truth)
		},
	}
	cmd.Flags().StringVar(&published, "labels", "", "folder of the labels bucket")
	cmd.Flags().StringVar(&truthPath, "truth", "", "the truth that `demo images` wrote")
	return cmd
}

func compareCommand() *cobra.Command {
	var one, two string
	cmd := &cobra.Command{
		Use:   "compare --labels DIR --other DIR",
		Short: "Count the images that two published runs label differently",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if one == "" || two == "" {
				return pipeline.BadUsage(errors.New("compare needs --labels and --other"))
			}
			_, mine, err := readPublished(one)
			if err != nil {
				return err
			}
			_, theirs, err := readPublished(two)
			if err != nil {
				return err
			}
			return differences(cmd.OutOrStdout(), mine, theirs)
		},
	}
	cmd.Flags().StringVar(&one, "labels", "", "folder of a labels bucket")
	cmd.Flags().StringVar(&two, "other", "", "folder of another")
	return cmd
}

// noArgs refuses anything but flags, a misspelt command among it.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return pipeline.BadUsage(fmt.Errorf("%s: unexpected %q; --help lists what there is", cmd.CommandPath(), args[0]))
}
