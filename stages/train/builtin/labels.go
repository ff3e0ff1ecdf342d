package builtin

import (
	"math"

	"sela/schemas"
)

// Labels are what a network is trained on: the images that have labels, where
// their bytes lie, and their labels in every head. They are immutable and safe
// for concurrent use.
//
// Memory is 40 bytes and 4 bytes per head for each image, beside its name: of a
// loose file the key, of a tar's member its name in the tar. Multi-label targets
// take a bit per class.
type Labels struct {
	Run    string // the run that made them, "" for a table of targets
	Digest string // of the published manifest, or the sha256 of the table of targets
	Heads  []int  // K of each head; of targets, the number of classes alone
	// Classes are the names of the classes of multi-label targets, nil for
	// labels of clusters.
	Classes []string

	rows    []row
	names   []byte   // of all rows, one after the other
	tars    []string // keys of the tar shards
	labels  []int32  // [N, T]
	targets []byte   // [N, ⌈K/8⌉], lowest bit first
	checked bool     // rows have sums
}

// row is one image.
type row struct {
	number int64
	offset int64  // of its first byte in the object
	sum    uint64 // the first bytes of its sha256: an image that changed passes by a chance of 2⁻⁶⁴
	name   uint64 // end of its name in Labels.names
	size   uint32 // 0 until it is located; one too large for 32 bits has the most
	tar    int32  // in Labels.tars, or loose
}

const loose = -1

// Len returns the number of images.
func (l *Labels) Len() int { return len(l.rows) }

// Image returns the i-th image, in row order, without its entity tag.
func (l *Labels) Image(i int) schemas.Image {
	r := &l.rows[i]
	img := schemas.Image{Row: r.number, Size: int64(r.size), Offset: r.offset, Key: string(l.name(i))}
	if r.tar != loose {
		img.Key, img.Member = l.tars[r.tar], img.Key
	}
	return img
}

// Label returns the label of the i-th image in a head.
func (l *Labels) Label(i, head int) int32 { return l.labels[i*len(l.Heads)+head] }

// Target tells whether the i-th image is of a class.
func (l *Labels) Target(i, class int) bool {
	return l.targets[i*l.targetBytes()+class/8]>>(class%8)&1 != 0
}

func (l *Labels) targetBytes() int { return (len(l.Classes) + 7) / 8 }

// name returns the i-th image's own name, which is not to be changed.
func (l *Labels) name(i int) []byte {
	from := uint64(0)
	if i > 0 {
		from = l.rows[i-1].name
	}
	return l.names[from:l.rows[i].name]
}

// hasKey tells whether the i-th image lies under the key.
func (l *Labels) hasKey(i int, key string) bool {
	if t := l.rows[i].tar; t != loose {
		return l.tars[t] == key
	}
	return string(l.name(i)) == key
}

// keyBefore tells whether the i-th image's key is below another.
func (l *Labels) keyBefore(i int, key string) bool {
	if t := l.rows[i].tar; t != loose {
		return l.tars[t] < key
	}
	return string(l.name(i)) < key
}

// isMember tells whether the i-th image has the name within its object.
func (l *Labels) isMember(i int, member string) bool {
	if l.rows[i].tar == loose {
		return member == ""
	}
	return string(l.name(i)) == member
}

// add appends an image that is not located yet. Images of one key follow one
// another.
func (l *Labels) add(number int64, key, member string, sum uint64) {
	r := row{number: number, sum: sum, tar: loose}
	if member == "" {
		l.names = append(l.names, key...)
	} else {
		if n := len(l.tars); n == 0 || l.tars[n-1] != key {
			l.tars = append(l.tars, string([]byte(key))) // key is a piece of a row group
		}
		r.tar = int32(len(l.tars) - 1)
		l.names = append(l.names, member...)
	}
	r.name = uint64(len(l.names))
	l.rows = append(l.rows, r)
}

// locate notes where the i-th image lies.
func (l *Labels) locate(i int, img schemas.Image) {
	l.rows[i].offset, l.rows[i].size = img.Offset, uint32(min(img.Size, math.MaxUint32))
}
