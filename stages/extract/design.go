package extract

import (
	"fmt"
	"slices"
	"strings"

	"sela/pipeline"
	"sela/stages/internal/imageio"
	"sela/stages/internal/onnx"
	"sela/stages/internal/ort"
)

// Decoder names what decodes JPEG in this build, with its version: pixels, and
// so labels, of two builds are the same only if it is.
func Decoder() string { return imageio.Decoder() }

// Design is how a job's model is to be fed and read, as far as the files tell:
// no runtime is needed to know it.
type Design struct {
	Model    *onnx.Model
	Input    string
	Spec     imageio.Spec // what turns an encoded image into the input
	OnDevice bool         // the last of it, normalising, happens in the runtime's graph: see [Design.Fed]
	Batch    int          // images per run
	Outputs  []string     // the model's own, that are heads
	Kind     onnx.OutputKind
	Features string // tensor to write beside the heads, or empty
	Compact  bool   // log-probabilities are stored in the compact form of package schemas
}

// NewDesign reconciles the job with its model. A contradiction is an error of
// class Config that says which field to change.
func NewDesign(job *pipeline.Job, model *onnx.Model) (*Design, error) {
	d := &Design{Model: model, Kind: onnx.OutputKind(job.Model.Kind), Features: job.Model.Features, Compact: job.Extract.Stored == "uint16"}
	err := d.chooseInput(job)
	if err == nil {
		err = d.chooseFeatures(job)
	}
	if err == nil {
		err = d.chooseOutputs(job)
	}
	if err != nil {
		return nil, pipeline.BadConfig(fmt.Errorf("model %s: %w", job.Model.Path, err))
	}
	return d, nil
}

func (d *Design) chooseInput(job *pipeline.Job) error {
	inputs := d.Model.Inputs()
	at := slices.IndexFunc(inputs, func(v onnx.Value) bool { return v.Name == job.Model.Input })
	switch {
	case job.Model.Input == "" && len(inputs) == 1:
		at = 0
	case job.Model.Input == "":
		return fmt.Errorf("has %d inputs (%s): name the images' with model.input", len(inputs), values(inputs))
	case at < 0:
		return fmt.Errorf("model.input: no input %q; it has %s", job.Model.Input, values(inputs))
	}
	in := inputs[at]
	d.Input = in.Name
	if len(in.Shape) != 4 {
		return fmt.Errorf("input %s: images need four dimensions", in)
	}
	channels, height, width, err := axes(in, job.Preprocess.Layout)
	if err != nil {
		return err
	}
	d.Spec = imageSpec(job.Preprocess)
	d.Spec.Layout = imageio.NCHW
	if channels == 3 {
		d.Spec.Layout = imageio.NHWC
	}
	switch in.DType {
	case onnx.Float32:
		d.Spec.DType = imageio.Float32
	case onnx.Float16:
		d.Spec.DType = imageio.Float16
	case onnx.Uint8:
		// Such a model normalises by itself.
		d.Spec.DType, d.Spec.Mean, d.Spec.Std = imageio.Uint8, [3]float32{}, [3]float32{}
	default:
		return fmt.Errorf("input %s: images can be float32, float16 or uint8", in)
	}
	if err := d.Spec.Validate(); err != nil {
		return err
	}
	// There is nothing to move for a model that takes bytes.
	d.OnDevice = job.Preprocess.Normalise == "device" && d.Spec.DType != imageio.Uint8
	size := d.Spec.Size()
	for _, side := range []struct {
		name       string
		got, wants int64
	}{{"height", int64(size.Height), in.Shape[height].Size}, {"width", int64(size.Width), in.Shape[width].Size}} {
		if side.wants != 0 && side.wants != side.got {
			return fmt.Errorf("input %s takes images of %s %d, preprocess makes %d: set preprocess.resize and preprocess.crop", in, side.name, side.wants, side.got)
		}
	}
	d.Batch = job.Runtime.Batch
	switch fixed := int(in.Shape[0].Size); {
	case fixed != 0 && d.Batch != 0 && d.Batch != fixed:
		return fmt.Errorf("input %s has a fixed batch of %d: set runtime.batch to it, or to 0", in, fixed)
	case fixed != 0:
		d.Batch = fixed
	case d.Batch == 0:
		d.Batch = defaultBatch(d.Spec.Len(), job.Runtime.Providers[0])
	}
	return nil
}

// Fed is the part of Spec that is done before an image is handed to the runtime:
// all of it, or what leads to bytes with the channels last where the rest is done
// on the device. Spec, whose fingerprint a run carries, describes what the model
// sees and is the same in both cases, as are the values.
func (d *Design) Fed() imageio.Spec {
	s := d.Spec
	if d.OnDevice {
		s.DType, s.Layout, s.Mean, s.Std = imageio.Uint8, imageio.NHWC, [3]float32{}, [3]float32{}
	}
	return s
}

// normalise puts the rest of Spec before a copy of the model, and returns the
// name of the input that takes the bytes.
func (d *Design) normalise(model *onnx.Model) (input string, err error) {
	if !d.OnDevice {
		return d.Input, nil
	}
	size := d.Spec.Size()
	in, err := model.PrependNormalise(onnx.Normalisation{Input: d.Input, Height: size.Height, Width: size.Width,
		ChannelsLast: d.Spec.Layout == imageio.NHWC, Mean: d.Spec.Mean, Std: d.Spec.Std})
	return in.Name, err
}

// Batches for a model whose batch dimension is free: maxBatch, but fewer images
// on a CPU where they have more than maxElements elements together. Each batch in
// flight, one per core, holds its activations, and a core is not faster for
// large images in large batches: ResNet-18 at 224 pixels took 34–37 ms of
// processor time per image in batches of 4 to 64, and 50 MB of memory per core in
// batches of 8 but 310 MB in batches of 64.
const (
	minBatch    = 8
	maxBatch    = 64
	maxElements = 1 << 21
)

// defaultBatch returns the images per run for images of so many elements.
func defaultBatch(elements int, provider string) int {
	batch := maxBatch
	for provider == ort.CPU && batch > minBatch && batch*elements > maxElements {
		batch /= 2
	}
	return batch
}

// axes finds the dimensions of an image input.
func axes(in onnx.Value, layout string) (channels, height, width int, err error) {
	first, last := in.Shape[1].Size, in.Shape[3].Size
	switch {
	case layout == "nchw", layout == "auto" && first == 3 && last != 3:
		channels, height, width = 1, 2, 3
	case layout == "nhwc", layout == "auto" && last == 3 && first != 3:
		channels, height, width = 3, 1, 2
	default:
		return 0, 0, 0, fmt.Errorf("input %s does not tell where its channels are: set preprocess.layout to nchw or nhwc", in)
	}
	if c := in.Shape[channels].Size; c != 0 && c != 3 {
		return 0, 0, 0, fmt.Errorf("input %s has %d channels in layout %s; images have 3", in, c, layout)
	}
	return channels, height, width, nil
}

// chooseFeatures finds what a solve that clusters features needs: what the heads
// read, if the job names nothing.
func (d *Design) chooseFeatures(job *pipeline.Job) error {
	if d.Features != "" || !job.Solve.Clusters() {
		return nil
	}
	v, err := d.Model.Features("")
	if err != nil {
		return fmt.Errorf("solve.method: %s clusters features: name their tensor with model.features: %w", job.Solve.Method, err)
	}
	d.Features = v.Name
	return nil
}

func (d *Design) chooseOutputs(job *pipeline.Job) error {
	d.Outputs = job.Model.Outputs
	if len(d.Outputs) > 0 {
		return nil
	}
	info, err := onnx.Inspect(d.Model)
	if err != nil {
		return err
	}
	for _, o := range info.Outputs {
		if o.Name != d.Features {
			d.Outputs = append(d.Outputs, o.Name)
		}
	}
	if len(d.Outputs) == 0 {
		return fmt.Errorf("has no outputs but model.features (%s)", d.Features)
	}
	return nil
}

// imageSpec translates the job's words into imageio's.
func imageSpec(p pipeline.Preprocess) imageio.Spec {
	s := imageio.Spec{Decode: imageio.Decode(p.Decode), Orientation: imageio.Orientation(p.Orientation),
		Filter: imageio.Filter(p.Filter), Order: imageio.Order(p.Order), Limits: imageio.Limits{MaxBytes: int64(p.MaxBytes), MaxPixels: p.MaxPixels}}
	switch len(p.Resize) {
	case 1:
		s.Resize.Shorter = p.Resize[0]
	case 2:
		s.Resize.Exact = imageio.Size{Height: p.Resize[0], Width: p.Resize[1]}
	}
	switch len(p.Crop) {
	case 1:
		s.Crop = imageio.Size{Height: p.Crop[0], Width: p.Crop[0]}
	case 2:
		s.Crop = imageio.Size{Height: p.Crop[0], Width: p.Crop[1]}
	}
	for c := range 3 {
		s.Mean[c], s.Std[c] = float32(p.Mean[c]), float32(p.Std[c])
	}
	return s
}

func values(list []onnx.Value) string {
	all := make([]string, len(list))
	for i, v := range list {
		all[i] = v.String()
	}
	return strings.Join(all, "; ")
}
