//go:build linux

package resample

import (
	"bytes"
	"math/rand/v2"
	"syscall"
	"testing"
	"unsafe"
)

// guarded returns n bytes that touch, at their end or at their start, a page
// that may be neither read nor written.
func guarded(t *testing.T, n int, atEnd bool) []byte {
	page := syscall.Getpagesize()
	pages := (n + page - 1) / page
	m, err := syscall.Mmap(-1, 0, (pages+2)*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Munmap(m) })
	for _, guard := range [][]byte{m[:page], m[(pages+1)*page:]} {
		if err := syscall.Mprotect(guard, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	start := page
	if atEnd {
		start = (pages+1)*page - n
	}
	return m[start:][:n:n]
}

func guard32(t *testing.T, s []int32, atEnd bool) []int32 {
	g := guarded(t, 4*len(s), atEnd)
	all := unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(g))), len(s))
	copy(all, s)
	return all
}

// TestGuardPages runs every twin with the source, the output and all
// that lies between inside pages that kill the process when touched.
func TestGuardPages(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	for range 150 {
		s := random(r, []int{8, 40, 200}[r.IntN(3)])
		size := s.From.X * s.From.Y * 3
		src := noise(r, size)
		bytesOut := 3 * s.Keep.Dx() * s.Keep.Dy()
		want := make([]byte, bytesOut)
		use(t, portable)
		new(Resizer).Resize(want, 3*s.Keep.Dx(), src, 3*s.From.X, s)
		for _, atEnd := range []bool{true, false} {
			t.Run("", func(t *testing.T) { // unmaps when done
				in, out := guarded(t, size, atEnd), guarded(t, bytesOut, atEnd)
				copy(in, src)
				for _, w := range twins {
					use(t, w)
					var z Resizer
					z.Resize(out, 3*s.Keep.Dx(), in, 3*s.From.X, s)
					// Again with what the first run left behind in guarded memory.
					clear(out)
					z.mid = guarded(t, len(z.mid), atEnd)
					z.work.cells = guarded(t, len(z.work.cells), atEnd)
					for _, table := range z.tables {
						table.digits, table.group = guard32(t, table.digits, atEnd), guard32(t, table.group, atEnd)
					}
					z.Resize(out, 3*s.Keep.Dx(), in, 3*s.From.X, s)
					if !bytes.Equal(out, want) {
						t.Fatalf("%s, %+v: differs from portable", w.name, s)
					}
				}
			})
		}
	}
}
