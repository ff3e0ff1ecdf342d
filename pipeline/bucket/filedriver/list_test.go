package filedriver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gocloud.dev/blob/driver"
)

func open(t testing.TB, dir string) *bucket {
	t.Helper()
	d, err := New(dir, Options{CreateDir: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d.(*bucket)
}

// lay makes files, with their folders, by other means than the driver.
func lay(t testing.TB, dir string, keys ...string) {
	t.Helper()
	for _, key := range keys {
		path := filepath.Join(dir, key)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(key), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

func list(t testing.TB, b *bucket, opts driver.ListOptions) []string {
	t.Helper()
	var keys []string
	for {
		page, err := b.ListPaged(context.Background(), &opts)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Objects {
			if o.IsDir != strings.HasSuffix(o.Key, "/") && opts.Delimiter == "/" {
				t.Errorf("%q: IsDir is %v", o.Key, o.IsDir)
			}
			keys = append(keys, o.Key)
		}
		if opts.PageSize > 0 && len(page.Objects) > opts.PageSize {
			t.Errorf("a page of %d objects, at most %d were asked for", len(page.Objects), opts.PageSize)
		}
		if len(page.NextPageToken) == 0 {
			return keys
		}
		opts.PageToken = page.NextPageToken
	}
}

// fold is the definition of a listing: filter, cut at the delimiter, sort, once.
func fold(keys []string, prefix, delimiter string) []string {
	var out []string
	for _, key := range keys {
		rest, ok := strings.CutPrefix(key, prefix)
		if !ok {
			continue
		}
		if i := strings.Index(rest, delimiter); delimiter != "" && i >= 0 {
			key = prefix + rest[:i+len(delimiter)]
		}
		out = append(out, key)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestListEqualsDefinition compares listings of random trees, of every page
// size, window size, prefix and delimiter, with the definition.
func TestListEqualsDefinition(t *testing.T) {
	defer func(n int) { windowSize = n }(windowSize)
	names := []string{"a", "b", "a-b", "a.b", "a0", "a b", "é", "z", "a\x01", "a\xff", "A", "-", "'\"%"}
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 1))
		dir := t.TempDir()
		taken := map[string]bool{} // as a file
		var keys []string
		for range 60 {
			var segments []string
			for range 1 + rng.IntN(3) {
				segments = append(segments, names[rng.IntN(len(names))])
			}
			key := strings.Join(segments, "/")
			clash := taken[key]
			for i, c := range key {
				clash = clash || c == '/' && taken[key[:i]]
			}
			if _, err := os.Stat(filepath.Join(dir, key)); clash || err == nil {
				continue
			}
			taken[key] = true
			lay(t, dir, key)
			keys = append(keys, key)
		}
		b := open(t, dir)
		for _, odd := range []string{"a//b", "../x", "a/./b", "a b/", "z/../z", "nul\x00"} {
			w, err := b.NewTypedWriter(t.Context(), odd, "", &driver.WriterOptions{})
			if err == nil {
				err = w.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, odd)
		}
		if err := os.MkdirAll(filepath.Join(dir, "a/empty/empty"), 0o777); err != nil && !taken["a"] {
			t.Fatal(err)
		}
		for _, windowSize = range []int{1, 2, 5, 1 << 17} {
			for _, prefix := range []string{"", "a", "a/", "a/a", "a-b/", "z/", "nothing/", "../", "/", "a/../", "a//"} {
				for _, delimiter := range []string{"", "/", "b", "b/"} {
					want := fold(keys, prefix, delimiter)
					for _, size := range []int{0, 1, 3} {
						got := list(t, b, driver.ListOptions{Prefix: prefix, Delimiter: delimiter, PageSize: size})
						if !slices.Equal(got, want) {
							t.Fatalf("seed %d, window %d, prefix %q, delimiter %q, page size %d:\n got %q\nwant %q",
								seed, windowSize, prefix, delimiter, size, got, want)
						}
						b.cursors = nil
					}
					// Tokens alone find the place again.
					var got []string
					opts := driver.ListOptions{Prefix: prefix, Delimiter: delimiter, PageSize: 2}
					for {
						page, err := b.ListPaged(t.Context(), &opts)
						if err != nil {
							t.Fatal(err)
						}
						for _, o := range page.Objects {
							got = append(got, o.Key)
						}
						if opts.PageToken = page.NextPageToken; len(opts.PageToken) == 0 {
							break
						}
						b.cursors = nil
					}
					if !slices.Equal(got, want) {
						t.Fatalf("from tokens alone: seed %d, prefix %q, delimiter %q:\n got %q\nwant %q", seed, prefix, delimiter, got, want)
					}
				}
			}
		}
	}
}

func TestListFollowsLinks(t *testing.T) {
	elsewhere, dir := t.TempDir(), t.TempDir()
	lay(t, elsewhere, "set/1.jpg", "set/2.jpg", "file")
	lay(t, dir, "real/3.jpg")
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link(filepath.Join(elsewhere, "set"), "linked")
	link(filepath.Join(elsewhere, "file"), "linked-file")
	link("nowhere", "dangling")
	link("self", "self")
	link("..", "real/loop")
	b := open(t, dir)
	want := []string{"linked-file", "linked/1.jpg", "linked/2.jpg", "real/3.jpg"}
	if got := list(t, b, driver.ListOptions{}); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := list(t, b, driver.ListOptions{Prefix: "real/"}); !slices.Equal(got, want[3:]) {
		t.Errorf("below real/: got %q, want %q", got, want[3:])
	}
	if got := list(t, b, driver.ListOptions{Delimiter: "/"}); !slices.Equal(got, []string{"linked-file", "linked/", "real/"}) {
		t.Errorf("one level: got %q", got)
	}
}

func TestListRefusesToOmit(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("the superuser can read every folder")
	}
	dir := t.TempDir()
	lay(t, dir, "a/1", "b/2")
	if err := os.Chmod(filepath.Join(dir, "b"), 0); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(filepath.Join(dir, "b"), 0o777)
	if page, err := open(t, dir).ListPaged(t.Context(), &driver.ListOptions{}); err == nil {
		t.Errorf("listed %d objects of a bucket with an unreadable folder", len(page.Objects))
	}
}

func TestListHidesReserved(t *testing.T) {
	dir := t.TempDir()
	lay(t, dir, "x", Reserved+"/tmp/y", "inner/"+Reserved+"/tmp/z", "inner/w")
	if got := list(t, open(t, dir), driver.ListOptions{}); !slices.Equal(got, []string{"inner/w", "x"}) {
		t.Errorf("got %q", got)
	}
}

func TestCursorsAreBounded(t *testing.T) {
	dir := t.TempDir()
	for i := range 10 {
		lay(t, dir, fmt.Sprint(i, "/a"), fmt.Sprint(i, "/b"))
	}
	b := open(t, dir)
	for i := range 10 {
		if _, err := b.ListPaged(t.Context(), &driver.ListOptions{Prefix: fmt.Sprint(i), PageSize: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if len(b.cursors) > maxCursors {
		t.Errorf("%d listings are kept", len(b.cursors))
	}
}

// FuzzListPaged checks that no prefix, delimiter or token lists anything that
// is not below the root and does not begin with the prefix.
func FuzzListPaged(f *testing.F) {
	dir := f.TempDir()
	lay(f, dir, "outside", "root/a/b/c", "root/a-b", "root/a.b", "root/d")
	if err := os.Symlink("../a", filepath.Join(dir, "root/d-link")); err != nil {
		f.Fatal(err)
	}
	b := open(f, filepath.Join(dir, "root"))
	f.Add("", "", "")
	f.Add("../", "/", "")
	f.Add("a/", "/", "da/b/")
	f.Add("a", "-", "oa//")
	f.Add("/", "b", "\x00")
	f.Fuzz(func(t *testing.T, prefix, delimiter, token string) {
		page, err := b.ListPaged(context.Background(), &driver.ListOptions{
			Prefix: prefix, Delimiter: delimiter, PageToken: []byte(token), PageSize: 2})
		if err != nil {
			return
		}
		last := ""
		for _, o := range page.Objects {
			if !strings.HasPrefix(o.Key, prefix) || o.Key <= last || strings.Contains(o.Key, "outside") {
				t.Errorf("prefix %q, delimiter %q, token %q: listed %q after %q", prefix, delimiter, token, o.Key, last)
			}
			last = o.Key
		}
	})
}
