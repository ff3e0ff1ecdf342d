package list

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sela/pipeline"
)

func table(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "only.csv")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOnly(t *testing.T) {
	m := newMemory().put("a.jpg", []byte("1")).put("b.jpg", []byte("1")).put("empty.jpg", nil).put("x,\"y.jpg", []byte("1")).
		put("s.tar", makeTar(t, file("1.jpg", "x"), file("2.jpg", "y"), file("3.jpg", "z"))).
		put("t.tar", makeTar(t, file("1.jpg", "x")))
	all := scan(m, Options{})

	// In any order, some twice; the tar that holds none of them is not opened.
	m.opens = 0
	path := table(t, "key,member\ns.tar,3.jpg\nb.jpg,\n\"x,\"\"y.jpg\",\ns.tar,1.jpg\nempty.jpg,\nb.jpg,\n")
	f := scan(m, Options{Only: path})
	f.check(t, []string{"b.jpg", label("s.tar", "1.jpg"), label("s.tar", "3.jpg"), "x,\"y.jpg"}, []string{"empty empty.jpg"})
	if m.opens != 1 {
		t.Errorf("%d objects were opened, want the tar with the images", m.opens)
	}
	if f.summary.Digest == all.summary.Digest || f.summary.Digest == "" {
		t.Error("another listing has the same digest")
	}
	again := scan(m, Options{Only: "file://" + path})
	if again.err != nil || again.summary != f.summary {
		t.Errorf("by its URL: %v, %+v", again.err, again.summary)
	}

	// What the sample leaves out is not missing.
	if f := scan(m, Options{Only: path, Sample: 0.5}); f.err != nil && !strings.Contains(f.err.Error(), "no images") {
		t.Error(f.err)
	}
	// Nor is what comes after the limit.
	if f := scan(m, Options{Only: table(t, "key,member\na.jpg,\nnowhere.jpg,\n"), Limit: 1}); f.err != nil || !slices.Equal(f.names(), []string{"a.jpg"}) {
		t.Errorf("%v %v", f.names(), f.err)
	}
}

func TestOnlyOfImagesThatAreNotThere(t *testing.T) {
	m := newMemory().put("a.jpg", []byte("1")).put("s.tar", makeTar(t, file("1.jpg", "x")))
	lines := "key,member\na.jpg,\n"
	for i := range 7 {
		lines += fmt.Sprintf("gone-%d.jpg,\n", i)
	}
	f := scan(m, Options{Only: table(t, lines)})
	if pipeline.ClassOf(f.err) != pipeline.Data || !strings.Contains(f.err.Error(), `names 7 images`) ||
		!strings.Contains(f.err.Error(), `"gone-4.jpg", …`) || strings.Contains(f.err.Error(), "gone-5") {
		t.Errorf("seven are missing: %v", f.err)
	}
	f = scan(m, Options{Only: table(t, "key,member\ns.tar,2.jpg\na.jpg,\n")})
	if pipeline.ClassOf(f.err) != pipeline.Data || !strings.Contains(f.err.Error(), `"2.jpg" in "s.tar"`) {
		t.Errorf("a member is missing: %v", f.err)
	}
	f = scan(m, Options{Only: table(t, "key,member\na.jpg,\n"), Prefix: "s"})
	if pipeline.ClassOf(f.err) != pipeline.Data || !strings.Contains(f.err.Error(), "images.prefix") {
		t.Errorf("outside the prefix: %v", f.err)
	}
}

func TestUnusableOnly(t *testing.T) {
	m := newMemory().put("a.jpg", []byte("1"))
	for _, c := range []struct {
		text, want string
		class      pipeline.Class
	}{
		{"", "header", pipeline.Data},
		{"name,member\n", "line 1", pipeline.Data},
		{"key,member\n", "names no image", pipeline.Data},
		{"key,member\n,x.jpg\n", "line 2: it has no key", pipeline.Data},
		{"key,member\na.jpg\n", "record on line 2", pipeline.Data},
	} {
		f := scan(m, Options{Only: table(t, c.text)})
		if pipeline.ClassOf(f.err) != c.class || !strings.Contains(f.err.Error(), c.want) {
			t.Errorf("%q: %v", c.text, f.err)
		}
	}
	for _, source := range []string{filepath.Join(t.TempDir(), "none.csv"), "file://" + filepath.Join(t.TempDir(), "none.csv"), "file:///"} {
		if f := scan(m, Options{Only: source}); pipeline.ClassOf(f.err) != pipeline.Config || !strings.Contains(f.err.Error(), "images.only") {
			t.Errorf("%s: %v", source, f.err)
		}
	}
}
