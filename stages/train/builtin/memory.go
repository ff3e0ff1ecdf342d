package builtin

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sela/pipeline"
	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/grad"
	"sela/stages/internal/ort"
)

// memory is what a training step needs, in bytes, as far as its graph tells.
type memory struct {
	State       int64 `json:"state"`       // parameters, momenta and statistics, twice: before a step and after it
	Activations int64 `json:"activations"` // the most that lives at once between two nodes; grows with the batch
}

func (m memory) total() int64 { return m.State + m.Activations }

// estimate walks the nodes of a step's graph in their order: a value lives from
// the node that makes it to the last that reads it. What kernels use for
// themselves is not in it. size holds the bytes of the graph's values.
func estimate(step *grad.Step, size map[string]int64) memory {
	var m memory
	for _, s := range step.State {
		m.State += 2 * 4 * elements(s.Dims)
		delete(size, s.In)
		delete(size, s.Out)
	}
	g := step.Model.Proto.GetGraph()
	last := map[string]int{}
	for i, n := range g.GetNode() {
		for _, in := range n.Input {
			last[in] = i
		}
	}
	live := int64(0)
	for _, v := range g.GetInput() {
		live += size[v.GetName()]
	}
	m.Activations = live
	for i, n := range g.GetNode() {
		for _, out := range n.Output {
			live += size[out]
		}
		m.Activations = max(m.Activations, live)
		for _, name := range slices.Concat(n.Input, n.Output) {
			if last[name] <= i {
				live -= size[name]
				delete(size, name)
			}
		}
	}
	return m
}

// sizes asks ONNX Runtime for the shapes of all values of a step's graph and
// returns their bytes. dir is for a scratch file.
func sizes(rt *ort.Runtime, step *grad.Step, dir string) (map[string]int64, error) {
	probe := step.Model.Clone()
	g := probe.Proto.GetGraph()
	outputs := map[string]bool{"": true} // one that a node leaves out
	for _, o := range g.GetOutput() {
		outputs[o.GetName()] = true
	}
	b := onnx.Edit(probe)
	for _, n := range g.GetNode() {
		for _, o := range n.Output {
			if !outputs[o] {
				b.Output(onnx.Value{Name: o})
			}
		}
	}
	path := filepath.Join(dir, "shapes.onnx")
	if err := probe.Save(path); err != nil {
		return nil, err
	}
	in, out, err := rt.Inspect(path)
	if err != nil {
		return nil, fmt.Errorf("shapes of the training step: %w", err)
	}
	size := map[string]int64{}
	for _, t := range slices.Concat(in, out) {
		n := bytesOf(t.Type)
		for _, d := range t.Dims {
			n *= max(d, 1)
		}
		size[t.Name] = n
	}
	return size, os.Remove(path)
}

func elements(dims []int64) int64 {
	n := int64(1)
	for _, d := range dims {
		n *= d
	}
	return n
}

func bytesOf(t ort.ElementType) int64 {
	switch t {
	case ort.Int64, "double", "float64":
		return 8
	case ort.Uint8, "bool", "int8":
		return 1
	}
	return 4
}

// mebibytes writes a number of bytes, rounded up.
func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", (n+1<<20-1)>>20) }

// fits refuses a batch that needs more memory than there is; 0 is unknown.
func (m memory) fits(batch int, limit int64) error {
	if limit == 0 || m.total() <= limit {
		return nil
	}
	return m.tooLarge(batch, limit, "a batch of %d would fit", fmt.Errorf("needs about %s of memory, this machine has %s", mebibytes(m.total()), mebibytes(limit)))
}

// tooLarge gives as advice, in such words, the batch that would fit in limit bytes.
func (m memory) tooLarge(batch int, limit int64, advice string, err error) error {
	fit := int64(0)
	if free := limit - m.State; free > 0 && m.Activations > 0 {
		fit = int64(float64(batch) * float64(free) / float64(m.Activations))
	}
	// A step's activations are in proportion to its batch.
	fit = min(fit, int64(batch)-1)
	if fit > 8 {
		fit -= fit % 8
	}
	if advice = fmt.Sprintf(advice+" (train.builtin.batch)", fit); fit < 1 {
		advice = "no batch would fit: use a smaller network or a larger machine"
	}
	return pipeline.BadConfig(fmt.Errorf("a training step of %d images %w; %s", batch, err, advice))
}

// ranOut says what batch would fit where the runtime ran out of memory though
// limit, 0 if unknown, seemed to hold the step: other processes and the kernels
// took the rest. How much that is shows in nothing but the failure, so half of
// what did not fit is advised.
func (m memory) ranOut(batch int, limit int64, err error) error {
	if half := m.State + m.Activations/2; limit == 0 || limit > half {
		limit = half
	}
	return m.tooLarge(batch, limit, "try a batch of %d", fmt.Errorf("needs more memory than there is (about %s): %w", mebibytes(m.total()), err))
}

// exhausted tells whether an error of the runtime says that memory gave out.
func exhausted(err error) bool {
	text := strings.ToLower(err.Error())
	for _, words := range []string{"failed to allocate memory", "bad allocation", "bad_alloc", "out of memory", "cudamalloc"} {
		if strings.Contains(text, words) {
			return true
		}
	}
	return false
}
