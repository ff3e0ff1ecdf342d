package export

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"sela/schemas"
)

// webDataset writes a tar of labels for each tar of images.
type webDataset struct {
	out   *output
	key   string // of the tar under way
	file  *object
	tar   *tar.Writer
	names map[[16]byte]bool // digests of its samples' names
}

func newWebDataset(_ *source, out *output) (format, error) { return &webDataset{out: out}, nil }

// wdsRow is the .json member of a sample.
type wdsRow struct {
	Key        string          `json:"key"`
	Member     string          `json:"member"`
	SHA256     string          `json:"sha256"`
	Label      int32           `json:"label"`
	Prob       *float32        `json:"prob"`
	ModelLabel int32           `json:"model_label"`
	ModelProb  float32         `json:"model_prob"`
	PrevLabel  *int32          `json:"prev_label"`
	TopK       []wdsRowCluster `json:"top_k,omitempty"`
}

type wdsRowCluster struct {
	Label int32   `json:"label"`
	Prob  float32 `json:"prob"`
}

func (w *webDataset) add(ctx context.Context, l *schemas.Label) error {
	if l.Member == "" {
		return unfit(l, "it is not in a tar, beside which labels could lie: use --format imagefolder or torch")
	}
	for _, err := range []error{within(l, l.Key), within(l, l.Member), printable(l, l.Member)} {
		if err != nil {
			return err
		}
	}
	sample, err := sampleName(l)
	if err != nil {
		return err
	}
	if w.file == nil || l.Key != w.key {
		if err := w.next(ctx, strings.Clone(l.Key)); err != nil {
			return err
		}
	}
	sum := sha256.Sum256([]byte(sample))
	if id := [16]byte(sum[:]); w.names[id] {
		return unfit(l, "another image of that tar belongs to the same WebDataset sample %q, which can have one label", sample)
	} else {
		w.names[id] = true
	}
	row := wdsRow{Key: l.Key, Member: l.Member, SHA256: l.SHA256, Label: l.Label, Prob: l.Prob, ModelLabel: l.ModelLabel, ModelProb: l.ModelProb, PrevLabel: l.PrevLabel}
	for _, k := range l.TopK {
		row.TopK = append(row.TopK, wdsRowCluster(k))
	}
	raw, err := json.Marshal(row)
	if err == nil {
		err = w.member(sample+".cls", strconv.AppendInt(nil, int64(l.Label), 10))
	}
	if err == nil {
		err = w.member(sample+".json", raw)
	}
	return err
}

// sampleName is what WebDataset calls the sample of a member: its name up to
// the first dot behind the last slash.
func sampleName(l *schemas.Label) (string, error) {
	slash := strings.LastIndexByte(l.Member, '/') + 1
	dot := strings.IndexByte(l.Member[slash:], '.')
	if dot < 1 {
		return "", unfit(l, "WebDataset sees no sample in a name without a part before its first dot")
	}
	return l.Member[:slash+dot], nil
}

// member appends a file to the tar. Owner, mode and time are always the same.
func (w *webDataset) member(name string, data []byte) error {
	if err := w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: time.Unix(0, 0)}); err != nil {
		return err
	}
	_, err := w.tar.Write(data)
	return err
}

// next goes on to the labels of another tar.
func (w *webDataset) next(ctx context.Context, key string) (err error) {
	if err := w.end(ctx); err != nil {
		return err
	}
	if w.file, err = w.out.create(key); err != nil {
		return err
	}
	w.key, w.tar, w.names = key, tar.NewWriter(w.file), map[[16]byte]bool{}
	return nil
}

func (w *webDataset) end(ctx context.Context) error {
	if w.file == nil {
		return nil
	}
	if err := w.tar.Close(); err != nil {
		return err
	}
	return w.file.publish(ctx)
}
