// Command results measures what SeLa learns on CIFAR-10, row by row:
//
//	results [flags] ROW…   train and evaluate, and keep the figures in DIR/ROW.csv
//	results list           the rows, and which have figures
//	results table          a table of all figures there are, in Markdown
//
// Every row trains on the same number of images. It drives the sela command as
// anyone would: model new, loop or train, evaluate. A row that was killed goes on
// where it was when the same command is given again. `make results ROW=…` calls it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s := settings{machine: machine()}
	var seeds []int
	root := &cobra.Command{
		Use: "results ROW…", Short: "Train and evaluate rows of the results on CIFAR-10", Args: cobra.MinimumNArgs(1),
		SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range args {
				r, err := find(name)
				if err != nil {
					return err
				}
				for _, seed := range seeds {
					if err := s.measure(cmd.Context(), r, seed); err != nil {
						return fmt.Errorf("%s, seed %d: %w", name, seed, err)
					}
				}
			}
			return nil
		},
	}
	f := root.PersistentFlags()
	f.StringVar(&s.sela, "sela", ".build/sela", "the sela command")
	f.StringVar(&s.data, "data", "../shared/data/cifar10", "folder of cifar10-train-*.tar and cifar10-test-*.tar, members CLASS/NUMBER.jpg")
	f.StringVar(&s.work, "work", ".results", "folder of networks, runs and checkpoints")
	f.StringVar(&s.out, "out", "jobs/results/cifar10", "folder of the CSV files")
	f.Int64Var(&s.budget, "budget", 300_000, "images that every row trains on")
	f.IntVar(&s.epochs, "epochs", 0, "epochs, in place of what the budget gives")
	f.StringVar(&s.providers, "providers", "", "execution providers, as runtime.providers of a job: cuda,cpu")
	root.Flags().IntSliceVar(&seeds, "seed", []int{0}, "seeds: of the network and of the training, the same for every row")
	root.AddCommand(
		&cobra.Command{Use: "list", Short: "Print the rows, and which have figures", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return s.list(cmd.OutOrStdout()) }},
		&cobra.Command{Use: "table", Short: "Print a table of all figures there are", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return s.table(cmd.OutOrStdout()) }},
	)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "results:", err)
		os.Exit(1)
	}
}

// settings are where everything lies, and how much is trained.
type settings struct {
	sela, data, work, out string
	budget                int64
	epochs                int
	providers             string
	machine               string
}

func find(name string) (*row, error) {
	for i := range rows {
		if rows[i].name == name {
			return &rows[i], nil
		}
	}
	return nil, fmt.Errorf("there is no row %q; see: results list", name)
}

// machine says on what the figures were measured.
func machine() string { return fmt.Sprintf("%d cores, %s", runtime.NumCPU(), runtime.GOARCH) }

var errFailed = errors.New("sela failed; its last words are above")
