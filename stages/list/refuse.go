package list

import (
	"encoding/hex"
	"strings"
	"unicode/utf8"

	"sela/pipeline/bucket"
	"sela/schemas"
)

// The classes of quarantine rows; see the package comment.
const (
	classEmpty       = "empty"
	classNotUTF8     = "not-utf8"
	classBadName     = "bad-name"
	classDuplicate   = "duplicate"
	classUnsupported = "unsupported"
	classTruncated   = "truncated"
	classBadTar      = "bad-tar"
)

// maxName bounds a member's name in bytes: what file systems allow of a path.
const maxName = 4096

// defect is why an image is refused.
type defect struct{ class, message string }

// refuseObject returns the quarantine row of an object that cannot be used,
// else nil.
func refuseObject(o bucket.Object, k kind) *schemas.Quarantine {
	var d defect
	switch {
	case !utf8.ValidString(o.Key):
		d = defect{classNotUTF8, "the key is not UTF-8 (it is given in hexadecimal): rename the object"}
	case k == compressed:
		d = defect{classUnsupported, "a member of a compressed tar cannot be read by itself: unpack the outer compression and upload the plain tar (images hardly shrink)"}
	case o.Size <= 0:
		d = defect{classEmpty, "the object has no bytes"}
	default:
		return nil
	}
	return quarantined(o.Key, "", d)
}

// quarantined makes a quarantine row. Names beyond maxName are cut, those that
// are not UTF-8 are given in hexadecimal. The row keeps nothing else in memory.
func quarantined(key, member string, d defect) *schemas.Quarantine {
	if len(member) > maxName {
		end := maxName
		for utf8.ValidString(member) && !utf8.RuneStart(member[end]) {
			end--
		}
		member = member[:end]
	}
	q := &schemas.Quarantine{Key: key, Member: strings.Clone(member), Stage: Name, Class: d.class, Message: d.message}
	if !utf8.ValidString(key) || !utf8.ValidString(member) {
		q.KeyHex = true
		q.Key, q.Member = hex.EncodeToString([]byte(key)), hex.EncodeToString([]byte(member))
	}
	return q
}
