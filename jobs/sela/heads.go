package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"sela/pipeline"
	"sela/stages/model"
)

// headHelp explains --head.
const headHelp = "--head linear: each head is a linear layer on the features. --head cosine: the heads share a projection of the features to 128 dimensions (linear, BatchNormalization, ReLU, linear), and what they put out are the cosines between it and their clusters' prototypes, divided by --temperature."

var temperatureHelp = fmt.Sprintf("that divides the cosines of --head cosine; 0 = %g, as in SwAV", model.DefaultTemperature)

// modelHeads is the command line of `sela model heads`.
type modelHeads struct {
	options  model.HeadOptions
	features string
	out      string
	calibrateFlags
}

func (a *app) modelHeadsCommand() *cobra.Command {
	h := &modelHeads{}
	cmd := &cobra.Command{
		Use: "heads MODEL --out FILE", Short: "Put new heads on a network", Args: cobra.ExactArgs(1),
		Long: "Replaces the last layer of the ONNX model in the file or at the bucket URL MODEL by --heads heads of --clusters outputs, head_0, head_1, …, with random weights that are a function of --seed. All other weights stay.\n\n" +
			"The last layer is the linear one before the model's outputs (Gemm, or MatMul with a constant matrix); the heads read what it reads. Where a model ends otherwise, or the heads are to read another tensor, name it with --features. It is flattened behind the batch dimension.\n\n" + headHelp + "\n\n" +
			"The BatchNormalization layer in cosine heads holds statistics that describe nothing until training; for outputs before that, --calibrate or --calibrate-for sets them from a few batches of images. Those of the network itself stay. " + calibrationHelp + "\n\n" + exitTable(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if h.out == "" {
				return badFlags(cmd, "--out is required: name the file to write")
			}
			if err := h.check(cmd); err != nil {
				return err
			}
			if h.wanted() && h.options.Kind != "cosine" {
				return badFlags(cmd, "--calibrate and --calibrate-for go with --head cosine: linear heads have nothing to calibrate")
			}
			return a.replaceHeads(cmd.Context(), args[0], h)
		},
	}
	f := cmd.Flags()
	f.StringVar((*string)(&h.options.Kind), "head", "linear", "kind of heads: linear or cosine")
	f.IntVar(&h.options.Heads, "heads", 10, "T, label spaces")
	f.IntVar(&h.options.Clusters, "clusters", 128, "K, clusters of each head")
	f.Float64Var(&h.options.Temperature, "temperature", 0, temperatureHelp)
	f.StringVar(&h.features, "features", "", "tensor that the heads read; default: what the model's last layer reads")
	f.Uint64Var(&h.options.Seed, "seed", 1, "seed of the heads' weights")
	f.StringVar(&h.out, "out", "", "file to write; required")
	h.addFlags(cmd)
	return cmd
}

func (a *app) replaceHeads(ctx context.Context, source string, h *modelHeads) error {
	graph, err := loadModel(ctx, source)
	if err != nil {
		return err
	}
	job := pipeline.DefaultJob()
	heads, err := model.ReplaceHeads(graph, h.features, h.options, func() (*model.Runtime, error) { return openRuntime(job) }, scratchFolder(job))
	if err != nil {
		return err
	}
	features, err := graph.Features("")
	if err != nil {
		return pipeline.BadConfig(err)
	}
	result := map[string]any{"command": "model heads", "model": source, "features": features.Name, "outputs": heads,
		"head": h.options.Kind, "heads": h.options.Heads, "clusters": h.options.Clusters, "seed": h.options.Seed}
	if err := h.apply(ctx, graph, true, result); err != nil {
		return err
	}
	return a.saveModel(ctx, graph, h.out, result)
}

// loadModel reads the model in a file or at a bucket URL.
func loadModel(ctx context.Context, source string) (*model.Graph, error) {
	path, err := model.Local(ctx, source, scratchFolder(pipeline.DefaultJob()))
	if err != nil {
		return nil, err
	}
	graph, _, err := model.Load(ctx, path)
	return graph, err
}

func (a *app) modelTrunkCommand() *cobra.Command {
	var features, out string
	cmd := &cobra.Command{
		Use: "trunk MODEL --out FILE", Short: "Write a network without its heads", Args: cobra.ExactArgs(1),
		Long: "Writes the ONNX model in the file or at the bucket URL MODEL up to what its heads read, which becomes its one output, features. That is what the linear layer before the model's outputs reads, or the tensor named by --features.\n\n" + exitTable(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return badFlags(cmd, "--out is required: name the file to write")
			}
			ctx := cmd.Context()
			graph, err := loadModel(ctx, args[0])
			if err != nil {
				return err
			}
			trunk, err := model.Trunk(graph, features)
			if err != nil {
				return err
			}
			return a.saveModel(ctx, trunk, out, map[string]any{"command": "model trunk", "model": args[0]})
		},
	}
	cmd.Flags().StringVar(&features, "features", "", "tensor to end at; default: what the model's last layer reads")
	cmd.Flags().StringVar(&out, "out", "", "file to write; required")
	return cmd
}
