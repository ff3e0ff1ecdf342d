package builtin

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"sela/pipeline"
)

// ReadTargets reads a multi-label table for fine-tuning and finds its images in
// the listing, whose row numbers they get. The table is a CSV file (RFC 4180)
// with a header line:
//
//	key,member,aeroplane,bicycle
//	VOC2007/000012.jpg,,0,1
//	shard-000.tar,000017.jpg,1,1
//
// a line per image: its key, its name inside the tar shard or nothing for a
// loose file, and 0 or 1 for each class, whose names are the header's. Lines may
// be in any order. name is what errors call the table; they are of class Data.
func ReadTargets(ctx context.Context, table io.Reader, name string, listing Listing) (*Labels, error) {
	hash := sha256.New()
	r := csv.NewReader(io.TeeReader(table, hash))
	r.ReuseRecord = true
	wrong := func(format string, args ...any) error {
		return pipeline.BadData(fmt.Errorf("targets %s: %w", name, fmt.Errorf(format, args...)))
	}
	header, err := r.Read()
	if err != nil {
		return nil, wrong("read the header: %w", err)
	}
	if len(header) < 3 || strings.TrimPrefix(header[0], "\ufeff") != "key" || header[1] != "member" {
		return nil, wrong("its header is %.200q: want key, member and the names of the classes", strings.Join(header, ","))
	}
	l := &Labels{Classes: slices.Clone(header[2:])}
	l.Heads = []int{len(l.Classes)}
	for i, c := range l.Classes {
		if c == "" || slices.Contains(l.Classes[:i], c) {
			return nil, wrong("class %d is called %q: want a name of its own", i, c)
		}
	}
	type line struct {
		key, member string
		number      int
		targets     []byte
	}
	var lines []line
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, wrong("%w", err)
		}
		at, _ := r.FieldPos(0)
		in := line{key: strings.Clone(record[0]), member: strings.Clone(record[1]), number: at, targets: make([]byte, l.targetBytes())}
		for class, value := range record[2:] {
			switch value {
			case "0":
			case "1":
				in.targets[class/8] |= 1 << (class % 8)
			default:
				return nil, wrong("line %d: %s is %.20q: want 0 or 1", at, l.Classes[class], value)
			}
		}
		if in.key == "" {
			return nil, wrong("line %d: it has no key", at)
		}
		lines = append(lines, in)
	}
	if len(lines) == 0 {
		return nil, wrong("it has no images")
	}
	slices.SortFunc(lines, func(a, b line) int {
		return cmp.Or(strings.Compare(a.key, b.key), strings.Compare(a.member, b.member), cmp.Compare(a.number, b.number))
	})
	for i, in := range lines {
		if i > 0 && lines[i-1].key == in.key && lines[i-1].member == in.member {
			return nil, wrong("line %d: image %q %q stands in line %d already", in.number, in.key, in.member, lines[i-1].number)
		}
		l.add(int64(i), in.key, in.member, 0)
		l.targets = append(l.targets, in.targets...)
	}
	l.Digest = hex.EncodeToString(hash.Sum(nil))
	if err := l.join(ctx, listing); err != nil {
		return nil, fmt.Errorf("targets %s: %w", name, err)
	}
	return l, nil
}
