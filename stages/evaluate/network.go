package evaluate

import (
	"context"
	"errors"
	"fmt"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/extract"
)

// Split is a set of images with their classes.
type Split struct {
	Bucket *bucket.Bucket
	Images []schemas.Image // in row order
	Labels []int32         // of each image, an index of Config.Classes
}

// Network is a network to be measured.
type Network struct {
	Name   string // in tables
	Job    *pipeline.Job
	Design *extract.Design
	// Features are the tensors whose features are measured, as
	// [extract.Design.FindTensors] has them.
	Features []string
	// Layers are the tensors that are probed with spatial pooling, see [Pooling].
	Layers []string
	// Heads says whether the clusters that its own heads choose are scored.
	Heads bool
	// Pixels says whether the images as it sees them are measured, too, as if
	// they were features.
	Pixels bool
}

// pixels is the name of the pixels in tables.
const pixels = "pixels"

// source is a tensor of a network and what is done with it.
type source struct {
	name    string // in tables
	tensor  string
	pooling Pooling
	shape   []int
	nearest bool // neighbours are asked
	probe   bool
	pixels  bool
	train   *Matrix
	test    *Matrix
}

func (s *source) dim() int { return s.pooling.dim(s.shape) }

// sources lists what is to be measured of a network.
func (r *run) sources(n *Network) []*source {
	var all []*source
	for _, t := range n.Features {
		all = append(all, &source{name: t, tensor: t, pooling: Pooling{Side: r.Pool}, nearest: true, probe: r.Probe})
	}
	for _, t := range n.Layers {
		all = append(all, &source{name: t, tensor: t, probe: true})
	}
	if n.Pixels {
		all = append(all, &source{name: pixels, tensor: n.Design.Input, nearest: true, probe: r.Probe, pixels: true})
	}
	return all
}

// measureShapes asks the runtime for the shapes of the tensors.
func (r *run) measureShapes(ctx context.Context, n *Network, all []*source) error {
	reader, err := r.reader(ctx, n, all, n.Heads)
	if err != nil {
		return err
	}
	for i, s := range all {
		s.shape = reader.Shapes[i]
		if s.probe && !s.nearest {
			s.pooling = forProbe(s.shape)
		}
		if !s.pixels {
			s.name += s.pooling.suffix(s.shape)
		}
	}
	return reader.Close()
}

func (r *run) reader(ctx context.Context, n *Network, all []*source, heads bool) (*extract.Reader, error) {
	var tensors []string
	for _, s := range all {
		tensors = append(tensors, s.tensor)
	}
	opened, err := extract.OpenReader(ctx, r.Runtime, n.Job, n.Design, tensors, heads, r.Dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.Name, err)
	}
	return opened, nil
}

// passes groups the sources so that the features of each group fit into the
// budget of memory.
func (r *run) passes(n *Network, all []*source) (groups [][]*source, err error) {
	budget := r.Memory / 100 * featuresPercent
	rows := int64(len(r.Train.Images) + len(r.Test.Images))
	var used int64
	for _, s := range all {
		bytes := rows * int64(s.dim()) * 4
		if r.Memory > 0 && bytes > budget {
			return nil, pipeline.BadConfig(fmt.Errorf("%s: %d features of %s for %d images take %s; features may take %s, %d %% of this machine's memory: take a smaller tensor or pool, or fewer images with --limit",
				n.Name, s.dim(), s.name, rows, pipeline.Bytes(bytes), pipeline.Bytes(budget), featuresPercent))
		}
		if len(groups) == 0 || r.Memory > 0 && used+bytes > budget {
			groups, used = append(groups, nil), 0
		}
		last := len(groups) - 1
		groups[last], used = append(groups[last], s), used+bytes
	}
	return groups, nil
}

// featuresPercent is the share of memory that features may take; the rest is for
// the network's batches and the products.
const featuresPercent = 70

// kept is what a pass over a split leaves: the matrices are in the sources.
type kept struct {
	labels []int32
	heads  [][]int32 // cluster of each image by each head
	sizes  []int     // number of clusters of each head
	bad    []string  // names of the first images that were left out
	count  int       // of all that were
}

// read runs the network over a split and keeps the features of all images that
// can be used, in row order.
func (r *run) read(ctx context.Context, reader *extract.Reader, sp *Split, stage string, matrices []*Matrix, poolings []Pooling) (*kept, error) {
	k := &kept{heads: make([][]int32, len(reader.Heads))}
	for _, h := range reader.Heads {
		k.sizes = append(k.sizes, h.Clusters)
	}
	err := reader.Read(ctx, sp.Bucket, sp.Images, func(b *extract.Batch) error {
		for i, img := range b.Images {
			if b.Bad[i] != nil {
				if k.count++; len(k.bad) < named {
					k.bad = append(k.bad, fmt.Sprintf("%s: %v", place(img), b.Bad[i]))
				}
				continue
			}
			k.labels = append(k.labels, sp.Labels[b.First+i])
			for h, values := range b.Heads {
				w := reader.Heads[h].Clusters
				k.heads[h] = append(k.heads[h], argmax(values[i*w:(i+1)*w]))
			}
			for t, values := range b.Tensors {
				m, w := matrices[t], len(values)/len(b.Images)
				poolings[t].apply(m.Row(m.Rows), values[i*w:(i+1)*w], reader.Shapes[t])
				m.Rows++
			}
		}
		r.advance(stage)(len(b.Images))
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(k.labels) == 0 {
		return nil, pipeline.BadData(fmt.Errorf("%s: none of its %d images can be used; the first: %s", stage, len(sp.Images), k.bad[0]))
	}
	for _, m := range matrices {
		m.Data = m.Data[:m.Rows*m.Dim]
	}
	return k, nil
}

// named is how many images are named that were left out.
const named = 5

func place(img schemas.Image) string {
	if img.Member == "" {
		return fmt.Sprintf("%q", img.Key)
	}
	return fmt.Sprintf("%q in %q", img.Member, img.Key)
}

// pass reads both splits for some sources.
func (r *run) pass(ctx context.Context, n *Network, group []*source, heads bool) (train, test *kept, err error) {
	reader, err := r.reader(ctx, n, group, heads)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	for _, part := range []struct {
		name string
		sp   *Split
		kept **kept
		of   func(*source) **Matrix
	}{{"train", &r.Train, &train, func(s *source) **Matrix { return &s.train }}, {"test", &r.Test, &test, func(s *source) **Matrix { return &s.test }}} {
		var matrices []*Matrix
		var poolings []Pooling
		for _, s := range group {
			m := &Matrix{Dim: s.dim(), Data: make([]float32, len(part.sp.Images)*s.dim())}
			*part.of(s) = m
			matrices, poolings = append(matrices, m), append(poolings, s.pooling)
		}
		err := r.stage(n.Name+" "+part.name, int64(len(part.sp.Images)), func(stage string) (err error) {
			*part.kept, err = r.read(ctx, reader, part.sp, stage, matrices, poolings)
			return err
		})
		if err != nil {
			return nil, nil, fmt.Errorf("features of %s: %w", n.Name, err)
		}
	}
	return train, test, nil
}
