package publish

import (
	"fmt"
	"strings"

	"sela/pipeline"
	"sela/sinkhorn"
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

// card writes the data set's README: front matter that dataset viewers read,
// then what a person wants to know before using the labels.
func (s *Stage) card(run *pipeline.Run, m *pipeline.Manifest) []byte {
	var b strings.Builder
	fmt.Fprintln(&b, "---\nconfigs:")
	for h := range s.solutions {
		fmt.Fprintf(&b, "  - config_name: head%d\n    data_files:\n      - split: train\n        path: labels/head=%d/part-*.parquet\n", h, h)
	}
	fmt.Fprintf(&b, "tags: [self-labelling, sela]\n---\n# Labels of job %s\n\n", run.Job.Name)
	fmt.Fprintf(&b, "Run `%s`, made by sela %s from %d images; %d more could not be used (see `quarantine/`).\n", run.Run, run.Provenance.Code, s.shards.Usable(), s.shards.Rejected)
	fmt.Fprintf(&b, "Labels are cluster numbers found without supervision: balanced optimal transport (SeLa, Asano et al. 2020, λ = %g) on the log-probabilities of one model.\n", run.Job.Solve.Lambda)
	if run.Job.Solve.Power == 0 && len(run.Job.Solve.Marginals) == 0 {
		fmt.Fprint(&b, "Within a head every cluster gets about the same number of images; ")
	} else {
		fmt.Fprint(&b, "Within a head every cluster gets about the share of the images that the job wants; ")
	}
	fmt.Fprint(&b, "numbers carry no meaning across heads.\n\n")
	fmt.Fprintln(&b, "| head | clusters | images | solved by | passes | marginal error (L1) | smallest cluster | largest cluster | largest / share |")
	fmt.Fprintln(&b, "| ---: | ---: | ---: | :--- | ---: | ---: | ---: | ---: | ---: |")
	for h, sol := range s.solutions {
		c := sol.Certificate
		fmt.Fprintf(&b, "| %d | %d | %d | %s | %d | %.2e | %d | %d | %.2f |\n", h, c.Clusters, c.Rows, solvedBy(&c), c.Passes, c.MarginalL1, c.SmallestCount, c.LargestCount, c.MaxCountRatio)
	}
	fmt.Fprint(&b, "\n## Columns of `labels/head=<h>/part-*.parquet`\n\n"+
		"| column | meaning |\n| --- | --- |\n"+
		"| row | number of the image in this run's listing |\n"+
		"| key, member | the object, and the member within it if it is a tar shard; together they identify the image |\n"+
		"| sha256 | of the image's bytes |\n"+
		"| label | the cluster: argmax of λ·log p + potential; where clusters have exact counts, ties are parted |\n"+
		"| prob | probability of the label under the assignment |\n"+
		"| model_label, model_prob | the model's own argmax and its probability, before balancing |\n"+
		"| prev_label | label of the same image in the run before, where one was given |\n"+
		"| top_k | most probable clusters with their probabilities, where asked for |\n\n"+
		"The head is in the folder's name (hive layout). Files whose names begin with `_` describe the data set; it is complete when `_SUCCESS` is there.\n\n"+
		"```sql\nSELECT head, label, count(*) FROM read_parquet('labels/*/*.parquet', hive_partitioning = true) GROUP BY ALL;\n```\n\n"+
		"```python\nimport pandas as pd\ndf = pd.read_parquet(\"labels\")  # one row per image and head\n```\n\n"+
		"## Provenance\n\n")
	p := run.Provenance
	for _, row := range [][2]string{{"manifest digest", m.Digest}, {"listing digest", m.Listing}, {"model", p.Model}, {"preprocessing", p.Preprocessing},
		{"ONNX Runtime", p.LibraryBuild + " " + p.Library}, {"processor", p.Processor}} {
		fmt.Fprintf(&b, "- %s: `%s`\n", row[0], row[1])
	}
	return []byte(b.String())
}
