package schemas

import (
	"errors"
	"fmt"

	"github.com/xitongsys/parquet-go-source/writerfile"
	"github.com/xitongsys/parquet-go/parquet"
	"github.com/xitongsys/parquet-go/writer"
)

// Label is a row of the labels table: the label of one image in one head. Its
// tags are the contract with those who read the published files: names, types,
// and which columns may be null (the pointers).
type Label struct {
	Row    int64  `parquet:"name=row, type=INT64, fieldid=1"`
	Key    string `parquet:"name=key, type=BYTE_ARRAY, convertedtype=UTF8, logicaltype=STRING, fieldid=2"`
	Member string `parquet:"name=member, type=BYTE_ARRAY, convertedtype=UTF8, logicaltype=STRING, omitstats=true, fieldid=3"`
	// SHA256 is that of the image's bytes, 64 hexadecimal digits.
	SHA256 string `parquet:"name=sha256, type=BYTE_ARRAY, convertedtype=UTF8, logicaltype=STRING, omitstats=true, fieldid=4"`
	// Label is the cluster that the solver chose, from 0.
	Label int32 `parquet:"name=label, type=INT32, fieldid=5"`
	// Prob is the share of the image's mass that the solution puts on Label; nil
	// where labels are not drawn from the entropic solution.
	Prob *float32 `parquet:"name=prob, type=FLOAT, omitstats=true, fieldid=6"`
	// ModelLabel is the model's own most probable cluster and ModelProb its
	// probability.
	ModelLabel int32   `parquet:"name=model_label, type=INT32, fieldid=7"`
	ModelProb  float32 `parquet:"name=model_prob, type=FLOAT, omitstats=true, fieldid=8"`
	// PrevLabel is the image's label in the previous round, nil if it had none.
	PrevLabel *int32 `parquet:"name=prev_label, type=INT32, fieldid=9"`
	// TopK are the clusters with the largest Prob, best first. The column exists
	// only in tables that ask for it.
	TopK []TopK `parquet:"name=top_k, type=LIST"`
}

// TopK is one of an image's best clusters.
type TopK struct {
	Label int32   `parquet:"name=label, type=INT32, omitstats=true, fieldid=10"`
	Prob  float32 `parquet:"name=prob, type=FLOAT, omitstats=true, fieldid=11"`
}

// plainLabel is Label without TopK: the columns of a table that does not ask
// for them. xitongsys writes a struct's fields by name and leaves out those
// that the schema lacks.
type plainLabel struct {
	Row        int64    `parquet:"name=row, type=INT64, fieldid=1"`
	Key        string   `parquet:"name=key, type=BYTE_ARRAY, convertedtype=UTF8, logicaltype=STRING, fieldid=2"`
	Member     string   `parquet:"name=member, type=BYTE_ARRAY, convertedtype=UTF8, logicaltype=STRING, omitstats=true, fieldid=3"`
	SHA256     string   `parquet:"name=sha256, type=BYTE_ARRAY, convertedtype=UTF8, logicaltype=STRING, omitstats=true, fieldid=4"`
	Label      int32    `parquet:"name=label, type=INT32, fieldid=5"`
	Prob       *float32 `parquet:"name=prob, type=FLOAT, omitstats=true, fieldid=6"`
	ModelLabel int32    `parquet:"name=model_label, type=INT32, fieldid=7"`
	ModelProb  float32  `parquet:"name=model_prob, type=FLOAT, omitstats=true, fieldid=8"`
	PrevLabel  *int32   `parquet:"name=prev_label, type=INT32, fieldid=9"`
}

const (
	labelsColumns = "row:INT64 key:BYTE_ARRAY member:BYTE_ARRAY sha256:BYTE_ARRAY label:INT32 prob:FLOAT? " +
		"model_label:INT32 model_prob:FLOAT prev_label:INT32?"
	labelsTopKColumns = labelsColumns + " top_k:1 list:1* element:2 label:INT32 prob:FLOAT"
)

// LabelsMeta is the metadata of one part of a labels table.
type LabelsMeta struct {
	Head     int  // label space, from 0
	Clusters int  // K of the head
	TopK     bool // there is a column top_k
	// KV is written into the file's key-value metadata.
	KV map[string]string
}

// LabelsWriter writes one part of a labels table. It is not safe for
// concurrent use.
type LabelsWriter struct {
	out      *output
	w        *writer.ParquetWriter
	clusters int32
	inGroup  int
	last     int64
	written  tally

	// xitongsys keeps what a row points to until its row group is written.
	probs []float32
	prevs []int32
	topk  []TopK
}

// CreateLabels starts a part at a local path, replacing what is there.
func CreateLabels(path string, meta LabelsMeta) (*LabelsWriter, error) {
	err := checkCallersKeys(meta.KV)
	if err == nil && (meta.Head < 0 || meta.Clusters < 1) {
		err = fmt.Errorf("head %d of %d clusters", meta.Head, meta.Clusters)
	}
	if err != nil {
		return nil, fmt.Errorf("create labels %s: %w", path, err)
	}
	out, err := createOutput(path)
	if err != nil {
		return nil, fmt.Errorf("create labels: %w", err)
	}
	w := &LabelsWriter{out: out, clusters: int32(meta.Clusters), last: -1}
	if err := out.do(func() error { return w.start(meta) }); err != nil {
		return nil, errors.Join(fmt.Errorf("create labels %s: %w", path, err), out.abort())
	}
	return w, nil
}

// start sets everything that decides about the file's bytes: one writing
// goroutine, no dictionaries, pages of 1 MiB, and row groups ended only by
// Write.
func (w *LabelsWriter) start(meta LabelsMeta) (err error) {
	var columns any = new(plainLabel)
	if meta.TopK {
		columns = new(Label)
	}
	if w.w, err = writer.NewParquetWriter(writerfile.NewWriterFile(w.out.w), columns, 1); err != nil {
		return err
	}
	w.w.PageSize = 1 << 20
	w.w.RowGroupSize = 1 << 62
	w.w.CompressionType = parquet.CompressionCodec_ZSTD
	w.w.Footer.Version = 1
	by := createdBy
	w.w.Footer.CreatedBy = &by
	for _, p := range fileMetadata(KindLabels, map[string]int64{keyHead: int64(meta.Head), keyClusters: int64(meta.Clusters)}, meta.KV) {
		w.w.Footer.KeyValueMetadata = append(w.w.Footer.KeyValueMetadata, &parquet.KeyValue{Key: p.key, Value: &p.value})
	}
	return nil
}

// Write appends a row, whose row number must be above the last one. l and what
// it points to may be reused afterwards; the strings are kept until their row
// group is full. After an error the part cannot be committed.
func (w *LabelsWriter) Write(l *Label) error {
	if err := w.out.do(func() error { return w.append(*l) }); err != nil {
		return fmt.Errorf("write labels %s: %w", w.out.path, err)
	}
	return nil
}

func (w *LabelsWriter) append(l Label) error {
	if l.Row <= w.last {
		return fmt.Errorf("row %d after row %d: rows must ascend", l.Row, w.last)
	}
	if l.Label < 0 || l.Label >= w.clusters {
		return fmt.Errorf("row %d: label %d of %d clusters", l.Row, l.Label, w.clusters)
	}
	if err := checkText(l.Key, l.Member, l.SHA256); err != nil {
		return fmt.Errorf("row %d: %w", l.Row, err)
	}
	w.last = l.Row
	w.written.add(l.Key, int64(l.Label))
	// Where an array grows, earlier rows go on pointing into the old one.
	if l.Prob != nil {
		w.probs = append(w.probs, *l.Prob)
		l.Prob = &w.probs[len(w.probs)-1]
	}
	if l.PrevLabel != nil {
		w.prevs = append(w.prevs, *l.PrevLabel)
		l.PrevLabel = &w.prevs[len(w.prevs)-1]
	}
	if n := len(l.TopK); n > 0 {
		w.topk = append(w.topk, l.TopK...)
		l.TopK = w.topk[len(w.topk)-n : len(w.topk) : len(w.topk)]
	}
	if err := w.w.Write(l); err != nil {
		return err
	}
	if w.inGroup++; w.inGroup < GroupRows {
		return nil
	}
	return w.flush()
}

func (w *LabelsWriter) flush() error {
	if err := w.w.Flush(true); err != nil {
		return err
	}
	clear(w.w.Objs[:cap(w.w.Objs)])
	w.inGroup, w.probs, w.prevs, w.topk = 0, w.probs[:0], w.prevs[:0], w.topk[:0]
	return nil
}

// Commit ends the part: footer, sync, re-read by the other Parquet
// implementation. After an error the file is gone.
func (w *LabelsWriter) Commit() (FileStats, error) {
	return w.out.commit(KindLabels, w.written.rows, func() error {
		if err := w.flush(); err != nil {
			return err
		}
		w.w.RenameSchema()
		return writeFooter(w.out.w, w.w.Footer)
	}, func() error {
		var found tally
		err := ReadLabels(w.out.path, func(l *Label) error {
			found.add(l.Key, int64(l.Label))
			return nil
		})
		if err != nil {
			return err
		}
		return found.agree(w.written)
	})
}

// Abort ends the part and removes its file. After Commit it does nothing.
func (w *LabelsWriter) Abort() error { return w.out.abort() }

// labelColumns are the columns of one row group in memory.
type labelColumns struct {
	row                          column[int64]
	key, member, sha             []string
	label, model, prev, topLabel column[int32]
	prob, modelProb, topProb     column[float32]
	top                          []TopK
}

// ReadLabels calls fn for each row of a part, in order. The Label and what it
// points to are reused after fn returns, except its strings, which share the
// memory of their row group: clone one that is to outlive the others. Memory
// is that of one row group. An error of fn ends the reading and is returned as
// it is.
func ReadLabels(path string, fn func(*Label) error) error {
	f, ft, err := openTable(path, KindLabels, labelsColumns, labelsTopKColumns)
	if err != nil {
		return fmt.Errorf("read labels: %w", err)
	}
	defer f.Close()
	var (
		c     labelColumns
		fnErr error
	)
	err = eachGroup(f, ft, everyGroup, func(g *groupReader) {
		c.load(g, ft.columns == labelsTopKColumns)
	}, func(_, rows int) error {
		fnErr = c.each(rows, fn)
		return fnErr
	})
	return readError(KindLabels, path, err, fnErr)
}

func (c *labelColumns) load(g *groupReader, topK bool) {
	readColumn(g, 0, &c.row)
	c.key = g.readStrings(1, c.key)
	c.member = g.readStrings(2, c.member)
	c.sha = g.readStrings(3, c.sha)
	readColumn(g, 4, &c.label)
	readColumn(g, 5, &c.prob)
	readColumn(g, 6, &c.model)
	readColumn(g, 7, &c.modelProb)
	readColumn(g, 8, &c.prev)
	if !topK || g.err != nil {
		return
	}
	readColumn(g, 9, &c.topLabel)
	readColumn(g, 10, &c.topProb)
	if g.err == nil && (len(c.topLabel.values) != len(c.topProb.values) || len(c.topLabel.rep) != len(c.topProb.rep)) {
		g.err = fmt.Errorf("%w: top_k has %d labels and %d probabilities", ErrCorrupt, len(c.topLabel.values), len(c.topProb.values))
		return
	}
	c.top = c.top[:0]
	for i, label := range c.topLabel.values {
		c.top = append(c.top, TopK{label, c.topProb.values[i]})
	}
}

// each calls fn for the rows of the loaded row group.
func (c *labelColumns) each(rows int, fn func(*Label) error) error {
	var l Label
	prob, prev, top, level := c.prob.values, c.prev.values, c.top, 0
	for i := range rows {
		l = Label{
			Row: c.row.values[i], Key: c.key[i], Member: c.member[i], SHA256: c.sha[i],
			Label: c.label.values[i], ModelLabel: c.model.values[i], ModelProb: c.modelProb.values[i],
		}
		if c.prob.def[i] == 1 {
			l.Prob, prob = &prob[0], prob[1:]
		}
		if c.prev.def[i] == 1 {
			l.PrevLabel, prev = &prev[0], prev[1:]
		}
		n := 0
		for start := level; level < len(c.topLabel.rep) && (level == start || c.topLabel.rep[level] != 0); level++ {
			if c.topLabel.def[level] == 1 {
				n++
			}
		}
		l.TopK, top = top[:n:n], top[n:]
		if err := fn(&l); err != nil {
			return err
		}
	}
	return nil
}
