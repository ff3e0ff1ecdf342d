package schemas

import (
	"fmt"
	"strconv"
	"strings"
)

// Column is a column of a table as its readers see it.
type Column struct {
	Name string
	// Type is int32, int64, float32, float64, bool, string or list; a list holds
	// structs of Fields.
	Type    string
	Null    bool // rows may be without a value
	Fields  []Column
	Meaning string // in Markdown
}

// Table is a table that leaves a run: what teams downstream rely on, in the
// format's current [Version].
type Table struct {
	Kind string
	// Files are where its parts lie: in a published folder, or, for evaluation,
	// where `sela evaluate --out` says.
	Files   string
	Rows    string // what a row stands for
	Columns []Column
}

// Tables describes the tables that leave a run. The columns and their types are
// those that the readers of this package ask for; the caller owns them.
func Tables() []Table {
	return []Table{
		{KindLabels, "labels/head=<h>/part-*.parquet", "an image, in one head", LabelColumns(true)},
		{KindPotentials, "potentials/head-<h>.parquet", "a cluster; the solver's certificate is in the file's metadata", columnsOf(potentialsColumns, map[string]string{
			"cluster":   "the cluster, from 0",
			"potential": "its potential in nats: labels are argmax of λ·log p + potential",
		})},
		{KindQuarantine, "quarantine/part-*.parquet", "an image that could not be used", columnsOf(quarantineColumns, map[string]string{
			"row":     "number of the image in the run's listing; null for one that never got a number",
			"key":     "the object in the images bucket",
			"key_hex": "`key` and `member` are in hexadecimal, since they are not UTF-8",
			"member":  "the name within the object, if that is a tar shard; else empty",
			"stage":   "the stage that refused the image",
			"class":   "a word for the kind of defect, to count by",
			"message": "what a person needs to find and mend it",
		})},
		{KindEvaluation, "evaluation.parquet", "a measure of features or of clusters, by `sela evaluate --out`", columnsOf(evaluationColumns, map[string]string{
			"network":  "the network that was measured, or the run of the labels",
			"source":   "the tensor of the features and how it was pooled, `pixels`, or `head <h>`",
			"split":    "the images that were scored: `train` or `test`",
			"images":   "how many they were",
			"measure":  "`knn` or `linear`, the share of images classified as their class; `nmi`, `ami`, `ari`, `purity` or `accuracy`, of clusters against classes",
			"value":    "its value",
			"chance":   "the value of a random equipartition",
			"dim":      "number of features",
			"k":        "neighbours",
			"sigma":    "their temperature",
			"l2":       "penalty of the linear classifier",
			"clusters": "number of clusters of the head",
		})},
	}
}

// LabelColumns describes the columns of a labels table, which has top_k only
// where [LabelsMeta].TopK asks for it.
func LabelColumns(topK bool) []Column {
	columns := labelsColumns
	if topK {
		columns = labelsTopKColumns
	}
	return columnsOf(columns, map[string]string{
		"row":         "number of the image in the run's listing, from 0",
		"key":         "the object in the images bucket",
		"member":      "the name within the object, if that is a tar shard; else empty. `key` and `member` together identify the image",
		"sha256":      "of the image's bytes, in hexadecimal",
		"label":       "the cluster, from 0: argmax of λ·log p + potential (`balance: exact` parts ties)",
		"prob":        "probability of the label under the assignment; null for k-means and the like",
		"model_label": "the model's own choice, before balancing",
		"model_prob":  "its probability",
		"prev_label":  "the label in the run before, with `label.previous`; null where there was none",
		"top_k":       "the most probable clusters, best first; the column is there with `label.top_k`",
		"top_k.label": "a cluster",
		"top_k.prob":  "its probability",
	})
}

var typeNames = map[string]string{
	"INT32": "int32", "INT64": "int64", "FLOAT": "float32", "DOUBLE": "float64", "BOOLEAN": "bool", "BYTE_ARRAY": "string",
}

// columnsOf turns a list of columns as describe writes it into columns with
// their meanings. All byte arrays of these tables are UTF-8, and all groups are
// lists of structs.
func columnsOf(described string, meanings map[string]string) []Column {
	fields := strings.Fields(described)
	var columns []Column
	for i := 0; i < len(fields); i++ {
		c := columnOf(fields[i])
		if c.Type == "" {
			// name:1 list:1* element:N, then the N columns of the struct.
			c.Type = "list"
			elements := children(fields[i+2])
			for _, described := range fields[i+3 : i+3+elements] {
				f := columnOf(described)
				f.Meaning = meanings[c.Name+"."+f.Name]
				c.Fields = append(c.Fields, f)
			}
			i += 2 + elements
		}
		c.Meaning = meanings[c.Name]
		columns = append(columns, c)
	}
	return columns
}

// columnOf reads one column of a description; a group has no Type.
func columnOf(described string) Column {
	name, kind, _ := strings.Cut(described, ":")
	physical, null := strings.CutSuffix(kind, "?")
	return Column{Name: name, Type: typeNames[physical], Null: null}
}

// children is the number of columns of a described group.
func children(described string) int {
	_, kind, _ := strings.Cut(described, ":")
	n, _ := strconv.Atoi(strings.TrimRight(kind, "?*"))
	return n
}

// TypeName is the column's type as documentation shows it: "list of (label:
// int32, prob: float32)" for a list.
func (c Column) TypeName() string {
	if c.Type != "list" {
		return c.Type
	}
	fields := make([]string, len(c.Fields))
	for i, f := range c.Fields {
		fields[i] = f.Name + ": " + f.TypeName()
	}
	return "list of (" + strings.Join(fields, ", ") + ")"
}

// Markdown writes columns as a table: name, type, whether there are nulls,
// meaning.
func Markdown(columns []Column) string {
	var b strings.Builder
	b.WriteString("| column | type | null | meaning |\n| --- | --- | --- | --- |\n")
	for _, c := range columns {
		null := ""
		if c.Null {
			null = "yes"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", c.Name, c.TypeName(), null, c.Meaning)
	}
	return b.String()
}
