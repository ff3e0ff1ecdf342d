package filedriver

import (
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// Reserved is the name of the folders that belong to this package. No segment
// of a key may be named so, and listings leave such folders out.
const Reserved = ".sela-bucket"

const (
	temporaryDir = Reserved + "/tmp"
	oddDir       = Reserved + "/keys"

	// maxName is the longest file name, in bytes, on every file system in use.
	maxName = 255
)

// KeyError reports a key that cannot be stored as a file. It wraps
// [fs.ErrInvalid].
type KeyError struct {
	Key    string
	Reason string
}

func (e *KeyError) Error() string {
	return fmt.Sprintf("key %q cannot be a file: %s", e.Key, e.Reason)
}

// Unwrap returns [fs.ErrInvalid].
func (e *KeyError) Unwrap() error { return fs.ErrInvalid }

// CheckKey returns nil if key is the path of a file below the bucket's root,
// and otherwise a [*KeyError] that says why it cannot be.
func CheckKey(key string) error {
	reason, _ := unnameable(key)
	if reason == "" {
		return nil
	}
	return &KeyError{key, reason}
}

// unnameable returns why key is not the path of a file, or "". Such a key is
// odd if it can be stored in its hexadecimal form all the same.
func unnameable(key string) (reason string, odd bool) {
	if key == "" {
		return "it is empty", false
	}
	odd = 2*len(key) <= maxName
	for segment := range strings.SplitSeq(key, "/") {
		switch {
		case segment == Reserved:
			return "the name " + Reserved + " is reserved", false
		case len(segment) > maxName:
			return fmt.Sprintf("a segment of it has more than %d bytes", maxName), false
		case segment == "":
			reason = "a segment of it is empty"
		case segment == "." || segment == "..":
			reason = "a segment of it is " + segment
		case strings.IndexByte(segment, 0) >= 0:
			reason = "it holds a NUL byte"
		}
	}
	return reason, odd
}

// locate returns the slash-separated path of key's file below the root.
func locate(key string) (string, error) {
	reason, odd := unnameable(key)
	switch {
	case reason == "":
		return key, nil
	case odd:
		return path.Join(oddDir, hex.EncodeToString([]byte(key))), nil
	}
	return "", &KeyError{key, reason}
}
