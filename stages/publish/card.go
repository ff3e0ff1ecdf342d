package publish

import (
	"fmt"
	"strings"

	"sela/pipeline"
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
		"| column | meaning |\n| --- | --- |\n"+
		"| row | number of the image in this run's listing |\n"+
		"| key, member | the object, and the member within it if it is a tar shard; together they identify the image |\n"+
		"| sha256 | of the image's bytes |\n"+
		"| label | "+labelMeans(&run.Job.Solve)+" |\n"+
		"| prob | probability of the label under the assignment; null where labels have none |\n"+
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
