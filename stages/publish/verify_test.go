package publish

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/schemas"
	"sela/stages/internal/runtest"
)

// tamper is one way to spoil a data set and the check that must find it.
type tamper struct {
	name  string
	do    func(d *dataSet)
	check string // the one that fails, perhaps among others
	says  string // part of its detail
}

const (
	part0 = "labels/head=0/part-00000.parquet"
	part1 = "labels/head=1/part-00001.parquet"
)

// inBytes are changes that leave manifest and pointers as they were.
var inBytes = []tamper{
	{"flipped byte in a part", func(d *dataSet) { d.flip(part1, 1000) }, "digests", part1},
	{"flipped byte in potentials", func(d *dataSet) { d.flip("potentials/head-0.parquet", 20) }, "digests", "potentials/head-0"},
	{"flipped byte in quarantine", func(d *dataSet) { d.flip("quarantine/part-extract-00001.parquet", 20) }, "digests", "quarantine/part-extract-00001"},
	{"truncated part", func(d *dataSet) { d.write(part0, d.read(part0)[:500]) }, "objects", part0 + " has 500 bytes"},
	{"empty part", func(d *dataSet) { d.write(part0, nil) }, "digests", part0},
	{"missing part", func(d *dataSet) { d.remove(part1) }, "objects", part1 + " is missing"},
	{"missing potentials", func(d *dataSet) { d.remove("potentials/head-1.parquet") }, "objects", "potentials/head-1.parquet is missing"},
	{"extra part", func(d *dataSet) { d.write("labels/head=0/part-00009.parquet", d.read(part0)) }, "objects", "part-00009.parquet is not in the manifest"},
	{"no _SUCCESS", func(d *dataSet) { d.remove("_SUCCESS") }, "complete", "_SUCCESS"},
	{"no manifest", func(d *dataSet) { d.remove("_manifest.json") }, "manifest", "_manifest.json"},
	{"no run.json", func(d *dataSet) { d.remove("run.json") }, "run record", "run.json"},
	{"manifest is no JSON", func(d *dataSet) { d.write("_manifest.json", []byte("{")) }, "manifest", "damaged"},
	{"edited manifest", func(d *dataSet) { d.replace("_manifest.json", `"rows": 3,`, `"rows": 4,`) }, "manifest", "digest"},
	{"edited manifest, digest renewed", func(d *dataSet) {
		m := d.manifest()
		m.Files = m.Files[1:]
		d.writeManifest(m)
	}, "manifest", "LATEST says"},
	{"edited manifest and LATEST", func(d *dataSet) {
		m := d.manifest()
		m.Files = m.Files[1:]
		l := latestOf(d.t, d.labels)
		l.SHA256 = d.writeManifest(m)
		d.writeLatest(l)
	}, "manifest", "published/"},
	{"run.json of another run", func(d *dataSet) { d.replace("run.json", `"run": "run-1"`, `"run": "run-2"`) }, "run record", "run-2"},
	{"run.json of another model", func(d *dataSet) {
		d.edit("run.json", func(r map[string]any) { r["provenance"].(map[string]any)["model"] = "beef" })
	}, "labels", `want "beef"`},
	{"run.json without a job", func(d *dataSet) { d.write("run.json", []byte("{}")) }, "run record", "version"},
	{"LATEST names a run that is not there", func(d *dataSet) {
		l := latestOf(d.t, d.labels)
		l.Run, l.Manifest = "run-9", "runs/run-9/_manifest.json"
		d.writeLatest(l)
	}, "latest", "newest published run is"},
	{"LATEST names another manifest", func(d *dataSet) {
		l := latestOf(d.t, d.labels)
		l.Manifest = "runs/run-0/_manifest.json"
		d.writeLatest(l)
	}, "latest", "runs/run-0/_manifest.json"},
	{"LATEST names another digest", func(d *dataSet) {
		l := latestOf(d.t, d.labels)
		l.SHA256 = strings.Repeat("0", 64)
		d.writeLatest(l)
	}, "manifest", "LATEST says 000000000000"},
	{"LATEST is behind", func(d *dataSet) {
		l := latestOf(d.t, d.labels)
		l.Run, l.Created = "run-2", l.Created.AddDate(1, 0, 0)
		d.writeJSON(filepath.Join(d.labels, l.marker()), l)
	}, "latest", "run-2"},
	{"no LATEST", func(d *dataSet) { d.drop(filepath.Join(d.labels, "LATEST")) }, "latest", "nothing is published"},
	{"LATEST is no JSON", func(d *dataSet) { d.put(filepath.Join(d.labels, "LATEST"), []byte("run-1")) }, "latest", "damaged"},
	{"an image changed", func(d *dataSet) {
		d.put(filepath.Join(d.ownImages(), "img/00007.png"), runtest.Images(1, 99)["00000.png"])
	}, "model", `"img/00007.png" "" has sha256`},
	{"an image is gone", func(d *dataSet) { d.drop(filepath.Join(d.ownImages(), "img/00007.png")) }, "model", "img/00007.png"},
	{"an image is damaged", func(d *dataSet) { d.put(filepath.Join(d.ownImages(), "img/00007.png"), []byte("gone")) }, "model", `"img/00007.png" "" has sha256`},
}

// signed are changes after which manifest, marker and LATEST are made anew, as
// by a program that writes wrong tables.
var signed = []tamper{
	{"row dropped in a head", func(d *dataSet) { d.rows(1, 0, dropRow) }, "same images", "labels/head=1/part-00000.parquet"},
	{"row dropped in a head, counted", func(d *dataSet) { d.rows(1, 0, dropRow) }, "certificates", "head 1"},
	{"row dropped in all heads", func(d *dataSet) { d.rows(0, 0, dropRow); d.rows(1, 0, dropRow) }, "labels", "row 5 has no label and is not in quarantine"},
	{"part dropped in a head", func(d *dataSet) { d.remove(part1) }, "same images", "head 1 has 1 parts"},
	{"head dropped", func(d *dataSet) {
		d.remove("labels/head=0/part-00000.parquet")
		d.remove("labels/head=0/part-00001.parquet")
	}, "heads", "head 0 has no label table"},
	{"labels swapped", func(d *dataSet) { d.rows(0, 0, swapLabels) }, "model", "2 of "},
	{"label changed", func(d *dataSet) {
		d.rows(0, 0, func(l []schemas.Label) []schemas.Label { l[3].Label = (l[3].Label + 1) % 3; return l })
	}, "certificates", "head 0"},
	{"model's label changed", func(d *dataSet) {
		d.rows(1, 0, func(l []schemas.Label) []schemas.Label { l[3].ModelLabel = (l[3].ModelLabel + 1) % 3; return l })
	}, "model", "head 1"},
	{"prob of 0", func(d *dataSet) {
		d.rows(0, 0, func(l []schemas.Label) []schemas.Label { zero := float32(0); l[3].Prob = &zero; return l })
	}, "labels", "prob is 0"},
	{"sha256 changed in a head", func(d *dataSet) {
		d.rows(1, 0, func(l []schemas.Label) []schemas.Label { l[3].SHA256 = strings.Repeat("ab", 32); return l })
	}, "same images", "labels/head=1/part-00000.parquet"},
	{"sha256 is none", func(d *dataSet) {
		d.rows(1, 0, func(l []schemas.Label) []schemas.Label { l[3].SHA256 = "ab"; return l })
	}, "labels", "sha256"},
	{"image twice", func(d *dataSet) {
		twice := func(l []schemas.Label) []schemas.Label { l[4].Key, l[4].SHA256 = l[3].Key, l[3].SHA256; return l }
		d.rows(0, 0, twice)
		d.rows(1, 0, twice)
	}, "labels", "two rows"},
	{"image that never was", func(d *dataSet) {
		other := func(l []schemas.Label) []schemas.Label { l[3].Key += "0"; return l }
		d.rows(0, 0, other)
		d.rows(1, 0, other)
	}, "model", `img/00003.png0`},
	{"other K in the metadata", func(d *dataSet) {
		d.meta(0, 0, func(m *schemas.LabelsMeta) { m.Clusters = 4 })
	}, "labels", "sela.clusters"},
	{"head swapped in the metadata", func(d *dataSet) { d.meta(0, 1, func(m *schemas.LabelsMeta) { m.Head = 1 }) }, "labels", "sela.head"},
	{"part of another listing", func(d *dataSet) { d.meta(0, 1, func(m *schemas.LabelsMeta) { m.KV["listing"] = "beef" }) }, "labels", "listing"},
	{"part of another output", func(d *dataSet) { d.meta(0, 1, func(m *schemas.LabelsMeta) { m.KV["head_output"] = "other" }) }, "labels", "first part"},
	{"heads swapped", func(d *dataSet) {
		a, b := d.read(part0), d.read("labels/head=1/part-00000.parquet")
		d.write(part0, b)
		d.write("labels/head=1/part-00000.parquet", a)
	}, "labels", "sela.head"},
	{"potentials of another run", func(d *dataSet) {
		d.potentials(0, func(v []float64, meta map[string]string) { meta["model"] = "beef" })
	}, "potentials", "model"},
	{"potentials of another head", func(d *dataSet) { d.write("potentials/head-0.parquet", d.read("potentials/head-1.parquet")) }, "potentials", "head"},
	{"potentials without a certificate", func(d *dataSet) {
		d.potentials(0, func(v []float64, meta map[string]string) { delete(meta, "certificate") })
	}, "potentials", "certificate"},
	{"potentials that were changed", func(d *dataSet) { d.potentials(0, func(v []float64, _ map[string]string) { v[0] += 9 }) }, "model", "head 0"},
	{"labelled image in quarantine", func(d *dataSet) {
		d.quarantine("quarantine/part-extract-00001.parquet", func(row int64) int64 { return 1025 })
	}, "labels", "row 1025 has a label and is in quarantine"},
	{"quarantine with a gap", func(d *dataSet) {
		d.quarantine("quarantine/part-extract-00001.parquet", func(row int64) int64 { return row + 1 })
	}, "labels", "is not in quarantine"},
	{"a table that is none", func(d *dataSet) { d.write(part0, []byte("PAR1 and so on PAR1")) }, "labels", part0},
	{"a table of another kind", func(d *dataSet) { d.write(part0, d.read("potentials/head-0.parquet")) }, "labels", part0},
}

func dropRow(l []schemas.Label) []schemas.Label { return append(l[:5:5], l[6:]...) }

func swapLabels(l []schemas.Label) []schemas.Label {
	for i := range l {
		if l[i].Label != l[0].Label {
			l[i].Label, l[0].Label = l[0].Label, l[i].Label
			return l
		}
	}
	panic("all labels are equal")
}

func TestVerify(t *testing.T) {
	const many, few, broken = 1030, 60, 3
	// The one has two parts in each head; of the other all images are sampled.
	large, small := newDataSet(t, runtest.Options{Images: many, Broken: broken}), newDataSet(t, runtest.Options{Images: few, Broken: broken})

	t.Run("good", func(t *testing.T) {
		for _, test := range []struct {
			name   string
			d      *dataSet
			o      VerifyOptions
			images int64
			says   string
		}{
			{"latest", large, VerifyOptions{Sample: 64}, many, "64 images, 128 labels: all"},
			{"named", small, VerifyOptions{Run: "run-1", Sample: 100, Seed: 3}, few, "60 images, 120 labels: all"},
			{"no model", small, VerifyOptions{}, few, "all heads label the same 60 images"},
		} {
			report, err := test.d.verify(t, test.o)
			if err != nil {
				t.Fatalf("%s: %v", test.name, err)
			}
			if report.Images != test.images || report.Labels != 2*test.images || report.Heads != 2 || report.Run != "run-1" {
				t.Errorf("%s: %+v", test.name, report)
			}
			last := report.Checks[len(report.Checks)-1]
			if !strings.Contains(last.Detail, test.says) {
				t.Errorf("%s: %s: %s", test.name, last.Name, last.Detail)
			}
		}
	})

	for _, table := range []struct {
		list   []tamper
		signed bool
	}{{inBytes, false}, {signed, true}} {
		for _, test := range table.list {
			t.Run(test.name, func(t *testing.T) {
				original, o := large, VerifyOptions{Sample: 1}
				if test.check == "model" {
					original, o.Sample = small, few
				}
				d := original.copy(t)
				test.do(d)
				if table.signed {
					d.sign()
				}
				report, err := d.verify(t, o)
				if pipeline.ClassOf(err) != pipeline.Data {
					t.Fatalf("error %v, want one of class data", err)
				}
				for _, c := range report.Checks {
					if c.Name == test.check {
						if c.OK || !strings.Contains(c.Detail, test.says) {
							t.Errorf("check %s: ok %v, %q does not say %q", c.Name, c.OK, c.Detail, test.says)
						}
						return
					}
				}
				t.Errorf("no check %s in %v", test.check, err)
			})
		}
	}

	t.Run("any flipped byte", func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		for _, f := range small.copy(t).manifest().Files {
			d := small.copy(t)
			d.flip(f.Name, random.IntN(int(f.Bytes)))
			if _, err := d.verify(t, VerifyOptions{}); pipeline.ClassOf(err) != pipeline.Data || !strings.Contains(err.Error(), f.Name) {
				t.Errorf("%s: %v", f.Name, err)
			}
		}
	})

	// On other arithmetic one label in a hundred may differ; wrong ones still show.
	t.Run("other processor", func(t *testing.T) {
		elsewhere := small.of.Provenance
		elsewhere.Processor = "another"
		for changed, ok := range map[int]bool{0: true, 1: true, 2: false} {
			d := small.copy(t)
			d.rows(0, 0, func(l []schemas.Label) []schemas.Label {
				for i := range changed {
					l[i].ModelLabel = (l[i].ModelLabel + 1) % 3
				}
				return l
			})
			d.sign()
			report, err := d.verify(t, VerifyOptions{Sample: few, Model: d.modelOn(t, elsewhere)})
			if (err == nil) != ok {
				t.Errorf("%d of 120 changed: %v", changed, err)
			} else if last := report.Checks[len(report.Checks)-1]; !strings.Contains(last.Detail, "differ") {
				t.Errorf("%+v", last)
			}
		}
	})

	t.Run("other model", func(t *testing.T) {
		_, err := small.verify(t, VerifyOptions{Sample: 1, Model: small.modelOn(t, pipeline.Provenance{Model: "beef"})})
		if pipeline.ClassOf(err) != pipeline.Data || !strings.Contains(err.Error(), "beef") {
			t.Error(err)
		}
	})

	// What says nothing about the data keeps its class, and the report so far.
	t.Run("no model", func(t *testing.T) {
		report, err := small.verify(t, VerifyOptions{Sample: 1, Model: func(context.Context, *pipeline.Record) (*Model, error) {
			return nil, pipeline.BadConfig(errors.New("gone"))
		}})
		if pipeline.ClassOf(err) != pipeline.Config || len(report.Checks) < 8 {
			t.Error(err, len(report.Checks))
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := Verify(ctx, VerifyOptions{Labels: small.of.Labels, Dir: t.TempDir(), Bytes: 1 << 20})
		if pipeline.ClassOf(err) != pipeline.Interrupted {
			t.Error(err)
		}
	})
}

func TestSplitURL(t *testing.T) {
	for raw, want := range map[string][2]string{
		"file:///a/labels":                     {"file:///a/labels", ""},
		"file:///a/labels/":                    {"file:///a/labels/", ""},
		"file:///a/labels/runs/r1":             {"file:///a/labels", "r1"},
		"file:///a/labels/runs/r1/":            {"file:///a/labels", "r1"},
		"file:///a/runs/b":                     {"file:///a", "b"},
		"file:///a/runs/b/c":                   {"file:///a/runs/b/c", ""},
		"s3://bucket/x/runs/r1/?region=eu":     {"s3://bucket/x?region=eu", "r1"},
		"s3://bucket/runs/r1":                  {"s3://bucket", "r1"},
		"file:///a%20b/runs/20260101t-abc.1_2": {"file:///a%20b", "20260101t-abc.1_2"},
	} {
		if labels, run, err := SplitURL(raw); err != nil || labels != want[0] || run != want[1] {
			t.Errorf("%s: %q, %q, %v", raw, labels, run, err)
		}
	}
	if _, _, err := SplitURL("s3://k:s3cret%zz@b"); pipeline.ClassOf(err) != pipeline.Usage || strings.Contains(err.Error(), "s3cret") {
		t.Error(err)
	}
}
