package schemas

import (
	"fmt"
	"math"
	"slices"

	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/schema"
)

const potentialsColumns = "cluster:INT32 potential:DOUBLE"

// WritePotentials writes the K potentials v of a head (natural log, index =
// cluster) with the given metadata, re-reads them and returns the file's
// description. After an error there is no file.
func WritePotentials(path string, v []float64, meta map[string]string) (FileStats, error) {
	err := checkCallersKeys(meta)
	if err == nil && (len(v) == 0 || len(v) > GroupRows) {
		err = fmt.Errorf("%d potentials, want 1 to %d", len(v), GroupRows)
	}
	if err != nil {
		return FileStats{}, fmt.Errorf("write potentials %s: %w", path, err)
	}
	out, err := createOutput(path)
	if err != nil {
		return FileStats{}, fmt.Errorf("write potentials: %w", err)
	}
	defer out.abort()
	pairs := fileMetadata(KindPotentials, map[string]int64{keyClusters: int64(len(v))}, meta)
	w, err := newArrowWriter(out, pairs, schema.FieldList{
		schema.NewInt32Node("cluster", parquet.Repetitions.Required, 1),
		schema.NewFloat64Node("potential", parquet.Repetitions.Required, 2),
	}, rowTable...)
	if err != nil {
		return FileStats{}, fmt.Errorf("write potentials %s: %w", path, err)
	}
	return out.commit(KindPotentials, int64(len(v)), func() error {
		clusters := make([]int32, len(v))
		for k := range clusters {
			clusters[k] = int32(k)
		}
		g := newGroup(w)
		writeColumn(g, clusters, nil)
		writeColumn(g, v, nil)
		if err := g.close(); err != nil {
			return err
		}
		return w.Close()
	}, func() error {
		found, _, err := ReadPotentials(path)
		if err != nil {
			return err
		}
		if !slices.EqualFunc(found, v, func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) }) {
			return fmt.Errorf("%w: other potentials are read than were written", ErrCorrupt)
		}
		return nil
	})
}

// ReadPotentials reads a head's potentials and the metadata that
// [WritePotentials] was given.
func ReadPotentials(path string) (v []float64, meta map[string]string, err error) {
	f, ft, err := openTable(path, KindPotentials, potentialsColumns)
	if err != nil {
		return nil, nil, fmt.Errorf("read potentials: %w", err)
	}
	defer f.Close()
	var cluster column[int32]
	var potential column[float64]
	err = eachGroup(f, ft, everyGroup, func(g *groupReader) {
		readColumn(g, 0, &cluster)
		readColumn(g, 1, &potential)
	}, func(int, int) error {
		for k, c := range cluster.values {
			if int(c) != k {
				return fmt.Errorf("%w: cluster %d where %d should be", ErrCorrupt, c, k)
			}
		}
		return nil
	})
	if err == nil {
		var clusters int
		if clusters, err = metaInt(ft.kv, keyClusters, 1); err == nil && clusters != len(potential.values) {
			err = fmt.Errorf("%w: %d potentials, its metadata says %d clusters", ErrCorrupt, len(potential.values), clusters)
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read potentials %s: %w", path, err)
	}
	return potential.values, callersKV(ft.kv), nil
}
