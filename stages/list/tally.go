package list

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash"

	"sela/schemas"
)

// tally is the consuming side of a scan: it numbers, counts and digests.
type tally struct {
	emit   func(schemas.Image) error
	reject func(schemas.Quarantine) error
	limit  int64
	only   *only
	sum    Summary
	first  *schemas.Quarantine
	names  hash.Hash // of what the images are called and where they lie
	states hash.Hash // with their entity tags
	buf    []byte
}

func newTally(limit int64, emit func(schemas.Image) error, reject func(schemas.Quarantine) error) *tally {
	t := &tally{emit: emit, reject: reject, limit: limit, names: sha256.New(), states: sha256.New()}
	t.names.Write([]byte("sela listing 1\n"))
	t.states.Write([]byte("sela snapshot 1\n"))
	return t
}

var errStopped = errors.New("the scan stopped")

// drain takes all batches of all sources, in order. It returns errStopped when
// the producing side failed, errLimit when enough images were emitted.
func (t *tally) drain(ctx context.Context, sources <-chan (<-chan []item)) error {
	for {
		source, ok, err := receive(ctx, sources)
		if err != nil || !ok {
			return err
		}
		for {
			batch, ok, err := receive(ctx, source)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			for i := range batch {
				if err := t.take(&batch[i]); err != nil {
					return err
				}
			}
		}
	}
}

func receive[T any](ctx context.Context, from <-chan T) (v T, ok bool, err error) {
	select {
	case v, ok = <-from:
		return v, ok, nil
	case <-ctx.Done():
		return v, false, errStopped
	}
}

func (t *tally) take(it *item) error {
	t.sum.Skipped += it.skipped
	t.only.meet(it)
	if it.rejected != nil {
		t.sum.Rejected++
		if t.first == nil {
			t.first = it.rejected
		}
		return t.reject(*it.rejected)
	}
	if it.image.Size == 0 {
		return nil
	}
	it.image.Row = t.sum.Images
	t.sum.Images++
	t.sum.Bytes += it.image.Size
	t.digest(&it.image)
	if err := t.emit(it.image); err != nil {
		return err
	}
	if t.sum.Images == t.limit {
		return errLimit
	}
	return nil
}

func (t *tally) digest(img *schemas.Image) {
	b := t.buf[:0]
	b = appendString(b, img.Key)
	b = appendString(b, img.Member)
	b = binary.LittleEndian.AppendUint64(b, uint64(img.Size))
	b = binary.LittleEndian.AppendUint64(b, uint64(img.Offset))
	t.names.Write(b)
	b = appendString(b, img.ETag)
	t.states.Write(b)
	t.buf = b
}

func appendString(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
	return append(b, s...)
}

func (t *tally) summary() Summary {
	t.sum.Digest = hex.EncodeToString(t.names.Sum(nil))
	t.sum.Snapshot = hex.EncodeToString(t.states.Sum(nil))
	return t.sum
}
