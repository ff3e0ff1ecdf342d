package imageio

import "strings"

// Extensions are the file name extensions, lower case and without the dot, by
// which a listing recognises images. Decoding never looks at names.
var Extensions = []string{"jpg", "jpeg", "png", "gif", "bmp", "tif", "tiff", "webp"}

// HasExtension tells whether the last element of key ends in one of
// [Extensions], in upper or lower case, after a name that is not empty.
func HasExtension(key string) bool {
	name := key[strings.LastIndexByte(key, '/')+1:]
	dot := strings.LastIndexByte(name, '.')
	if dot <= 0 {
		return false
	}
	for _, ext := range Extensions {
		if strings.EqualFold(name[dot+1:], ext) {
			return true
		}
	}
	return false
}
