package grad

import (
	"slices"
	"strings"

	"sela/stages/internal/onnx"
)

// Forms says which of several formulations of a gradient to use: the key of a
// [Problem] to the name of one of its forms. Keys of problems the model does not
// have are ignored, so one table can serve all models; a problem without an
// entry uses its default, the first of its forms. All forms of a problem compute
// the same up to rounding.
type Forms map[string]string

// Problem is a gradient of the model that can be computed in more than one way,
// at one shape. To choose by measurement: build a step, time every form of its
// Problems by the models they give, put the fastest into [Options.Forms] and
// build the step again.
type Problem struct {
	Key   string   // kind and shape, in words; equal for equal problems of any model
	Forms []string // names, the default first
	// Inputs are the inputs of Model: float32, or int64, for which zeros are
	// valid.
	Inputs []onnx.Value

	forms []form
}

// form is one formulation: it adds nodes that compute a gradient from the
// values given.
type form struct {
	name  string
	build func(t *tape, in []*value) *value
}

// Model returns a graph that computes this gradient alone, by the named form.
// Its output is named "out".
func (p Problem) Model(name string) (m *onnx.Model, err error) {
	defer catch(&err)
	t := newTape("problem")
	t.scope = "problem"
	var in []*value
	for _, v := range p.Inputs {
		dims := make([]int64, len(v.Shape))
		for i, d := range v.Shape {
			dims[i] = d.Size
		}
		in = append(in, t.input(v.Name, v.DType, dims...))
	}
	out := pick(p.Key, name, p.forms).build(t, in)
	out.name = t.b.Node("Identity", "out", []string{t.use(out)})
	t.output(out)
	return t.b.Model(), nil
}

func pick(key, name string, forms []form) form {
	i := slices.IndexFunc(forms, func(f form) bool { return f.name == name })
	if i < 0 {
		fail("%s: no form %q: there are %s", key, name, strings.Join(formNames(forms), ", "))
	}
	return forms[i]
}

func formNames(forms []form) []string {
	var names []string
	for _, f := range forms {
		names = append(names, f.name)
	}
	return names
}

// choose adds the gradient by the form that was asked for, and notes that there
// was a choice.
func (t *tape) choose(key string, forms []form, in []*value) *value {
	if len(forms) > 1 && !slices.ContainsFunc(t.problems, func(p Problem) bool { return p.Key == key }) {
		p := Problem{Key: key, Forms: formNames(forms), forms: forms}
		for i, v := range in {
			p.Inputs = append(p.Inputs, onnx.Value{Name: "in_" + string(rune('0'+i)), DType: v.dtype, Shape: shape(v.dims)})
		}
		t.problems = append(t.problems, p)
	}
	if name, ok := t.forms[key]; ok {
		return pick(key, name, forms).build(t, in)
	}
	return forms[0].build(t, in)
}
