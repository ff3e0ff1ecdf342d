package list

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"sela/pipeline/bucket"
	"sela/schemas"
)

// blockSize is the unit of a tar: headers take one, data is padded to it.
const blockSize = 512

// indexer lists the images of one tar in order of their offset.
type indexer struct {
	filter *filter
	object bucket.Object
	window *window
	pass   func([]item) error // takes a finished batch

	batch   []item
	names   int   // bytes of member names in batch
	skipped int64 // members passed over since the last item
	kept    int64 // images found
	// seen has the first 16 bytes of the sha256 of each image's name: in a tar
	// of a billion members two names collide by chance with probability 1e-21,
	// and nobody can make two that do.
	seen map[[16]byte]struct{}
}

// run indexes the tar. It fails only where the store or the receiver does; what
// is wrong with the tar itself becomes quarantine rows.
func (x *indexer) run() error {
	defer x.window.close()
	x.seen = make(map[[16]byte]struct{})
	reader := tar.NewReader(x.window)
	next := int64(0) // where the next entry begins; negative behind a sparse one
	for {
		header, err := reader.Next()
		switch {
		case x.window.err != nil:
			return x.window.err
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return x.finish(x.checkEnd(next))
		case err != nil && !errors.Is(err, tar.ErrInsecurePath): // names are judged below
			return x.finish(x.refuse("", x.damaged(next, err)))
		}
		complete, err := x.entry(header)
		if err != nil || !complete {
			return x.finish(err)
		}
		switch next = x.window.pos; {
		case sparse(header):
			next = -1 // package tar does not tell how much is stored
		case hasData(header):
			next += (header.Size + blockSize - 1) &^ (blockSize - 1)
		}
	}
}

// entry judges one member, whose data begins where the window stands. It
// reports whether the tar holds the data completely.
func (x *indexer) entry(h *tar.Header) (complete bool, err error) {
	offset := x.window.pos
	if hasData(h) && !sparse(h) && h.Size > x.object.Size-offset {
		return false, x.refuse(h.Name, defect{classTruncated, fmt.Sprintf(
			"the tar ends at byte %d, inside this member, whose %d bytes begin at byte %d (%d images before it are kept): upload the tar again",
			x.object.Size, h.Size, offset, x.kept)})
	}
	if h.Typeflag == tar.TypeDir || h.Typeflag == tar.TypeXGlobalHeader {
		return true, nil
	}
	if !x.filter.member(x.object.Key, h.Name) {
		x.skipped++
		return true, nil
	}
	if d := refuseMember(h); d.class != "" {
		return true, x.refuse(h.Name, d)
	}
	sum := sha256.Sum256([]byte(h.Name))
	id := [16]byte(sum[:])
	if _, ok := x.seen[id]; ok {
		return true, x.refuse(h.Name, defect{classDuplicate, fmt.Sprintf(
			"the member at byte %d has the name of an earlier one, which is kept: (key, member) must name one image; rename it", offset)})
	}
	x.seen[id] = struct{}{}
	x.kept++
	// The name is cloned because it may be a piece of a large extended header.
	return true, x.add(item{image: schemas.Image{
		Key: x.object.Key, Member: strings.Clone(h.Name), Size: h.Size, ETag: x.object.ETag, Offset: offset,
	}}, len(h.Name))
}

// damaged says what is wrong with a tar whose entry at byte next is no entry.
func (x *indexer) damaged(next int64, err error) defect {
	where, hint := fmt.Sprintf("at byte %d", next), "write the tar again"
	switch {
	case next < 0:
		where = "behind a sparse member"
	case next == 0:
		hint = "is it a plain, uncompressed tar?"
	}
	return defect{classBadTar, fmt.Sprintf(
		"the header %s cannot be read (%v); what is from there to byte %d is left out (%d images before it are kept): %s",
		where, err, x.object.Size, x.kept, hint)}
}

// checkEnd looks at what package tar takes for the end of the archive when the
// last entry ended at byte next. Missing end blocks are fine, and zeros behind
// them are padding. Half an entry is a cut, and other data, like a second tar
// appended to the first, is images that readers pass over in silence.
func (x *indexer) checkEnd(next int64) error {
	w := x.window
	if next >= 0 && w.pos-next > w.zeros {
		return x.refuse("", defect{classTruncated, fmt.Sprintf(
			"the tar ends at byte %d, inside the entry that begins at byte %d (%d images before it are kept): upload the tar again",
			x.object.Size, next, x.kept)})
	}
	var block [16 * blockSize]byte
	for {
		at := w.pos
		n, err := w.Read(block[:])
		for i, b := range block[:n] {
			if b != 0 {
				return x.refuse("", defect{classBadTar, fmt.Sprintf(
					"the archive ends before byte %d, but data follows it from byte %d to %d, which is left out (%d images are kept): were tars appended to each other?",
					at, at+int64(i), x.object.Size, x.kept)})
			}
		}
		switch {
		case w.err != nil:
			return w.err
		case err != nil:
			return nil
		}
	}
}

func (x *indexer) refuse(member string, d defect) error {
	return x.add(item{rejected: quarantined(x.object.Key, member, d)}, len(member))
}

func (x *indexer) add(it item, names int) error {
	it.skipped, x.skipped = x.skipped, 0
	x.batch = append(x.batch, it)
	x.names += names
	if len(x.batch) < tarBatch && x.names < tarNames {
		return nil
	}
	full := x.batch
	x.batch, x.names = nil, 0
	return x.pass(full)
}

// finish passes on what is left when the tar is done, unless err says that it
// is not.
func (x *indexer) finish(err error) error {
	if err != nil {
		return err
	}
	return x.pass(append(x.batch, item{skipped: x.skipped}))
}

// hasData tells whether bytes of the member follow its header, as many as its
// size says; a link's size is that of its target.
func hasData(h *tar.Header) bool {
	switch h.Typeflag {
	case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo, tar.TypeXGlobalHeader:
		return false
	}
	return true
}

// sparse tells whether the member's data leaves holes out.
func sparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for record := range h.PAXRecords {
		if strings.HasPrefix(record, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// refuseMember says why a member that looks like an image by its name cannot be
// one row of the listing; the zero defect if it can.
func refuseMember(h *tar.Header) defect {
	switch {
	case !utf8.ValidString(h.Name):
		return defect{classNotUTF8, "the member's name is not UTF-8 (it is given in hexadecimal): rename it"}
	case len(h.Name) > maxName:
		return defect{classBadName, fmt.Sprintf("the member's name has %d bytes (its beginning is given), more than %d: rename it", len(h.Name), maxName)}
	case escapes(h.Name):
		return defect{classBadName, `the member's name is absolute or has a ".." element, which would lead outside a folder it is unpacked to: rename it`}
	case h.Typeflag == tar.TypeLink, h.Typeflag == tar.TypeSymlink:
		return defect{classUnsupported, fmt.Sprintf("the member is a link to %.200q without bytes of its own: write the tar with links followed (tar --dereference --hard-dereference)", h.Linkname)}
	case sparse(h):
		return defect{classUnsupported, "the member is stored sparse, so its bytes are not one range of the tar: write the tar without --sparse"}
	case h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeCont:
		return defect{classUnsupported, fmt.Sprintf("the member is no regular file (type %q)", h.Typeflag)}
	case h.Size == 0:
		return defect{classEmpty, "the member has no bytes"}
	}
	return defect{}
}

// escapes tells whether a name, taken as a path on any system, could leave the
// folder it is joined to.
func escapes(name string) bool {
	if name == "" || name[0] == '/' || name[0] == '\\' {
		return true
	}
	for element := range strings.FieldsFuncSeq(name, func(r rune) bool { return r == '/' || r == '\\' }) {
		if element == ".." {
			return true
		}
	}
	return false
}
