package export

import (
	"archive/tar"
	"encoding/binary"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/schemas"
)

// TestHostileNames: every format refuses what it cannot hold with an error that
// quotes the image.
func TestHostileNames(t *testing.T) {
	for _, c := range []struct{ format, name, says string }{
		{"imagefolder", "../../etc/passwd.jpg", "out of the images' folder"},
		{"imagefolder", "/etc/passwd.jpg", "out of the images' folder"},
		{"imagefolder", "a/../b.jpg", "out of the images' folder"},
		{"imagefolder", "a\nb.jpg", `control character '\n'`},
		{"imagefolder", "a\rb.jpg", `control character '\r'`},
		{"imagefolder", "x.tar|1.jpg", "--format webdataset or torch"},
		{"webdataset", "a.jpg", "--format imagefolder or torch"},
		{"webdataset", "x.tar|../1.jpg", "out of the images' folder"},
		{"webdataset", "x.tar|/1.jpg", "out of the images' folder"},
		{"webdataset", "../x.tar|1.jpg", "out of the images' folder"},
		{"webdataset", "x.tar|a\x001.jpg", "control character"},
		{"webdataset", "x.tar|a/.jpg", "first dot"},
		{"webdataset", "x.tar|jpg", "first dot"},
		{"label-studio", "../1.jpg", "out of the images' folder"},
		{"label-studio", "a\u0085.jpg", "control character"},
		{"label-studio", "a?b.jpg", "? and #"},
		{"label-studio", "a#b.jpg", "? and #"},
		{"label-studio", "x.tar|1.jpg", "--format webdataset or torch"},
		{"torch", "../1.jpg", "out of the images' folder"},
		{"torch", "a\x00b.jpg", "zero byte"},
		{"torch", "x.tar|a\x00b.jpg", "zero byte"},
	} {
		t.Run(c.format+" "+c.name, func(t *testing.T) {
			all := rows("0.tar|0.jpg", c.name)
			if c.format == "imagefolder" || c.format == "label-studio" {
				all = rows("0.jpg", c.name)
			}
			_, got, err := run(t, options(t, publish(t, "s3://bucket", all), c.format))
			key, member, _ := strings.Cut(c.name, "|")
			quoted, _, _ := strings.Cut(unfit(&schemas.Label{Key: key, Member: member, Row: 3}, "").Error(), ": ")
			if pipeline.ClassOf(err) != pipeline.Data || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), quoted) {
				t.Errorf("%v; want %s and %q", err, quoted, c.says)
			}
			if len(got) > 0 && c.format != "webdataset" { // the tar before it is whole
				t.Errorf("it left %q", slices.Collect(maps.Keys(got)))
			}
			if _, ok := got["_SUCCESS"]; ok {
				t.Error("there is a _SUCCESS")
			}
		})
	}
	t.Run("two images of one sample", func(t *testing.T) {
		_, _, err := run(t, options(t, publish(t, "s3://bucket", rows("x.tar|1.left.jpg", "x.tar|2.jpg", "x.tar|1.right.jpg")), "webdataset"))
		if pipeline.ClassOf(err) != pipeline.Data || !strings.Contains(err.Error(), `"1.right.jpg"`) {
			t.Error(err)
		}
	})
}

// FuzzNames: whatever an image is called, a format refuses it by name or writes
// what reads back as this very name.
func FuzzNames(f *testing.F) {
	for _, name := range append(loosely(), inTars()...) {
		key, member, _ := strings.Cut(name, "|")
		f.Add(key, member)
	}
	f.Add("..", "a\x00")
	f.Add("a\r\n.jpg", "")
	f.Add("\\.", " ")
	f.Fuzz(func(t *testing.T, key, member string) {
		all := rows("x")
		all[0].Key, all[0].Member = key, member
		if w, err := schemas.CreateLabels(t.TempDir()+"/x", schemas.LabelsMeta{Clusters: clusters}); err != nil || errors.Join(w.Write(&all[0]), w.Abort()) != nil || key == "" {
			t.Skip("no label table holds it")
		}
		labels := publish(t, "s3://bucket", all)
		for _, format := range Formats() {
			o := options(t, labels, format)
			if format == "label-studio" {
				o.Images = "https://images.example/"
			}
			_, got, err := run(t, o)
			if err != nil {
				if pipeline.ClassOf(err) != pipeline.Data && !strings.Contains(err.Error(), "key") {
					t.Errorf("%s: %s: %v", format, name(&all[0]), err)
				}
				continue
			}
			if found := readBack(t, format, got, key); found != name(&all[0]) {
				t.Errorf("%s: %s is read back as %s", format, name(&all[0]), found)
			}
		}
	})
}

// readBack returns the name of the one image of an export.
func readBack(t *testing.T, format string, got map[string]string, key string) string {
	t.Helper()
	var l schemas.Label
	switch format {
	case "imagefolder":
		r := csv.NewReader(strings.NewReader(got["labels.csv"]))
		lines, err := r.ReadAll()
		if err != nil || len(lines) != 2 {
			t.Fatal(lines, err)
		}
		l.Key = lines[1][0]
	case "webdataset":
		r := tar.NewReader(strings.NewReader(got[key]))
		for range 2 {
			h, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			if path.Ext(h.Name) == ".json" {
				var row wdsRow
				if err := json.Unmarshal(data, &row); err != nil {
					t.Fatal(err)
				}
				l.Key, l.Member = row.Key, row.Member
				if sample, err := sampleName(&l); err != nil || sample+".json" != h.Name {
					t.Errorf("%s is no part of the sample of %s", h.Name, name(&l))
				}
			}
		}
	case "label-studio":
		var tasks []lsTask
		if err := json.Unmarshal([]byte(got["tasks-00000.json"]), &tasks); err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(tasks[0].Data.Image)
		if err != nil || u.Host != "images.example" || u.RawQuery != "" || u.Fragment != "" {
			t.Fatalf("%q: %v", tasks[0].Data.Image, err)
		}
		if l.Key = tasks[0].Data.Key; u.Path != "/"+l.Key {
			t.Errorf("the URL of %q is %q", l.Key, tasks[0].Data.Image)
		}
	case "torch":
		var ends [1]int64
		if _, err := binary.Decode([]byte(got["ends.int64"]), binary.LittleEndian, &ends); err != nil {
			t.Fatal(err)
		}
		l.Key, l.Member, _ = strings.Cut(got["names.utf8"][:ends[0]], "\x00")
	}
	return name(&l)
}
