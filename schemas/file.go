package schemas

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
)

// Version is the version of the file formats that this package writes and the
// only one that it reads.
const Version = 1

var (
	// ErrCorrupt marks a file that contradicts itself or ends too early. The
	// remedy is to fetch or to make the file again.
	ErrCorrupt = errors.New("damaged file")
	// ErrKind marks an undamaged file that holds another table, or a version of
	// the format that this program does not know.
	ErrKind = errors.New("not the expected table")
)

// FileStats describes a committed file as a commit record does.
type FileStats struct {
	Rows   int64  `json:"rows"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"` // 64 hex digits, of the whole file
}

// output is a file being written. The Parquet writers get only w: v15 closes
// every sink that has a Close.
type output struct {
	path string
	f    *os.File
	w    *bufio.Writer
	err  error // the first failure; it ends the file
}

func createOutput(path string) (*output, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return nil, err
	}
	return &output{path: path, f: f, w: bufio.NewWriterSize(f, 1<<16)}, nil
}

// do runs one step of writing. After a step that failed no other one runs, and
// commit returns that failure. Panics of the Parquet writers are failures.
func (o *output) do(step func() error) error {
	if o.err == nil {
		o.err = guarded(errWriter, step)
	}
	return o.err
}

// commit finishes the file (finish writes the footer), checks it and returns
// its description; if anything fails, it removes the file. bufio keeps the
// first write error, which matters because Arrow drops some.
func (o *output) commit(kind string, rows int64, finish, check func() error) (FileStats, error) {
	if o.f == nil {
		return FileStats{}, fmt.Errorf("commit %s %s: already ended", kind, o.path)
	}
	defer o.abort()
	for _, step := range []func() error{finish, o.w.Flush, o.f.Sync, check} {
		if err := o.do(step); err != nil {
			return FileStats{}, fmt.Errorf("commit %s %s: %w", kind, o.path, err)
		}
	}
	stats, err := digest(o.f)
	if err == nil {
		err = o.f.Close()
	}
	if err != nil {
		return FileStats{}, fmt.Errorf("commit %s %s: %w", kind, o.path, err)
	}
	o.f, stats.Rows = nil, rows
	return stats, nil
}

// abort closes and removes the file unless it is committed or gone already.
func (o *output) abort() error {
	if o.f == nil {
		return nil
	}
	o.f.Close()
	o.f = nil
	return os.Remove(o.path)
}

func digest(f *os.File) (FileStats, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return FileStats{}, err
	}
	h := sha256.New()
	n, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	if err != nil {
		return FileStats{}, err
	}
	return FileStats{Bytes: n, SHA256: hex.EncodeToString(h.Sum(nil))}, nil
}

// errWriter marks a failure inside a Parquet writer.
var errWriter = errors.New("the Parquet writer failed")

// guarded runs f and turns a panic of a Parquet library, which is how they
// answer damage, into an error marked with mark. No function of a caller runs
// inside f.
func guarded(mark error, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: panic: %v", mark, r)
		}
	}()
	return f()
}
