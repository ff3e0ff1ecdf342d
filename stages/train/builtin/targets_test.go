package builtin

import (
	"context"
	"slices"
	"strings"
	"testing"

	"sela/pipeline"
)

func TestTargets(t *testing.T) {
	d := newDataSet(t, true, 3, 2)
	classes := []string{"a", "b", "c d", "e", "f", "g", "h", "i", "j"}
	table := "\ufeffkey,member," + strings.Join(classes, ",") + "\n" +
		"b/1.tar,x/1.png,1,0,0,0,0,0,0,0,1\n" +
		"\"a/002.png\",,0,1,0,0,0,0,0,1,0\r\n" +
		"b/1.tar,x/0.png,0,0,0,0,0,0,0,0,0\n"
	l, err := ReadTargets(context.Background(), strings.NewReader(table), "voc.csv", d.listing())
	if err != nil {
		t.Fatal(err)
	}
	if l.Len() != 3 || !slices.Equal(l.Heads, []int{9}) || !slices.Equal(l.Classes, classes) || len(l.Digest) != 64 {
		t.Fatalf("%+v", l)
	}
	want := map[string]string{"a/002.png": "010000010", "b/1.tarx/0.png": "000000000", "b/1.tarx/1.png": "100000001"}
	for i := range l.Len() {
		img := l.Image(i)
		var got strings.Builder
		for k := range classes {
			if l.Target(i, k) {
				got.WriteByte('1')
			} else {
				got.WriteByte('0')
			}
		}
		if listed := d.listed[img.Row]; got.String() != want[img.Key+img.Member] || listed.Key != img.Key || listed.Member != img.Member || listed.Offset != img.Offset {
			t.Errorf("%+v has %s", img, &got)
		}
	}
}

func TestHostileTargets(t *testing.T) {
	d := newDataSet(t, true, 3, 2)
	for _, c := range []struct{ name, table, want string }{
		{"empty", "", "header"},
		{"no classes", "key,member\n", "want key, member and the names"},
		{"other header", "image,member,a\n", "want key, member"},
		{"a class without a name", "key,member,a,\n", `class 1 is called ""`},
		{"a class twice", "key,member,a,a\n", `class 1 is called "a"`},
		{"no lines", "key,member,a\n", "no images"},
		{"too few columns", "key,member,a\na/000.png,\n", "wrong number of fields"},
		{"no number", "key,member,a\n\na/000.png,,yes\n", `line 3: a is "yes"`},
		{"no key", "key,member,a\n,,1\n", "line 2: it has no key"},
		{"twice", "key,member,a\na/000.png,,1\na/001.png,,1\na/000.png,,0\n", `line 4: image "a/000.png" "" stands in line 2`},
		{"a quote that does not end", "key,member,a\n\"a/000.png,,1\n", "quote"},
		{"unknown image", "key,member,a\na/000.png,,1\nq.png,,1\n", `"q.png"`},
		{"unknown member", "key,member,a\nb/0.tar,x/2.png,1\n", `"x/2.png"`},
		{"a tar for an image", "key,member,a\nb/0.tar,,1\n", `"b/0.tar" ""`},
	} {
		_, err := ReadTargets(context.Background(), strings.NewReader(c.table), "voc.csv", d.listing())
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "voc.csv") || pipeline.ClassOf(err) != pipeline.Data {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
