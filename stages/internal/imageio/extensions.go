package imageio

// Extensions are the file name extensions, lower case and without the dot, by
// which a listing recognises images. Decoding never looks at names.
var Extensions = []string{"jpg", "jpeg", "png", "gif", "bmp", "tif", "tiff", "webp"}
