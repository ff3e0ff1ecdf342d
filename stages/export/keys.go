package export

import (
	"fmt"
	"strings"
	"unicode"

	"sela/pipeline"
	"sela/schemas"
)

// unfit is an error of class Data about an image that the format cannot name.
func unfit(l *schemas.Label, format string, args ...any) error {
	image := fmt.Sprintf("%q", l.Key)
	if l.Member != "" {
		image = fmt.Sprintf("%q in %s", l.Member, image)
	}
	return pipeline.BadData(fmt.Errorf("image %s (row %d): %s", image, l.Row, fmt.Sprintf(format, args...)))
}

// loose refuses the member of a tar, which has no path of its own.
func loose(l *schemas.Label) error {
	if l.Member != "" {
		return unfit(l, "it is inside a tar, where this format cannot point: use --format webdataset or torch")
	}
	return nil
}

// within refuses a path that, joined to a folder, leads out of it or elsewhere
// than it says.
func within(l *schemas.Label, path string) error {
	for i, element := range strings.Split(path, "/") {
		if element == ".." || i == 0 && element == "" {
			return unfit(l, "as a path it would lead out of the images' folder: rename the object, and label it again")
		}
	}
	return nil
}

// printable refuses control characters, which end a line or a name in some
// reader or other.
func printable(l *schemas.Label, text string) error {
	if at := strings.IndexFunc(text, unicode.IsControl); at >= 0 {
		return unfit(l, "its name has the control character %q, which this format cannot hold: rename the object, and label it again", []rune(text[at:])[0])
	}
	return nil
}
