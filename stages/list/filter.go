package list

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
)

// kind is what a name says about its object.
type kind int

const (
	other kind = iota
	picture
	shard      // a tar
	compressed // a tar that cannot be read in ranges
)

// compressedTars are the suffixes of compressed tars.
var compressedTars = []string{
	".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.xz", ".txz", ".tar.bz2", ".tbz", ".tbz2", ".tar.lz4", ".tar.z",
}

// filter decides by names alone which objects and members a scan takes. It is
// immutable and safe for concurrent use.
type filter struct {
	prefix     string
	glob       []string // the pattern's elements; nil takes every key
	extensions []string // sorted, lower case, with the dot
	partial    bool     // not all images are taken
	below      uint64   // of the 64-bit hash, if partial
	only       *only    // nil takes every image
}

func newFilter(opts Options) (*filter, error) {
	f := &filter{prefix: opts.Prefix}
	if opts.Glob != "" {
		f.glob = strings.Split(strings.TrimPrefix(opts.Glob, "/"), "/")
		for _, element := range f.glob {
			if _, err := path.Match(element, ""); err != nil {
				return nil, fmt.Errorf("images.glob %q: %w in %q", opts.Glob, err, element)
			}
			if element != "**" && strings.Contains(element, "**") {
				return nil, fmt.Errorf("images.glob %q: ** must stand alone between slashes, not as %q", opts.Glob, element)
			}
		}
		if strings.Contains(opts.Glob, "{") && !strings.Contains(opts.Glob, `\{`) {
			return nil, fmt.Errorf(`images.glob %q: {a,b} is not known (write \{ for the character); a choice of extensions needs none, as only images are taken`, opts.Glob)
		}
	}
	if opts.Limit < 0 {
		return nil, fmt.Errorf("images.limit is %d; it is a number of images, or 0 for all", opts.Limit)
	}
	if !(opts.Sample >= 0 && opts.Sample <= 1) {
		return nil, fmt.Errorf("images.sample is %v; it is a share above 0 and at most 1", opts.Sample)
	}
	if opts.Sample > 0 && opts.Sample < 1 {
		f.partial, f.below = true, uint64(math.Ldexp(opts.Sample, 64))
	}
	for _, ext := range opts.Extensions {
		f.extensions = append(f.extensions, "."+strings.ToLower(strings.TrimPrefix(ext, ".")))
	}
	slices.Sort(f.extensions)
	return f, nil
}

// object tells what to make of an object; other if it is to be skipped.
func (f *filter) object(key string) kind {
	name := strings.TrimPrefix(key[len(f.prefix):], "/")
	if name == "" { // the prefix is a whole key
		name = path.Base(key)
	}
	if hidden(name) || f.glob != nil && !match(f.glob, strings.Split(name, "/")) || !f.only.object(key) {
		return other
	}
	return f.kind(key)
}

// member tells whether a tar's member is an image to be taken.
func (f *filter) member(key, name string) bool {
	return f.kind(name) == picture && !hidden(name) && f.chosen(key, name)
}

func (f *filter) kind(name string) kind {
	ext := strings.ToLower(path.Ext(name))
	if ext == "" {
		return other
	}
	if _, ok := slices.BinarySearch(f.extensions, ext); ok {
		return picture
	}
	if ext == ".tar" {
		return shard
	}
	tail := strings.ToLower(name[max(0, len(name)-len(".tar.zst")):])
	for _, suffix := range compressedTars {
		if strings.HasSuffix(tail, suffix) {
			return compressed
		}
	}
	return other
}

// chosen tells whether an image is to be taken, by its name.
func (f *filter) chosen(key, member string) bool {
	return f.only.image(key, member) && f.sampled(key, member)
}

// sampled tells whether an image belongs to the share of [Options.Sample].
func (f *filter) sampled(key, member string) bool {
	if !f.partial {
		return true
	}
	var space [256]byte
	b := append(space[:0], "sela images.sample\x00"...)
	b = append(b, key...)
	b = append(b, 0)
	b = append(b, member...)
	sum := sha256.Sum256(b)
	return binary.BigEndian.Uint64(sum[:]) < f.below
}

// hidden tells whether an element of name begins with a dot; "." and ".." are
// no names but directions.
func hidden(name string) bool {
	for element := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(element, ".") && element != "." && element != ".." {
			return true
		}
	}
	return false
}

// match tells whether a pattern matches a name, element by element. Its time is
// at most the product of their lengths: after a mismatch only the last ** needs
// to take one element more.
func match(pattern, name []string) bool {
	p, n := 0, 0
	star, end := -1, 0 // the last ** met, and the first element it leaves
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == "**":
			star, end = p, n
			p++
		case p < len(pattern) && matchElement(pattern[p], name[n]):
			p++
			n++
		case star >= 0:
			end++
			p, n = star+1, end
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == "**" {
		p++
	}
	return p == len(pattern)
}

func matchElement(pattern, element string) bool {
	ok, err := path.Match(pattern, element)
	return ok && err == nil
}
