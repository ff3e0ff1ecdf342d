package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sela/pipeline"
	"sela/schemas"
)

func (a *app) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use: "schema [TABLE]", Short: "Print the columns of the tables that leave a run, as Markdown", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			tables := schemas.Tables()
			if len(args) == 0 {
				fmt.Print(schemaPage(tables))
				return nil
			}
			at := slices.IndexFunc(tables, func(t schemas.Table) bool { return t.Kind == args[0] })
			if at < 0 {
				var kinds []string
				for _, t := range tables {
					kinds = append(kinds, t.Kind)
				}
				return pipeline.BadUsage(fmt.Errorf("there is no table %q: the tables are %s", args[0], strings.Join(kinds, ", ")))
			}
			fmt.Print(schemas.Markdown(tables[at].Columns))
			return nil
		},
	}
}

// schemaPage describes all tables.
func schemaPage(tables []schemas.Table) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Tables, version %d of the format\n", schemas.Version)
	for _, t := range tables {
		fmt.Fprintf(&b, "\n## %s\n\n`%s`: a row is %s.\n\n%s", t.Kind, t.Files, t.Rows, schemas.Markdown(t.Columns))
	}
	return b.String()
}
