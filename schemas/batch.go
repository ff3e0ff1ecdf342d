package schemas

import (
	"fmt"
	"sync"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// Batch is rows of a block table in memory: an Arrow record batch around the
// buffer in which a model left its output. It is immutable and may be handed
// from one goroutine to another. Whoever made it releases it.
type Batch struct {
	record arrow.Record
	width  int
	err    error // what is wrong with the arguments of NewBatch
	once   sync.Once
	free   func() // for a batch without a record
}

// NewBatch wraps rows, values and sha without a copy. rows are row numbers,
// strictly ascending; values is row-major [len(rows)][width]; sha holds the
// SHA-256 of each image's bytes or is nil. None of them may change before
// Release. release, which may be nil, is called exactly once, when the batch
// lets go of the memory.
//
// A batch whose arguments do not fit together is refused by
// [BlocksWriter.Write]; it must be released all the same.
func NewBatch(rows []int64, values []float32, sha [][32]byte, width int, release func()) *Batch {
	if release == nil {
		release = func() {}
	}
	b := &Batch{width: width, free: release}
	switch n := len(rows); {
	case width < 1 || len(values) != n*width:
		b.err = fmt.Errorf("batch of %d rows and width %d has %d values", n, width, len(values))
	case sha != nil && len(sha) != n:
		b.err = fmt.Errorf("batch of %d rows has %d sha256", n, len(sha))
	case int64(len(values)) > maxBlockBytes/4:
		b.err = fmt.Errorf("batch of %d values is too large, the limit is %d: cut it", len(values), maxBlockBytes/4)
	default:
		b.record = newRecord(rows, values, sha, width, release)
	}
	return b
}

// NumRows returns the number of rows, 0 for a batch that Write would refuse.
func (b *Batch) NumRows() int {
	if b.record == nil {
		return 0
	}
	return int(b.record.NumRows())
}

// Release lets go of the wrapped memory. Calls after the first do nothing.
func (b *Batch) Release() {
	b.once.Do(func() {
		if b.record != nil {
			b.record.Release()
		} else {
			b.free()
		}
	})
}

// Columns of a record batch.
const (
	batchRows = iota
	batchValues
	batchSHA256
)

var (
	vectorType = arrow.ListOfField(arrow.Field{Name: "element", Type: arrow.PrimitiveTypes.Float32})
	digestType = &arrow.FixedSizeBinaryType{ByteWidth: 32}

	plainBatch  = arrow.NewSchema([]arrow.Field{{Name: "row", Type: arrow.PrimitiveTypes.Int64}, {Name: "values", Type: vectorType}}, nil)
	digestBatch = arrow.NewSchema(append(plainBatch.Fields(), arrow.Field{Name: "sha256", Type: digestType}), nil)
)

func newRecord(rows []int64, values []float32, sha [][32]byte, width int, release func()) arrow.Record {
	n := len(rows)
	offsets := memory.NewResizableBuffer(allocator)
	offsets.Resize((n + 1) * arrow.Int32SizeBytes)
	ends := arrow.Int32Traits.CastFromBytes(offsets.Bytes())
	for i := range ends {
		ends[i] = int32(i * width)
	}
	// Arrow frees the buffer of the values when its last user lets go of it.
	payload := memory.NewBufferWithAllocator(bytesOf(values), releaser{release})
	elements := array.NewData(vectorType.Elem(), n*width, []*memory.Buffer{nil, payload}, nil, 0, 0)
	lists := array.NewData(vectorType, n, []*memory.Buffer{nil, offsets}, []arrow.ArrayData{elements}, 0, 0)
	payload.Release()
	offsets.Release()
	elements.Release()

	data := []arrow.ArrayData{wrap(arrow.PrimitiveTypes.Int64, n, bytesOf(rows)), lists}
	schema := plainBatch
	if sha != nil {
		data, schema = append(data, wrap(digestType, n, bytesOf(sha))), digestBatch
	}
	columns := make([]arrow.Array, len(data))
	for i, d := range data {
		columns[i] = array.MakeFromData(d)
		d.Release()
	}
	record := array.NewRecord(schema, columns, int64(n))
	for _, c := range columns {
		c.Release()
	}
	return record
}

func wrap(t arrow.DataType, n int, b []byte) arrow.ArrayData {
	return array.NewData(t, n, []*memory.Buffer{nil, memory.NewBufferBytes(b)}, nil, 0, 0)
}

// rows, values and sha256 return the batch's own memory.
func (b *Batch) rows() []int64 {
	return b.record.Column(batchRows).(*array.Int64).Int64Values()
}

func (b *Batch) values() []float32 {
	return b.record.Column(batchValues).(*array.List).ListValues().(*array.Float32).Float32Values()
}

// sha256 returns 32 bytes for each row, nil in a batch without digests.
func (b *Batch) sha256() []byte {
	if b.record.NumCols() <= batchSHA256 {
		return nil
	}
	return b.record.Column(batchSHA256).Data().Buffers()[1].Bytes()
}

// releaser calls a function when Arrow frees the buffer that it was given to.
type releaser struct{ release func() }

func (r releaser) Free([]byte) { r.release() }

// Allocate and Reallocate complete memory.Allocator. The buffer is immutable,
// so that Arrow has no reason to call them.
func (r releaser) Allocate(int) []byte           { panic("schemas: allocation in a wrapped buffer") }
func (r releaser) Reallocate(int, []byte) []byte { panic("schemas: growth of a wrapped buffer") }

// bytesOf is the memory of s as bytes. Its elements are plain little-endian
// numbers or byte arrays, without padding.
func bytesOf[T int64 | float32 | uint16 | [32]byte](s []T) []byte {
	var t T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(t)))
}

// codesIn is the memory of b, which begins at an even address, as numbers.
func codesIn(b []byte) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/2)
}
