package libjpeg

import "image"

// Request says what a caller knows about a file and what it wants of it.
type Request struct {
	// Width and Height are the whole image's, from its header. A file of another
	// size is an error before memory is taken.
	Width, Height int
	// Eighths is 8 for the whole resolution; 1 to 7 decode at Eighths/8 of it, each
	// side rounded up ([Scaled]).
	Eighths int
	// Window bounds the pixels wanted, in the coordinates of the decoded image.
	// Empty: all of them.
	Window image.Rectangle
	// Whole asks that the file be read to its end even where the window ends
	// above the image's, so that what is wrong there is an error.
	Whole bool
	// Scans is the largest number of scans accepted.
	Scans int
}

// Kind is why a file cannot be decoded.
type Kind int

// The kinds of an [Error].
const (
	Corrupt Kind = iota + 1
	Truncated
	Unsupported
	TooLarge
)

// Error is what is wrong with a file, in libjpeg's words.
type Error struct {
	Kind    Kind
	Message string
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Scaled returns the length at the given eighths of a side of n pixels.
func Scaled(n, eighths int) int { return (n*eighths + 7) / 8 }
