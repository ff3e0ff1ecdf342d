package schemas

import (
	"fmt"
	"slices"

	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/schema"
)

const assignmentsColumns = "row:INT64 label:INT32"

// WriteAssignments writes one part of a head's assignments table: the label of
// each row, where labels are not what the potentials alone say (exact
// balance, or labels that no potentials stand behind). Row numbers ascend; both slices have the same length, which may be
// 0. It re-reads the file and returns its description. After an error there is
// no file.
func WriteAssignments(path string, rows []int64, labels []int32, meta map[string]string) (FileStats, error) {
	err := checkCallersKeys(meta)
	if err == nil && len(rows) != len(labels) {
		err = fmt.Errorf("%d rows and %d labels", len(rows), len(labels))
	}
	if err == nil {
		err = ascending(rows)
	}
	if err != nil {
		return FileStats{}, fmt.Errorf("write assignments %s: %w", path, err)
	}
	out, err := createOutput(path)
	if err != nil {
		return FileStats{}, fmt.Errorf("write assignments: %w", err)
	}
	defer out.abort()
	w, err := newArrowWriter(out, fileMetadata(KindAssignments, nil, meta), schema.FieldList{
		schema.NewInt64Node("row", parquet.Repetitions.Required, 1),
		schema.NewInt32Node("label", parquet.Repetitions.Required, 2),
	}, rowTable...)
	if err != nil {
		return FileStats{}, fmt.Errorf("write assignments %s: %w", path, err)
	}
	return out.commit(KindAssignments, int64(len(rows)), func() error {
		for first := 0; first < len(rows); first += GroupRows {
			last := min(first+GroupRows, len(rows))
			g := newGroup(w)
			writeColumn(g, rows[first:last], nil)
			writeColumn(g, labels[first:last], nil)
			if err := g.close(); err != nil {
				return err
			}
		}
		return w.Close()
	}, func() error {
		foundRows, foundLabels, err := ReadAssignments(path)
		if err != nil {
			return err
		}
		if !slices.Equal(foundRows, rows) || !slices.Equal(foundLabels, labels) {
			return fmt.Errorf("%w: other assignments are read than were written", ErrCorrupt)
		}
		return nil
	})
}

func ascending(rows []int64) error {
	for i, row := range rows {
		if row < 0 || i > 0 && row <= rows[i-1] {
			return fmt.Errorf("row %d after row %d: rows must ascend", row, rows[max(i-1, 0)])
		}
	}
	return nil
}

// ReadAssignments reads what [WriteAssignments] wrote. It holds the whole part
// in memory, 12 bytes a row.
func ReadAssignments(path string) (rows []int64, labels []int32, err error) {
	f, ft, err := openTable(path, KindAssignments, assignmentsColumns)
	if err != nil {
		return nil, nil, fmt.Errorf("read assignments: %w", err)
	}
	defer f.Close()
	var row column[int64]
	var label column[int32]
	err = eachGroup(f, ft, everyGroup, func(g *groupReader) {
		readColumn(g, 0, &row)
		readColumn(g, 1, &label)
	}, func(int, int) error {
		rows = append(rows, row.values...)
		labels = append(labels, label.values...)
		return nil
	})
	if err == nil {
		if err = ascending(rows); err != nil {
			err = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read assignments %s: %w", path, err)
	}
	return rows, labels, nil
}
