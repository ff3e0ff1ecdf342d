package export

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"math"
	"strings"

	"sela/schemas"
)

// torchIndex writes the labels as arrays that PyTorch maps into memory without
// any other library. N images are
//
//	labels.int64    N labels
//	probs.float32   N probabilities, NaN where labels have none
//	names.utf8      N names, one after the other: the key, a zero byte, the member
//	                of a tar or nothing
//	ends.int64      N ends of the names, in bytes: the i-th begins where the one
//	                before it ends
//	index.json      N, the number of clusters, and the sha256 of the files; written
//	                last
//
// Numbers are little-endian, as everything that torch runs on.
type torchIndex struct {
	*source
	labels, probs, names, ends *object
	count, end64               int64
	scratch                    []byte
}

func newTorchIndex(s *source, out *output) (format, error) {
	t := &torchIndex{source: s}
	for _, f := range t.files() {
		var err error
		if *f.object, err = out.create(f.name); err != nil {
			return nil, err
		}
	}
	return t, nil
}

type torchFile struct {
	name   string
	object **object
}

func (t *torchIndex) files() []torchFile {
	return []torchFile{{"labels.int64", &t.labels}, {"probs.float32", &t.probs}, {"names.utf8", &t.names}, {"ends.int64", &t.ends}}
}

func (t *torchIndex) add(_ context.Context, l *schemas.Label) error {
	if err := within(l, l.Key); err != nil {
		return err
	}
	if strings.ContainsRune(l.Key+l.Member, 0) {
		return unfit(l, "its name has a zero byte, which parts key and member in this format: rename the object, and label it again")
	}
	prob := float32(math.NaN())
	if l.Prob != nil {
		prob = *l.Prob
	}
	t.count++
	t.end64 += int64(len(l.Key) + 1 + len(l.Member))
	write := func(o *object, b []byte) error {
		t.scratch = b[:0]
		_, err := o.Write(b)
		return err
	}
	err := write(t.labels, binary.LittleEndian.AppendUint64(t.scratch[:0], uint64(int64(l.Label))))
	if err == nil {
		err = write(t.probs, binary.LittleEndian.AppendUint32(t.scratch, math.Float32bits(prob)))
	}
	if err == nil {
		err = write(t.names, append(append(append(t.scratch, l.Key...), 0), l.Member...))
	}
	if err == nil {
		err = write(t.ends, binary.LittleEndian.AppendUint64(t.scratch, uint64(t.end64)))
	}
	return err
}

func (t *torchIndex) end(ctx context.Context) error {
	type file struct {
		Bytes  int64  `json:"bytes"`
		SHA256 string `json:"sha256"`
	}
	index := struct {
		Version  int             `json:"version"`
		Run      string          `json:"run"`
		Head     int             `json:"head"`
		Clusters int             `json:"clusters"`
		Images   int64           `json:"images"`
		Files    map[string]file `json:"files"`
	}{1, t.Run, t.Head, t.clusters, t.count, map[string]file{}}
	var out *output
	for _, f := range t.files() {
		o := *f.object
		out = o.output
		index.Files[f.name] = file{o.size, o.digest()}
		if err := o.publish(ctx); err != nil {
			return err
		}
	}
	raw, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return err
	}
	o, err := out.create("index.json")
	if err != nil {
		return err
	}
	if _, err := o.Write(append(raw, '\n')); err != nil {
		return err
	}
	return o.publish(ctx)
}
