package list

import (
	"archive/tar"
	"encoding/hex"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"sela/schemas"
)

func TestTarMembers(t *testing.T) {
	long := strings.Repeat("folder/", 40) + "image.jpg"
	jpeg := func(s string) string { return "\xff\xd8" + s }
	header := func(h tar.Header, data string) member { return member{h, data} }
	for _, c := range []struct {
		name             string
		tar              []byte
		images, rejected []string // without the key
		skipped          int64
	}{
		{name: "webdataset", tar: makeTar(t, file("0.jpg", jpeg("a")), file("0.json", "{}"), file("0.cls", "1"), file("1.JPG", jpeg("b")), file("1.txt", "")),
			images: []string{"0.jpg", "1.JPG"}, skipped: 3},
		{name: "folders and hidden", tar: makeTar(t,
			header(tar.Header{Name: "d/", Typeflag: tar.TypeDir}, ""), header(tar.Header{Name: "d.jpg/", Typeflag: tar.TypeDir}, ""),
			file("d/a.jpg", "1"), file("d/._a.jpg", "2"), file(".git/b.jpg", "3"), file("./c.jpg", "4"), file("./d/../e.jpg", "5")),
			images: []string{"d/a.jpg", "./c.jpg"}, skipped: 2, rejected: []string{"bad-name ./d/../e.jpg"}},
		{name: "pax and gnu long names", tar: makeTar(t,
			header(tar.Header{Name: long, Format: tar.FormatPAX}, "12"), header(tar.Header{Name: "2" + long, Format: tar.FormatGNU}, "345"), file("ü.png", "6")),
			images: []string{long, "2" + long, "ü.png"}},
		{name: "global header", tar: makeTar(t,
			header(tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}, ""), file("a.jpg", "1")),
			images: []string{"a.jpg"}},
		{name: "size from pax", tar: slices.Concat(pax("size", "5"), rawHeader("a.jpg", tar.TypeReg, octal(0)), padded("12345"), makeTar(t, file("b.jpg", "6"))),
			images: []string{"a.jpg", "b.jpg"}},
		{name: "bad names", tar: makeTar(t, file("../../x.jpg", "1"), file("/abs.jpg", "1"), file(`a\..\b.jpg`, "1"), file(`\c.jpg`, "1"),
			file("a..b/..c../d...jpg", "1"), file("x/../y.json", "1")),
			rejected: []string{"bad-name ../../x.jpg", "bad-name /abs.jpg", `bad-name a\..\b.jpg`, `bad-name \c.jpg`}, skipped: 2},
		{name: "dots inside names", tar: makeTar(t, file("a..b/c../d...jpg", "1")), images: []string{"a..b/c../d...jpg"}},
		{name: "duplicates", tar: makeTar(t, file("a.jpg", ""), file("a.jpg", "1"), file("b.jpg", "1"), file("a.jpg", "2"), file("a.jpg", "3"), file("a.json", ""), file("a.json", "")),
			images: []string{"a.jpg", "b.jpg"}, rejected: []string{"empty a.jpg", "duplicate a.jpg", "duplicate a.jpg"}, skipped: 2},
		{name: "links and devices", tar: makeTar(t, file("a.jpg", "1"),
			header(tar.Header{Name: "l.jpg", Linkname: "a.jpg", Typeflag: tar.TypeSymlink}, ""), header(tar.Header{Name: "h.jpg", Linkname: "a.jpg", Typeflag: tar.TypeLink}, ""),
			header(tar.Header{Name: "p.jpg", Typeflag: tar.TypeFifo}, ""), header(tar.Header{Name: "l", Linkname: "/etc/passwd", Typeflag: tar.TypeSymlink}, ""), file("z.jpg", "2")),
			images: []string{"a.jpg", "z.jpg"}, rejected: []string{"unsupported l.jpg", "unsupported h.jpg", "unsupported p.jpg"}, skipped: 1},
		{name: "sparse, pax", tar: slices.Concat(
			pax("GNU.sparse.size", "10", "GNU.sparse.numblocks", "2", "GNU.sparse.map", "0,1,9,1"), rawHeader("s.jpg", tar.TypeReg, octal(2)), padded("xy"), makeTar(t, file("b.jpg", "1"))),
			images: []string{"b.jpg"}, rejected: []string{"unsupported s.jpg"}},
		{name: "sparse at the end", tar: slices.Concat(gnuSparse("s.jpg"), makeTar(t)), rejected: []string{"unsupported s.jpg"}},
		{name: "sparse, gnu", tar: slices.Concat(gnuSparse("s.jpg"), makeTar(t, file("b.jpg", "1"))),
			images: []string{"b.jpg"}, rejected: []string{"unsupported s.jpg"}},
		{name: "old header without magic", tar: slices.Concat(v7Header("a.jpg", 3), padded("123")), images: []string{"a.jpg"}},
		{name: "no end blocks", tar: slices.Concat(rawHeader("a.jpg", tar.TypeReg, octal(3)), []byte("123")), images: []string{"a.jpg"}},
		{name: "one end block", tar: slices.Concat(rawHeader("a.jpg", tar.TypeReg, octal(3)), padded("123"), make([]byte, blockSize)), images: []string{"a.jpg"}},
		{name: "large record padding", tar: append(makeTar(t, file("a.jpg", "1")), make([]byte, 100*blockSize)...), images: []string{"a.jpg"}},
		{name: "empty", tar: makeTar(t)},
		{name: "no bytes", tar: nil, rejected: []string{"empty"}},
		{name: "not a tar", tar: []byte(strings.Repeat("no tar at all ", 100)), rejected: []string{"bad-tar"}},
		{name: "garbage after a member", tar: slices.Concat(rawHeader("a.jpg", tar.TypeReg, octal(3)), padded("123"), []byte(strings.Repeat("garbage ", 200))),
			images: []string{"a.jpg"}, rejected: []string{"bad-tar"}},
		{name: "two tars appended", tar: slices.Concat(makeTar(t, file("a.jpg", "1")), makeTar(t, file("b.jpg", "1"))),
			images: []string{"a.jpg"}, rejected: []string{"bad-tar"}},
		{name: "cut in a header", tar: slices.Concat(rawHeader("a.jpg", tar.TypeReg, octal(3)), padded("123"), rawHeader("b.jpg", tar.TypeReg, octal(1))[:99]),
			images: []string{"a.jpg"}, rejected: []string{"truncated"}},
		{name: "cut in a member that is no image", tar: slices.Concat(rawHeader("a.json", tar.TypeReg, octal(30)), []byte("{")),
			rejected: []string{"truncated a.json"}},
		{name: "not utf-8", tar: makeTar(t, file("\xe9.jpg", "1"), file("\xe9.txt", "1"), file("b.jpg", "1")),
			images: []string{"b.jpg"}, rejected: []string{"not-utf8 " + hex.EncodeToString([]byte("\xe9.jpg"))}, skipped: 1},
		{name: "very long name", tar: makeTar(t, file(strings.Repeat("é", 5000)+".jpg", "1"), file(strings.Repeat("n", 4092)+".jpg", "1")),
			images: []string{strings.Repeat("n", 4092) + ".jpg"}, rejected: []string{"bad-name " + strings.Repeat("é", 2048)}},
		{name: "header of 1 GB", tar: slices.Concat(rawHeader("a.jpg", tar.TypeReg, octal(1)), padded("1"), rawHeader("x", tar.TypeXHeader, octal(1<<30)), make([]byte, 3<<20)),
			images: []string{"a.jpg"}, rejected: []string{"bad-tar"}},
		{name: "negative size", tar: slices.Concat(rawHeader("a.jpg", tar.TypeReg, binarySize(-512)), padded("1")), rejected: []string{"bad-tar"}},
		{name: "negative size from pax", tar: slices.Concat(pax("size", "-512"), rawHeader("a.jpg", tar.TypeReg, octal(1)), padded("1")), rejected: []string{"bad-tar"}},
		{name: "size beyond 64 bits", tar: slices.Concat(pax("size", "99999999999999999999"), rawHeader("a.jpg", tar.TypeReg, octal(1)), padded("1")), rejected: []string{"bad-tar"}},
		{name: "largest size", tar: slices.Concat(rawHeader("a.jpg", tar.TypeReg, binarySize(math.MaxInt64)), padded("1")), rejected: []string{"truncated a.jpg"}},
		{name: "largest size, skipped type", tar: slices.Concat(rawHeader("a", 'Z', binarySize(math.MaxInt64-600)), padded("1")), rejected: []string{"truncated a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			const key = "dir/shard.TAR"
			f := scan(newMemory().put(key, c.tar), Options{})
			var images, rejected []string
			for _, name := range c.images {
				images = append(images, key+"|"+name)
			}
			for _, r := range c.rejected {
				class, name, _ := strings.Cut(r, " ")
				if class == classNotUTF8 {
					rejected = append(rejected, class+" "+hex.EncodeToString([]byte(key))+"|"+name)
				} else {
					rejected = append(rejected, class+" "+label(key, name))
				}
			}
			f.check(t, images, rejected)
			if f.summary.Skipped != c.skipped {
				t.Errorf("skipped %d, want %d", f.summary.Skipped, c.skipped)
			}
		})
	}
}

// gnuSparse makes an old GNU sparse member: one byte of data, ten with holes.
func gnuSparse(name string) []byte {
	b := rawHeader(name, tar.TypeGNUSparse, octal(1))
	copy(b[257:], "ustar  \x00")
	copy(b[386:], octal(9))
	copy(b[398:], octal(1))
	copy(b[483:], octal(10))
	checksum(b)
	return slices.Concat(b, padded("x"))
}

// v7Header makes a header of the oldest format: no magic, type 0.
func v7Header(name string, size int64) []byte {
	b := rawHeader(name, 0, octal(size))
	clear(b[257:])
	checksum(b)
	return b
}

// binarySize is a size in base 256, GNU's form of large and negative numbers.
func binarySize(n int64) string {
	b := make([]byte, 12)
	for i := range 8 {
		b[11-i] = byte(n >> (8 * i))
	}
	for i := range 4 {
		b[i] = byte(n >> 63)
	}
	b[0] |= 0x80
	return string(b)
}

func TestAddressesAreThoseOfTheData(t *testing.T) {
	var members []member
	want := map[string]string{}
	for i, format := range []tar.Format{tar.FormatUSTAR, tar.FormatPAX, tar.FormatGNU} {
		for j, n := range []int{1, 511, 512, 513, 70_000, 3 << 20} {
			name := fmt.Sprintf("%s/%d-%d.jpg", strings.Repeat("n", 80), i, j)
			if format != tar.FormatUSTAR {
				name = strings.Repeat("long", 60) + name
			}
			data := strings.Repeat(string(rune('a'+i*6+j)), n)
			want[name] = data
			members = append(members, member{tar.Header{Name: name, Format: format}, data})
		}
	}
	m := newMemory().put("a.tar", makeTar(t, members...))
	f := scan(m, Options{})
	f.invariants(t)
	if len(f.images) != len(want) {
		t.Fatalf("%d images, want %d", len(f.images), len(want))
	}
	for _, img := range f.images {
		if got := string(m.data["a.tar"][img.Offset : img.Offset+img.Size]); got != want[img.Member] {
			t.Errorf("%s: wrong bytes at %d+%d", img.Member, img.Offset, img.Size)
		}
	}
}

// A tar cut anywhere yields exactly the images whose data is complete, and one
// quarantine row whenever the cut is inside an entry.
func TestCutAnywhere(t *testing.T) {
	entries := []struct {
		start, dataEnd int64
		member
	}{
		{0, 512 + 600, file("a.jpg", strings.Repeat("a", 600))},
		{1536, 2049, file("b.jpg", "b")},
		{2560, 3074, file("c.json", "{}")},
		{3584, 6144, member{tar.Header{Name: strings.Repeat("d", 200) + ".jpg", Format: tar.FormatPAX}, strings.Repeat("d", 1024)}},
		{6144, 8192, member{tar.Header{Name: strings.Repeat("e", 200) + ".jpg", Format: tar.FormatGNU}, strings.Repeat("e", 512)}},
		{8192, 8704 + 1, file("f.jpg", "f")},
	}
	var members []member
	for _, e := range entries {
		members = append(members, e.member)
	}
	whole := makeTar(t, members...)
	if len(whole) != 9216+2*blockSize {
		t.Fatalf("the tar has %d bytes: its entries are not where the test takes them to be", len(whole))
	}
	for cut := int64(1); cut < int64(len(whole)); cut++ {
		f := scan(newMemory().put("x.tar", whole[:cut]), Options{})
		var images []string
		inside := 0 // entries that the cut is inside of
		for _, e := range entries {
			switch {
			case cut <= e.start:
			case cut < e.dataEnd:
				inside++
			case strings.HasSuffix(e.Name, ".jpg"):
				images = append(images, "x.tar|"+e.Name)
			}
		}
		f.check(t, images, f.refusals())
		if len(f.rejected) != inside {
			t.Errorf("rejected %q, want %d", f.refusals(), inside)
		}
		for _, q := range f.rejected {
			if q.Class != classTruncated || !strings.Contains(q.Message, fmt.Sprintf("the tar ends at byte %d, inside", cut)) {
				t.Errorf("%s: %s", q.Class, q.Message)
			}
		}
		if t.Failed() {
			t.Fatalf("cut at byte %d", cut)
		}
	}
}

func TestCompressedTars(t *testing.T) {
	m := newMemory()
	var want []string
	for _, suffix := range []string{"TAR.GZ", "tar.bz2", "tar.lz4", "tar.xz", "tar.zst", "tgz"} {
		key := "a." + suffix
		m.put(key, []byte("x"))
		want = append(want, "unsupported "+key)
	}
	m.put("b.gz", []byte("x")).put("c.jpg", []byte("x"))
	f := scan(m, Options{})
	f.check(t, []string{"c.jpg"}, want)
	if f.summary.Skipped != 1 {
		t.Errorf("skipped %d", f.summary.Skipped)
	}
}

func TestTarKeyNotUTF8(t *testing.T) {
	f := scan(newMemory().put("a.jpg", []byte("1")).put("\xff.tar", makeTar(t, file("a.jpg", "1"))), Options{})
	f.check(t, []string{"a.jpg"}, []string{"not-utf8 " + hex.EncodeToString([]byte("\xff.tar"))})
}

func TestRequests(t *testing.T) {
	var small, large, both []member
	for i := range 3000 {
		small = append(small, file(fmt.Sprintf("%d.jpg", i), strings.Repeat("x", 2000)))
	}
	for i := range 12 {
		large = append(large, file(fmt.Sprintf("large-%d.jpg", i), strings.Repeat("x", 3<<20)))
	}
	both = slices.Concat(large[:1], small)
	for _, c := range []struct {
		name    string
		members []member
		opens   int
		read    int64
		asked   int64 // beyond the first request, which is for everything
	}{
		{"small members are one stream", small, 1, math.MaxInt64, 0},
		{"large members are jumped over", large, len(large) + 1, 14 * firstSpan, 13 * firstSpan},
		{"small members behind a large one soon are one stream again", both, 6, math.MaxInt64, math.MaxInt64},
	} {
		m := newMemory().put("a.tar", makeTar(t, c.members...))
		f := scan(m, Options{})
		if f.err != nil || len(f.images) != len(c.members) {
			t.Fatalf("%s: %d images, %v", c.name, len(f.images), f.err)
		}
		if asked := m.asked - int64(len(m.data["a.tar"])); m.opens > c.opens || m.read > c.read || asked > c.asked {
			t.Errorf("%s: %d requests, %d bytes read, %d asked for again; want at most %d, %d, %d", c.name, m.opens, m.read, asked, c.opens, c.read, c.asked)
		}
	}
}

// A hostile tar may be slow to read through, but must not take memory: neither
// by a name of a megabyte, nor by a megabyte beside the name.
func TestHostileTarsTakeNoMemory(t *testing.T) {
	mega := strings.Repeat("n", 1<<20-200)
	var long, beside []byte
	for i := range 10 {
		name := fmt.Sprintf("%02d.jpg", i)
		entry := slices.Concat(rawHeader("a.jpg", tar.TypeReg, octal(1)), padded("1"))
		long = slices.Concat(long, pax("path", mega+name), entry)
		beside = slices.Concat(beside, pax("path", name, "comment", mega), entry)
	}
	m := newMemory()
	for i := range 2 {
		m.put(fmt.Sprintf("beside-%d.tar", i), beside).put(fmt.Sprintf("long-%d.tar", i), long)
	}
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	start := stats.HeapAlloc
	f := scan(m, Options{Concurrency: 2})
	runtime.GC()
	runtime.ReadMemStats(&stats)
	if len(f.images) != 20 || len(f.rejected) != 20 || f.rejected[0].Class != classBadName {
		t.Fatalf("%d images, rejected %q", len(f.images), f.refusals())
	}
	// What is kept are 40 rows with names of at most maxName.
	if grown := int64(stats.HeapAlloc) - int64(start); grown > 4<<20 {
		t.Errorf("%d bytes are kept after the scan", grown)
	}
	runtime.KeepAlive(f)
	runtime.KeepAlive(m)
}

func FuzzTar(f *testing.F) {
	f.Add(makeTar(f, file("a.jpg", "123"), file("b.json", "{}"), file("../c.png", "4")), uint8(1))
	f.Add(makeTar(f, member{tar.Header{Name: strings.Repeat("l", 200) + ".jpg", Format: tar.FormatGNU}, "1"}), uint8(3))
	f.Add(slices.Concat(pax("size", "5"), rawHeader("a.jpg", tar.TypeReg, octal(0)), padded("12345")), uint8(8))
	f.Add(slices.Concat(gnuSparse("s.jpg"), rawHeader("a.jpg", tar.TypeReg, binarySize(math.MaxInt64))), uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, n uint8) {
		m := newMemory().put("x.tar", data)
		one := scan(m, Options{Concurrency: 1})
		one.invariants(t)
		if one.err != nil && one.summary.Images > 0 {
			t.Errorf("error %v after %d images", one.err, one.summary.Images)
		}
		names := map[string]bool{}
		for _, img := range one.images {
			if img.Offset < blockSize || img.Offset+img.Size > int64(len(data)) {
				t.Errorf("%+v lies outside the tar of %d bytes", img, len(data))
			}
			if names[img.Member] || escapes(img.Member) {
				t.Errorf("name %q was let through", img.Member)
			}
			names[img.Member] = true
		}
		// Neighbours do not change what a tar yields.
		m.put("a.jpg", []byte("1")).put("y.tar", data)
		two := scan(m, Options{Concurrency: int(n % 9)})
		two.invariants(t)
		moved := slices.DeleteFunc(slices.Clone(two.images), func(img schemas.Image) bool { return img.Key != "x.tar" })
		if len(moved) != len(one.images) || len(two.rejected) != 2*len(one.rejected) || two.summary.Skipped != 2*one.summary.Skipped {
			t.Errorf("alone %+v, with neighbours %+v", one.summary, two.summary)
		}
	})
}
