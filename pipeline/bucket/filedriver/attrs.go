package filedriver

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	attributesName     = "user.sela.attributes"
	defaultContentType = "application/octet-stream"
)

// attributes is what an object has beside its bytes.
type attributes struct {
	ContentType        string            `json:",omitempty"`
	CacheControl       string            `json:",omitempty"`
	ContentDisposition string            `json:",omitempty"`
	ContentEncoding    string            `json:",omitempty"`
	ContentLanguage    string            `json:",omitempty"`
	Metadata           map[string]string `json:",omitempty"`
}

func (a *attributes) typeOnly() bool {
	return a.CacheControl == "" && a.ContentDisposition == "" && a.ContentEncoding == "" &&
		a.ContentLanguage == "" && len(a.Metadata) == 0
}

// write attaches a to f. Only a content type may get lost.
func (a *attributes) write(f *os.File) error {
	if a.typeOnly() && (a.ContentType == "" || a.ContentType == defaultContentType) {
		return nil
	}
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	err = unix.Fsetxattr(int(f.Fd()), attributesName, text, 0)
	if err != nil && !a.typeOnly() {
		return fmt.Errorf("store attributes (%d bytes) as an extended attribute: %w", len(text), errors.Join(errors.ErrUnsupported, err))
	}
	return nil
}

// readAttributes returns the attributes of the file at path; a file without
// any has the default content type.
func readAttributes(path string) attributes {
	a := attributes{ContentType: defaultContentType}
	n, err := unix.Getxattr(path, attributesName, nil)
	if err != nil || n == 0 {
		return a
	}
	text := make([]byte, n)
	if n, err = unix.Getxattr(path, attributesName, text); err != nil {
		return a
	}
	if json.Unmarshal(text[:n], &a) != nil || a.ContentType == "" {
		a.ContentType = defaultContentType
	}
	return a
}
