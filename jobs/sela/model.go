package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sela/pipeline"
	"sela/stages/model"
)

func (a *app) modelCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "model", Short: "Make, change and describe networks", Args: cobra.NoArgs}
	cmd.AddCommand(a.modelNewCommand(), a.modelHeadsCommand(), a.modelTrunkCommand(), a.modelInspectCommand())
	return cmd
}

// modelNew is the command line of `sela model new`.
type modelNew struct {
	arch    string
	options model.NetworkOptions
	out     string
	calibrateFlags
}

func (a *app) modelNewCommand() *cobra.Command {
	n := &modelNew{}
	cmd := &cobra.Command{
		Use: "new --out FILE", Short: "Write a network with seeded random weights as ONNX", Args: cobra.NoArgs,
		Long: "Writes a classifier of --heads heads of --clusters outputs on one trunk, with random weights that are a function of --seed.\n\n" + headHelp + "\n\n" +
			"BatchNormalization layers of a fresh network hold statistics that describe nothing, so that its outputs mean nothing either. --calibrate or --calibrate-for sets them from a few batches of images, chosen by a hash of their keys. " + calibrationHelp + "\n\n" +
			"Equal options and images give an equal file, byte for byte; calibrated ones, on machines with the same kind of processor.\n\n" + exitTable(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if n.out == "" {
				return badFlags(cmd, "--out is required: name the file to write")
			}
			if err := n.check(cmd); err != nil {
				return err
			}
			return a.makeModel(cmd.Context(), n)
		},
	}
	f := cmd.Flags()
	f.StringVar(&n.arch, "arch", "resnet-s", "network: "+strings.Join(model.Networks(), ", "))
	f.StringVar((*string)(&n.options.Head), "head", "linear", "kind of heads: linear or cosine")
	f.IntVar(&n.options.Heads, "heads", 10, "T, label spaces")
	f.IntVar(&n.options.Clusters, "clusters", 128, "K, clusters of each head")
	f.Float64Var(&n.options.Temperature, "temperature", 0, temperatureHelp)
	f.IntVar(&n.options.ImageSize, "size", 0, "height and width of the input in pixels; 0 = the network's own: 32 for those whose name ends in -s, 224 for the others")
	f.Uint64Var(&n.options.Seed, "seed", 1, "seed of the weights")
	f.StringVar(&n.out, "out", "", "file to write; required")
	n.addFlags(cmd)
	return cmd
}

func (a *app) makeModel(ctx context.Context, n *modelNew) error {
	graph, err := model.New(n.arch, n.options)
	if err != nil {
		return err
	}
	result := map[string]any{"command": "model new", "arch": n.arch, "head": n.options.Head, "heads": n.options.Heads, "clusters": n.options.Clusters, "seed": n.options.Seed}
	if err := n.apply(ctx, graph, false, result); err != nil {
		return err
	}
	return a.saveModel(ctx, graph, n.out, result)
}

// saveModel writes a model and makes what it is the command's result.
func (a *app) saveModel(ctx context.Context, graph *model.Graph, path string, result map[string]any) error {
	if err := model.Save(graph, path); err != nil {
		return err
	}
	d, err := model.Describe(ctx, path)
	if err != nil {
		return err
	}
	result["path"], result["sha256"], result["parameters"] = path, d.SHA256, d.Parameters
	a.result = result
	return nil
}

func (a *app) modelInspectCommand() *cobra.Command {
	return &cobra.Command{
		Use: "inspect FILE", Short: "Describe an ONNX model: inputs, outputs, operators, files", Args: cobra.ExactArgs(1),
		Long: "Describes the ONNX model in FILE, or at a bucket URL, without running it. Its digest covers external data too and is the model's identity in a run.\n\n" + exitTable(),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := model.Local(cmd.Context(), args[0], scratchFolder(pipeline.DefaultJob()))
			if err != nil {
				return err
			}
			d, err := model.Describe(cmd.Context(), path)
			if err != nil {
				return err
			}
			a.result = map[string]any{"command": "model inspect", "path": path, "model": d}
			return describeModel(d)
		},
	}
}

// describeModel prints a model's description as a table.
func describeModel(d *model.Description) error {
	table := tabwriter.NewWriter(os.Stderr, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(table, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("digest", "%s", d.SHA256)
	for i, f := range d.Files {
		name := "external data"
		if i == 0 {
			name = "file"
		}
		row(name, "%s %s", human(f.Bytes), f.Name)
	}
	row("producer", "%s", d.Producer)
	row("versions", "IR %d, operator sets %s", d.IRVersion, strings.TrimPrefix(fmt.Sprint(d.Opsets), "map"))
	for _, t := range d.Inputs {
		row("input", "%s %s %v", t.Name, t.Type, t.Shape)
	}
	for _, t := range d.Outputs {
		row("output", "%s %s %v", t.Name, t.Type, t.Shape)
	}
	if f := d.Features; f != nil {
		row("features", "%s %s %v", f.Name, f.Type, f.Shape)
	}
	row("parameters", "%d", d.Parameters)
	var ops []string
	for _, op := range d.Ops {
		ops = append(ops, fmt.Sprintf("%d %s", op.Count, op.Op))
	}
	row("operators", "%s", strings.Join(ops, ", "))
	row("metadata", "%s", strings.TrimPrefix(fmt.Sprint(d.Metadata), "map"))
	return table.Flush()
}
