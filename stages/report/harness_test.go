package report_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/schemas"
	"sela/stages/internal/runtest"
	"sela/stages/report"
	"sela/stages/truth"
)

// Names that a page must show and never obey.
const (
	hostileKey   = "img/<script>alert(1)</script>.png"
	hostileQuote = `img/"onerror="alert(2)" x='.png`
	hostileClass = `</script><img src=x onerror=alert(3)>`
)

// world is a small labelled run with loose images and a tar, some of them
// broken, and names that mean harm.
type world struct {
	*runtest.Run
	truth *truth.Source
	table string // the truth as CSV
}

// newWorld labels 90 images in two heads of six clusters.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{Run: runtest.New(t, runtest.Options{Images: 60, Clusters: 6, Broken: 11, Job: func(j *pipeline.Job) { j.Label.MaxCountRatio = 6 }})}
	more := runtest.Images(90, 7)
	names := slices.Sorted(maps.Keys(more))
	for i, key := range []string{hostileKey, hostileQuote} {
		w.write(t, key, more[names[60+i]])
	}
	var b bytes.Buffer
	out := tar.NewWriter(&b)
	for _, name := range names[62:] {
		if err := out.WriteHeader(&tar.Header{Name: "member/" + name, Mode: 0o600, Size: int64(len(more[name]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write(more[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	w.write(t, "shard.tar", b.Bytes())
	w.Through(t, w.Run.Run, "label")

	var csv strings.Builder
	csv.WriteString("key,member,class\n")
	n := 0
	w.each(t, 0, func(l *schemas.Label) {
		class := []string{"cat", "dog", hostileClass}[n%3]
		if n++; n%10 != 0 { // the others have no class
			fmt.Fprintf(&csv, "%s,%s,%s\n", quoted(l.Key), quoted(l.Member), quoted(class))
		}
	})
	if n != 90 {
		t.Fatalf("%d images are labelled, want 90", n)
	}
	source, err := truth.Read(strings.NewReader(csv.String()), "truth.csv")
	if err != nil {
		t.Fatal(err)
	}
	w.truth, w.table = source, csv.String()
	return w
}

func quoted(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

func (w *world) write(t testing.TB, key string, data []byte) {
	t.Helper()
	path := filepath.Join(w.Dir, "images", filepath.FromSlash(key))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// image decodes an image of the bucket, or of a tar in it.
func (w *world) image(t testing.TB, key, member string, inTar bool) image.Image {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(w.Dir, "images", filepath.FromSlash(key)))
	if err != nil {
		t.Fatal(err)
	}
	var in io.Reader = bytes.NewReader(raw)
	if inTar {
		archive := tar.NewReader(in)
		for header := new(tar.Header); header.Name != member; {
			if header, err = archive.Next(); err != nil {
				t.Fatal(err)
			}
		}
		in = archive
	}
	img, err := png.Decode(in)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// each calls fn for the label rows of a head.
func (w *world) each(t testing.TB, head int, fn func(*schemas.Label)) {
	t.Helper()
	commits, err := w.AllCommits(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commits {
		for _, o := range c.Outputs {
			if !strings.HasPrefix(o.Name, fmt.Sprintf("labels/head=%d/", head)) {
				continue
			}
			err := schemas.ReadLabels(filepath.Join(w.Dir, "work", filepath.FromSlash(w.Path(o.Path))), func(l *schemas.Label) error {
				fn(l)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// options are those of a report into a folder of its own.
func (w *world) options(t testing.TB) report.Options {
	t.Helper()
	dir := t.TempDir()
	return report.Options{Run: w.Run.Run, Spec: pipeline.DefaultJob().Report, Images: w.Images, Truth: w.truth,
		To: runtest.Bucket(t, "file://"+dir), Prefix: report.Folder}
}

// made writes a report and returns its files by name.
func made(t testing.TB, o report.Options) (map[string]string, *report.Summary) {
	t.Helper()
	sum, err := report.Write(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	var bytes int64
	for key, content := range runtest.Objects(t, o.To, o.Prefix) {
		files[strings.TrimPrefix(key, o.Prefix)] = content
		bytes += int64(len(content))
	}
	if len(files) != sum.Files || bytes != sum.Bytes || files["index.html"] == "" || sum.Page != o.Prefix+"index.html" {
		t.Fatalf("%d files of %d bytes, the summary says %+v", len(files), bytes, sum)
	}
	return files, sum
}

// columns are the data of a head as the page's script gets them.
type columns struct {
	Size, Sure, Pure, Class, Changed, Order, Count, Folder, Prob, Of []int
	Name, Folders, Classes                                           []string
	Missing                                                          map[string]string
}

func (c *columns) image(i int) string { return c.Folders[c.Folder[i]] + c.Name[i] }

func parse(t testing.TB, files map[string]string, head int) *columns {
	t.Helper()
	text := files[fmt.Sprintf("data/head-%d.js", head)]
	inner, ok := strings.CutPrefix(strings.TrimSuffix(text, ");\n"), "report.take(")
	if !ok {
		t.Fatalf("head %d: %.60q", head, text)
	}
	var c columns
	if err := json.Unmarshal([]byte(inner), &c); err != nil {
		t.Fatal(err)
	}
	return &c
}

// localFolder is the path of a report in a folder bucket, with a slash behind.
func localFolder(o report.Options) string {
	return strings.TrimPrefix(o.To.URL(), "file://") + "/" + o.Prefix
}
