//go:build cgo && (amd64 || arm64) && !portable

package resample

// #cgo CFLAGS: -O3 -std=c11
// #cgo noescape across
// #cgo nocallback across
// #cgo noescape down
// #cgo nocallback down
// #include "twin.h"
//
// // twin_of returns the twins from the slowest on, null for one that this
// // processor cannot run.
// static const native_twin *twin_of(int i) {
// #ifdef __aarch64__
//     return i == 0 ? &resample_neon : 0;
// #else
//     __builtin_cpu_init();
//     if (i == 0)
//         return __builtin_cpu_supports("avx2") ? &resample_avx2 : 0;
//     return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni") &&
//            __builtin_cpu_supports("bmi2") ? &resample_avx512 : 0;
// #endif
// }
//
// static void across(const native_twin *w, table t, image_rows p, int64_t rows, uint8_t *cells) { w->across(t, p, rows, cells); }
// static void down(const native_twin *w, table t, image_rows p, int64_t bytes, uint8_t *cells) { w->down(t, p, bytes, cells); }
import "C"

import "unsafe"

// native returns the twins in C that this processor can run, best last.
func native() []twin {
	var found []twin
	for i := range 2 {
		w := C.twin_of(C.int(i))
		if w == nil {
			continue
		}
		found = append(found, twin{
			name:   C.GoString(w.name),
			layout: layout{int(w.size), int(w.count)},
			across: func(t *taps, in, out pixels, rows int, s *scratch) {
				C.across(w, tableOf(t), rowsOf(in, out), C.int64_t(rows), s.room(t, int(w.across_bytes)))
			},
			down: func(t *taps, in, out pixels, bytes int, s *scratch) {
				C.down(w, tableOf(t), rowsOf(in, out), C.int64_t(bytes), s.room(t, int(w.down_bytes)))
			},
		})
	}
	return found
}

func tableOf(t *taps) C.table {
	return C.table{
		n: C.int64_t(t.n), span: C.int64_t(t.span), groups: C.int64_t(t.groups),
		group:  (*C.int32_t)(unsafe.SliceData(t.group)),
		digits: (*C.int32_t)(unsafe.SliceData(t.digits)),
	}
}

func rowsOf(in, out pixels) C.image_rows {
	return C.image_rows{
		in: (*C.uint8_t)(unsafe.SliceData(in.pix)), out: (*C.uint8_t)(unsafe.SliceData(out.pix)),
		in_pitch: C.int64_t(in.pitch), out_pitch: C.int64_t(out.pitch),
	}
}

// room returns memory for the cells of as many samples as t reads, which need
// bytes each, at the start of a cache line.
func (s *scratch) room(t *taps, bytes int) *C.uint8_t {
	const line = 64
	s.cells = grow(s.cells, (t.span+3)/4*4*bytes+line-1)
	p := unsafe.SliceData(s.cells)
	return (*C.uint8_t)(unsafe.Add(unsafe.Pointer(p), -uintptr(unsafe.Pointer(p))%line))
}
