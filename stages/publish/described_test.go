package publish

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/schemas"
	"sela/stages/internal/runtest"
)

// TestDescribed compares what card and croissant.json tell of a run with soft
// labels with the run.
func TestDescribed(t *testing.T) {
	d := newDataSet(t, runtest.Options{Images: 1500, Broken: 1, Job: func(j *pipeline.Job) { j.Label.TopK = 2 }}).copy(t)
	parts := strings.SplitN(string(d.read("README.md")), "---\n", 3)
	checkFront(t, parts[1], 1500, true)
	if !strings.Contains(parts[2], "| `top_k` | list of (label: int32, prob: float32) | ") {
		t.Errorf("the card does not describe top_k:\n%s", parts[2])
	}
	var c struct {
		ConformsTo   string `json:"conformsTo"`
		Name         string
		Distribution []struct {
			Type     string `json:"@type"`
			ID       string `json:"@id"`
			URL      string `json:"contentUrl"`
			Size     string `json:"contentSize"`
			SHA256   string
			Includes string
		}
		RecordSet []struct {
			ID    string `json:"@id"`
			Field []struct {
				ID       string `json:"@id"`
				Type     string `json:"dataType"`
				Repeated bool
				SubField []any
				Source   struct {
					FileSet struct {
						ID string `json:"@id"`
					}
					Extract struct{ Column string }
				}
			}
		}
	}
	if err := json.Unmarshal(d.read(croissantName), &c); err != nil {
		t.Fatal(err)
	}
	if c.ConformsTo != "http://mlcommons.org/croissant/1.0" || c.Name != "tiny run-1" {
		t.Errorf("%s conforms to %s", c.Name, c.ConformsTo)
	}
	sets := map[string]string{}
	files := d.manifest().Files
	for _, o := range c.Distribution {
		if o.Type == "cr:FileSet" {
			sets[o.ID] = o.Includes
			continue
		}
		at := slices.IndexFunc(files, func(f pipeline.Output) bool { return f.Name == o.URL })
		if at < 0 || files[at].SHA256 != o.SHA256 || o.Size != fmt.Sprintf("%d B", files[at].Bytes) {
			t.Errorf("%+v is not in the manifest", o)
			continue
		}
		files = slices.Delete(files, at, at+1)
	}
	if len(files) > 0 || len(sets) != 2 || len(c.RecordSet) != 2 {
		t.Fatalf("it lacks %v, or has file sets %v", files, sets)
	}
	types := map[string]string{"int64": "sc:Integer", "int32": "sc:Integer", "float32": "sc:Float", "string": "sc:Text"}
	for h, r := range c.RecordSet {
		columns := schemas.LabelColumns(true)
		if len(r.Field) != len(columns) {
			t.Fatalf("%d fields", len(r.Field))
		}
		for i, f := range r.Field {
			want := columns[i]
			if f.ID != fmt.Sprintf("head%d/%s", h, want.Name) {
				t.Errorf("field %s, want column %s", f.ID, want.Name)
			}
			if want.Fields != nil {
				if !f.Repeated || len(f.SubField) != 2 {
					t.Errorf("%+v", f)
				}
				continue
			}
			if f.Type != types[want.Type] || f.Source.Extract.Column != want.Name || sets[f.Source.FileSet.ID] != fmt.Sprintf("labels/head=%d/part-*.parquet", h) {
				t.Errorf("%+v, want %+v", f, want)
			}
		}
	}
}

// TestEarlierVersion: a folder that was published by an earlier version of this
// program, with fewer descriptions, is still read and verified.
func TestEarlierVersion(t *testing.T) {
	versions, err := filepath.Glob("testdata/v*")
	if err != nil || len(versions) == 0 {
		t.Fatal("the folders of earlier versions are gone", err)
	}
	for _, version := range versions {
		d := &dataSet{t: t, labels: filepath.Join(t.TempDir(), "labels")}
		d.must(os.CopyFS(d.labels, os.DirFS(version)))
		report, err := d.verify(t, VerifyOptions{})
		if err != nil || report.Images != 60 || report.Heads != 2 || report.Labels != 120 {
			t.Errorf("%s: %+v, %v", version, report, err)
		}
	}
}
