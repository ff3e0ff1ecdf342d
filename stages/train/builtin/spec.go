package builtin

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"image"

	"sela/pipeline"
	"sela/stages/internal/imageio"
	"sela/stages/internal/imageio/augment"
	"sela/stages/internal/imageio/resample"
	"sela/stages/internal/onnx/grad"
)

// digest identifies what of the spec decides the result. What the training starts
// from counts by its content, which [Identity] has.
func digest(b pipeline.Builtin) string {
	b.Init, b.After, b.Threads, b.Checkpoint = "", "", 0, 0
	raw, err := json.Marshal(b)
	if err != nil {
		panic(err) // numbers that were checked to be finite, and strings
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

func sgd(b *pipeline.Builtin) grad.SGD {
	return grad.SGD{Momentum: b.Momentum, Nesterov: b.Nesterov, WeightDecay: b.WeightDecay, DecayAll: b.DecayAll, ClipNorm: b.Clip}
}

// augmentation is what is done to training images in the place of the
// evaluation's crop. A scale of [1, 1] keeps that crop.
func augmentation(b *pipeline.Builtin, spec imageio.Spec) augment.Spec {
	a := augment.Spec{Gray: b.Grayscale, Brightness: b.Jitter[0], Contrast: b.Jitter[1], Saturation: b.Jitter[2], Hue: b.Jitter[3],
		Flip: b.Flip, Rotate: b.Rotate}
	if b.Scale != [2]float64{1, 1} {
		size := spec.Size()
		a.Size = image.Pt(size.Width, size.Height)
		a.Scale, a.Ratio = b.Scale, b.Ratio
		a.Filter, a.Order = resample.Filter(spec.Filter), resample.Order(spec.Order)
	}
	return a
}
