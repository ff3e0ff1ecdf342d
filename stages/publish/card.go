package publish

import (
	"fmt"
	"strings"

	"sela/pipeline"
	"sela/schemas"
	"sela/sinkhorn"
	"sela/stages/solve"
)

// solvedBy says in a few words how a head was solved.
func solvedBy(c *sinkhorn.Certificate) string {
	words := string(c.Method)
	if c.Way != "" && string(c.Way) != words {
		words += " → " + string(c.Way)
	}
	if c.Exactly != nil {
		words += ", exact counts"
	}
	return words
}

// origin says in a few sentences what the labels are.
func origin(spec *pipeline.Solve) string {
	const across = "numbers carry no meaning across heads."
	switch spec.Method {
	case "kmeans":
		return fmt.Sprintf("Labels are cluster numbers found without supervision: k-means on the features that one model's heads read, each divided by its length (seed %d). Nothing makes clusters of equal size; %s", spec.Seed, across)
	case "deepcluster":
		return fmt.Sprintf("Labels are cluster numbers found without supervision, as DeepCluster does (Caron et al. 2018): k-means on the whitened features that one model's heads read, each divided by its length (seed %d). Nothing makes clusters of equal size; %s", spec.Seed, across)
	case "random":
		return fmt.Sprintf("Labels are random (seed %d): they say nothing about the images and serve to begin with or to compare with. Within a head every cluster gets the same number of images, or one more.", spec.Seed)
	case "truth":
		return "Labels are the true classes of the images, numbered in the order of their names: they serve to compare with. All heads have the same."
	}
	text := fmt.Sprintf("Labels are cluster numbers found without supervision: balanced optimal transport (SeLa, Asano et al. 2020, λ = %g) on the log-probabilities of one model.\n", spec.Lambda)
	if spec.Power == 0 && len(spec.Marginals) == 0 {
		return text + "Within a head every cluster gets about the same number of images; " + across
	}
	return text + "Within a head every cluster gets about the share of the images that the job wants; " + across
}

// labelMeans describes the column label.
func labelMeans(spec *pipeline.Solve) string {
	switch {
	case spec.Clusters():
		return "the cluster: that of the nearest centre"
	case !spec.Transports():
		return "the cluster, or class"
	}
	return "the cluster: argmax of λ·log p + potential; where clusters have exact counts, ties are parted"
}

// largestRatio is the size of the largest cluster over the mean size.
func largestRatio(l *solve.Labelling) float64 {
	return float64(l.LargestCount) * float64(l.Clusters) / float64(l.Rows)
}

// headFiles adds up the label files of each head.
func headFiles(m *pipeline.Manifest, heads int) []schemas.FileStats {
	sums := make([]schemas.FileStats, heads)
	for _, f := range m.Files {
		for h := range sums {
			if strings.HasPrefix(f.Name, fmt.Sprintf("labels/head=%d/", h)) {
				sums[h].Rows += f.Rows
				sums[h].Bytes += f.Bytes
			}
		}
	}
	return sums
}

// columns describes the label tables of this run.
func columns(run *pipeline.Run) []schemas.Column {
	all := schemas.LabelColumns(run.Job.Label.TopK > 0)
	for i := range all {
		if all[i].Name == "label" {
			all[i].Meaning = labelMeans(&run.Job.Solve)
		}
	}
	return all
}

// front is the card's front matter: a configuration of each head, with the
// types that the files have, as Hugging Face's datasets and viewers read it.
func front(b *strings.Builder, columns []schemas.Column, heads []schemas.FileStats) {
	fmt.Fprintln(b, "---\nconfigs:")
	for h := range heads {
		fmt.Fprintf(b, "  - config_name: head%d\n    data_files:\n      - split: train\n        path: labels/head=%d/part-*.parquet\n", h, h)
	}
	fmt.Fprintln(b, "dataset_info:")
	for h, sum := range heads {
		fmt.Fprintf(b, "  - config_name: head%d\n    features:\n", h)
		features(b, "      ", columns)
		fmt.Fprintf(b, "    splits:\n      - name: train\n        num_examples: %d\n        num_bytes: %d\n", sum.Rows, sum.Bytes)
	}
	fmt.Fprintln(b, "tags: [self-labelling, sela]\n---")
}

func features(b *strings.Builder, indent string, columns []schemas.Column) {
	for _, c := range columns {
		fmt.Fprintf(b, "%s- name: %s\n", indent, c.Name)
		if c.Fields == nil {
			fmt.Fprintf(b, "%s  dtype: %s\n", indent, c.Type)
			continue
		}
		fmt.Fprintf(b, "%s  list:\n", indent)
		features(b, indent+"    ", c.Fields)
	}
}

// card writes the data set's README: front matter that dataset viewers read,
// then what a person wants to know before using the labels.
func (s *Stage) card(run *pipeline.Run, m *pipeline.Manifest) []byte {
	var b strings.Builder
	columns := columns(run)
	front(&b, columns, headFiles(m, len(s.solutions)))
	fmt.Fprintf(&b, "# Labels of job %s\n\n", run.Job.Name)
	fmt.Fprintf(&b, "Run `%s`, made by sela %s from %d images; %d more could not be used (see `quarantine/`).\n", run.Run, run.Provenance.Code, s.shards.Usable(), s.shards.Rejected)
	fmt.Fprintln(&b, origin(&run.Job.Solve))
	fmt.Fprint(&b, "\n")
	fmt.Fprintln(&b, "| head | clusters | images | solved by | passes | marginal error (L1) | smallest cluster | largest cluster | largest / share |")
	fmt.Fprintln(&b, "| ---: | ---: | ---: | :--- | ---: | ---: | ---: | ---: | ---: |")
	for h, sol := range s.solutions {
		if l := sol.Labelling; l != nil {
			fmt.Fprintf(&b, "| %d | %d | %d | %s | %d | – | %d | %d | %.2f |\n", h, l.Clusters, l.Rows, l.Method, sol.Passes(), l.SmallestCount, l.LargestCount, largestRatio(l))
			continue
		}
		c := sol.Certificate
		fmt.Fprintf(&b, "| %d | %d | %d | %s | %d | %.2e | %d | %d | %.2f |\n", h, c.Clusters, c.Rows, solvedBy(&c), c.Passes, c.MarginalL1, c.SmallestCount, c.LargestCount, c.MaxCountRatio)
	}
	fmt.Fprint(&b, "\n## Columns of `labels/head=<h>/part-*.parquet`\n\n"+
		schemas.Markdown(columns)+
		"\nThe head is in the folder's name (hive layout). Files whose names begin with `_` describe the data set; it is complete when `_SUCCESS` is there.\n\n"+
		"```sql\nSELECT head, label, count(*) FROM read_parquet('labels/*/*.parquet', hive_partitioning = true) GROUP BY ALL;\n```\n\n"+
		"```python\nimport pandas as pd\ndf = pd.read_parquet(\"labels\")  # one row per image and head\n```\n\n"+
		"```python\nfrom datasets import load_dataset\ntrain = load_dataset(\".\", \"head0\", split=\"train\")  # this folder\n```\n\n"+
		"`croissant.json` describes the files for readers of Croissant 1.0.\n\n"+
		"## Provenance\n\n")
	p := run.Provenance
	for _, row := range [][2]string{{"manifest digest", m.Digest}, {"listing digest", m.Listing}, {"model", p.Model}, {"preprocessing", p.Preprocessing},
		{"ONNX Runtime", p.LibraryBuild + " " + p.Library}, {"processor", p.Processor}} {
		fmt.Fprintf(&b, "- %s: `%s`\n", row[0], row[1])
	}
	return []byte(b.String())
}
