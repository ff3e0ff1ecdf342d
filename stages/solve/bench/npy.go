//go:build linux

package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"unsafe"
)

// npy is a float32 matrix in NumPy's file format, version 1: a header in Python
// syntax, then the values, row-major and little-endian. It is a matrix.
type npy struct {
	f        *os.File
	rows     int64
	clusters int
	data     int64 // offset of the values
}

const npyMagic = "\x93NUMPY\x01\x00"

var npyShape = regexp.MustCompile(`'shape': *\((\d+), *(\d+)\)`)

func openNpy(path string) (*npy, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	m := &npy{f: f}
	if err := m.header(); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

func (m *npy) header() error {
	start := make([]byte, len(npyMagic)+2)
	if _, err := m.f.ReadAt(start, 0); err != nil {
		return err
	}
	if string(start[:len(npyMagic)]) != npyMagic {
		return fmt.Errorf("not version 1 of NumPy's format")
	}
	text := make([]byte, binary.LittleEndian.Uint16(start[len(npyMagic):]))
	if _, err := m.f.ReadAt(text, int64(len(start))); err != nil {
		return err
	}
	shape := npyShape.FindStringSubmatch(string(text))
	if shape == nil || !strings.Contains(string(text), "'<f4'") || !strings.Contains(string(text), "'fortran_order': False") {
		return fmt.Errorf("want a row-major float32 matrix, got %s", text)
	}
	m.rows, _ = strconv.ParseInt(shape[1], 10, 64) // digits; a size out of range fails below
	m.clusters, _ = strconv.Atoi(shape[2])
	m.data = int64(len(start) + len(text))
	info, err := m.f.Stat()
	if err == nil && (m.clusters < 1 || m.rows > info.Size() || info.Size() != m.data+4*m.rows*int64(m.clusters)) {
		err = fmt.Errorf("%d bytes for %s", info.Size(), text)
	}
	return err
}

func (m *npy) dims() (int64, int) { return m.rows, m.clusters }

func (m *npy) fill(from int64, dst []float32) error {
	_, err := m.f.ReadAt(bytesOf(dst), m.data+from*int64(m.clusters)*4)
	return err
}

// writeNpy writes a matrix whole.
func writeNpy(path string, m matrix) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	rows, clusters := m.dims()
	w := bufio.NewWriterSize(f, 1<<20)
	if err := npyHeader(w, rows, clusters); err != nil {
		return err
	}
	buf := make([]float32, 64*clusters)
	for from := int64(0); from < rows; from += 64 {
		part := buf[:min(64, rows-from)*int64(clusters)]
		if err := m.fill(from, part); err != nil {
			return err
		}
		if _, err := w.Write(bytesOf(part)); err != nil {
			return err
		}
	}
	return w.Flush()
}

func npyHeader(w io.Writer, rows int64, clusters int) error {
	text := fmt.Sprintf("{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }", rows, clusters)
	text += strings.Repeat(" ", 127-len(npyMagic)-2-len(text)) + "\n" // values begin at a multiple of 64
	_, err := fmt.Fprintf(w, "%s%s%s", npyMagic, binary.LittleEndian.AppendUint16(nil, uint16(len(text))), text)
	return err
}

// bytesOf is the memory of x, on little-endian hosts the bytes of a file.
func bytesOf(x []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
}
