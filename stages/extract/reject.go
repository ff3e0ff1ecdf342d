package extract

import (
	"errors"
	"fmt"

	"sela/schemas"
	"sela/stages/internal/imageio"
)

// reject says why an image cannot be used: class and message of its quarantine
// row. The classes are in the package comment.
type reject struct{ class, message string }

func (r *reject) Error() string { return r.message }

// asReject turns what imageio says about an image into a [*reject].
func asReject(err error) error {
	if bad := new(imageio.Error); errors.As(err, &bad) {
		return &reject{string(bad.Class), bad.Error()}
	}
	return err
}

// row is the quarantine row of an image.
func (r *reject) row(img schemas.Image) schemas.Quarantine {
	return schemas.Quarantine{Row: &img.Row, Key: img.Key, Member: img.Member, Stage: Name, Class: r.class, Message: r.message}
}

// place names an image in an error.
func place(img schemas.Image) string {
	if img.Member == "" {
		return fmt.Sprintf("%q", img.Key)
	}
	return fmt.Sprintf("%q in %q", img.Member, img.Key)
}
