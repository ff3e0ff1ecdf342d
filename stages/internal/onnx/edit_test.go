package onnx_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxpb"
	"sela/stages/internal/onnx/onnxtest"
)

// added lists the nodes an edit appended as "Op(inputs)→outputs".
func added(before, after *onnx.Model) []string {
	var s []string
	for _, n := range after.Proto.Graph.Node[len(before.Proto.Graph.Node):] {
		s = append(s, fmt.Sprintf("%s(%s)→%s", n.GetOpType(), strings.Join(n.Input, ","), strings.Join(n.Output, ",")))
	}
	return s
}

func TestAppendLogProbs(t *testing.T) {
	two := []int{4, 6}
	for _, c := range []struct {
		name  string
		model onnxtest.Classifier
		heads []onnx.Head
		nodes []string
	}{
		{"logits", onnxtest.Classifier{Clusters: two},
			[]onnx.Head{{"sela_logprobs_0", 4, "head_0", 0}, {"sela_logprobs_1", 6, "head_1", 0}},
			[]string{"LogSoftmax(head_0)→sela_logprobs_0", "LogSoftmax(head_1)→sela_logprobs_1"}},
		{"float16 logits", onnxtest.Classifier{OutputDType: onnx.Float16},
			[]onnx.Head{{"sela_logprobs_0", 4, "head_0", 0}},
			[]string{"Cast(head_0)→head_0_float32", "LogSoftmax(head_0_float32)→sela_logprobs_0"}},
		{"probabilities", onnxtest.Classifier{Kind: onnx.Probabilities, OutputDType: onnx.Float64},
			[]onnx.Head{{"sela_logprobs_0", 4, "head_0", 0}},
			[]string{"Cast(head_0)→head_0_float32", "Log(head_0_float32)→sela_logprobs_0"}},
		{"log-probabilities", onnxtest.Classifier{Kind: onnx.LogProbabilities},
			[]onnx.Head{{"sela_logprobs_0", 4, "head_0", 0}},
			[]string{"Identity(head_0)→sela_logprobs_0"}},
		{"stacked", onnxtest.Classifier{Clusters: []int{5, 5}, Stacked: true, OutputDType: onnx.Float16},
			[]onnx.Head{{"sela_logprobs_0", 5, "heads", 0}, {"sela_logprobs_1", 5, "heads", 1}},
			[]string{"Cast(heads)→heads_float32",
				"Gather(heads_float32,sela_head_index)→heads_head_0", "LogSoftmax(heads_head_0)→sela_logprobs_0",
				"Gather(heads_float32,sela_head_index_1)→heads_head_1", "LogSoftmax(heads_head_1)→sela_logprobs_1"}},
	} {
		before, _ := c.model.Build()
		m := before.Clone()
		kind := c.model.Kind
		if kind == "" {
			kind = onnx.Logits
		}
		heads, err := m.AppendLogProbs(onnx.HeadsSpec{Kind: kind})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if !slices.Equal(heads, c.heads) {
			t.Errorf("%s: heads %v, want %v", c.name, heads, c.heads)
		}
		if got := added(before, m); !slices.Equal(got, c.nodes) {
			t.Errorf("%s: nodes %q, want %q", c.name, got, c.nodes)
		}
		info, err := onnx.Inspect(m)
		if err != nil {
			t.Fatal(err)
		}
		for i, h := range c.heads {
			got := info.Outputs[len(info.Outputs)-len(heads)+i].String()
			if want := fmt.Sprintf("%s float32 [N %d]", h.Output, h.Clusters); got != want {
				t.Errorf("%s: output %q, want %q", c.name, got, want)
			}
		}
	}
}

func TestAppendLogProbsChoosesOutputs(t *testing.T) {
	m, _ := onnxtest.Classifier{Clusters: []int{2, 3, 4}}.Build()
	heads, err := m.AppendLogProbs(onnx.HeadsSpec{Kind: onnx.Logits, Outputs: []string{"head_2", "head_0"}})
	if err != nil {
		t.Fatal(err)
	}
	if want := []onnx.Head{{"sela_logprobs_0", 4, "head_2", 0}, {"sela_logprobs_1", 2, "head_0", 0}}; !slices.Equal(heads, want) {
		t.Errorf("heads %v, want %v", heads, want)
	}
	// The names are taken now; the edit must not produce them twice.
	heads, err = m.AppendLogProbs(onnx.HeadsSpec{Kind: onnx.Logits, Outputs: []string{"head_1"}})
	if err != nil || heads[0].Output != "sela_logprobs_0_1" {
		t.Errorf("heads %v, %v", heads, err)
	}
}

func TestAppendLogProbsOldIR(t *testing.T) {
	m := load(t, "stacked-11")
	m.Proto.IrVersion = proto.Int64(3)
	if _, err := m.AppendLogProbs(onnx.HeadsSpec{Kind: onnx.Logits}); err != nil {
		t.Fatal(err)
	}
	listed := 0
	for _, in := range m.Proto.Graph.Input {
		if strings.HasPrefix(in.GetName(), "sela_head_index") {
			listed++
		}
	}
	if listed != 3 || len(m.Inputs()) != 1 {
		t.Errorf("%d of 3 new initialisers listed as inputs; %d inputs to feed, want 1", listed, len(m.Inputs()))
	}
	if m.Proto.GetIrVersion() != 3 || m.Opset() != 11 {
		t.Error("the edit changed the model's versions")
	}
}

func TestAppendLogProbsRefuses(t *testing.T) {
	two := onnxtest.Classifier{Clusters: []int{2, 3}}
	output := func(v onnx.Value) func(*onnx.Model) {
		return func(m *onnx.Model) { onnx.Edit(m).Output(v) }
	}
	for _, c := range []struct {
		name   string
		model  onnxtest.Classifier
		change func(*onnx.Model)
		spec   onnx.HeadsSpec
		want   string // in the error
		is     error
	}{
		{"kind", two, nil, onnx.HeadsSpec{Kind: "scores"}, "scores", nil},
		{"missing", two, nil, onnx.HeadsSpec{Kind: onnx.Logits, Outputs: []string{"head_7"}}, "head_0, head_1", nil},
		{"twice", two, nil, onnx.HeadsSpec{Kind: onnx.Logits, Outputs: []string{"head_0", "head_0"}}, "twice", nil},
		{"integers", two, output(onnx.Value{Name: "argmax", DType: onnx.Int64, Shape: []onnx.Dim{{}, {Size: 2}}}),
			onnx.HeadsSpec{Kind: onnx.Logits}, "argmax", onnx.ErrUnsupported},
		{"no tensor", two, output(onnx.Value{Name: "map"}), onnx.HeadsSpec{Kind: onnx.Logits}, "map", onnx.ErrUnsupported},
		{"rank 4", two, output(onnx.Value{Name: "grid", DType: onnx.Float32, Shape: make([]onnx.Dim, 4)}),
			onnx.HeadsSpec{Kind: onnx.Logits, Outputs: []string{"grid"}}, "grid", onnx.ErrUnsupported},
		{"no rank", two, output(onnx.Value{Name: "any", DType: onnx.Float32}),
			onnx.HeadsSpec{Kind: onnx.Logits, Outputs: []string{"any"}}, "any", onnx.ErrUnsupported},
		{"unstated number of heads", two, output(onnx.Value{Name: "s", DType: onnx.Float32, Shape: []onnx.Dim{{}, {Name: "T"}, {Size: 3}}}),
			onnx.HeadsSpec{Kind: onnx.Logits, Outputs: []string{"s"}}, "number of stacked heads", onnx.ErrUnsupported},
		{"stacked beside others", two, output(onnx.Value{Name: "s", DType: onnx.Float32, Shape: []onnx.Dim{{}, {Size: 2}, {Size: 3}}}),
			onnx.HeadsSpec{Kind: onnx.Logits}, "name the outputs", onnx.ErrUnsupported},
		{"old operators", two, func(m *onnx.Model) { m.Proto.OpsetImport[0].Version = proto.Int64(6) },
			onnx.HeadsSpec{Kind: onnx.Logits}, "operator set 6", onnx.ErrUnsupported},
		{"other domain", two, func(m *onnx.Model) { m.Proto.OpsetImport[0].Domain = proto.String("ai.onnx.ml") },
			onnx.HeadsSpec{Kind: onnx.Logits}, "operator set 0", onnx.ErrUnsupported},
	} {
		m, _ := c.model.Build()
		if c.change != nil {
			c.change(m)
		}
		before := encode(t, m)
		_, err := m.AppendLogProbs(c.spec)
		if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
		if !bytes.Equal(before, encode(t, m)) {
			t.Errorf("%s: the model was changed", c.name)
		}
	}
}

func TestAppendFeatures(t *testing.T) {
	m, err := onnx.NewNetwork("resnet-s", onnx.NetworkOptions{Heads: 1, Clusters: 4})
	if err != nil {
		t.Fatal(err)
	}
	for tensor, want := range map[string]string{
		"features": "float32 [N 256]", "conv4": "float32 [N 4096]", "images": "float32 [N 3072]",
		"layer2.0.sum": "float32 [? ?]", // its shape is not stated
	} {
		edited := m.Clone()
		v, err := edited.AppendFeatures(tensor)
		if err != nil {
			t.Fatal(err)
		}
		if got := v.String(); got != "sela_features "+want {
			t.Errorf("%s: %s, want %s", tensor, got, want)
		}
		info, err := onnx.Inspect(edited)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Outputs[len(info.Outputs)-1].String(); got != v.String() {
			t.Errorf("%s: output %s", tensor, got)
		}
	}
	before := m.Clone()
	if _, err := m.AppendFeatures("layer2.0.sum"); err != nil {
		t.Fatal(err)
	}
	if got, want := added(before, m), []string{"Cast(layer2.0.sum)→layer2.0.sum_float32", "Flatten(layer2.0.sum_float32)→sela_features"}; !slices.Equal(got, want) {
		t.Errorf("nodes %q, want %q", got, want)
	}
}

func TestAppendFeaturesListsNearNames(t *testing.T) {
	m, err := onnx.NewNetwork("resnet-s", onnx.NetworkOptions{Heads: 1, Clusters: 4})
	if err != nil {
		t.Fatal(err)
	}
	for wrong, near := range map[string]string{"feature": "features", "Conv3": "conv3", "layer3.0.sun": "layer3.0.sum", "pooled": "pool.out", "": ""} {
		_, err := m.AppendFeatures(wrong)
		if !errors.Is(err, onnx.ErrNoTensor) || !strings.Contains(err.Error(), near) {
			t.Errorf("%q: error %v, want one that offers %s", wrong, err, near)
		}
	}
}

func TestBuilderNamesAreUnique(t *testing.T) {
	b := onnx.Edit(load(t, "branches-21"))
	// v and t are names inside a branch, which sees what is around it.
	for _, name := range []string{"x", "w", "y", "v", "t", "if"} {
		if got := b.Node("Identity", name, []string{"x"}); got != name+"_1" {
			t.Errorf("%s: named %s, want %s_1", name, got, name)
		}
	}
	if a, b := b.Node("Relu", "", []string{"x"}), b.Node("Relu", "", []string{"x"}); a != "Relu" || b != "Relu_1" {
		t.Errorf("unnamed nodes are %s and %s", a, b)
	}
	parts := b.Nodes("Split", []string{"p", "p"}, []string{"x"}, onnx.Int("axis", 1), onnx.Ints("split", 1, 3), onnx.Float("unused", 0.5))
	if !slices.Equal(parts, []string{"p", "p_1"}) {
		t.Errorf("outputs %q", parts)
	}
	n := b.Model().Proto.Graph.Node
	split := n[len(n)-1]
	if a := split.Attribute; len(a) != 3 || a[0].GetI() != 1 || !slices.Equal(a[1].Ints, []int64{1, 3}) || a[2].GetF() != 0.5 ||
		a[0].GetType() != onnxpb.AttributeProto_INT || a[1].GetType() != onnxpb.AttributeProto_INTS || a[2].GetType() != onnxpb.AttributeProto_FLOAT {
		t.Errorf("attributes %v", a)
	}
}
