package list

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"sela/pipeline/bucket"
	"sela/schemas"
)

// memory is a bucket in memory.
type memory struct {
	objects []bucket.Object
	data    map[string][]byte

	mu    sync.Mutex
	busy  int   // listings and readers in use
	opens int   // requests for data
	asked int64 // bytes they were for
	read  int64 // bytes handed out
}

func newMemory() *memory { return &memory{data: map[string][]byte{}} }

func (m *memory) put(key string, data []byte) *memory {
	o := bucket.Object{Key: key, Size: int64(len(data)), ETag: fmt.Sprintf("tag-%d", len(data))}
	at, found := slices.BinarySearchFunc(m.objects, o, func(a, b bucket.Object) int { return strings.Compare(a.Key, b.Key) })
	if found {
		panic("put twice: " + key)
	}
	m.objects = slices.Insert(m.objects, at, o)
	m.data[key] = data
	return m
}

func (m *memory) List(ctx context.Context, prefix string, fn func(bucket.Object) error) error {
	m.use(1)
	defer m.use(-1)
	for _, o := range m.objects {
		if !strings.HasPrefix(o.Key, prefix) {
			continue
		}
		if err := fn(o); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (m *memory) NewReader(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	data, ok := m.data[key]
	if !ok {
		return nil, bucket.ErrNotFound
	}
	if off < 0 || n < 0 || off+n > int64(len(data)) {
		return nil, fmt.Errorf("range %d+%d of %d: %w", off, n, len(data), io.ErrUnexpectedEOF)
	}
	m.use(1)
	m.mu.Lock()
	m.opens++
	m.asked += n
	m.mu.Unlock()
	return &memoryReader{m, bytes.NewReader(data[off : off+n])}, nil
}

type memoryReader struct {
	m *memory
	r *bytes.Reader
}

func (r *memoryReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.m.mu.Lock()
	r.m.read += int64(n)
	r.m.mu.Unlock()
	return n, err
}

func (r *memoryReader) Close() error {
	r.m.use(-1)
	return nil
}

func (m *memory) use(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.busy += n
}

// found is everything a scan told.
type found struct {
	images   []schemas.Image
	rejected []schemas.Quarantine
	summary  Summary
	err      error
}

var extensions = []string{"jpg", "jpeg", "png"}

func scan[R io.ReadCloser](b Bucket[R], opts Options) found {
	if opts.Extensions == nil {
		opts.Extensions = extensions
	}
	var f found
	f.summary, f.err = Scan(context.Background(), b, opts,
		func(img schemas.Image) error { f.images = append(f.images, img); return nil },
		func(q schemas.Quarantine) error { f.rejected = append(f.rejected, q); return nil })
	return f
}

// names renders the images as "key" or "key|member".
func (f found) names() []string {
	var out []string
	for _, img := range f.images {
		out = append(out, label(img.Key, img.Member))
	}
	return out
}

// refusals renders the quarantine rows as "class key|member".
func (f found) refusals() []string {
	var out []string
	for _, q := range f.rejected {
		out = append(out, q.Class+" "+label(q.Key, q.Member))
	}
	return out
}

func label(key, member string) string {
	if member == "" {
		return key
	}
	return key + "|" + member
}

// check compares a scan with what is wanted and with what always holds.
func (f found) check(t *testing.T, images, refusals []string) {
	t.Helper()
	if f.err != nil && len(images) > 0 {
		t.Fatalf("scan: %v", f.err)
	}
	if got := f.names(); !slices.Equal(got, images) {
		t.Errorf("images\n got %q\nwant %q", got, images)
	}
	if got := f.refusals(); !slices.Equal(got, refusals) {
		t.Errorf("rejected\n got %q\nwant %q", got, refusals)
	}
	f.invariants(t)
}

func (f found) invariants(t *testing.T) {
	t.Helper()
	var size int64
	for i, img := range f.images {
		size += img.Size
		if img.Row != int64(i) {
			t.Errorf("image %d has row %d", i, img.Row)
		}
		if img.Size <= 0 || img.Offset < 0 || (img.Member == "") != (img.Offset == 0) {
			t.Errorf("impossible image %+v", img)
		}
		if i > 0 {
			last := f.images[i-1]
			if img.Key < last.Key || img.Key == last.Key && img.Offset < last.Offset+last.Size {
				t.Errorf("%+v comes after %+v", img, last)
			}
		}
	}
	for _, q := range f.rejected {
		if q.Row != nil || q.Stage != Name || q.Class == "" || q.Message == "" {
			t.Errorf("incomplete quarantine row %+v", q)
		}
	}
	s := f.summary
	if s.Images != int64(len(f.images)) || s.Rejected != int64(len(f.rejected)) || s.Bytes != size {
		t.Errorf("summary %+v of %d images, %d rejected, %d bytes", s, len(f.images), len(f.rejected), size)
	}
}

// member is one entry of a tar to be made.
type member struct {
	tar.Header
	data string
}

func file(name, data string) member { return member{tar.Header{Name: name}, data} }

// makeTar writes a tar with end blocks.
func makeTar(t testing.TB, members ...member) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, m := range members {
		h := m.Header
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Typeflag == tar.TypeReg {
			h.Size, h.Mode = int64(len(m.data)), 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("header of %s: %v", h.Name, err)
		}
		if _, err := io.WriteString(w, m.data); err != nil {
			t.Fatalf("data of %s: %v", h.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// rawHeader makes one USTAR block with a valid checksum and any size field.
func rawHeader(name string, flag byte, size string) []byte {
	b := make([]byte, blockSize)
	copy(b, name)
	copy(b[100:], "0000644\x00")
	copy(b[108:], "0000000\x00")
	copy(b[116:], "0000000\x00")
	copy(b[124:136], size)
	copy(b[136:], "00000000000\x00")
	b[156] = flag
	copy(b[257:], "ustar\x0000")
	checksum(b)
	return b
}

func checksum(block []byte) {
	copy(block[148:156], "        ")
	sum := 0
	for _, c := range block {
		sum += int(c)
	}
	copy(block[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

// padded appends zeros up to a whole block.
func padded(s string) []byte {
	return append([]byte(s), make([]byte, (blockSize-len(s)%blockSize)%blockSize)...)
}

func octal(n int64) string { return fmt.Sprintf("%011o\x00", n) }

// pax makes an extended header with the given keys and values.
func pax(pairs ...string) []byte {
	var records strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		n := len(pairs[i]) + len(pairs[i+1]) + 3
		for digits := 1; ; digits++ {
			if record := fmt.Sprintf("%d %s=%s\n", n+digits, pairs[i], pairs[i+1]); len(record) == n+digits {
				records.WriteString(record)
				break
			}
		}
	}
	return slices.Concat(rawHeader("PaxHeader", tar.TypeXHeader, octal(int64(records.Len()))), padded(records.String()))
}
