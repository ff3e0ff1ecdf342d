//go:build linux

package kernel

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"unsafe"
)

// guarded returns memory for n values that touches, at its end or at its
// start, a page that may be neither read nor written.
func guarded[T any](t *testing.T, n int, atEnd bool) []T {
	page := syscall.Getpagesize()
	size := n * int(unsafe.Sizeof(*new(T)))
	pages := (size + page - 1) / page
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
		start = (pages+1)*page - size
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&m[start])), n)
}

// move returns a copy of s in guarded memory.
func move[T any](t *testing.T, s []T, atEnd bool) []T {
	g := guarded[T](t, len(s), atEnd)
	copy(g, s)
	return g
}

// TestGuardPages runs every twin with every argument between pages that kill
// the process when touched.
func TestGuardPages(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	for _, clusters := range []int{1, 2, 7, 8, 9, 15, 17, 33, 63, 64, 65, 127, 130} {
		for _, atEnd := range []bool{true, false} {
			for kind := range 4 {
				const rows = 3
				p := newProblem(r, kind, rows, clusters)
				use(t, portable)
				want := p.solve()
				t.Run("", func(t *testing.T) { // unmaps when done
					guardedBlock(t, p, &want, atEnd)
					guardedLogSums(t, p, atEnd)
				})
			}
		}
	}
}

func guardedBlock(t *testing.T, p *problem, want *outcome, atEnd bool) {
	clusters := len(p.v)
	for _, tw := range twins {
		use(t, tw)
		params, s := NewParams(p.lambda, p.v), NewScratch(clusters)
		params.v, params.v32 = move(t, params.v, atEnd), move(t, params.v32, atEnd)
		*s = Scratch{
			weights: move(t, s.weights, atEnd), groups: move(t, s.groups, atEnd), hits: move(t, s.hits, atEnd),
			listed: move(t, s.listed, atEnd), tiles: move(t, s.tiles, atEnd), reach: move(t, s.reach, atEnd), bounds: move(t, s.bounds, atEnd),
		}
		got := outcome{
			rows: Rows{
				Max: guarded[float64](t, p.rows, atEnd), Sum: guarded[float64](t, p.rows, atEnd),
				Best: guarded[int32](t, p.rows, atEnd), Second: guarded[float64](t, p.rows, atEnd),
				Low: guarded[float32](t, p.rows, atEnd), High: guarded[float32](t, p.rows, atEnd),
			},
			mass: guarded[float64](t, clusters, atEnd), dropped: guarded[float64](t, clusters, atEnd),
		}
		n := len(want.cluster)
		l := List{
			Margin: move(t, p.margin, atEnd), Dropped: got.dropped,
			End: append(guarded[int32](t, p.rows+1, atEnd)[:0], 1), Cluster: append(guarded[int32](t, n, atEnd)[:0], 7), X: append(guarded[float32](t, n, atEnd)[:0], -7),
		}
		got.bad = params.BlockLists(s, &got.rows, got.mass, move(t, p.x, atEnd), &l)
		got.end, got.cluster, got.x = l.End, l.Cluster, l.X
		if d := want.differs(&got); d != "" {
			t.Fatalf("%s, K=%d: %s", tw.name, clusters, d)
		}
	}
}

func guardedLogSums(t *testing.T, p *problem, atEnd bool) {
	clusters := len(p.v)
	shift := make([]float64, p.rows)
	use(t, portable)
	want := p.logSumsBy(p.rows, shift, p.v)
	for _, tw := range twins {
		use(t, tw)
		start := p.logSumsBy(p.rows, shift, p.v) // any state of the right length
		copy(start.sum, make([]float64, clusters))
		for k := range start.max {
			start.max[k] = -1e300
		}
		max, sum := move(t, start.max, atEnd), move(t, start.sum, atEnd)
		if bad := LogSums(max, sum, nil, move(t, p.x, atEnd), move(t, shift, atEnd), move(t, p.v, atEnd), p.lambda); bad != want.bad {
			t.Fatalf("%s, K=%d: bad row %d", tw.name, clusters, bad)
		}
		if !sameBits(max, want.max) || !sameBits(sum, want.sum) {
			t.Fatalf("%s, K=%d: sums differ", tw.name, clusters)
		}
	}
}
