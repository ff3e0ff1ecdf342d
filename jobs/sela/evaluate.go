package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/evaluate"
	"sela/stages/extract"
	"sela/stages/list"
	"sela/stages/model"
	"sela/stages/train/builtin"
	"sela/stages/truth"
)

// evaluation is the command line of `sela evaluate`.
type evaluation struct {
	test, testGlob string
	truth          string
	models         []string // [NAME=]FILE
	untrained      string
	features       []string
	layers         []string
	pool           int
	probe, heads   bool
	labels         string
	baselines      []string
	limit          int
	out            string
}

func (a *app) evaluateCommand() *cobra.Command {
	n := &evaluation{}
	cmd := &cobra.Command{
		Use:   "evaluate JOB --test URL",
		Short: "Measure features and labels against the true classes",
		Long: "Measures networks by what simple classifiers make of their features, in evaluation mode, on whole images, preprocessed as the job says. " +
			"The job's images are the training split, whose features are the bank; --test and --test-glob name the test split, whose images are classified. " +
			"Classes are names of folders, or come from a table (--truth).\n\n" +
			"kNN: cosine, votes weighted exp(cos/σ), K = 10 with σ = 0.1 and K = 50 with σ = 0.5. Linear (--probe, --layers): multinomial logistic regression by L-BFGS on standardised features, ½·L2·‖W‖² beside the mean loss, L2 of 1e-5 to 1e-2 chosen on a tenth of the training split, at most 5,000 images, then fitted to all of it. " +
			"Clusters (--labels, --heads): NMI with the arithmetic mean, AMI, ARI and purity, NMI and purity beside those of a random equipartition, and the accuracy under the best matching where there are as many clusters as classes.\n\n" + exitTable(),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := n.check(cmd); err != nil {
				return err
			}
			return a.withSession(cmd, args[0], func(ctx context.Context, s *session) error { return s.evaluate(ctx, n) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&n.test, "test", "", "bucket or folder of the test split; empty = the job's images bucket")
	f.StringVar(&n.testGlob, "test-glob", "", "only keys of the test split that match it, as images.glob")
	f.StringVar(&n.truth, "truth", truth.Folders, "classes of the images: folders (the last one of an image's path), or a CSV file or its URL, with the header key,member,class")
	f.StringArrayVar(&n.models, "model", nil, "[NAME=]FILE or bucket URL of a network to measure instead of the job's; may be repeated")
	f.StringArrayVar(&n.features, "features", nil, "tensor to take features from; may be repeated (default: the one that the heads read)")
	f.IntVar(&n.pool, "pool", 1, "features of a map [C, H, W]: 1 = its mean over all places, 2 = over each quarter")
	f.BoolVar(&n.probe, "probe", false, "fit linear classifiers to the features")
	f.StringSliceVar(&n.layers, "layers", nil, "tensors to fit linear classifiers to, each largest value of as many windows as make at most 9,600 features: conv1,conv2,…")
	f.BoolVar(&n.heads, "heads", false, "score the clusters that the networks' own heads choose for the test split")
	f.StringVar(&n.labels, "labels", "", "score the labels of this run, or of the newest with latest, of the job's labels bucket")
	f.StringSliceVar(&n.baselines, "baselines", nil, "measure beside them: pixels (standardised), untrained (the job's model, or --untrained)")
	f.StringVar(&n.untrained, "untrained", "", "ONNX file or bucket URL of the untrained network")
	f.IntVar(&n.limit, "limit", 0, "use so many images of either split, evenly spaced in the listing; 0 = all")
	f.StringVar(&n.out, "out", "", "folder for evaluation.csv and evaluation.parquet")
	return cmd
}

// check refuses contradictions between flags, before any work.
func (n *evaluation) check(cmd *cobra.Command) error {
	bad := func(format string, args ...any) error {
		return pipeline.BadUsage(fmt.Errorf(format+" (see: %s --help)", append(args, cmd.CommandPath())...))
	}
	untrained := slices.Contains(n.baselines, "untrained")
	for _, b := range n.baselines {
		if b != "pixels" && b != "untrained" {
			return bad("--baselines %s: use pixels and untrained", b)
		}
	}
	switch {
	case n.test == "" && n.testGlob == "":
		return bad("--test or --test-glob is required: name the images to classify")
	case n.pool != 1 && n.pool != 2:
		return bad("--pool is %d: use 1 or 2", n.pool)
	case n.limit < 0:
		return bad("--limit is %d: use a number of images, or 0 for all", n.limit)
	case n.untrained != "" && !untrained:
		return bad("--untrained goes with --baselines untrained")
	case untrained && n.untrained == "" && len(n.models) == 0:
		return bad("--baselines untrained: name the trained network with --model, or the untrained one with --untrained")
	}
	return nil
}

// evaluate measures what the flags name and prints it. All that can be wrong is
// looked at before any image is read.
func (s *session) evaluate(ctx context.Context, n *evaluation) error {
	source, err := truth.Open(ctx, n.truth)
	if err != nil {
		return err
	}
	folder, release, err := pipeline.OwnFolder(s.job.Local.Dir)
	if err != nil {
		return pipeline.BadConfig(fmt.Errorf("local.dir: %w", err))
	}
	defer func() { _ = release() }() // scratch only
	c := &evaluate.Config{Pool: n.pool, Probe: n.probe, Memory: memoryLimit(), Dir: folder, Observer: s.app.progress}
	if c.Networks, err = s.networks(ctx, n); err != nil {
		return err
	}
	test := s.images
	if n.test != "" {
		if test, err = s.testBucket(ctx, n.test); err != nil {
			return err
		}
		defer test.Close() // it was only read
	}
	if err := s.splits(ctx, n, source, test, c); err != nil {
		return err
	}
	if c.Runtime, err = model.OpenRuntime(s.library); err != nil {
		return err
	}
	report, err := evaluate.Run(ctx, c)
	if err != nil {
		return err
	}
	if err := report.Print(os.Stderr); err != nil {
		return fmt.Errorf("print the evaluation: %w", err)
	}
	s.app.result = map[string]any{"command": "evaluate", "job": s.job.Name, "evaluation": report}
	if n.out != "" {
		files, err := report.Save(n.out, map[string]string{"preprocessing": s.design.Spec.Fingerprint(), "library": s.library.SHA256, "code": version()})
		if err != nil {
			return fmt.Errorf("--out: %w", err)
		}
		s.app.result["files"] = files
	}
	return nil
}

// networks opens what is to be measured, as far as files tell.
func (s *session) networks(ctx context.Context, n *evaluation) (all []*evaluate.Network, err error) {
	if len(n.models) == 0 {
		all = append(all, &evaluate.Network{Name: "model", Job: s.job, Design: s.design})
	}
	for _, m := range n.models {
		name, file, named := strings.Cut(m, "=")
		if !named || strings.ContainsAny(name, "/:") { // an = of the path's own
			file = m
			name = strings.TrimSuffix(path.Base(file), path.Ext(file))
		}
		net, err := s.network(ctx, name, file)
		if err != nil {
			return nil, fmt.Errorf("--model: %w", err)
		}
		all = append(all, net)
	}
	if slices.Contains(n.baselines, "untrained") {
		net := &evaluate.Network{Name: "untrained", Job: s.job, Design: s.design}
		if n.untrained != "" {
			if net, err = s.network(ctx, "untrained", n.untrained); err != nil {
				return nil, fmt.Errorf("--untrained: %w", err)
			}
		}
		all = append(all, net)
	}
	features := n.features
	if len(features) == 0 {
		features = []string{""}
	}
	for i, net := range all {
		if slices.ContainsFunc(all[:i], func(o *evaluate.Network) bool { return o.Name == net.Name }) {
			return nil, pipeline.BadUsage(fmt.Errorf("--model: two networks are called %s: name them, as in --model %s-2=FILE", net.Name, net.Name))
		}
		net.Heads, net.Pixels = n.heads, i == 0 && slices.Contains(n.baselines, "pixels")
		if net.Features, err = net.Design.FindTensors(features); err != nil {
			return nil, fmt.Errorf("--features: %s: %w", net.Name, err)
		}
		if net.Layers, err = net.Design.FindTensors(n.layers); err != nil {
			return nil, fmt.Errorf("--layers: %s: %w", net.Name, err)
		}
	}
	return all, nil
}

// network opens a network other than the job's, which may have other heads.
func (s *session) network(ctx context.Context, name, file string) (*evaluate.Network, error) {
	local, err := model.Local(ctx, file, s.job.Local.Dir)
	if err != nil {
		return nil, err
	}
	graph, _, err := model.Load(ctx, local)
	if err != nil {
		return nil, err
	}
	job := *s.job
	job.Model = pipeline.Model{Path: local, Kind: s.job.Model.Kind}
	design, err := extract.NewDesign(&job, graph)
	return &evaluate.Network{Name: name, Job: &job, Design: design}, err
}

func (s *session) testBucket(ctx context.Context, test string) (*bucket.Bucket, error) {
	where, err := folderURL(test)
	if err != nil {
		return nil, err
	}
	b, err := bucket.Open(ctx, where, bucketOptions(s.job))
	if err != nil {
		return nil, pipeline.BadConfig(fmt.Errorf("--test: %w", err))
	}
	return b, nil
}

// splits lists the images and finds their classes and, where they are asked for,
// their labels.
func (s *session) splits(ctx context.Context, n *evaluation, source *truth.Source, test *bucket.Bucket, c *evaluate.Config) error {
	train, err := list.First(ctx, s.images, s.job.Images, math.MaxInt)
	if err != nil {
		return fmt.Errorf("training split: %w", err)
	}
	tested, err := list.First(ctx, test, pipeline.Images{Glob: n.testGlob}, math.MaxInt)
	if err != nil {
		return fmt.Errorf("test split: %w", err)
	}
	if test.URL() == s.images.URL() {
		if err := apart(train, tested); err != nil {
			return err
		}
	}
	if n.labels != "" {
		if c.Labels, err = s.labelling(ctx, n.labels, train, source); err != nil {
			return fmt.Errorf("--labels: %w", err)
		}
	}
	c.Train = evaluate.Split{Bucket: s.images, Images: spaced(train, n.limit)}
	c.Test = evaluate.Split{Bucket: test, Images: spaced(tested, n.limit)}
	return classes(ctx, source, c)
}

// classes numbers the classes of both splits alike.
func classes(ctx context.Context, source *truth.Source, c *evaluate.Config) (err error) {
	if c.Classes, c.Train.Labels, err = source.Labels(ctx, eachOf(c.Train.Images)); err != nil {
		return fmt.Errorf("training split: %w", err)
	}
	names, labels, err := source.Labels(ctx, eachOf(c.Test.Images))
	if err != nil {
		return fmt.Errorf("test split: %w", err)
	}
	number := make([]int32, len(names))
	var unknown []string
	for i, name := range names {
		at, ok := slices.BinarySearch(c.Classes, name)
		if number[i] = int32(at); !ok {
			unknown = append(unknown, fmt.Sprintf("%q", name))
		}
	}
	if len(unknown) > 0 {
		return pipeline.BadData(fmt.Errorf("test split: %d of its %d classes are not in the training split: %s; that has %d, such as %q: leave their images out, or name the classes alike",
			len(unknown), len(names), strings.Join(unknown[:min(5, len(unknown))], ", "), len(c.Classes), c.Classes[:min(5, len(c.Classes))]))
	}
	if len(c.Classes) < 2 {
		return pipeline.BadData(fmt.Errorf("all images of the training split are of class %q: there is nothing to tell apart; is --truth right?", c.Classes[0]))
	}
	for i, l := range labels {
		labels[i] = number[l]
	}
	c.Test.Labels = labels
	return nil
}

func eachOf(images []schemas.Image) func(func(key, member string) error) error {
	return func(yield func(key, member string) error) error {
		for _, img := range images {
			if err := yield(img.Key, img.Member); err != nil {
				return err
			}
		}
		return nil
	}
}

// apart refuses splits that share images: a neighbour would be the image itself.
func apart(train, test []schemas.Image) error {
	for len(train) > 0 && len(test) > 0 {
		a, b := train[0], test[0]
		order := cmp.Or(strings.Compare(a.Key, b.Key), cmp.Compare(a.Offset, b.Offset))
		if order == 0 {
			return pipeline.BadConfig(fmt.Errorf("image %q %q is in both splits: set images.glob or images.prefix in the job, and --test-glob", a.Key, a.Member))
		}
		if order < 0 {
			train = train[1:]
		} else {
			test = test[1:]
		}
	}
	return nil
}

// spaced returns n of the images, evenly spaced, or all.
func spaced(images []schemas.Image, n int) []schemas.Image {
	if n == 0 || n >= len(images) {
		return images
	}
	some := make([]schemas.Image, n)
	for i := range some {
		some[i] = images[i*len(images)/n]
	}
	return some
}

// labelling reads the labels of a published run.
func (s *session) labelling(ctx context.Context, run string, images []schemas.Image, source *truth.Source) (*evaluate.Labelling, error) {
	if run == "latest" {
		run = ""
	}
	published, err := builtin.OpenPublished(ctx, s.labels, run)
	if err != nil {
		return nil, err
	}
	cache, err := builtin.LabelsCache(s.job)
	if err != nil {
		return nil, err
	}
	labels, err := published.Labels(ctx, cache, func(_ context.Context, fn func(schemas.Image) error) error {
		for _, img := range images {
			if err := fn(img); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	l := &evaluate.Labelling{Run: published.Run, Clusters: labels.Heads}
	for h := range labels.Heads {
		of := make([]int32, labels.Len())
		for i := range of {
			of[i] = labels.Label(i, h)
		}
		l.Labels = append(l.Labels, of)
	}
	var names []string
	names, l.Truth, err = source.Labels(ctx, func(yield func(key, member string) error) error {
		for i := range labels.Len() {
			img := labels.Image(i)
			if err := yield(img.Key, img.Member); err != nil {
				return err
			}
		}
		return nil
	})
	l.Classes = len(names)
	return l, err
}
