package schemas

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/xitongsys/parquet-go-source/local"
	"github.com/xitongsys/parquet-go/reader"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// tally is what two implementations of Parquet must agree on about a table.
type tally struct {
	rows     int64
	min, max string // keys, by bytes
	sum      uint32 // CRC-32C of the checked column, little-endian 64-bit
}

func (t *tally) add(key string, number int64) {
	if t.rows == 0 || key < t.min {
		t.min = key
	}
	if t.rows == 0 || key > t.max {
		t.max = key
	}
	t.rows++
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(number))
	t.sum = crc32.Update(t.sum, castagnoli, b[:])
}

// agree compares what a reader found with what was written.
func (t tally) agree(written tally) error {
	if t != written {
		return fmt.Errorf("%w: the other Parquet reader finds %d rows, keys %q to %q, checksum %08x; written were %d rows, keys %q to %q, checksum %08x",
			ErrCorrupt, t.rows, t.min, t.max, t.sum, written.rows, written.min, written.max, written.sum)
	}
	return nil
}

// noRow stands for the missing row number of a quarantined image.
const noRow = -1

// xitongsysTally reads the columns number (int64) and key (string), given by
// their places among the leaves of the schema, with xitongsys/parquet-go.
func xitongsysTally(path string, number, key int64) (t tally, err error) {
	err = guarded(ErrCorrupt, func() error {
		f, err := local.NewLocalFileReader(path)
		if err != nil {
			return err
		}
		defer f.Close()
		r, err := reader.NewParquetColumnReader(f, 1)
		if err != nil {
			return err
		}
		defer r.ReadStop()
		const batch = 1 << 14
		for rest := r.GetNumRows(); rest > 0; rest -= batch {
			n := min(rest, batch)
			numbers, _, _, err := r.ReadColumnByIndex(number, n)
			if err != nil {
				return err
			}
			keys, _, _, err := r.ReadColumnByIndex(key, n)
			if err != nil {
				return err
			}
			if int64(len(numbers)) != n || len(keys) != len(numbers) {
				return fmt.Errorf("%w: the other Parquet reader finds %d rows and %d keys of %d", ErrCorrupt, len(numbers), len(keys), n)
			}
			for i := range numbers {
				row := int64(noRow)
				if numbers[i] != nil {
					row = numbers[i].(int64)
				}
				t.add(keys[i].(string), row)
			}
		}
		return nil
	})
	return t, err
}
