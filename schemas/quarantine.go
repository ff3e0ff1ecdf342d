package schemas

import (
	"errors"
	"fmt"
	"strings"

	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/schema"
)

// Quarantine is a row of the quarantine table: an image that cannot be used,
// and why. It never stops a run.
type Quarantine struct {
	Row     *int64 // nil when the image never got a row number
	Key     string // object's key; in hexadecimal when KeyHex
	KeyHex  bool   // Key and Member are hexadecimal, because the key is not UTF-8
	Member  string // name inside a tar shard; "" for a loose file
	Stage   string // stage that refused the image
	Class   string // short word for the kind of defect, for counting
	Message string // what a person needs to find and mend it
}

const quarantineColumns = "row:INT64? key:BYTE_ARRAY key_hex:BOOLEAN member:BYTE_ARRAY stage:BYTE_ARRAY class:BYTE_ARRAY message:BYTE_ARRAY"

func quarantineSchema() schema.FieldList {
	required := parquet.Repetitions.Required
	return schema.FieldList{
		schema.NewInt64Node("row", parquet.Repetitions.Optional, 1),
		stringNode("key", required, 2),
		schema.NewBooleanNode("key_hex", required, 3),
		stringNode("member", required, 4),
		stringNode("stage", required, 5),
		stringNode("class", required, 6),
		stringNode("message", required, 7),
	}
}

// QuarantineMeta is the metadata of one part of the quarantine table.
type QuarantineMeta struct {
	// KV is written into the file's key-value metadata.
	KV map[string]string
}

// QuarantineWriter writes one part of the quarantine table. It is not safe for
// concurrent use.
type QuarantineWriter struct {
	out     *output
	w       *file.Writer
	written tally

	row   column[int64]
	hex   []bool
	texts [5][]parquet.ByteArray // key, member, stage, class, message
}

// CreateQuarantine starts a part at a local path, replacing what is there.
func CreateQuarantine(path string, meta QuarantineMeta) (*QuarantineWriter, error) {
	if err := checkCallersKeys(meta.KV); err != nil {
		return nil, fmt.Errorf("create quarantine %s: %w", path, err)
	}
	out, err := createOutput(path)
	if err != nil {
		return nil, fmt.Errorf("create quarantine: %w", err)
	}
	w, err := newArrowWriter(out, fileMetadata(KindQuarantine, nil, meta.KV), quarantineSchema(), rowTable...)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create quarantine %s: %w", path, err), out.abort())
	}
	return &QuarantineWriter{out: out, w: w}, nil
}

// Write appends an image, in whatever order the caller chose. *q.Row is copied,
// the strings are kept until their row group is full. Key and Member must be
// UTF-8, in hexadecimal if need be; what is not UTF-8 in the other texts is
// replaced by U+FFFD.
func (w *QuarantineWriter) Write(q Quarantine) error {
	if err := checkText(q.Key, q.Member); err != nil {
		return fmt.Errorf("write quarantine %s: %w", w.out.path, err)
	}
	number, level := int64(noRow), int16(0)
	if q.Row != nil {
		number, level = *q.Row, 1
		w.row.values = append(w.row.values, number)
	}
	w.row.def = append(w.row.def, level)
	w.written.add(q.Key, number)
	w.hex = append(w.hex, q.KeyHex)
	for i, s := range [...]string{q.Key, q.Member, q.Stage, q.Class, q.Message} {
		w.texts[i] = append(w.texts[i], byteArray(strings.ToValidUTF8(s, "\uFFFD")))
	}
	if len(w.hex) < GroupRows {
		return nil
	}
	if err := w.out.do(w.flush); err != nil {
		return fmt.Errorf("write quarantine %s: %w", w.out.path, err)
	}
	return nil
}

func (w *QuarantineWriter) flush() error {
	if len(w.hex) == 0 {
		return nil
	}
	g := newGroup(w.w)
	writeColumn(g, w.row.values, w.row.def)
	writeColumn(g, w.texts[0], nil)
	writeColumn(g, w.hex, nil)
	for _, values := range w.texts[1:] {
		writeColumn(g, values, nil)
	}
	if err := g.close(); err != nil {
		return err
	}
	w.row.reset()
	w.hex = w.hex[:0]
	for i := range w.texts {
		clear(w.texts[i])
		w.texts[i] = w.texts[i][:0]
	}
	return nil
}

// Commit ends the part: footer, sync, re-read by the other Parquet
// implementation. After an error the file is gone.
func (w *QuarantineWriter) Commit() (FileStats, error) {
	return w.out.commit(KindQuarantine, w.written.rows, func() error {
		if err := w.flush(); err != nil {
			return err
		}
		return w.w.Close()
	}, func() error {
		found, err := xitongsysTally(w.out.path, 0, 1)
		if err != nil {
			return err
		}
		return found.agree(w.written)
	})
}

// Abort ends the part and removes its file. After Commit it does nothing.
func (w *QuarantineWriter) Abort() error { return w.out.abort() }

// ReadQuarantine calls fn for each row of a part, in order. What Row points to
// is the callee's. An error of fn ends the reading and is returned as it is.
func ReadQuarantine(path string, fn func(Quarantine) error) error {
	f, ft, err := openTable(path, KindQuarantine, quarantineColumns)
	if err != nil {
		return fmt.Errorf("read quarantine: %w", err)
	}
	defer f.Close()
	var (
		row   column[int64]
		hex   column[bool]
		texts [5][]string
		fnErr error
	)
	err = eachGroup(f, ft, everyGroup, func(g *groupReader) {
		readColumn(g, 0, &row)
		readColumn(g, 2, &hex)
		for i, c := range []int{1, 3, 4, 5, 6} {
			texts[i] = g.readStrings(c, texts[i])
		}
	}, func(_, rows int) error {
		numbers := row.values
		for i := range rows {
			q := Quarantine{
				Key: texts[0][i], KeyHex: hex.values[i], Member: texts[1][i],
				Stage: texts[2][i], Class: texts[3][i], Message: texts[4][i],
			}
			if row.def[i] == 1 {
				number := numbers[0]
				q.Row, numbers = &number, numbers[1:]
			}
			if fnErr = fn(q); fnErr != nil {
				return fnErr
			}
		}
		return nil
	})
	return readError(KindQuarantine, path, err, fnErr)
}
