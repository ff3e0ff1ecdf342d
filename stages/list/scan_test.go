package list

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
)

func TestLooseObjects(t *testing.T) {
	m := newMemory()
	for _, key := range []string{
		"a.jpg", "B.JPEG", "dir/c.Png", "dir/_d.jpg", "with space'\"%20.jpg", "ünï.png",
		"notes.txt", "noextension", "jpg", "x.jpg.bak",
		".hidden.jpg", "dir/._c.png", ".cache/e.jpg", "dir/.thumbs/f.jpg",
	} {
		m.put(key, []byte(key))
	}
	m.put("dir/empty.jpg", nil)
	m.put("folder.jpg/", nil)
	m.put("bad\xff.jpg", []byte("x"))
	m.put("bad\xff.txt", []byte("x"))
	m.objects = append(m.objects, bucket.Object{Key: "\xf0dir/", IsDir: true})

	f := scan(m, Options{})
	f.check(t,
		[]string{"B.JPEG", "a.jpg", "dir/_d.jpg", "dir/c.Png", "with space'\"%20.jpg", "ünï.png"},
		[]string{"not-utf8 " + hex.EncodeToString([]byte("bad\xff.jpg")), "empty dir/empty.jpg"})
	if !f.rejected[0].KeyHex || f.rejected[1].KeyHex {
		t.Errorf("KeyHex is wrong: %+v", f.rejected)
	}
	if f.summary.Skipped != 9 {
		t.Errorf("skipped %d objects, want 9", f.summary.Skipped)
	}
	if img := f.images[1]; img.ETag != "tag-5" || img.Size != 5 || img.Offset != 0 {
		t.Errorf("image %+v", img)
	}
	if m.opens != 0 {
		t.Errorf("%d objects were opened to list loose files", m.opens)
	}
}

func TestPrefixAndGlob(t *testing.T) {
	keys := []string{"root.jpg", "train/a.jpg", "train/b.png", "train/x/c.jpg", "train/x/y/d.jpg", "train2/e.jpg", "val/f.jpg", "val/[g].jpg"}
	m := newMemory()
	for _, key := range keys {
		m.put(key, []byte("1"))
	}
	for _, c := range []struct {
		prefix, glob string
		want         []string
	}{
		{"", "", []string{"root.jpg", "train/a.jpg", "train/b.png", "train/x/c.jpg", "train/x/y/d.jpg", "train2/e.jpg", "val/[g].jpg", "val/f.jpg"}},
		{"train", "", []string{"train/a.jpg", "train/b.png", "train/x/c.jpg", "train/x/y/d.jpg", "train2/e.jpg"}},
		{"train/", "", []string{"train/a.jpg", "train/b.png", "train/x/c.jpg", "train/x/y/d.jpg"}},
		{"train/a.jpg", "", []string{"train/a.jpg"}},
		{"", "*.jpg", []string{"root.jpg"}},
		{"", "*/*.jpg", []string{"train/a.jpg", "train2/e.jpg", "val/[g].jpg", "val/f.jpg"}},
		{"", "**/*.png", []string{"train/b.png"}},
		{"", "**", keys[:0:0]},
		{"", "train/**", []string{"train/a.jpg", "train/b.png", "train/x/c.jpg", "train/x/y/d.jpg"}},
		{"", "**/x/**/d.jpg", []string{"train/x/y/d.jpg"}},
		{"", "**/x/**/**/?.jpg", []string{"train/x/c.jpg", "train/x/y/d.jpg"}},
		{"train", "x/*.jpg", []string{"train/x/c.jpg"}},
		{"train/", "/x/*.jpg", []string{"train/x/c.jpg"}},
		{"train/", "[ab].*", []string{"train/a.jpg", "train/b.png"}},
		{"", `val/\[g\].jpg`, []string{"val/[g].jpg"}},
		{"", "train/x", nil},
	} {
		if c.glob == "**" {
			c.want = scan(m, Options{}).names()
		}
		f := scan(m, Options{Prefix: c.prefix, Glob: c.glob})
		if got := f.names(); !slices.Equal(got, c.want) {
			t.Errorf("prefix %q glob %q: got %q, want %q", c.prefix, c.glob, got, c.want)
		}
	}
}

func TestGlobTakesLinearTime(t *testing.T) {
	pattern := strings.Split(strings.Repeat("**/a/", 200)+"b", "/")
	name := strings.Split(strings.Repeat("a/", 2000)+"c", "/")
	if match(pattern, name) {
		t.Error("matched")
	}
}

func TestBadOptions(t *testing.T) {
	for _, opts := range []Options{
		{Glob: "[a-"}, {Glob: "a**/b"}, {Glob: "*.{jpg,png}"}, {Limit: -1}, {Sample: -0.1}, {Sample: 1.5}, {Sample: nan()},
	} {
		f := scan(newMemory().put("a.jpg", []byte("1")), opts)
		if pipeline.ClassOf(f.err) != pipeline.Config {
			t.Errorf("%+v: error %v has class %v", opts, f.err, pipeline.ClassOf(f.err))
		}
	}
}

func nan() float64 { var zero float64; return zero / zero }

func TestSample(t *testing.T) {
	m := mixed(t, 10, 300, 8, 200)
	all := scan(m, Options{}).names()
	last := []string(nil)
	for _, share := range []float64{0.01, 0.1, 0.5, 0.999} {
		f := scan(m, Options{Sample: share})
		f.invariants(t)
		got := f.names()
		n := float64(len(all))
		if d := float64(len(got)) - share*n; d*d > 16*n*share*(1-share) {
			t.Errorf("share %v took %d of %v images", share, len(got), n)
		}
		chosen := map[string]bool{}
		for _, name := range got {
			chosen[name] = true
		}
		for _, name := range last {
			if !chosen[name] {
				t.Errorf("%s belongs to a smaller share, but not to %v", name, share)
			}
		}
		last = got
	}
	if got := scan(m, Options{Sample: 1}).names(); !slices.Equal(got, all) {
		t.Errorf("share 1 took %d of %d images", len(got), len(all))
	}
}

// The hash is part of the format: a sample must not change between versions.
func TestSampleIsStable(t *testing.T) {
	for _, c := range []struct{ key, member string }{{"a.jpg", ""}, {"s/0.tar", "cat/1.jpg"}, {strings.Repeat("k", 900), "ü.png"}} {
		sum := sha256.Sum256([]byte("sela images.sample\x00" + c.key + "\x00" + c.member))
		share := float64(binary.BigEndian.Uint64(sum[:])) / (1 << 32) / (1 << 32)
		for _, d := range []float64{-1e-9, 1e-9} {
			f, err := newFilter(Options{Sample: share + d})
			if err != nil {
				t.Fatal(err)
			}
			if f.sampled(c.key, c.member) != (d > 0) {
				t.Errorf("%q: wrong at %v of its hash", c, d)
			}
		}
	}
}

func TestLimit(t *testing.T) {
	m := mixed(t, 6, 300, 6, 100)
	m.put("loose-00000-empty.jpg", nil)
	all := scan(m, Options{})
	for _, limit := range []int64{1, 2, 255, 256, 257, 700, all.summary.Images, all.summary.Images + 1} {
		var first Summary
		for _, n := range []int{1, 8} {
			f := scan(m, Options{Limit: limit, Concurrency: n})
			f.check(t, all.names()[:min(limit, all.summary.Images)], f.refusals())
			if n == 1 {
				first = f.summary
			} else if f.summary != first {
				t.Errorf("limit %d: %+v at concurrency %d, %+v at 1", limit, f.summary, n, first)
			}
		}
	}
}

func TestNoImages(t *testing.T) {
	for _, c := range []struct {
		m    *memory
		opts Options
		want string
	}{
		{newMemory(), Options{}, "no images in the bucket (0 objects seen, 0 objects and members skipped, 0 rejected)"},
		{newMemory().put("d/a.txt", []byte("x")), Options{Prefix: "d/"}, `no images under "d/" (1 objects seen, 1 objects`},
		{newMemory().put("a.jpg", []byte("x")), Options{Glob: "*.png"}, "images.glob"},
		{newMemory().put("a.jpg", nil), Options{}, `first rejected: "a.jpg" "": the object has no bytes`},
		{newMemory().put("a.tar", makeTar(t, file("a.json", "{}"))), Options{}, "(1 objects seen, 1 objects and members skipped"},
		{newMemory().put("a.tar", makeTar(t)), Options{}, "(1 objects seen, 0 objects"},
	} {
		f := scan(c.m, c.opts)
		if pipeline.ClassOf(f.err) != pipeline.Data || !strings.Contains(f.err.Error(), c.want) {
			t.Errorf("got %v (class %v), want %q", f.err, pipeline.ClassOf(f.err), c.want)
		}
		if err := fmt.Sprint(f.err); !strings.Contains(err, ".jpeg .jpg .png, and *.tar") {
			t.Errorf("error does not name the extensions: %v", err)
		}
	}
}

func TestBrokenStore(t *testing.T) {
	for _, keys := range [][]string{{"b.jpg", "a.jpg"}, {"a.jpg", "a.jpg"}, {"b.txt", "a/"}} {
		m := newMemory()
		for _, key := range keys {
			m.objects = append(m.objects, bucket.Object{Key: key, Size: 1})
		}
		if f := scan(m, Options{}); pipeline.ClassOf(f.err) != pipeline.Config || !strings.Contains(f.err.Error(), "byte order") {
			t.Errorf("keys %q: %v", keys, f.err)
		}
	}
}

// failing fails as its fields say.
type failing struct {
	*memory
	list error // after all objects
	open error
	cut  int // bytes after which readers end
}

func (b *failing) List(ctx context.Context, prefix string, fn func(bucket.Object) error) error {
	if err := b.memory.List(ctx, prefix, fn); err != nil {
		return err
	}
	return b.list
}

func (b *failing) NewReader(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if b.open != nil {
		return nil, b.open
	}
	r, err := b.memory.NewReader(ctx, key, off, n)
	if err == nil && b.cut > 0 {
		r = io.NopCloser(io.LimitReader(r, int64(b.cut)))
	}
	return r, err
}

func TestStoreErrors(t *testing.T) {
	own := errors.New("the store is down")
	tarball := makeTar(t, file("a.jpg", "1"), file("b.jpg", "2"))
	for _, c := range []struct {
		name  string
		b     failing
		is    error
		class pipeline.Class
	}{
		{"list", failing{list: own}, own, pipeline.Bug},
		{"open", failing{open: own}, own, pipeline.Bug},
		{"deleted", failing{open: bucket.ErrNotFound}, bucket.ErrNotFound, pipeline.Transient},
		{"replaced", failing{open: bucket.ErrChanged}, bucket.ErrChanged, pipeline.Transient},
		{"shorter than listed", failing{cut: 700}, io.ErrUnexpectedEOF, pipeline.Transient},
	} {
		c.b.memory = newMemory().put("a.jpg", []byte("1")).put("m.tar", tarball).put("z.jpg", []byte("1"))
		f := scan(&c.b, Options{})
		if !errors.Is(f.err, c.is) || pipeline.ClassOf(f.err) != c.class {
			t.Errorf("%s: got %v of class %v, want %v of class %v", c.name, f.err, pipeline.ClassOf(f.err), c.is, c.class)
		}
		if c.b.list == nil && !strings.Contains(fmt.Sprint(f.err), "index tar m.tar: at byte ") {
			t.Errorf("%s: %v does not name the object and byte", c.name, f.err)
		}
		if len(f.rejected) != 0 {
			t.Errorf("%s: a fault of the store became %v", c.name, f.refusals())
		}
	}
}

func TestReceiverErrors(t *testing.T) {
	own := errors.New("disk full")
	m := mixed(t, 4, 300, 4, 50)
	m.put("loose-00000-empty.jpg", nil)
	for range 6 {
		_, err := Scan(context.Background(), m, Options{Extensions: extensions},
			func(img schemas.Image) error {
				if img.Row == 400 {
					return own
				}
				return nil
			}, func(schemas.Quarantine) error { return nil })
		if err != own {
			t.Fatalf("emit: got %v", err)
		}
		_, err = Scan(context.Background(), m, Options{Extensions: extensions},
			func(schemas.Image) error { return nil },
			func(schemas.Quarantine) error { return own })
		if err != own {
			t.Fatalf("reject: got %v", err)
		}
	}
}

func TestCancel(t *testing.T) {
	for range 6 {
		ctx, cancel := context.WithCancel(context.Background())
		m := mixed(t, 2, 300, 4, 50)
		_, err := Scan(ctx, m, Options{Extensions: extensions},
			func(img schemas.Image) error {
				if img.Row == 100 {
					cancel()
				}
				return nil
			}, func(schemas.Quarantine) error { return nil })
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		cancel()
		m.mu.Lock()
		if m.busy != 0 {
			t.Errorf("%d listings and readers are still in use after Scan returned", m.busy)
		}
		m.mu.Unlock()
	}
}

// mixed makes a bucket of tars with loose files between them, with something to
// skip and to reject among them.
func mixed(t testing.TB, tars, perTar, stretches, perStretch int) *memory {
	m := newMemory().put("a.txt", []byte("text"))
	for i := range tars {
		var members []member
		for j := range perTar {
			members = append(members, file(fmt.Sprintf("%d/%04d.jpg", j%7, j), strings.Repeat("x", 1+(i*31+j*17)%1500)))
			if j%5 == 0 {
				members = append(members, file(fmt.Sprintf("%04d.json", j), "{}"))
			}
		}
		members = append(members, file("../x.jpg", "x"))
		m.put(fmt.Sprintf("loose-%05d-shard.tar", i*97%1000), makeTar(t, members...))
	}
	for i := range stretches {
		for j := range perStretch {
			m.put(fmt.Sprintf("loose-%05d-%04d.jpg", i*89%1000, j), []byte("xyz"))
		}
	}
	return m
}

func TestSameForAnyConcurrency(t *testing.T) {
	m := mixed(t, 30, 150, 5, 300)
	want := scan(m, Options{Concurrency: 1})
	if want.err != nil || want.summary.Images != 30*150+5*300 || want.summary.Rejected != 30 || want.summary.Skipped != 30*30+1 {
		t.Fatalf("%+v, %v", want.summary, want.err)
	}
	want.invariants(t)
	for _, n := range []int{2, 8, 64, 0} {
		if got := scan(m, Options{Concurrency: n}); !reflect.DeepEqual(got, want) {
			t.Errorf("concurrency %d: %+v, want %+v", n, got.summary, want.summary)
		}
	}
}

func TestSkippedCountsOnce(t *testing.T) {
	m := newMemory().put("a.txt", []byte("1")).put("b.tar", makeTar(t, file("1.jpg", "1"), file("1.cls", "1"))).put("c.jpg", []byte("1")).put("d.txt", []byte("1"))
	if f := scan(m, Options{}); f.summary.Skipped != 3 {
		t.Errorf("skipped %d, want 3", f.summary.Skipped)
	}
}

func TestDigest(t *testing.T) {
	m := newMemory().put("a.jpg", []byte("abc")).put("b.tar", makeTar(t, file("m.png", "12345")))
	digest := func(title string, tags bool) string {
		want := sha256.New()
		str := func(s string) { binary.Write(want, binary.LittleEndian, int64(len(s))); io.WriteString(want, s) }
		num := func(n int64) { binary.Write(want, binary.LittleEndian, n) }
		row := func(key, member string, size, offset int64, tag string) {
			str(key)
			str(member)
			num(size)
			num(offset)
			if tags {
				str(tag)
			}
		}
		io.WriteString(want, title+"\n")
		row("a.jpg", "", 3, 0, "tag-3")
		row("b.tar", "m.png", 5, 512, "tag-2048")
		return hex.EncodeToString(want.Sum(nil))
	}
	first := scan(m, Options{}).summary
	if want := digest("sela listing 1", false); first.Digest != want {
		t.Errorf("digest %s, want %s", first.Digest, want)
	}
	if want := digest("sela snapshot 1", true); first.Snapshot != want {
		t.Errorf("snapshot %s, want %s", first.Snapshot, want)
	}
	m.objects[0].ETag = "other"
	if again := scan(m, Options{}).summary; again.Digest != first.Digest || again.Snapshot == first.Snapshot {
		t.Errorf("another tag: digest %s was %s, snapshot %s was %s; only the snapshot depends on tags", again.Digest, first.Digest, again.Snapshot, first.Snapshot)
	}
}

// counted lists n keys that it makes up on the way.
type counted struct {
	*memory
	n int
}

func (c counted) List(_ context.Context, _ string, fn func(bucket.Object) error) error {
	for i := range c.n {
		if err := fn(bucket.Object{Key: fmt.Sprintf("images/%08d.jpg", i), Size: 1000, ETag: `"0123456789abcdef0123456789abcdef"`}); err != nil {
			return err
		}
	}
	return nil
}

func TestMillionKeysInBoundedMemory(t *testing.T) {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	start, peak := stats.HeapAlloc, uint64(0)
	summary, err := Scan(context.Background(), counted{newMemory(), 1_000_000}, Options{Extensions: extensions},
		func(img schemas.Image) error {
			if img.Row%50_000 == 0 {
				runtime.ReadMemStats(&stats)
				peak = max(peak, stats.HeapAlloc)
			}
			return nil
		}, func(schemas.Quarantine) error { return nil })
	if err != nil || summary.Images != 1_000_000 || summary.Bytes != 1e9 {
		t.Fatalf("%+v, %v", summary, err)
	}
	if grown := int64(peak) - int64(start); grown > 16<<20 {
		t.Errorf("the heap grew by %d bytes for a million keys, which alone take %d", grown, 1_000_000*19)
	}
}
