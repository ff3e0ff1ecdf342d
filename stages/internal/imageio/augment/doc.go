// Package augment varies training images at random exactly as torchvision does
// on Pillow images, byte for byte: random resized crop, grayscale, colour
// jitter, horizontal flip and rotation by small angles, in this order, on 8-bit
// RGB. The order is the SeLa reference's; since a flip moves pixels and the
// steps before it look at pixels one by one or at all of them, it might as well
// stand before the colours. Rotation, which the reference lacks, comes last, so
// that the black corners it makes take no part in a contrast's mean.
//
// Randomness and pixels are kept apart. [Spec.Draw] turns a [Key] into
// [Choices], which are plain data: a pure function, the same on every platform.
// [Worker.Apply] does what Choices say:
//
//	c := spec.Draw(augment.Key{Seed: run, Epoch: epoch, Row: row}, width, height)
//	// decode at least c.Crop of the image into src
//	err := w.Apply(dst, src, width, height, c)
//
// An image that torchvision would scale before the crop (Resize(256), then
// RandomResizedCrop) is scaled by the caller; width and height are then those
// of the scaled image.
//
// # Bits
//
// What is drawn has torchvision's distribution, not its values: torch's
// generator is a sequence, and a sequence depends on who drew before. A draw
// here is one 32-bit word of Philox 4×32-10 (Salmon et al., Parallel random
// numbers: as easy as 1, 2, 3, 2011) whose key is the seed and whose counter
// holds the row, the epoch and what the word is for. So switching one step on
// or off leaves the draws of all others as they were.
//
// The arithmetic that follows uses IEEE operations rounded one by one (every
// product is converted explicitly, which forbids the compiler to fuse it with a
// sum), and this package's own exp, log, sine and cosine, because those of
// package math differ between architectures in the last place.
//
// # Pixels
//
// Pillow's blends are float32, multiply and add rounded separately, then
// truncated; they are computed so here, through tables per image. The hue is
// Pillow's float32 conversion to 8-bit HSV, tabulated, and back in integers that
// come out the same. The tests compare every RGB colour. Pillow means its
// builds for x86-64, which round each operation.
package augment
