package schemas

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// readAny reads a file in every way that there is.
func readAny(path string) error {
	_, _, _, _, inspect := Inspect(path)
	_, _, potentials := ReadPotentials(path)
	errs := []error{
		inspect, potentials,
		ReadImages(path, 0, 1<<62, func(Image) error { return nil }),
		ReadQuarantine(path, func(Quarantine) error { return nil }),
		ReadLabels(path, func(*Label) error { return nil }),
		readAllBlocks(path),
	}
	for _, err := range errs[1:] {
		if err == nil {
			return nil
		}
	}
	return errors.Join(errs...)
}

func readAllBlocks(path string) error {
	b, err := OpenBlocks(path)
	if err != nil {
		return err
	}
	defer b.Close()
	rows, dst := make([]int64, 64), make([]float32, 64*b.Width())
	for _, run := range b.Runs() {
		if _, err := b.ReadRows(run.First, run.First+min(run.Count, 64), rows, dst); err != nil {
			return err
		}
	}
	if b.Meta().WithSHA256 {
		return b.SHA256s(0, 1<<62, func(int64, [32]byte) error { return nil })
	}
	return nil
}

func readGolden(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(goldenPath(name))
	check(t, err)
	return data
}

// A file that ends too early is refused, wherever it ends.
func TestTruncated(t *testing.T) {
	for _, g := range goldens {
		data := readGolden(t, g.name)
		path := filepath.Join(t.TempDir(), "x")
		for n := 0; n < len(data); n += 1 + len(data)/60 {
			check(t, os.WriteFile(path, data[:n], 0o666))
			if err := readAny(path); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s cut to %d of %d bytes: %v", g.name, n, len(data), err)
			}
		}
	}
}

// A file that is too short for its footer is refused when it is opened.
func TestHollow(t *testing.T) {
	for _, g := range goldens {
		data := readGolden(t, g.name)
		footer := int(binary.LittleEndian.Uint32(data[len(data)-8:])) + 8
		path := filepath.Join(t.TempDir(), "x")
		check(t, os.WriteFile(path, append([]byte(magic), data[len(data)-footer:]...), 0o666))
		if err := readAny(path); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s without its pages: %v", g.name, err)
		}
	}
}

// A flipped byte ends in an error or in rows, never in the end of the process.
func TestFlipped(t *testing.T) {
	refused, trials := 0, 0
	for _, g := range goldens {
		data := readGolden(t, g.name)
		path := filepath.Join(t.TempDir(), "x")
		step := 1 + len(data)/100
		for i := 0; i < len(data); i += step {
			flipped := append([]byte(nil), data...)
			flipped[i] ^= 1 << (i % 8)
			check(t, os.WriteFile(path, flipped, 0o666))
			if readAny(path) != nil {
				refused++
			}
			trials++
		}
	}
	t.Logf("%d of %d flips refused", refused, trials)
	if refused == 0 {
		t.Error("no flip was noticed")
	}
}

// A footer cannot make its reader allocate more than its own size allows.
func TestHostileFooter(t *testing.T) {
	huge := []byte{0xff, 0xff, 0xff, 0x2f} // varint, about 100 million
	for name, footer := range map[string][]byte{
		"schema list":     append([]byte{0x15, 0x02, 0x19, 0xfc}, huge...),
		"row groups list": append([]byte{0x15, 0x02, 0x29, 0xfc}, huge...),
		"metadata list":   append([]byte{0x15, 0x02, 0x39, 0xfc}, huge...),
		"created by":      append([]byte{0x15, 0x02, 0x58}, huge...),
		"nothing":         {},
		"only zeros":      make([]byte, 100),
	} {
		file := append([]byte(magic), footer...)
		file = binary.LittleEndian.AppendUint32(file, uint32(len(footer)))
		file = append(file, magic...)
		path := filepath.Join(t.TempDir(), "x")
		check(t, os.WriteFile(path, file, 0o666))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := readAny(path)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%s: %d bytes allocated", name, n)
		}
	}
}

// Numbers of the metadata that contradict the row groups are refused.
func TestLyingMetadata(t *testing.T) {
	for _, lie := range []string{keyWidth, keyBlockRows, keyHead, keyKind, keyVersion} {
		lyingMetadata(t, lie, false)
		lyingMetadata(t, lie, true)
	}
}

func lyingMetadata(t *testing.T, lie string, compact bool) {
	t.Helper()
	v := tame(someVectors(newRand(1), 50, 5, true))
	path := filepath.Join(t.TempDir(), "x")
	out, err := createOutput(path)
	check(t, err)
	pairs := fileMetadata(KindLogprobs, map[string]int64{keyHead: 0, keyWidth: 5, keyBlockRows: 16}, nil)
	for i := range pairs {
		if pairs[i].key == lie {
			pairs[i].value = map[string]string{keyWidth: "4", keyBlockRows: "17", keyHead: "-2", keyKind: KindFeatures, keyVersion: "2"}[lie]
		}
	}
	meta := BlocksMeta{Kind: KindLogprobs, Width: 5, WithSHA256: true, BlockRows: 16, Compact: compact}
	w, err := newArrowWriter(out, pairs, meta.schema())
	check(t, err)
	b := &BlocksWriter{out: out, w: w, last: -1, meta: meta}
	b.def, b.rep = make([]int16, 5), []int16{0, 1, 1, 1, 1}
	for i := range b.def {
		b.def[i] = 1
	}
	check(t, b.Write(v.batch(nil)))
	check(t, errors.Join(b.flush(), w.Close(), out.w.Flush()))
	_, err = OpenBlocks(path)
	if err == nil || !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrKind) {
		t.Errorf("%s: %v", lie, err)
	}
	check(t, out.abort())
}

func FuzzRead(f *testing.F) {
	for _, g := range goldens {
		f.Add(readGolden(f, g.name))
	}
	path := filepath.Join(f.TempDir(), "x")
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<20 {
			return
		}
		check(t, os.WriteFile(path, data, 0o666))
		readAny(path)
	})
}
