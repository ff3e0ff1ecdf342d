//go:build !cgo || !turbojpeg

package libjpeg

// Available tells whether libjpeg-turbo is built in.
const Available = false

// Version returns the version of libjpeg-turbo that is built in, "" if none is.
func Version() string { return "" }

// Decode returns an error: libjpeg-turbo is not built in.
func Decode([]byte, Request, []byte) error {
	return &Error{Unsupported, "libjpeg-turbo is not built in"}
}
