package publish

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/schemas"
	"sela/stages/extract"
	"sela/stages/internal/runtest"
	"sela/stages/label"
)

// dataSet is a copy of a published data set, to be tampered with.
type dataSet struct {
	t      *testing.T
	of     *runtest.Run
	model  *extract.Classifier
	labels string // folder
	images string
	run    string // folder of the run in labels
}

// newDataSet publishes a run.
func newDataSet(t *testing.T, o runtest.Options) *dataSet {
	t.Helper()
	r := labelled(t, o)
	if err := publishTo(t, r, r.Labels); err != nil {
		t.Fatal(err)
	}
	return &dataSet{t: t, of: r, model: r.Classifier(t), labels: filepath.Join(r.Dir, "labels"), images: filepath.Join(r.Dir, "images")}
}

func (d *dataSet) verify(t *testing.T, o VerifyOptions) (*Report, error) {
	t.Helper()
	o.Labels, o.Dir, o.Bytes = runtest.Bucket(t, "file://"+d.labels), t.TempDir(), 64<<20
	if o.Model == nil && d.of != nil {
		o.Model = d.modelOn(t, d.of.Provenance)
	}
	report, err := Verify(context.Background(), o)
	if _, jsonErr := json.Marshal(report); jsonErr != nil {
		t.Error(jsonErr)
	}
	left, dirErr := os.ReadDir(o.Dir)
	if dirErr != nil || len(left) > 0 {
		t.Errorf("it left %v behind, %v", left, dirErr)
	}
	return report, err
}

// modelOn opens the model on a machine that is described by p.
func (d *dataSet) modelOn(t *testing.T, p pipeline.Provenance) func(context.Context, *pipeline.Record) (*Model, error) {
	return func(context.Context, *pipeline.Record) (*Model, error) {
		return &Model{Classifier: d.model, Images: runtest.Bucket(t, "file://"+d.images), Provenance: p}, nil
	}
}

func (d *dataSet) copy(t *testing.T) *dataSet {
	t.Helper()
	c := &dataSet{t: t, of: d.of, model: d.model, labels: filepath.Join(t.TempDir(), "labels"), images: d.images}
	c.must(os.CopyFS(c.labels, os.DirFS(d.labels)))
	c.run = filepath.Join(c.labels, "runs", "run-1")
	return c
}

// ownImages gives a data set images of its own, which it can spoil.
func (d *dataSet) ownImages() string {
	dir := filepath.Join(d.t.TempDir(), "images")
	d.must(os.CopyFS(dir, os.DirFS(d.images)))
	d.images = dir
	return dir
}

func (d *dataSet) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *dataSet) read(name string) []byte {
	raw, err := os.ReadFile(filepath.Join(d.run, name))
	d.must(err)
	return raw
}

func (d *dataSet) drop(path string) { d.must(os.Remove(path)) }
func (d *dataSet) put(path string, data []byte) {
	d.drop(path)
	d.must(os.WriteFile(path, data, 0o600))
}
func (d *dataSet) remove(name string) { d.drop(filepath.Join(d.run, name)) }

func (d *dataSet) write(name string, data []byte) {
	path := filepath.Join(d.run, name)
	d.must(os.RemoveAll(path))
	d.must(os.WriteFile(path, data, 0o600))
}

func (d *dataSet) writeJSON(path string, v any) []byte {
	raw, err := json.Marshal(v)
	d.must(err)
	d.must(os.RemoveAll(path))
	d.must(os.WriteFile(path, raw, 0o600))
	return raw
}

func (d *dataSet) writeLatest(l Latest) { d.writeJSON(filepath.Join(d.labels, "LATEST"), l) }

func (d *dataSet) flip(name string, at int) {
	raw := d.read(name)
	raw[at] ^= 0x10
	d.write(name, raw)
}

func (d *dataSet) replace(name, old, with string) {
	raw := d.read(name)
	if !bytes.Contains(raw, []byte(old)) {
		d.t.Fatalf("%s has no %q", name, old)
	}
	d.write(name, bytes.Replace(raw, []byte(old), []byte(with), 1))
}

func (d *dataSet) edit(name string, change func(map[string]any)) {
	var v map[string]any
	d.must(json.Unmarshal(d.read(name), &v))
	change(v)
	d.writeJSON(filepath.Join(d.run, name), v)
}

func (d *dataSet) manifest() *pipeline.Manifest {
	m, err := pipeline.ParseManifest(d.read("_manifest.json"))
	d.must(err)
	return m
}

// writeManifest writes a manifest with a digest that is right, and returns the
// sha256 of its file.
func (d *dataSet) writeManifest(m *pipeline.Manifest) string {
	fresh := pipeline.NewManifest(&pipeline.Record{Run: m.Run, Job: &pipeline.Job{Name: m.Job}, Created: m.Created}, m.Listing, m.Files)
	raw, err := fresh.Encode()
	d.must(err)
	d.write("_manifest.json", raw)
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// sign makes manifest, marker and LATEST anew from the files that are there.
func (d *dataSet) sign() {
	m := d.manifest()
	files := m.Files[:0]
	for _, f := range m.Files {
		raw, err := os.ReadFile(filepath.Join(d.run, f.Name))
		if err != nil {
			continue
		}
		sum := sha256.Sum256(raw)
		f.Bytes, f.SHA256 = int64(len(raw)), hex.EncodeToString(sum[:])
		if _, _, rows, _, err := schemas.Inspect(filepath.Join(d.run, f.Name)); err == nil {
			f.Rows = rows
		}
		files = append(files, f)
	}
	m.Files = files
	l := latestOf(d.t, d.labels)
	l.SHA256 = d.writeManifest(m)
	d.writeLatest(l)
	d.writeJSON(filepath.Join(d.labels, l.marker()), l)
}

// rows rewrites the rows of a part.
func (d *dataSet) rows(head, part int, change func([]schemas.Label) []schemas.Label) {
	d.rewrite(head, part, change, func(*schemas.LabelsMeta) {})
}

// meta rewrites the metadata of a part.
func (d *dataSet) meta(head, part int, change func(*schemas.LabelsMeta)) {
	d.rewrite(head, part, func(l []schemas.Label) []schemas.Label { return l }, change)
}

func (d *dataSet) rewrite(head, part int, change func([]schemas.Label) []schemas.Label, changeMeta func(*schemas.LabelsMeta)) {
	path := filepath.Join(d.run, label.PartName(head, part))
	_, _, _, kv, err := schemas.Inspect(path)
	d.must(err)
	meta := schemas.LabelsMeta{Head: head, Clusters: 3, KV: map[string]string{}}
	for k, v := range kv {
		if !strings.HasPrefix(k, "sela.") {
			meta.KV[k] = v
		}
	}
	changeMeta(&meta)
	var all []schemas.Label
	d.must(schemas.ReadLabels(path, func(l *schemas.Label) error {
		c := *l
		if l.Prob != nil {
			prob := *l.Prob
			c.Prob = &prob
		}
		all = append(all, c)
		return nil
	}))
	d.must(os.Remove(path))
	w, err := schemas.CreateLabels(path, meta)
	d.must(err)
	for _, l := range change(all) {
		d.must(w.Write(&l))
	}
	_, err = w.Commit()
	d.must(err)
}

func (d *dataSet) potentials(head int, change func(v []float64, meta map[string]string)) {
	path := filepath.Join(d.run, "potentials", "head-0.parquet")
	v, meta, err := schemas.ReadPotentials(path)
	d.must(err)
	change(v, meta)
	d.must(os.Remove(path))
	_, err = schemas.WritePotentials(path, v, meta)
	d.must(err)
}

func (d *dataSet) quarantine(name string, move func(row int64) int64) {
	path := filepath.Join(d.run, name)
	var all []schemas.Quarantine
	d.must(schemas.ReadQuarantine(path, func(q schemas.Quarantine) error { all = append(all, q); return nil }))
	d.must(os.Remove(path))
	w, err := schemas.CreateQuarantine(path, schemas.QuarantineMeta{})
	d.must(err)
	for i, q := range all {
		if i == 0 {
			row := move(*q.Row)
			q.Row = &row
		}
		d.must(w.Write(q))
	}
	_, err = w.Commit()
	d.must(err)
}

// latestOf reads LATEST of a folder.
func latestOf(t *testing.T, dir string) (l Latest) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "LATEST"))
	if err := errors.Join(err, json.NewDecoder(bytes.NewReader(raw)).Decode(&l)); err != nil {
		t.Fatal(err)
	}
	return l
}
