package schemas

import (
	"fmt"
	"reflect"

	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/schema"
)

// Evaluation is a row of the evaluation table: one measure of features or of
// clusters. What does not apply to the measure is nil.
type Evaluation struct {
	Network string `json:"network"` // that was measured, or the run of labels
	Source  string `json:"source"`  // tensor of the features and how a map was pooled, "pixels", or "head <h>"
	Split   string `json:"split"`   // images that were scored: "train" or "test"
	Images  int64  `json:"images"`  // how many they were
	// Measure is knn or linear, the share of images classified as their class;
	// or nmi, ami, ari, purity or accuracy, of clusters against classes.
	Measure  string   `json:"measure"`
	Value    float64  `json:"value"`
	Chance   *float64 `json:"chance,omitempty"`   // the value of a random equipartition
	Dim      *int32   `json:"dim,omitempty"`      // number of features
	K        *int32   `json:"k,omitempty"`        // neighbours
	Sigma    *float64 `json:"sigma,omitempty"`    // their temperature
	L2       *float64 `json:"l2,omitempty"`       // penalty of the linear classifier
	Clusters *int32   `json:"clusters,omitempty"` // of the head
}

const evaluationColumns = "network:BYTE_ARRAY source:BYTE_ARRAY split:BYTE_ARRAY images:INT64 measure:BYTE_ARRAY value:DOUBLE chance:DOUBLE? dim:INT32? k:INT32? sigma:DOUBLE? l2:DOUBLE? clusters:INT32?"

func evaluationSchema() schema.FieldList {
	required, optional := parquet.Repetitions.Required, parquet.Repetitions.Optional
	return schema.FieldList{
		stringNode("network", required, 1),
		stringNode("source", required, 2),
		stringNode("split", required, 3),
		schema.NewInt64Node("images", required, 4),
		stringNode("measure", required, 5),
		schema.NewFloat64Node("value", required, 6),
		schema.NewFloat64Node("chance", optional, 7),
		schema.NewInt32Node("dim", optional, 8),
		schema.NewInt32Node("k", optional, 9),
		schema.NewFloat64Node("sigma", optional, 10),
		schema.NewFloat64Node("l2", optional, 11),
		schema.NewInt32Node("clusters", optional, 12),
	}
}

// WriteEvaluation writes an evaluation table, re-reads it and returns the file's
// description. Texts must be UTF-8. After an error there is no file.
func WriteEvaluation(path string, rows []Evaluation, meta map[string]string) (FileStats, error) {
	err := checkCallersKeys(meta)
	if err == nil && len(rows) > GroupRows {
		err = fmt.Errorf("%d rows, want at most %d", len(rows), GroupRows)
	}
	for _, r := range rows {
		if err == nil {
			err = checkText(r.Network, r.Source, r.Split, r.Measure)
		}
	}
	if err != nil {
		return FileStats{}, fmt.Errorf("write evaluation %s: %w", path, err)
	}
	out, err := createOutput(path)
	if err != nil {
		return FileStats{}, fmt.Errorf("write evaluation: %w", err)
	}
	defer out.abort()
	w, err := newArrowWriter(out, fileMetadata(KindEvaluation, nil, meta), evaluationSchema(), rowTable...)
	if err != nil {
		return FileStats{}, fmt.Errorf("write evaluation %s: %w", path, err)
	}
	return out.commit(KindEvaluation, int64(len(rows)), func() error {
		if len(rows) == 0 {
			return w.Close()
		}
		g := newGroup(w)
		writeColumn(g, pick(rows, func(r Evaluation) parquet.ByteArray { return byteArray(r.Network) }), nil)
		writeColumn(g, pick(rows, func(r Evaluation) parquet.ByteArray { return byteArray(r.Source) }), nil)
		writeColumn(g, pick(rows, func(r Evaluation) parquet.ByteArray { return byteArray(r.Split) }), nil)
		writeColumn(g, pick(rows, func(r Evaluation) int64 { return r.Images }), nil)
		writeColumn(g, pick(rows, func(r Evaluation) parquet.ByteArray { return byteArray(r.Measure) }), nil)
		writeColumn(g, pick(rows, func(r Evaluation) float64 { return r.Value }), nil)
		writeOptional(g, rows, func(r Evaluation) *float64 { return r.Chance })
		writeOptional(g, rows, func(r Evaluation) *int32 { return r.Dim })
		writeOptional(g, rows, func(r Evaluation) *int32 { return r.K })
		writeOptional(g, rows, func(r Evaluation) *float64 { return r.Sigma })
		writeOptional(g, rows, func(r Evaluation) *float64 { return r.L2 })
		writeOptional(g, rows, func(r Evaluation) *int32 { return r.Clusters })
		if err := g.close(); err != nil {
			return err
		}
		return w.Close()
	}, func() error {
		found, _, err := ReadEvaluation(path)
		if err != nil {
			return err
		}
		if len(found) != len(rows) || len(rows) > 0 && !reflect.DeepEqual(found, rows) {
			return fmt.Errorf("%w: another evaluation is read than was written", ErrCorrupt)
		}
		return nil
	})
}

func pick[T any](rows []Evaluation, of func(Evaluation) T) []T {
	all := make([]T, len(rows))
	for i, r := range rows {
		all[i] = of(r)
	}
	return all
}

func writeOptional[T any](g *groupWriter, rows []Evaluation, of func(Evaluation) *T) {
	var col column[T]
	for _, r := range rows {
		level := int16(0)
		if v := of(r); v != nil {
			col.values, level = append(col.values, *v), 1
		}
		col.def = append(col.def, level)
	}
	writeColumn(g, col.values, col.def)
}

// ReadEvaluation reads an evaluation table and the metadata that
// [WriteEvaluation] was given.
func ReadEvaluation(path string) (rows []Evaluation, meta map[string]string, err error) {
	f, ft, err := openTable(path, KindEvaluation, evaluationColumns)
	if err != nil {
		return nil, nil, fmt.Errorf("read evaluation: %w", err)
	}
	defer f.Close()
	var (
		texts                     [4][]string
		images                    column[int64]
		value, chance, sigma, l2  column[float64]
		dim, neighbours, clusters column[int32]
	)
	err = eachGroup(f, ft, everyGroup, func(g *groupReader) {
		for i, c := range []int{0, 1, 2, 4} {
			texts[i] = g.readStrings(c, texts[i])
		}
		readColumn(g, 3, &images)
		readColumn(g, 5, &value)
		readColumn(g, 6, &chance)
		readColumn(g, 7, &dim)
		readColumn(g, 8, &neighbours)
		readColumn(g, 9, &sigma)
		readColumn(g, 10, &l2)
		readColumn(g, 11, &clusters)
	}, func(_, n int) error {
		for i := range n {
			rows = append(rows, Evaluation{
				Network: texts[0][i], Source: texts[1][i], Split: texts[2][i], Measure: texts[3][i],
				Images: images.values[i], Value: value.values[i],
				Chance: optional(&chance, i), Dim: optional(&dim, i), K: optional(&neighbours, i),
				Sigma: optional(&sigma, i), L2: optional(&l2, i), Clusters: optional(&clusters, i),
			})
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read evaluation %s: %w", path, err)
	}
	return rows, callersKV(ft.kv), nil
}

// optional returns the i-th value, or nil, of a column that is asked for one
// after the other, and takes it off.
func optional[T any](c *column[T], i int) *T {
	if c.def[i] == 0 {
		return nil
	}
	v := c.values[0]
	c.values = c.values[1:]
	return &v
}
