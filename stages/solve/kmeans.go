package solve

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"time"

	"sela/pipeline"
	"sela/schemas"
	"sela/sinkhorn"
	"sela/stages/solve/clusters"
)

const (
	// iterations is the number of Lloyd's iterations, as DeepCluster does.
	iterations = 20
	// components is to how many DeepCluster reduces features.
	components = 256
)

// Centres says how centres of clusters were found.
type Centres struct {
	Seed       int64 `json:"seed"`
	Features   int   `json:"features"` // D
	Iterations int   `json:"iterations"`
	Converged  bool  `json:"converged"`       // the last iteration changed nothing
	Moved      int   `json:"moved,omitempty"` // how often an empty cluster got the farthest row

	// Objective is the mean squared distance of a row, of length 1, to its
	// centre.
	Objective float64 `json:"objective"`

	// Whitened is there for deepcluster.
	Whitened *Whitened `json:"whitened,omitempty"`

	// Matched is there where the ids of clusters are those of the most alike
	// clusters of an earlier run.
	Matched *Matched `json:"matched,omitempty"`
}

// Whitened says what whitening kept of the features.
type Whitened struct {
	Components int     `json:"components"`
	Variance   float64 `json:"variance"` // share of it
}

// Matched says how labels agree with an earlier run's.
type Matched struct {
	Run  string `json:"run"`
	Rows int64  `json:"rows"` // that it has labels of
	Kept int64  `json:"kept"` // of them, those whose label is the same
}

// cluster labels the rows of a head by k-means.
func (s *Stage) cluster(ctx context.Context, t pipeline.Task, a *pipeline.Attempt) (rows []int64, labels []int32, _ *Labelling, err error) {
	head, spec := t.Index, a.Run.Job.Solve
	if s.shards.FeatureDim == 0 {
		return nil, nil, nil, pipeline.BadConfig(fmt.Errorf("solve.method: %s clusters features, and this run has none: name their tensor with model.features and start a new run", spec.Method))
	}
	source, err := openFeatures(a.Run, s.shards)
	if err != nil {
		return nil, nil, nil, err
	}
	defer source.Close()
	if rows, err = source.numbers(ctx); err != nil {
		return nil, nil, nil, err
	}
	engine, err := s.engine(a)
	if err != nil {
		return nil, nil, nil, err
	}
	defer func() { err = errors.Join(err, engine.Close()) }()

	k := s.shards.Heads[head].Clusters
	found := &Centres{Seed: spec.Seed, Features: s.shards.FeatureDim}
	var options clusters.Options
	width := s.shards.FeatureDim
	if spec.Method == "deepcluster" {
		if options.Whitening, err = s.whiten(ctx, a, engine, source, rows); err != nil {
			return nil, nil, nil, err
		}
		width = options.Whitening.Components
		found.Whitened = &Whitened{width, options.Whitening.Variance}
	}
	if options.Memory, err = engine.Memory(int64(spec.Memory), k, width); err != nil {
		return nil, nil, nil, err
	}
	features, err := clusters.Open(ctx, engine, source, rows, options)
	if err != nil {
		return nil, nil, nil, err
	}
	defer func() { err = errors.Join(err, features.Close()) }()
	c := s.centresCheckpoint(t, a, k*width)
	start, err := c.load(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	r, err := features.KMeans(ctx, clusters.KMeans{Clusters: k, Iterations: iterations, Seed: uint64(spec.Seed), Head: uint64(head), Start: start, Save: c.save})
	if err != nil {
		return nil, nil, nil, err
	}
	found.Iterations, found.Converged, found.Moved, found.Objective = r.Iterations, r.Converged, r.Moved, r.Objective
	if s.previous != nil {
		if found.Matched, err = s.match(ctx, a, head, k, rows, r.Labels); err != nil {
			return nil, nil, nil, err
		}
	}
	l := newLabelling(spec.Method, k, r.Labels)
	l.Centres = found
	return rows, r.Labels, l, nil
}

func (s *Stage) engine(a *pipeline.Attempt) (*clusters.Engine, error) {
	if s.Runtime == nil {
		return nil, fmt.Errorf("solve.method: %s: this stage was started without ONNX Runtime", a.Run.Job.Solve.Method)
	}
	rt, err := s.Runtime()
	if err != nil {
		return nil, err
	}
	return clusters.NewEngine(rt, a.Dir, cmp.Or(a.Run.Job.Solve.Workers, runtime.GOMAXPROCS(0)))
}

// whiten finds the whitening of the features, once for all heads.
func (s *Stage) whiten(ctx context.Context, a *pipeline.Attempt, e *clusters.Engine, source *Source, rows []int64) (*clusters.Whitening, error) {
	s.whitenOnce.Lock()
	defer s.whitenOnce.Unlock()
	if s.whitening != nil {
		return s.whitening, nil
	}
	memory, width := int64(a.Run.Job.Solve.Memory), s.shards.FeatureDim
	if needs := e.WhitenMemory(width); needs > memory {
		return nil, pipeline.BadConfig(fmt.Errorf("whitening %d features takes %s: raise solve.memory, or name a smaller tensor with model.features in a new run", width, pipeline.Bytes(needs)))
	}
	var err error
	s.whitening, err = e.Whiten(ctx, source, rows, components)
	return s.whitening, err
}

// match gives clusters the ids of the clusters of the previous run that they
// have most rows in common with, all in all, so that ids persist from round to
// round. A head that the previous run did not have keeps its ids.
func (s *Stage) match(ctx context.Context, a *pipeline.Attempt, head, k int, rows []int64, labels []int32) (*Matched, error) {
	if len(s.previous.Files(head)) == 0 {
		return nil, nil
	}
	walk := s.previous.Labels(ctx, a.Run, head)
	defer walk.Close()
	overlap, common := make([][]float64, k), &Matched{Run: a.Run.Parent}
	for i := range overlap {
		overlap[i] = make([]float64, k)
	}
	next := 0
	err := s.shards.Listing.Read(ctx, 0, s.shards.Listing.Images, func(img schemas.Image) error {
		if next == len(rows) || rows[next] != img.Row {
			return nil // quarantined
		}
		next++
		was, ok, err := walk.Of(img.Key, img.Member)
		if ok {
			common.Rows++
			if was >= 0 && int(was) < k { // it may have had more clusters
				overlap[labels[next-1]][was]++
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("label.previous: %w", err)
	}
	ids := clusters.Match(overlap)
	for i, id := range ids {
		common.Kept += int64(overlap[i][id])
	}
	for i, label := range labels {
		labels[i] = int32(ids[label])
	}
	return common, nil
}

// centresCheckpoint keeps the centres of a head.
type centresCheckpoint struct {
	checkpoint
	task    string
	numbers int // in the centres
}

func (s *Stage) centresCheckpoint(t pipeline.Task, a *pipeline.Attempt, numbers int) *centresCheckpoint {
	return &centresCheckpoint{s.checkpoint(t, a), t.ID, numbers}
}

// centresState is a checkpoint's content.
type centresState struct {
	Format     string `json:"format"`
	Iterations int    `json:"iterations"`
	Moved      int    `json:"moved"`
	Centres    []byte `json:"centres"` // float32, little-endian
}

const centresFormat = "sela centres 1"

// load returns where an earlier attempt was; nil where there was none.
func (c *centresCheckpoint) load(ctx context.Context) (*clusters.State, error) {
	raw, err := c.Load(ctx)
	if raw == nil || err != nil {
		return nil, err
	}
	var kept centresState
	if err := json.Unmarshal(raw, &kept); err != nil || kept.Format != centresFormat || len(kept.Centres) != 4*c.numbers {
		return nil, pipeline.BadConfig(fmt.Errorf("checkpoint %s is not of this solve: delete it and run the same command again", c.key))
	}
	s := &clusters.State{Iterations: kept.Iterations, Moved: kept.Moved, Centres: make([]float32, c.numbers)}
	for i := range s.Centres {
		s.Centres[i] = math.Float32frombits(binary.LittleEndian.Uint32(kept.Centres[4*i:]))
	}
	return s, nil
}

// save tells of an iteration and keeps where it led, if it is time.
func (c *centresCheckpoint) save(ctx context.Context, s clusters.State) error {
	c.run.Observe(pipeline.Event{Kind: pipeline.PassDone, Stage: Name, Task: c.task, Attrs: []slog.Attr{slog.Int("passes", s.Iterations)}})
	if time.Since(c.saved) < c.every {
		return nil
	}
	kept := centresState{Format: centresFormat, Iterations: s.Iterations, Moved: s.Moved}
	for _, v := range s.Centres {
		kept.Centres = binary.LittleEndian.AppendUint32(kept.Centres, math.Float32bits(v))
	}
	raw, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	return c.Save(ctx, sinkhorn.State(raw))
}
