package evaluate

import (
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"text/tabwriter"

	"sela/schemas"
)

// Print writes the report for people: a line for each tensor with what
// classifiers make of it, and one for each head with how its clusters agree
// with the classes.
func (r *Report) Print(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for i, line := range r.features() {
		if i == 0 {
			fmt.Fprintf(t, "\nnetwork\tfeatures\tdim\tkNN %d\tkNN %d\tlinear\tL2\t\n", Votes[0].K, Votes[1].K)
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t\n", line.network, line.source, line.dim, percent(line.votes[0]), percent(line.votes[1]), percent(line.linear), text(line.l2, "%g"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for i, line := range r.heads() {
		if i == 0 {
			fmt.Fprintln(t, "\nlabels\thead\tsplit\tclusters\tNMI\tby chance\tAMI\tARI\tpurity\tby chance\taccuracy\t")
		}
		m := line.measures
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t%s\t\n", line.network, line.source, line.split, line.clusters,
			m["nmi"].Value, *m["nmi"].Chance, m["ami"].Value, m["ari"].Value, m["purity"].Value, *m["purity"].Chance, text(line.accuracy(), "%.3f"))
	}
	return t.Flush()
}

// featuresLine is what was measured of a tensor.
type featuresLine struct {
	network, source string
	dim             int32
	votes           [2]*float64 // in the order of Votes
	linear, l2      *float64
}

func (r *Report) features() (lines []*featuresLine) {
	for _, row := range r.Rows {
		if row.Dim == nil {
			continue
		}
		if n := len(lines); n == 0 || lines[n-1].network != row.Network || lines[n-1].source != row.Source {
			lines = append(lines, &featuresLine{network: row.Network, source: row.Source, dim: *row.Dim})
		}
		line := lines[len(lines)-1]
		if row.Measure == "linear" {
			line.linear, line.l2 = &row.Value, row.L2
			continue
		}
		for i, v := range Votes {
			if int(*row.K) == v.K {
				line.votes[i] = &row.Value
			}
		}
	}
	return lines
}

// headLine is what was measured of a head.
type headLine struct {
	network, source, split string
	clusters               int32
	measures               map[string]schemas.Evaluation
}

func (r *Report) heads() (lines []*headLine) {
	for _, row := range r.Rows {
		if row.Clusters == nil {
			continue
		}
		if n := len(lines); n == 0 || lines[n-1].network != row.Network || lines[n-1].source != row.Source || lines[n-1].split != row.Split {
			lines = append(lines, &headLine{row.Network, row.Source, row.Split, *row.Clusters, map[string]schemas.Evaluation{}})
		}
		lines[len(lines)-1].measures[row.Measure] = row
	}
	return lines
}

func (l *headLine) accuracy() *float64 {
	if row, ok := l.measures["accuracy"]; ok {
		return &row.Value
	}
	return nil
}

func percent(v *float64) string {
	if v == nil {
		return "–"
	}
	return fmt.Sprintf("%.2f %%", 100**v)
}

func text(v *float64, format string) string {
	if v == nil {
		return "–"
	}
	return fmt.Sprintf(format, *v)
}

// Save writes the rows to dir, which it makes, as evaluation.csv and
// evaluation.parquet (see [schemas.Evaluation]), and returns their paths. Files
// of these names are replaced.
func (r *Report) Save(dir string, meta map[string]string) (paths []string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("save the evaluation: %w", err)
	}
	table, columns := filepath.Join(dir, "evaluation.csv"), filepath.Join(dir, "evaluation.parquet")
	if err := r.saveCSV(table); err != nil {
		return nil, fmt.Errorf("save the evaluation: %w", err)
	}
	if _, err := schemas.WriteEvaluation(columns, r.Rows, meta); err != nil {
		return nil, err
	}
	return []string{table, columns}, nil
}

func (r *Report) saveCSV(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".evaluation-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	w := csv.NewWriter(f)
	_ = w.Write([]string{"network", "source", "split", "images", "measure", "value", "chance", "dim", "k", "sigma", "l2", "clusters"}) // Error tells
	for _, row := range r.Rows {
		_ = w.Write([]string{row.Network, row.Source, row.Split, strconv.FormatInt(row.Images, 10), row.Measure, decimal(&row.Value), decimal(row.Chance),
			whole(row.Dim), whole(row.K), decimal(row.Sigma), decimal(row.L2), whole(row.Clusters)})
	}
	w.Flush()
	if err := w.Error(); err != nil {
		_ = f.Close() // err says more
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func decimal(v *float64) string {
	if v == nil {
		return ""
	}
	return strconv.FormatFloat(*v, 'g', -1, 64)
}

func whole(v *int32) string {
	if v == nil {
		return ""
	}
	return strconv.Itoa(int(*v))
}
