package grad

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"sela/stages/internal/onnx"
)

// whole is a network at its full size and how it is trained, as
// testdata/networks.py reads it.
type whole struct {
	Network     string        `json:"network"`
	Head        onnx.HeadKind `json:"head"`
	Size        int           `json:"size"`
	Batch       int           `json:"batch"`
	Heads       int           `json:"heads"`
	Clusters    int           `json:"clusters"`
	Steps       int           `json:"steps"`
	Rate        float64       `json:"rate"`
	Momentum    float64       `json:"momentum"`
	Nesterov    bool          `json:"nesterov"`
	WeightDecay float64       `json:"weight_decay"`
	Clip        float64       `json:"clip"`
	Tensors     []wholeTensor `json:"tensors"`

	export string    // file that PyTorch writes; "": the built-in network
	base   string    // of the case's files
	losses []float32 // of each step and head
}

// wholeTensor is a parameter or a statistic.
type wholeTensor struct {
	Name    string  `json:"name"`
	Dims    []int64 `json:"dims"`
	Trained bool    `json:"trained"` // is a parameter, and has a momentum
}

// judged is what testdata/networks.py finds out about a case.
type judged struct {
	Losses  [2][]float64 `json:"losses"` // of PyTorch in float64 and in float32
	Final   []distance   `json:"final"`
	Momenta []distance   `json:"momenta"`
	Choices int          `json:"choices"` // elements of rectifiers and pools, over all steps
	Turned  int          `json:"turned"`  // of these, those where PyTorch in float64 would have chosen otherwise
}

// distance holds norms of differences to PyTorch in float64: that of the
// tensor at the start, ours at the end, and PyTorch's in float32.
type distance struct {
	Name     string
	Elements int
	Size     float64 // the norm at the start
	Moved    float64
	Ours     float64
	Theirs   float64
}

// Every step of a whole network is PyTorch's in float64: its losses, how far it
// moved every parameter and statistic, and the momenta. Networks are those of
// NewNetwork and exports of torchvision's whose last layer was replaced.
//
// Where a rectifier's input is 0 up to rounding, or a pool's largest two are
// equal, it is chance where a gradient passes, and one element of the last stage
// is a hundredth of the gradients of all layers below. So PyTorch's rectifiers
// and pools choose as ours did, and where they would have done otherwise is
// counted.
//
// It runs where SELA_PYTORCH names a Python with the packages of
// stages/train/builtin/bench/tests/requirements.txt.
func TestNetworksAgainstPyTorch(t *testing.T) {
	python := os.Getenv("SELA_PYTORCH")
	if python == "" {
		t.Skip("SELA_PYTORCH names no Python that has PyTorch: make test-training")
	}
	dir := t.TempDir()
	script := func(what string) {
		t.Helper()
		if out, err := exec.Command(python, "testdata/networks.py", what, dir).CombinedOutput(); err != nil {
			t.Fatalf("networks.py %s: %v\n%s", what, err, out)
		}
	}
	script("export")
	cases := map[string]*whole{
		"resnet-18":            {Network: "resnet-18", Size: 64, Batch: 16, Nesterov: true, Clip: 1},
		"resnet-50":            {Network: "resnet-50", Size: 64, Batch: 16},
		"alexnet-big":          {Network: "alexnet-big", Size: 224, Batch: 4, Steps: 1},
		"alexnet-s":            {Network: "alexnet-s", Size: 32, Batch: 16},
		"cosine heads":         {Network: "alexnet-s", Size: 32, Batch: 16, Head: onnx.CosineHead},
		"exported resnet-50":   {Network: "resnet-50", Size: 64, Batch: 16, export: "resnet-50.onnx"},
		"exported transformer": {Network: "vision transformer", Size: 32, Batch: 16, Clip: 0.5, export: "transformer.onnx"},
	}
	for name, w := range cases {
		w.base, w.Steps = filepath.Join(dir, name), cmp.Or(w.Steps, 2)
		t.Run(name, w.train)
	}
	if t.Failed() {
		return
	}
	script("judge")
	for name, w := range cases {
		t.Run(name+" judged", w.check)
	}
}

// model makes or loads the network.
func (w *whole) model() (*onnx.Model, error) {
	heads := onnx.HeadOptions{Kind: w.Head, Heads: w.Heads, Clusters: w.Clusters, Seed: 7}
	if w.export == "" {
		return onnx.NewNetwork(w.Network, onnx.NetworkOptions{ImageSize: w.Size, Head: w.Head, Heads: w.Heads, Clusters: w.Clusters, Seed: heads.Seed})
	}
	m, err := onnx.Load(filepath.Join(filepath.Dir(w.base), w.export))
	if err == nil {
		_, err = m.ReplaceHeads("", heads)
	}
	return m, err
}

// train takes the steps and writes what they took and made.
func (w *whole) train(t *testing.T) {
	w.Heads, w.Clusters, w.Momentum, w.WeightDecay, w.Rate = 3, 10, 0.9, 1e-2, 1e-3
	if w.Head == "" {
		w.Head = onnx.LinearHead
	}
	m, err := w.model()
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewStep(m, Options{Input: "images", Heads: outputs(m), Batch: w.Batch, Loss: CrossEntropy,
		SGD: SGD{Momentum: w.Momentum, Nesterov: w.Nesterov, WeightDecay: w.WeightDecay, ClipNorm: w.Clip}})
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range s.State {
		if w.Network == "resnet-50" && lastScale.MatchString(state.Name) && state.Kind == Parameter {
			for i := range state.Initial {
				state.Initial[i] = 0.2
			}
		}
		if state.Kind != Momentum {
			w.Tensors = append(w.Tensors, wholeTensor{state.Name, state.Dims, state.Kind == Parameter})
			w.write(t, ".initial", state.Initial)
		}
	}
	text, err := json.Marshal(w)
	if err == nil {
		err = os.WriteFile(w.base+".json", text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	var rectified []string
	b := onnx.Edit(s.Model)
	for _, n := range s.Model.Proto.GetGraph().GetNode() {
		if n.GetOpType() == "Relu" {
			rectified = append(rectified, n.Output[0])
			b.Output(onnx.Value{Name: n.Output[0], DType: onnx.Float32})
		}
	}
	run := newRunner(t, s.Model, 2)
	defer run.close()
	feeds, random := initial(s), rand.New(rand.NewPCG(7, 7))
	feeds[s.Weights], feeds[s.LearningRate] = ones(int64(w.Heads*w.Batch)), []float32{float32(w.Rate)}
	for range w.Steps {
		images, labels := w.draw(random)
		feeds[s.Images], feeds[s.Labels] = images, labels
		w.write(t, ".images", images)
		w.write(t, ".labels", labels)
		for _, m := range s.Masks {
			list := make([]float32, elements(m.Dims))
			for i := range list {
				if random.Float64() >= m.Ratio {
					list[i] = float32(1 / (1 - m.Ratio))
				}
			}
			feeds[m.Input] = list
			w.write(t, ".masks", list)
		}
		got := run.run(feeds)
		w.losses = append(w.losses, got[s.Losses]...)
		for _, name := range rectified {
			w.write(t, ".rectified", got[name])
		}
		advance(s, feeds, got)
	}
	for _, state := range s.State {
		file := ".final"
		if state.Kind == Momentum {
			file = ".momenta"
		}
		w.write(t, file, feeds[state.In])
	}
}

// draw makes a batch of patches of colour under noise, for BatchNormalization
// would make much of the little in which images of noise alone differ.
func (w *whole) draw(random *rand.Rand) (images []float32, labels []int64) {
	const patches = 4
	side := w.Size / patches
	for range w.Batch * 3 {
		var colours [patches][patches]float64
		for i := range colours {
			for j := range colours[i] {
				colours[i][j] = random.NormFloat64()
			}
		}
		for y := range w.Size {
			for x := range w.Size {
				images = append(images, float32(colours[y/side][x/side]+random.NormFloat64()/4))
			}
		}
	}
	for range w.Heads * w.Batch {
		labels = append(labels, random.Int64N(int64(w.Clusters)))
	}
	return images, labels
}

// write appends values to a file of the case, little-endian.
func (w *whole) write(t *testing.T, file string, values any) {
	t.Helper()
	raw, err := binary.Append(nil, binary.LittleEndian, values)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(w.base+file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		if _, err = f.Write(raw); err == nil {
			err = f.Close()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// lastScale matches the scale of the last BatchNormalization of a block. It
// begins small, as is usual, or 16 blocks make percents of a rounding.
var lastScale = regexp.MustCompile(`^layer\d\.\d\.bn3\.weight$`)

// What may be off, as a share: of a loss; of how far a tensor moved, or as many
// times what float32 does to PyTorch, if that is more; for each step, of a
// tensor's size, whose last bits hide how far it moved. And the share of the
// choices that rounding may turn.
const (
	lossTolerance = 1e-5
	moveTolerance = 1e-4
	noise         = 3
	rounding      = 1e-7
	mostTurned    = 1e-5
)

// check holds a case to PyTorch.
func (w *whole) check(t *testing.T) {
	raw, err := os.ReadFile(w.base + ".judged")
	if err != nil {
		t.Fatal(err)
	}
	var j judged
	if err := json.Unmarshal(raw, &j); err != nil {
		t.Fatal(err)
	}
	if n := w.Steps * w.Heads; len(w.losses) != n || len(j.Losses[0]) != n || len(j.Losses[1]) != n || len(j.Final) != len(w.Tensors) {
		t.Fatalf("%d losses, PyTorch %d and %d; %d tensors of %d", len(w.losses), len(j.Losses[0]), len(j.Losses[1]), len(j.Final), len(w.Tensors))
	}
	if float64(j.Turned) > mostTurned*float64(j.Choices) {
		t.Errorf("%d of %d choices of rectifiers and pools are turned", j.Turned, j.Choices)
	}
	worst := [2]float64{}
	for i, want := range j.Losses[0] {
		off := math.Abs(float64(w.losses[i])-want) / want
		worst[0], worst[1] = max(worst[0], off), max(worst[1], math.Abs(j.Losses[1][i]-want)/want)
		if !(off < lossTolerance) {
			t.Errorf("step %d, head %d: loss %g, want %g, %g of PyTorch in float32", i/w.Heads+1, i%w.Heads, w.losses[i], want, j.Losses[1][i])
		}
	}
	t.Logf("losses are at most %.1e off, PyTorch's in float32 %.1e; %d of %d choices turned", worst[0], worst[1], j.Turned, j.Choices)
	w.compare(t, "final", j.Final)
	w.compare(t, "momentum", j.Momenta)
}

func (w *whole) compare(t *testing.T, what string, list []distance) {
	var ours, theirs []float64 // shares of the way that are wrong
	for _, d := range list {
		if d.Moved > max(d.Theirs, float64(w.Steps)*rounding*d.Size/moveTolerance) {
			ours, theirs = append(ours, d.Ours/d.Moved), append(theirs, d.Theirs/d.Moved)
		}
		if !(d.Ours < max(moveTolerance*d.Moved, noise*d.Theirs)+float64(w.Steps)*rounding*d.Size) {
			t.Errorf("%s %s moved by %.3g (norm), and ended %.3g from where it should (PyTorch in float32: %.3g)", what, d.Name, d.Moved, d.Ours, d.Theirs)
		}
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	n := len(ours)
	if n == 0 {
		t.Fatalf("%s: nothing moved", what)
	}
	t.Logf("%s: %d of %d tensors moved by more than rounding; they are wrong by %.1e of that (median), at most %.1e; PyTorch's in float32 by %.1e, %.1e", what, n, len(list), ours[n/2], ours[n-1], theirs[n/2], theirs[n-1])
}
