package list

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"strings"

	"sela/pipeline"
	"sela/pipeline/bucket"
)

// only is the table of images.only: the images that a scan takes, and which of
// them it has met. Some 100 bytes of memory for each. Asking what it holds is
// safe for concurrent use; meet is for one goroutine.
type only struct {
	source string
	images []place
	at     map[place]int
	keys   map[string]bool
	met    []bool
}

// place names an image.
type place struct{ key, member string }

// String is how an error names an image.
func (p place) String() string {
	if p.member == "" {
		return fmt.Sprintf("%q", p.key)
	}
	return fmt.Sprintf("%q in %q", p.member, p.key)
}

// openOnly reads the table at a path or bucket URL. A file that is not there is
// an error of class Config, one that cannot be used of class Data.
func openOnly(ctx context.Context, source string) (*only, error) {
	raw, err := readSource(ctx, source)
	if err != nil {
		return nil, fmt.Errorf("images.only: %w", err)
	}
	if u, err := url.Parse(source); err == nil && u.Scheme != "" {
		source = path.Base(u.Path) // the rest may hold credentials
	}
	o, err := parseOnly(bytes.NewReader(raw), source)
	if err != nil {
		return nil, pipeline.BadData(fmt.Errorf("images.only %s: %w", source, err))
	}
	return o, nil
}

func readSource(ctx context.Context, source string) ([]byte, error) {
	if !strings.Contains(source, "://") {
		raw, err := os.ReadFile(source)
		return raw, pipeline.BadConfig(err)
	}
	u, err := url.Parse(source)
	if err != nil || path.Base(u.Path) == "/" || u.Path == "" {
		return nil, pipeline.BadConfig(errors.New("its URL cannot be parsed, or names no file; write …/images.csv"))
	}
	name := path.Base(u.Path)
	u.Path, u.RawPath = path.Dir(u.Path), ""
	b, err := bucket.Open(ctx, u.String(), bucket.Options{})
	if err != nil {
		return nil, pipeline.BadConfig(err)
	}
	raw, err := b.Get(ctx, name)
	if errors.Is(err, bucket.ErrNotFound) {
		err = pipeline.BadConfig(err)
	}
	return raw, errors.Join(err, b.Close())
}

func parseOnly(table io.Reader, source string) (*only, error) {
	r := csv.NewReader(table)
	r.FieldsPerRecord = 2
	header, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("want a header line, key,member: %w", err)
	}
	if strings.TrimPrefix(header[0], "\ufeff") != "key" || header[1] != "member" {
		return nil, fmt.Errorf("line 1: its header is %.200q: want key,member", strings.Join(header, ","))
	}
	o := &only{source: source, at: map[place]int{}, keys: map[string]bool{}}
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		p := place{record[0], record[1]}
		if line, _ := r.FieldPos(0); p.key == "" {
			return nil, fmt.Errorf("line %d: it has no key", line)
		}
		if _, again := o.at[p]; again {
			continue
		}
		o.at[p] = len(o.images)
		o.images = append(o.images, p)
		o.keys[p.key] = true
	}
	if len(o.images) == 0 {
		return nil, errors.New("it names no image")
	}
	o.met = make([]bool, len(o.images))
	return o, nil
}

// object tells whether an object is wanted, or some member of it.
func (o *only) object(key string) bool { return o == nil || o.keys[key] }

// image tells whether an image is wanted.
func (o *only) image(key, member string) bool {
	if o == nil {
		return true
	}
	_, ok := o.at[place{key, member}]
	return ok
}

// meet notes what a scan came upon: an image, or one that is refused.
func (o *only) meet(it *item) {
	if o == nil {
		return
	}
	p := place{it.image.Key, it.image.Member}
	if q := it.rejected; q != nil {
		p = place{q.Key, q.Member}
	}
	if i, ok := o.at[p]; ok {
		o.met[i] = true
	}
}

// named is how many images an error names.
const named = 5

// missing is an error of class Data about images that were not met, of those
// that f samples.
func (o *only) missing(f *filter) error {
	if o == nil {
		return nil
	}
	var names []string
	lacking := 0
	for i, p := range o.images {
		if o.met[i] || !f.sampled(p.key, p.member) {
			continue
		}
		if lacking++; len(names) < named {
			names = append(names, p.String())
		}
	}
	if lacking == 0 {
		return nil
	}
	if lacking > named {
		names = append(names, "…")
	}
	return pipeline.BadData(fmt.Errorf("images.only %s names %d images that are not in the bucket, or not among what images.prefix and images.glob select: %s",
		o.source, lacking, strings.Join(names, ", ")))
}
