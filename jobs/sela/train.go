package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sela/pipeline"
	"sela/stages/extract"
	"sela/stages/model"
	"sela/stages/train/builtin"
)

// transfer is the command line of `sela train --labels`.
type transfer struct {
	labels, images string
	targets        string // a multi-label table instead of labels
	out, local     string
	arch, file     string
	head           string
	size           int
	pixels         pixels // of the images of targets
	replaceHeads   bool
	providers      []string
	device         int
	spec           pipeline.Builtin
}

// addTransfer gives the command of the training stage its second use: to train
// another network on a published label table.
func (a *app) addTransfer(cmd *cobra.Command) {
	n := &transfer{spec: pipeline.DefaultJob().Train.Builtin}
	stage := cmd.RunE
	cmd.Use = "train JOB | train --labels URL --out DIR"
	cmd.Short += ", or train any network on published labels"
	cmd.Long = "With a job: fires its training trigger for the labels that a run has published, and finishes the run.\n\n" +
		"With --labels: label transfer. Trains a network (--arch, or an ONNX file with --model) from scratch on a published label table alone: heads, clusters, images and preprocessing are those of the tables. --labels names a labels bucket, of which it takes the newest run, or the folder of a run (…/runs/ID). Into --out go model.onnx, trunk.onnx without the heads, metrics.csv with a row per epoch, and checkpoint.sela: the same command goes on from there.\n\n" +
		"With --targets: multi-label classification on a table of one's own, such as fine-tuning from a trunk (--model or --init). One head has an output for each class; metrics.csv has the mean average precision of the held-out images. What becomes of the images' pixels is what --resize, --filter, --mean and --std say; the rest is as a job has it by default.\n\n" + cmd.Long
	f := cmd.Flags()
	f.StringVar(&n.labels, "labels", "", "labels bucket or folder of a published run: train on its tables instead of firing a job's trigger")
	f.StringVar(&n.targets, "targets", "", "CSV file of multi-label targets, instead of --labels: a header key,member,CLASS,… and 0 or 1 for each class")
	f.StringVar(&n.images, "images", "", "bucket or folder of the images, if it is not where they were labelled")
	f.StringVar(&n.arch, "arch", "", "built-in network to train: "+strings.Join(model.Networks(), ", "))
	f.StringVar(&n.file, "model", "", "ONNX file or bucket URL of the network to train, instead of --arch")
	f.BoolVar(&n.replaceHeads, "replace-heads", false, "put fresh heads, as many and as large as the labels ask, in the place of the network's (--model)")
	f.StringVar(&n.head, "head", "linear", "kind of fresh heads: linear or cosine")
	f.IntVar(&n.size, "size", 0, "pixels of the images' sides for --arch; 0 = as the labels' model had")
	f.StringVar(&n.out, "out", "", "folder for checkpoint, metrics and results")
	f.StringVar(&n.local, "local", defaultScratch(), "folder for scratch and cache")
	f.StringSliceVar(&n.providers, "providers", []string{"cpu"}, "execution providers in order: cpu, cuda")
	f.IntVar(&n.device, "device", 0, "number of the GPU")
	n.pixels.addFlags(f)
	specFlags(f, &n.spec)
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if n.labels != "" || n.targets != "" {
			return cobra.NoArgs(cmd, args)
		}
		return cobra.ExactArgs(1)(cmd, args)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := n.check(cmd); err != nil {
			return err
		}
		if n.labels == "" && n.targets == "" {
			return stage(cmd, args)
		}
		return a.trainOn(cmd.Context(), n)
	}
}

// check refuses contradictions between flags, before any work.
func (n *transfer) check(cmd *cobra.Command) error {
	bad := func(format string, args ...any) error {
		return pipeline.BadUsage(fmt.Errorf(format+" (see: %s --help)", append(args, cmd.CommandPath())...))
	}
	if n.labels == "" && n.targets == "" {
		var with string
		own := []string{"images", "arch", "model", "replace-heads", "head", "size", "out", "local", "providers", "device"}
		for _, name := range slices.Concat(own, pixelFlagNames, specFlagNames()) {
			if cmd.Flags().Changed(name) {
				with = name
			}
		}
		if with != "" {
			return bad("--%s goes with --labels or --targets; a job says in train.builtin how it is trained", with)
		}
		return nil
	}
	if n.targets == "" {
		for _, name := range pixelFlagNames {
			if cmd.Flags().Changed(name) {
				return bad("--%s goes with --targets; labels come with the preprocessing they were made with", name)
			}
		}
	}
	switch {
	case n.labels != "" && n.targets != "":
		return bad("--labels and --targets: give one of them")
	case n.targets != "" && n.images == "":
		return bad("--targets needs --images")
	case cmd.Flags().Changed("run-id"):
		return bad("--run-id goes with a job; name a run with --labels …/runs/ID")
	case n.out == "":
		return bad("--out is required: name the folder of the results")
	case (n.arch == "") == (n.file == ""):
		return bad("give --arch or --model: the network to train")
	case n.replaceHeads && n.file == "":
		return bad("--replace-heads goes with --model")
	case cmd.Flags().Changed("head") && n.file != "" && !n.replaceHeads:
		return bad("--head goes with --arch or --replace-heads")
	case n.size != 0 && n.file != "", n.size < 0:
		return bad("--size goes with --arch, in pixels")
	}
	if err := n.pixels.check(); err != nil {
		return bad("%w", err)
	}
	if err := n.spec.Check(); err != nil {
		text := strings.ReplaceAll(err.Error(), "\n", "; ")
		return bad("%s", field.ReplaceAllStringFunc(text, func(path string) string {
			return "--" + strings.ReplaceAll(strings.TrimPrefix(path, "train.builtin."), "_", "-")
		}))
	}
	return nil
}

// field matches the name of a field of train.builtin in an error.
var field = regexp.MustCompile(`train\.builtin\.[a-z_]+`)

// trainOn trains a network on published label tables, or on targets.
func (a *app) trainOn(ctx context.Context, n *transfer) (err error) {
	m := &material{transfer: n}
	defer func() { err = errors.Join(err, m.close()) }()
	scratch, release, err := pipeline.OwnFolder(n.local)
	if err != nil {
		return pipeline.BadConfig(fmt.Errorf("--local: %w", err))
	}
	m.closers = append(m.closers, release)
	if n.targets != "" {
		err = m.fromTargets(ctx)
	} else {
		err = m.fromLabels(ctx)
	}
	if err != nil {
		return err
	}
	library, err := findLibrary("")
	if err != nil {
		return err
	}
	rt, err := model.OpenRuntime(library)
	if err != nil {
		return err
	}
	design, digest, err := n.design(ctx, m.job, m.labels.Heads, rt)
	if err != nil {
		return err
	}
	report, err := builtin.Train(ctx, builtin.Config{Job: m.job, Design: design, Digest: digest, Runtime: rt, Images: m.images, Labels: m.labels,
		Dir: n.out, Scratch: scratch, Memory: memoryLimit(), Stop: a.interrupt.stop, Observe: a.progress.Observe})
	if err != nil {
		return err
	}
	a.result = map[string]any{"command": "train", "labels": m.from, "digest": m.labels.Digest, "model": report.Model, "training": report}
	return nil
}

// publishedAt cuts the URL or folder of labels into the labels bucket's URL and
// the run that it names, "" for the newest.
func publishedAt(labels string) (where, run string, err error) {
	if labels, err = folderURL(labels); err != nil {
		return "", "", err
	}
	u, err := url.Parse(labels)
	if err != nil { // whose text may hold credentials
		return "", "", pipeline.BadUsage(errors.New("--labels: the URL cannot be parsed; check its %-escapes"))
	}
	clean := strings.TrimRight(u.Path, "/")
	if parent, id := path.Split(clean); path.Base(parent) == "runs" {
		run = id
		u.Path, u.RawPath = strings.TrimSuffix(path.Dir(path.Clean(parent)), "/"), ""
	}
	return u.String(), run, nil
}

// design makes or reads the network, with heads for the clusters of the labels.
func (n *transfer) design(ctx context.Context, job *pipeline.Job, clusters []int, rt *model.Runtime) (*extract.Design, string, error) {
	graph, sum, err := n.network(ctx, job, clusters, rt)
	if err != nil {
		return nil, "", err
	}
	raw, err := graph.Bytes()
	if err != nil {
		return nil, "", pipeline.BadConfig(err)
	}
	identity := sha256.Sum256(append(raw, sum...))
	design, err := extract.NewDesign(job, graph)
	return design, hex.EncodeToString(identity[:]), err
}

// network returns the graph to train and the digest of the files it was read
// from, if any.
func (n *transfer) network(ctx context.Context, job *pipeline.Job, clusters []int, rt *model.Runtime) (*model.Graph, string, error) {
	heads := model.HeadOptions{Kind: model.HeadKind(n.head), Heads: len(clusters), Clusters: clusters[0], Seed: uint64(n.spec.Seed)}
	if n.arch != "" || n.replaceHeads {
		if k := slices.Compact(slices.Clone(clusters)); len(k) > 1 {
			return nil, "", pipeline.BadConfig(fmt.Errorf("the labels have heads of %v clusters: fresh heads are all of one size; give a network with these heads (--model)", clusters))
		}
	}
	if n.arch != "" {
		if n.targets == "" {
			n.resize(&job.Preprocess)
		} else if err := n.pixels.fit(&job.Preprocess, cmp.Or(n.size, job.Preprocess.Crop[0])); err != nil {
			return nil, "", err
		}
		size := job.Preprocess.Crop
		if len(size) == 0 {
			return nil, "", pipeline.BadConfig(errors.New("the labels' job crops no square that a built-in network could take: say --size"))
		}
		graph, err := model.New(n.arch, model.NetworkOptions{ImageSize: size[0], Head: heads.Kind, Heads: heads.Heads, Clusters: heads.Clusters, Seed: heads.Seed})
		return graph, "", err
	}
	file, err := model.Local(ctx, n.file, job.Local.Dir)
	if err != nil {
		return nil, "", err
	}
	graph, sum, err := model.Load(ctx, file)
	if err == nil && n.targets != "" {
		if in := graph.Inputs(); len(in) == 1 && len(in[0].Shape) == 4 && in[0].Shape[2].Size > 0 {
			err = n.pixels.fit(&job.Preprocess, int(in[0].Shape[2].Size))
		}
	}
	if err == nil && n.replaceHeads {
		open := func() (*model.Runtime, error) { return rt, nil }
		if _, err = model.ReplaceHeads(graph, "", heads, open, job.Local.Dir); err != nil {
			err = fmt.Errorf("--model %s: %w", n.file, err)
		}
	}
	return graph, sum, err
}

// resize makes the preprocessing's images as large as --size says, all lengths
// in proportion.
func (n *transfer) resize(p *pipeline.Preprocess) {
	if n.size == 0 {
		return
	}
	if len(p.Crop) > 0 {
		scaled := pipeline.Size{}
		for _, side := range p.Resize {
			scaled = append(scaled, int(math.Round(float64(side)*float64(n.size)/float64(p.Crop[0]))))
		}
		p.Resize = scaled
	}
	if len(p.Resize) == 0 {
		p.Resize = pipeline.Size{n.size}
	}
	p.Crop = pipeline.Size{n.size}
}
