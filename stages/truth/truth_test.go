package truth

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sela/pipeline"
)

func TestFolders(t *testing.T) {
	s, err := Open(t.Context(), Folders)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ key, member, class string }{
		{"cats/1.jpg", "", "cats"},
		{"train/cats/1.jpg", "", "cats"},
		{"train-0.tar", "dog/1.jpg", "dog"},
		{"train-0.tar", "./dog/1.jpg", "dog"},
		{"train-0.tar", "a/dog/1.jpg", "dog"},
		{"folder/train-0.tar", "1.jpg", ""}, // the tar's folder is not the image's
		{"folder/train-0.tar", "./1.jpg", ""},
		{"1.jpg", "", ""},
	} {
		class, ok := s.Class(c.key, c.member)
		if ok != (c.class != "") || ok && class != c.class {
			t.Errorf("%q %q: class %q, %v; want %q", c.key, c.member, class, ok, c.class)
		}
	}
}

func TestTable(t *testing.T) {
	for _, c := range []struct{ name, table, wrong string }{
		{"good", "key,member,class\na.jpg,,cat\nb.tar,b.jpg,dog\nb.tar,b.jpg,dog\n", ""},
		{"byte order mark", "\ufeffkey,member,class\na.jpg,,cat\nb.tar,b.jpg,dog\n", ""},
		{"empty", "", "it has no images"},
		{"header only", "key,member,class\n", "it has no images"},
		{"header", "key,class,member\na.jpg,cat,\n", "line 1: its header"},
		{"columns", "key,member,class\na.jpg,,cat\nb.jpg,dog\n", "line 3"},
		{"quotes", "key,member,class\na.jpg,,\"cat\n", "line 2"},
		{"no key", "key,member,class\na.jpg,,cat\n,b.jpg,cat\n", "line 3: it has no key"},
		{"no class", "key,member,class\na.jpg,,\n", `line 2: image "a.jpg" has no class`},
		{"two classes", "key,member,class\nb.tar,b.jpg,dog\nb.tar,b.jpg,cat\n", `line 3: image "b.jpg" in "b.tar" is of class "cat" here, of class "dog"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Read(strings.NewReader(c.table), "t.csv")
			if c.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), c.wrong) || pipeline.ClassOf(err) != pipeline.Data {
					t.Fatalf("got %v (%v), want data error %q", err, pipeline.ClassOf(err), c.wrong)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if class, ok := s.Class("b.tar", "b.jpg"); !ok || class != "dog" {
				t.Errorf("class %q, %v", class, ok)
			}
			if class, ok := s.Class("b.tar", ""); ok {
				t.Errorf("the tar itself has class %q", class)
			}
		})
	}
}

func TestOpen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "truth.csv")
	if err := os.WriteFile(file, []byte("key,member,class\na.jpg,,cat\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, source := range []string{file, "file://" + file} {
		s, err := Open(t.Context(), source)
		if err != nil {
			t.Fatal(err)
		}
		if class, _ := s.Class("a.jpg", ""); class != "cat" {
			t.Errorf("%s: class %q", source, class)
		}
	}
	for _, source := range []string{"", file + ".gone", "file://" + file + ".gone", "file://" + file + "/", "nosuch://x/truth.csv"} {
		if _, err := Open(t.Context(), source); pipeline.ClassOf(err) != pipeline.Config {
			t.Errorf("%q: %v of class %v", source, err, pipeline.ClassOf(err))
		}
	}
}

// over yields images "key" or "key|member".
func over(images ...string) func(func(key, member string) error) error {
	return func(yield func(key, member string) error) error {
		for _, img := range images {
			key, member, _ := strings.Cut(img, "|")
			if err := yield(key, member); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestLabels(t *testing.T) {
	s, err := Open(t.Context(), Folders)
	if err != nil {
		t.Fatal(err)
	}
	names, labels, err := s.Labels(t.Context(), over("ship/1.jpg", "a.tar|cat/1.jpg", "ship/2.jpg", "b.tar|bird/9.jpg"))
	if err != nil || !slices.Equal(names, []string{"bird", "cat", "ship"}) || !slices.Equal(labels, []int32{2, 1, 2, 0}) {
		t.Errorf("names %q, labels %v, %v", names, labels, err)
	}

	names, labels, err = s.Labels(t.Context(), over("ship/1.jpg", "1.jpg", "2.jpg", "a.tar|3.jpg", "4.jpg", "5.jpg", "6.jpg", "cat/7.jpg"))
	if err == nil || pipeline.ClassOf(err) != pipeline.Data || !slices.Equal(names, []string{"cat", "ship"}) || !slices.Equal(labels, []int32{1, -1, -1, -1, -1, -1, -1, 0}) {
		t.Fatalf("names %q, labels %v, %v", names, labels, err)
	}
	for _, part := range []string{"6 of 8 images", `"1.jpg"`, `"3.jpg" in "a.tar"`, `"5.jpg", …`, "CSV"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
	if strings.Contains(err.Error(), `"6.jpg"`) {
		t.Errorf("%q names more than five", err)
	}

	broken := errors.New("broken")
	if _, labels, err := s.Labels(t.Context(), func(func(key, member string) error) error { return broken }); !errors.Is(err, broken) || labels != nil {
		t.Errorf("labels %v, %v", labels, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := s.Labels(ctx, over("cat/1.jpg")); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: %v", err)
	}
}
