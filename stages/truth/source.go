package truth

import (
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
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

// Folders is the source that reads classes off the names of folders.
const Folders = "folders"

// Source tells the classes of images. It is immutable and safe for concurrent
// use.
type Source struct {
	name    string
	names   []string         // of the table's classes, in order of their first line
	classes map[string]int32 // of a table, by id(key, member); nil for folders
	digest  string
}

// Digest is the sha256 of the table's bytes, in hexadecimal, and [Folders] for
// that.
func (s *Source) Digest() string { return s.digest }

// Open opens a source: [Folders], or the path or bucket URL of a table, which it
// reads whole (some 100 bytes of memory for each line). An unusable table is an
// error of class Data that names the line, a file that is not there one of class
// Config.
func Open(ctx context.Context, source string) (*Source, error) {
	switch {
	case source == "":
		return nil, pipeline.BadConfig(fmt.Errorf("truth: no source: give %q or a CSV file of key,member,class", Folders))
	case source == Folders:
		return &Source{name: Folders, digest: Folders}, nil
	case strings.Contains(source, "://"):
		return openURL(ctx, source)
	}
	f, err := os.Open(source)
	if err != nil {
		return nil, pipeline.BadConfig(fmt.Errorf("truth: %w (it is %q or the path of a CSV file of key,member,class)", err, Folders))
	}
	defer f.Close()
	return Read(f, source)
}

// openURL reads a table from a bucket. Errors do not quote the URL, which may
// hold credentials.
func openURL(ctx context.Context, source string) (*Source, error) {
	u, err := url.Parse(source)
	if err != nil {
		return nil, pipeline.BadConfig(errors.New("truth: its URL cannot be parsed; check its %-escapes"))
	}
	folder, name := path.Split(u.Path)
	if name == "" {
		return nil, pipeline.BadConfig(fmt.Errorf("truth: a URL of scheme %s names no file; write …/truth.csv", u.Scheme))
	}
	u.Path, u.RawPath = strings.TrimSuffix(folder, "/"), ""
	if u.Scheme == "file" && u.Path == "" {
		u.Path = "/"
	}
	b, err := bucket.Open(ctx, u.String(), bucket.Options{})
	if err != nil {
		return nil, pipeline.BadConfig(fmt.Errorf("truth: %w", err))
	}
	defer b.Close()
	r, err := b.NewReader(ctx, name, 0, -1)
	if errors.Is(err, bucket.ErrNotFound) {
		err = pipeline.BadConfig(err)
	}
	if err != nil {
		return nil, fmt.Errorf("truth: %w", err)
	}
	defer r.Close()
	return Read(r, b.URL()+"/"+name)
}

// Read reads a table as the package comment describes it. name is what errors
// call it; they are of class Data unless reading itself fails.
func Read(table io.Reader, name string) (*Source, error) {
	s := &Source{name: name, classes: map[string]int32{}}
	wrong := func(format string, args ...any) error {
		return pipeline.BadData(fmt.Errorf("truth %s: %w", name, fmt.Errorf(format, args...)))
	}
	sum := sha256.New()
	r := csv.NewReader(io.TeeReader(table, sum))
	r.ReuseRecord, r.FieldsPerRecord = true, 3
	header, err := r.Read()
	if err == nil && (strings.TrimPrefix(header[0], "\ufeff") != "key" || header[1] != "member" || header[2] != "class") {
		err = wrong("line 1: its header is %.200q: want key,member,class", strings.Join(header, ","))
	}
	known := map[string]int32{}
	for err == nil {
		var record []string
		if record, err = r.Read(); err != nil {
			break
		}
		line, _ := r.FieldPos(0)
		key, member, class := record[0], record[1], record[2]
		switch {
		case key == "":
			return nil, wrong("line %d: it has no key", line)
		case class == "":
			return nil, wrong("line %d: image %s has no class; leave its line out if it has none", line, place(key, member))
		}
		number, ok := known[class]
		if !ok {
			number = int32(len(s.names))
			class = strings.Clone(class)
			known[class], s.names = number, append(s.names, class)
		}
		if former, ok := s.classes[id(key, member)]; ok && former != number {
			return nil, wrong("line %d: image %s is of class %q here, of class %q in a line before", line, place(key, member), class, s.names[former])
		}
		s.classes[id(key, member)] = number
	}
	var syntax *csv.ParseError // which says the line
	switch {
	case errors.As(err, &syntax):
		return nil, wrong("%w: want key,member,class", err)
	case !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("truth %s: %w", name, err)
	case len(s.classes) == 0:
		return nil, wrong("it has no images: want a header line, key,member,class, and a line for each image")
	}
	s.digest = hex.EncodeToString(sum.Sum(nil))
	return s, nil
}

// id joins key and member; no name holds a NUL.
func id(key, member string) string { return key + "\x00" + member }

// place names an image in an error.
func place(key, member string) string {
	if member == "" {
		return fmt.Sprintf("%q", key)
	}
	return fmt.Sprintf("%q in %q", member, key)
}

// Class returns the name of an image's class; ok is false where it has none.
func (s *Source) Class(key, member string) (name string, ok bool) {
	if s.classes != nil {
		number, ok := s.classes[id(key, member)]
		if !ok {
			return "", false
		}
		return s.names[number], true
	}
	if member != "" {
		key = member
	}
	name = path.Base(path.Dir(path.Clean("/" + key)))
	return name, name != "/"
}
