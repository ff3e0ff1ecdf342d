package device

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"unsafe"

	"sela/sinkhorn"
	"sela/stages/internal/ort"
)

// cursor is a place between two rows of a source.
type cursor struct {
	chunk int   // of the next row
	skip  int64 // rows of that chunk before it
}

// errEnough ends the reading of a chunk.
var errEnough = errors.New("enough rows")

// read yields the values of the next rows, in blocks, no more than the given
// number, and returns how many there were: fewer at the end of the source.
func (c *cursor) read(ctx context.Context, src sinkhorn.Source, rows int64, buf *sinkhorn.Block, yield func(x []float32) error) (int64, error) {
	_, clusters := src.Dims()
	total := int64(0)
	for ; c.chunk < src.Chunks() && total < rows; c.chunk++ {
		seen := int64(0) // rows of the chunk in the blocks before
		err := src.ReadChunk(ctx, c.chunk, buf, func(b *sinkhorn.Block) error {
			n := int64(len(b.Rows))
			if int64(len(b.X)) != n*int64(clusters) {
				return fmt.Errorf("%w: chunk %d: %d values for %d rows of %d clusters", sinkhorn.ErrSource, c.chunk, len(b.X), n, clusters)
			}
			from := min(max(c.skip-seen, 0), n)
			to := min(n, from+rows-total)
			if err := yield(b.X[from*int64(clusters) : to*int64(clusters)]); err != nil {
				return err
			}
			total += to - from
			seen += to
			if to < n {
				return errEnough
			}
			return nil
		})
		if err == errEnough {
			c.skip = seen
			return total, nil
		}
		if err != nil {
			return total, fmt.Errorf("read chunk %d: %w", c.chunk, err)
		}
		c.skip = 0
	}
	return total, nil
}

// end checks that no rows follow.
func (c cursor) end(ctx context.Context, src sinkhorn.Source, rows int64) error {
	more, err := c.read(ctx, src, 1, new(sinkhorn.Block), func([]float32) error { return nil })
	if err == nil && more > 0 {
		err = fmt.Errorf("%w: it has %d rows, its chunks hold more", sinkhorn.ErrSource, rows)
	}
	return err
}

// load puts the next tiles into a session.
func (e *Evaluator) load(ctx context.Context, tiles int64) (session, error) {
	program, err := e.program(tiles, func(w *os.File) error {
		if err := w.Truncate(tiles * e.shape.bytes()); err != nil { // zeros behind the last row
			return err
		}
		var block sinkhorn.Block
		want := min(tiles*e.shape.rows, e.rows-e.keptRows())
		got, err := e.next.read(ctx, e.src, want, &block, func(x []float32) error { return writeFloats(w, x) })
		if err == nil && got < want {
			err = e.short(e.keptRows() + got)
		}
		return err
	})
	return session{program, tiles}, err
}

// keptRows is the number of rows in the sessions so far.
func (e *Evaluator) keptRows() int64 {
	rows := int64(0)
	for _, s := range e.kept {
		rows += s.tiles * e.shape.rows
	}
	return min(rows, e.rows)
}

// short is the error of a source that holds fewer rows than it says.
func (e *Evaluator) short(rows int64) error {
	return fmt.Errorf("%w: it has %d rows, its chunks hold %d", sinkhorn.ErrSource, e.rows, rows)
}

// program makes a session of the tiles that write puts into a file, or, where
// write is nil, of one that takes tiles as an input.
func (e *Evaluator) program(tiles int64, write func(*os.File) error) (*ort.Program, error) {
	dir, err := os.MkdirTemp(e.options.Scratch, "device-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	options, data := e.sessionOptions(), ""
	if write == nil {
		options.Inputs = append(options.Inputs, inputTiles)
	} else {
		data = "tiles.f32"
		if err := writeFile(filepath.Join(dir, data), write); err != nil {
			return nil, err
		}
	}
	// Not Model.Save, which waits until the disk has the file, and with some
	// file systems the tiles as well: both are gone in a moment.
	graph, err := newGraph(e.shape, tiles, data).Bytes()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "pass.onnx")
	if err := os.WriteFile(path, graph, 0o600); err != nil {
		return nil, err
	}
	return e.rt.NewProgram(path, options)
}

func writeFile(path string, write func(*os.File) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// writeFloats writes the values as they lie in memory, which is little-endian
// wherever shards can be read.
func writeFloats(w io.Writer, x []float32) error {
	if len(x) == 0 {
		return nil
	}
	_, err := w.Write(unsafe.Slice((*byte)(unsafe.Pointer(&x[0])), 4*len(x)))
	return err
}
