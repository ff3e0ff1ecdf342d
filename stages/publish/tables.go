package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sela/pipeline"
	"sela/schemas"
	"sela/sinkhorn"
	"sela/stages/solve"
)

// head is what the files of one head say.
type head struct {
	number      int
	files       []pipeline.Output // label parts, in row order
	meta        map[string]string // of the first part
	v           []float64
	certificate sinkhorn.Certificate
	labelling   *solve.Labelling // in its place, where labels are not those of a transport
	counts      []int64          // rows by label
	rows        int64
	parts       map[string][32]byte // digest of the images of each part, by file name
	broken      bool                // not all of it could be read
}

var labelPart = regexp.MustCompile(`^labels/head=(0|[1-9][0-9]{0,5})/part-[0-9]+\.parquet$`)

// readTables reads every listed file once.
func (v *verifier) readTables(ctx context.Context) error {
	v.digests = v.begin("digests")
	if err := v.findHeads(); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		run  func(context.Context, *Check) error
	}{{"potentials", v.readPotentials}, {"labels", v.readLabels}, {"certificates", v.compareCounts}, {"same images", v.compareHeads}} {
		if err := step.run(ctx, v.begin(step.name)); err != nil {
			return err
		}
	}
	// What no table needs, or what was not reached behind a problem.
	for _, f := range v.manifest.Files {
		if v.opened[f.Name] {
			continue
		}
		if err := v.open(ctx, f, func(string) error { return nil }); err != nil && !errors.Is(err, errUnreadable) {
			return err
		}
	}
	v.digests.done("%d files, %d bytes, have the size and sha256 that the manifest gives", len(v.manifest.Files), v.report.Bytes)
	return nil
}

// findHeads sorts the label files by head.
func (v *verifier) findHeads() error {
	c := v.begin("heads")
	byHead := map[int]*head{}
	for _, f := range v.manifest.Files {
		m := labelPart.FindStringSubmatch(f.Name)
		if m == nil {
			if strings.HasPrefix(f.Name, "labels/") {
				c.fail("%s is no part of a label table", f.Name)
			}
			continue
		}
		n, _ := strconv.Atoi(m[1]) // it has at most six digits
		if byHead[n] == nil {
			byHead[n] = &head{number: n, parts: map[string][32]byte{}}
		}
		byHead[n].files = append(byHead[n].files, f)
	}
	for n := range len(byHead) {
		h := byHead[n]
		if h == nil {
			c.fail("there are %d heads, but head %d has no label table", len(byHead), n)
			break
		}
		sortParts(h.files)
		v.heads = append(v.heads, h)
		if _, ok := v.manifest.File(solve.PotentialsName(n)); !ok {
			c.fail("%s is missing", solve.PotentialsName(n))
		}
	}
	if want := v.record.Job.Model.Heads; len(byHead) == 0 || want != 0 && want != len(byHead) {
		c.fail("there are labels of %d heads, run.json says %d", len(byHead), want)
	}
	v.report.Heads = len(v.heads)
	c.done("%d heads, each with labels and potentials", len(v.heads))
	if c.OK {
		return nil
	}
	return errEnd
}

// sortParts puts files in the order of their numbers, however many digits.
func sortParts(files []pipeline.Output) {
	slices.SortFunc(files, func(a, b pipeline.Output) int {
		if d := len(a.Name) - len(b.Name); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
}

// open gives read the path of a file whose size and digest are right. A file
// that is not the listed one fails the check of the digests and is not read.
func (v *verifier) open(ctx context.Context, f pipeline.Output, read func(local string) error) error {
	v.opened[f.Name] = true
	local, release, err := v.cache.Fetch(ctx, v.Labels, v.prefix+f.Path, f.SHA256, f.Bytes)
	if err != nil {
		if err := v.digests.judge(fmt.Errorf("%s: %w", f.Name, err)); err != nil {
			return err
		}
		return errUnreadable
	}
	defer release()
	v.report.Bytes += f.Bytes
	return read(local)
}

// readPotentials reads what the solver left.
func (v *verifier) readPotentials(ctx context.Context, c *Check) error {
	p := v.record.Provenance
	for _, h := range v.heads {
		f, _ := v.manifest.File(solve.PotentialsName(h.number)) // findHeads saw it
		err := v.open(ctx, f, func(local string) error {
			potentials, meta, err := schemas.ReadPotentials(local)
			if err != nil {
				return err
			}
			if int64(len(potentials)) != f.Rows {
				return wrong("holds %d potentials, the manifest says %d", len(potentials), f.Rows)
			}
			if err := h.readProof(meta, v.record.Job.Solve.Method, potentials); err != nil {
				return err
			}
			h.v = potentials
			return compareMeta(meta, map[string]string{"head": strconv.Itoa(h.number), "model": p.Model, "preprocessing": p.Preprocessing, "listing": v.manifest.Listing})
		})
		if err := h.judge(c, f, err); err != nil {
			return err
		}
	}
	c.done("%d heads, all solved", len(v.heads))
	return nil
}

// readProof reads what stands behind the labels of the head, whose method the
// record names: the certificate of its potentials, or a labelling, and then the
// potentials say nothing.
func (h *head) readProof(meta map[string]string, method string, potentials []float64) (err error) {
	if h.labelling, err = solve.ReadLabelling(meta); err != nil {
		return err
	}
	if l := h.labelling; l != nil {
		if l.Method != method || slices.ContainsFunc(potentials, func(v float64) bool { return v != 0 }) {
			return wrong("its labels are by method %s, with potentials %.3g to %.3g; run.json says method %s, which has none but 0", l.Method, slices.Min(potentials), slices.Max(potentials), method)
		}
		return nil
	}
	if err := json.Unmarshal([]byte(meta["certificate"]), &h.certificate); err != nil {
		return wrong("its certificate is damaged: %v", err)
	}
	if err := h.certificate.Status.Err(); err != nil {
		return wrong("%v", err)
	}
	return nil
}

// wrong is an error that says what is wrong with the data.
func wrong(format string, args ...any) error { return pipeline.BadData(fmt.Errorf(format, args...)) }

var errUnreadable = wrong("cannot be read: see digests")

// judge is [Check.judge] for an error about one of the head's files.
func (h *head) judge(c *Check, f pipeline.Output, err error) error {
	if err == nil {
		return nil
	}
	h.broken = true
	return c.judge(fmt.Errorf("%s: %w", f.Name, err))
}

func compareMeta(got, want map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if got[key] != want[key] {
			return wrong("its metadata say %s %.24q, want %.24q", key, got[key], want[key])
		}
	}
	return nil
}

// compareCounts holds what the label tables count against the certificates.
func (v *verifier) compareCounts(_ context.Context, c *Check) error {
	limit, worst := v.record.Job.Label.MaxCountRatio, 0.0
	for _, h := range v.heads {
		if h.broken {
			c.fail("head %d: not all of it could be read", h.number)
			continue
		}
		shares, err := solve.Marginals(&v.record.Job.Solve, len(h.counts))
		if err != nil {
			c.fail("head %d: %v", h.number, err)
			continue
		}
		ratio := 0.0
		for k, n := range h.counts {
			share := 1 / float64(len(h.counts))
			if shares != nil {
				share = shares[k]
			}
			ratio = max(ratio, float64(n)/float64(h.rows)/share)
		}
		if h.compareSizes(c); h.labelling == nil {
			if d := ratio - h.certificate.MaxCountRatio; !(d*d <= 1e-18*ratio*ratio) { // of rounding
				c.fail("head %d: its largest cluster has %.6f times its share, its certificate says %.6f", h.number, ratio, h.certificate.MaxCountRatio)
			}
			if ratio > limit {
				c.fail("head %d: its largest cluster has %.3f times its share, label.max_count_ratio allows %.3f", h.number, ratio, limit)
			}
		}
		worst = max(worst, ratio)
	}
	c.done("cluster sizes are as certified; the largest has %.3f times its share", worst)
	return nil
}

// sizes are those of a head's clusters.
type sizes struct {
	rows              int64
	clusters          int
	smallest, largest int64
	empty             int
}

// compareSizes holds the sizes of a head's clusters against what stands behind
// its labels.
func (h *head) compareSizes(c *Check) {
	is := sizes{h.rows, len(h.v), slices.Min(h.counts), slices.Max(h.counts), 0}
	for _, n := range h.counts {
		if n == 0 {
			is.empty++
		}
	}
	cert := h.certificate
	said := sizes{cert.Rows, cert.Clusters, cert.SmallestCount, cert.LargestCount, cert.EmptyClusters}
	if l := h.labelling; l != nil {
		said = sizes{l.Rows, l.Clusters, l.SmallestCount, l.LargestCount, l.EmptyClusters}
	}
	if is != said {
		c.fail("head %d: %d rows, %d clusters of %d to %d rows, %d empty; its certificate says %d, %d, %d to %d, %d", h.number,
			is.rows, is.clusters, is.smallest, is.largest, is.empty, said.rows, said.clusters, said.smallest, said.largest, said.empty)
	}
}

// compareHeads makes sure that every head labels the same images.
func (v *verifier) compareHeads(_ context.Context, c *Check) error {
	first := v.heads[0]
	for _, h := range v.heads {
		if h.broken {
			c.fail("head %d: not all of it could be read", h.number)
			continue
		}
		for _, f := range h.files {
			name := f.Name[strings.LastIndexByte(f.Name, '/')+1:]
			want, ok := first.parts[name]
			if h.parts[name] != want || !ok && !first.broken {
				c.fail("%s does not label the same images as head 0: rows, keys or sha256 differ", f.Name)
			}
		}
		if len(h.parts) != len(first.parts) && !first.broken {
			c.fail("head %d has %d parts, head 0 has %d", h.number, len(h.parts), len(first.parts))
		}
	}
	c.done("all heads label the same %d images, each once, with the same sha256", first.rows)
	return nil
}
