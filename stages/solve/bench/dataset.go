//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/extract"
	"sela/stages/list"
)

// Forms in which log-probabilities are stored.
const (
	float32Form = "float32"
	uint16Form  = "uint16"
)

// dataset is a matrix as shards on disk, in one form: a work bucket with one
// run whose list and extract stages are committed, so that the solver reads it
// as it reads any other.
type dataset struct {
	Dir      string `json:"dir"`
	Rows     int64  `json:"rows"`
	Clusters int    `json:"clusters"`
	Form     string `json:"form"`
}

const (
	runName     = "bench"
	attemptName = "generated"
	digestName  = "generated" // of a listing that does not exist
	batchBytes  = 512 << 10   // that are generated at a time
	imagesPart  = 1 << 18     // rows of a file of the listing
)

// datasetBytes is what a matrix takes on disk in the given forms, its sample
// included.
func datasetBytes(rows int64, clusters int, forms ...string) (bytes int64) {
	for _, form := range forms {
		size := 4.0
		if form == uint16Form {
			size = 2
		}
		bytes += int64(float64(rows*int64(clusters)) * (size + 4*sampleShare(rows, clusters)))
	}
	return bytes
}

// sampleShare is the share of the rows in the sample, as extract draws it.
func sampleShare(rows int64, clusters int) float64 {
	return min(0.25, 60*float64(clusters)/float64(rows))
}

func job(dir string) *pipeline.Job {
	j := pipeline.DefaultJob()
	j.Name = runName
	j.Local = pipeline.Local{Dir: filepath.Join(dir, "local"), Bytes: 8 << 30}
	return j
}

// open opens the run. close gives up its bucket.
func (d *dataset) open(ctx context.Context) (run *pipeline.Run, shards *extract.Shards, close func(), err error) {
	if run, err = d.openRun(ctx); err != nil {
		return nil, nil, nil, err
	}
	if shards, err = extract.OpenShards(ctx, run); err != nil {
		run.Work.Close()
		return nil, nil, nil, err
	}
	return run, shards, func() { run.Work.Close() }, nil
}

func (d *dataset) openRun(ctx context.Context) (*pipeline.Run, error) {
	u := url.URL{Scheme: "file", Path: filepath.Join(d.Dir, "work"), RawQuery: "create_dir=true"}
	work, err := bucket.Open(ctx, u.String(), bucket.Options{})
	if err != nil {
		return nil, err
	}
	run, err := pipeline.Open(ctx, work, pipeline.Options{Job: job(d.Dir), RunID: runName,
		Provenance: pipeline.Provenance{Model: digestName, Library: digestName, Preprocessing: digestName, Code: digestName}})
	if err != nil {
		work.Close()
	}
	return run, err
}

// files returns the paths of the shards, without the sample's.
func (d *dataset) files(ctx context.Context) ([]string, error) {
	run, shards, close, err := d.open(ctx)
	if err != nil {
		return nil, err
	}
	defer close()
	outputs, err := shards.LogProbs(0)
	var paths []string
	for _, o := range outputs {
		paths = append(paths, d.path(run, o.Path))
	}
	return paths, err
}

// everything returns the paths of all files that a solve reads.
func (d *dataset) everything(ctx context.Context) ([]string, error) {
	paths, err := d.files(ctx)
	if err != nil {
		return nil, err
	}
	sample, err := filepath.Glob(filepath.Join(d.Dir, "work", "runs", runName, "sample", "head-0", "*.parquet"))
	return append(paths, sample...), err
}

func (d *dataset) path(run *pipeline.Run, name string) string {
	return filepath.Join(d.Dir, "work", filepath.FromSlash(run.Path(name)))
}

func (d *dataset) remove() error { return os.RemoveAll(d.Dir) }

// generate writes m in each of the forms below dir, on the given number of
// workers.
func generate(ctx context.Context, dir string, m matrix, workers int, forms ...string) (sets []*dataset, err error) {
	rows, clusters := m.dims()
	if err := checkRoom(dir, datasetBytes(rows, clusters, forms...)); err != nil {
		return nil, err
	}
	runs := make([]*pipeline.Run, len(forms))
	for i, form := range forms {
		d := &dataset{Dir: filepath.Join(dir, form), Rows: rows, Clusters: clusters, Form: form}
		if runs[i], err = d.openRun(ctx); err != nil {
			return nil, err
		}
		defer runs[i].Work.Close()
		if err := d.commitListing(ctx, runs[i]); err != nil {
			return nil, err
		}
		sets = append(sets, d)
	}
	shardRows := runs[0].Job.Extract.ShardRows
	shards := (rows + shardRows - 1) / shardRows
	show := newProgress(fmt.Sprintf("writing %d × %d as %s", rows, clusters, strings.Join(forms, " and ")), shards)
	defer show.end()
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range workers {
		group.Go(func() error {
			for i := next.Add(1) - 1; i < shards && ctx.Err() == nil; i = next.Add(1) - 1 {
				if err := writeShard(ctx, sets, runs, m, i); err != nil {
					return fmt.Errorf("write shard %d: %w", i, err)
				}
				show.step()
			}
			return ctx.Err()
		})
	}
	return sets, group.Wait()
}

// commitListing records a listing whose files nobody will read.
func (d *dataset) commitListing(ctx context.Context, run *pipeline.Run) error {
	var outputs []pipeline.Output
	for from := int64(0); from < d.Rows; from += imagesPart {
		name := list.PartName(from / imagesPart)
		outputs = append(outputs, pipeline.Output{Name: name, Path: attempted(name), FileStats: schemas.FileStats{Rows: min(imagesPart, d.Rows-from)}})
	}
	return commit(ctx, run, list.Name, "snapshot", "", outputs, list.Result{Digest: digestName, Snapshot: digestName, Images: d.Rows})
}

func attempted(name string) string {
	return strings.TrimSuffix(name, ".parquet") + "." + attemptName + ".parquet"
}

func commit(ctx context.Context, run *pipeline.Run, stage, task, inputs string, outputs []pipeline.Output, result any) error {
	raw, err := json.Marshal(result)
	if err != nil {
		return err
	}
	raw, err = json.Marshal(pipeline.Commit{Version: 1, Stage: stage, Task: task, Attempt: attemptName, Inputs: inputs, Outputs: outputs, Result: raw})
	if err != nil {
		return err
	}
	return run.Work.Create(ctx, run.Path("commits/"+stage+"/"+task+".json"), raw)
}

// shardTables are the tables of a shard in one form.
type shardTables struct {
	logprobs, sample *schemas.BlocksWriter
	names            [2]string
}

func (t *shardTables) abort() {
	for _, w := range []*schemas.BlocksWriter{t.logprobs, t.sample} {
		if w != nil {
			_ = w.Abort() // the folder is removed anyway
		}
	}
}

// writeShard writes shard i in every form and commits its extract task.
func writeShard(ctx context.Context, sets []*dataset, runs []*pipeline.Run, m matrix, i int64) error {
	rows, clusters := m.dims()
	shardRows := runs[0].Job.Extract.ShardRows
	from, task := i*shardRows, fmt.Sprintf("%05d", i)
	to := min(from+shardRows, rows)
	tables := make([]shardTables, len(sets))
	for s, d := range sets {
		defer tables[s].abort()
		if err := tables[s].create(d, runs[s], task); err != nil {
			return err
		}
	}
	batch := max(4, min(batchBytes/4/int64(clusters), to-from))
	values, numbers := make([]float32, batch*int64(clusters)), make([]int64, batch)
	for ; from < to && ctx.Err() == nil; from += batch {
		n := min(batch, to-from)
		numbers, x := numbers[:n], values[:n*int64(clusters)]
		for j := range numbers {
			numbers[j] = from + int64(j)
		}
		if err := m.fill(from, x); err != nil {
			return err
		}
		for s := range tables {
			if err := write(tables[s].logprobs, numbers, x, clusters); err != nil {
				return err
			}
		}
		if err := writeSample(tables, numbers, x, clusters, sampleShare(rows, clusters)); err != nil {
			return err
		}
	}
	for s, d := range sets {
		if err := tables[s].commit(ctx, d, runs[s], task); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (t *shardTables) create(d *dataset, run *pipeline.Run, task string) (err error) {
	const blockBytes = 16 << 20 // as extract's
	block := max(1, blockBytes/(4*d.Clusters))
	if block >= pipeline.ChunkRows {
		block -= block % pipeline.ChunkRows
	}
	for i, kind := range []string{schemas.KindLogprobs, schemas.KindSample} {
		t.names[i] = kind + "/head-0/part-" + task + ".parquet"
		path := d.path(run, attempted(t.names[i]))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			return err
		}
		w, err := schemas.CreateBlocks(path, schemas.BlocksMeta{Kind: kind, Width: d.Clusters, Compact: i == 0 && d.Form == uint16Form,
			BlockRows: int(min(int64(block), run.Job.Extract.ShardRows))})
		if err != nil {
			return err
		}
		if i == 0 {
			t.logprobs = w
		} else {
			t.sample = w
		}
	}
	return nil
}

func (t *shardTables) commit(ctx context.Context, d *dataset, run *pipeline.Run, task string) error {
	var outputs []pipeline.Output
	for i, w := range []*schemas.BlocksWriter{t.logprobs, t.sample} {
		stats, err := w.Commit()
		if err != nil {
			return err
		}
		outputs = append(outputs, pipeline.Output{Name: t.names[i], Path: attempted(t.names[i]), FileStats: stats})
	}
	t.logprobs, t.sample = nil, nil
	return commit(ctx, run, extract.Name, task, digestName, outputs, extract.Result{Heads: []extract.Head{{Name: "head", Clusters: d.Clusters}}})
}

// writeSample writes the rows that are in the sample.
func writeSample(tables []shardTables, numbers []int64, x []float32, clusters int, share float64) error {
	var chosen []int64
	var values []float32
	for i, row := range numbers {
		if inSample(row, share) {
			chosen = append(chosen, row)
			values = append(values, x[i*clusters:(i+1)*clusters]...)
		}
	}
	if len(chosen) == 0 {
		return nil
	}
	for s := range tables {
		if err := write(tables[s].sample, chosen, values, clusters); err != nil {
			return err
		}
	}
	return nil
}

func write(w *schemas.BlocksWriter, numbers []int64, x []float32, clusters int) error {
	b := schemas.NewBatch(numbers, x, nil, clusters, nil)
	defer b.Release()
	return w.Write(b)
}
