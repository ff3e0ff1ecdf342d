package schemas

import (
	"errors"
	"fmt"

	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/schema"
)

// Image is a row of the images table: one image of the listing.
type Image struct {
	Row    int64  // dense from 0 over the whole listing, in order of (Key, Offset)
	Key    string // object's key in the images bucket, UTF-8
	Member string // name inside the tar shard Key; "" for a loose file
	Size   int64  // bytes of the image (of the member, in a tar shard)
	ETag   string // of the object, as the store gave it
	Offset int64  // first byte of the member's data in the object; 0 for a loose file
}

const imagesColumns = "row:INT64 key:BYTE_ARRAY member:BYTE_ARRAY size:INT64 etag:BYTE_ARRAY offset:INT64"

func imagesSchema() schema.FieldList {
	required := parquet.Repetitions.Required
	return schema.FieldList{
		schema.NewInt64Node("row", required, 1),
		stringNode("key", required, 2),
		stringNode("member", required, 3),
		schema.NewInt64Node("size", required, 4),
		stringNode("etag", required, 5),
		schema.NewInt64Node("offset", required, 6),
	}
}

// ImagesMeta is the metadata of one part of the images table.
type ImagesMeta struct {
	// FirstRow is the row number of the part's first image.
	FirstRow int64
	// KV is written into the file's key-value metadata.
	KV map[string]string
}

// ImagesWriter writes one part of the images table. It is not safe for
// concurrent use.
type ImagesWriter struct {
	out     *output
	w       *file.Writer
	next    int64
	written tally

	row, size, offset []int64
	key, member, etag []parquet.ByteArray
}

// CreateImages starts a part at a local path, replacing what is there.
func CreateImages(path string, meta ImagesMeta) (*ImagesWriter, error) {
	err := checkCallersKeys(meta.KV)
	if err == nil && meta.FirstRow < 0 {
		err = fmt.Errorf("first row %d is negative", meta.FirstRow)
	}
	if err != nil {
		return nil, fmt.Errorf("create images %s: %w", path, err)
	}
	out, err := createOutput(path)
	if err != nil {
		return nil, fmt.Errorf("create images: %w", err)
	}
	pairs := fileMetadata(KindImages, map[string]int64{keyFirstRow: meta.FirstRow}, meta.KV)
	w, err := newArrowWriter(out, pairs, imagesSchema(), rowTable...)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create images %s: %w", path, err), out.abort())
	}
	return &ImagesWriter{out: out, w: w, next: meta.FirstRow}, nil
}

// Write appends an image, whose row number must be the one after the last. The
// strings are kept until their row group is full.
func (w *ImagesWriter) Write(im Image) error {
	if im.Row != w.next {
		return fmt.Errorf("write images %s: row %d, want %d: rows are dense", w.out.path, im.Row, w.next)
	}
	if err := checkText(im.Key, im.Member, im.ETag); err != nil {
		return fmt.Errorf("write images %s: row %d: %w", w.out.path, im.Row, err)
	}
	w.next++
	w.written.add(im.Key, im.Row)
	w.row, w.size, w.offset = append(w.row, im.Row), append(w.size, im.Size), append(w.offset, im.Offset)
	w.key, w.member, w.etag = append(w.key, byteArray(im.Key)), append(w.member, byteArray(im.Member)), append(w.etag, byteArray(im.ETag))
	if len(w.row) < GroupRows {
		return nil
	}
	if err := w.out.do(w.flush); err != nil {
		return fmt.Errorf("write images %s: %w", w.out.path, err)
	}
	return nil
}

func (w *ImagesWriter) flush() error {
	if len(w.row) == 0 {
		return nil
	}
	g := newGroup(w.w)
	writeColumn(g, w.row, nil)
	writeColumn(g, w.key, nil)
	writeColumn(g, w.member, nil)
	writeColumn(g, w.size, nil)
	writeColumn(g, w.etag, nil)
	writeColumn(g, w.offset, nil)
	if err := g.close(); err != nil {
		return err
	}
	clear(w.key)
	clear(w.member)
	clear(w.etag)
	w.row, w.size, w.offset = w.row[:0], w.size[:0], w.offset[:0]
	w.key, w.member, w.etag = w.key[:0], w.member[:0], w.etag[:0]
	return nil
}

// Commit ends the part: footer, sync, re-read by the other Parquet
// implementation. After an error the file is gone.
func (w *ImagesWriter) Commit() (FileStats, error) {
	return w.out.commit(KindImages, w.written.rows, func() error {
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
func (w *ImagesWriter) Abort() error { return w.out.abort() }

// ReadImages calls fn for the images of a part whose row number r has
// from <= r < to, in order. It reads only the row groups concerned. All strings
// of a row group share memory: clone one that is to outlive the others. An
// error of fn ends the reading and is returned as it is.
func ReadImages(path string, from, to int64, fn func(Image) error) error {
	f, ft, err := openTable(path, KindImages, imagesColumns)
	if err != nil {
		return fmt.Errorf("read images: %w", err)
	}
	defer f.Close()
	first, err := metaInt(ft.kv, keyFirstRow, 0)
	if err != nil {
		return fmt.Errorf("read images %s: %w", path, err)
	}
	var (
		row, size, offset column[int64]
		key, member, etag []string
		fnErr             error
	)
	start := func(group int) int64 { return int64(first) + int64(group)*GroupRows }
	err = eachGroup(f, ft, func(group int) bool {
		return start(group) < to && start(group)+ft.RowGroups[group].NumRows > from
	}, func(g *groupReader) {
		readColumn(g, 0, &row)
		key = g.readStrings(1, key)
		member = g.readStrings(2, member)
		readColumn(g, 3, &size)
		etag = g.readStrings(4, etag)
		readColumn(g, 5, &offset)
	}, func(group, rows int) error {
		for i := range rows {
			r := row.values[i]
			if r != start(group)+int64(i) {
				return fmt.Errorf("%w: row %d where %d should be", ErrCorrupt, r, start(group)+int64(i))
			}
			if r < from || r >= to {
				continue
			}
			if fnErr = fn(Image{r, key[i], member[i], size.values[i], etag[i], offset.values[i]}); fnErr != nil {
				return fnErr
			}
		}
		return nil
	})
	return readError(KindImages, path, err, fnErr)
}

// readError wraps an error of a reader, but not one of the caller's function.
func readError(kind, path string, err, fnErr error) error {
	if err == nil || fnErr != nil {
		return fnErr
	}
	return fmt.Errorf("read %s %s: %w", kind, path, err)
}
