package solve

import (
	"context"
	"encoding/json"
	"fmt"

	"sela/pipeline"
	"sela/schemas"
	"sela/sinkhorn"
)

// earlier is a head's potentials of a published run.
type earlier struct {
	v           []float64
	meta        map[string]string
	certificate sinkhorn.Certificate
}

// published reads the potentials of a head of the run that a field of the job
// names.
func (s *Stage) published(ctx context.Context, a *pipeline.Attempt, field, id string, head int) (*earlier, error) {
	raw, err := s.Labels.Get(ctx, "runs/"+id+"/_manifest.json")
	if err != nil {
		return nil, pipeline.BadConfig(fmt.Errorf("%s: run %s is not published in %s: %w", field, id, s.Labels.URL(), err))
	}
	manifest, err := pipeline.ParseManifest(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	file, ok := manifest.File(PotentialsName(head))
	if !ok {
		return nil, pipeline.BadConfig(fmt.Errorf("%s: run %s has no potentials for head %d", field, id, head))
	}
	local, release, err := a.Run.FetchFrom(ctx, s.Labels, "runs/"+id+"/"+file.Path, file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	defer release()
	var p earlier
	if p.v, p.meta, err = schemas.ReadPotentials(local); err != nil {
		return nil, pipeline.BadData(fmt.Errorf("%s: %w", field, err))
	}
	if k := s.shards.Heads[head].Clusters; len(p.v) != k {
		return nil, pipeline.BadConfig(fmt.Errorf("%s: run %s has %d clusters in head %d, this model %d", field, id, len(p.v), head, k))
	}
	if l, err := ReadLabelling(p.meta); err != nil || l != nil {
		if err == nil {
			err = pipeline.BadConfig(fmt.Errorf("its labels are by method %s, which leaves no potentials", l.Method))
		}
		return nil, fmt.Errorf("%s: run %s, head %d: %w", field, id, head, err)
	}
	if err := json.Unmarshal([]byte(p.meta[metaCertificate]), &p.certificate); err != nil {
		return nil, pipeline.BadData(fmt.Errorf("%s: potentials of run %s: certificate is damaged: %w", field, id, err))
	}
	return &p, nil
}

// fixed returns the potentials of solve.from, which label as they are: they
// must belong to this model, preprocessing and λ.
func (s *Stage) fixed(ctx context.Context, a *pipeline.Attempt, head int) ([]float64, error) {
	id := a.Run.Job.Solve.From
	found, err := s.published(ctx, a, "solve.from", id, head)
	if err != nil {
		return nil, err
	}
	p := a.Run.Provenance
	if found.meta["model"] != p.Model || found.meta["preprocessing"] != p.Preprocessing {
		return nil, pipeline.BadConfig(fmt.Errorf("solve.from: the potentials of run %s belong to another model or preprocessing", id))
	}
	if lambda := a.Run.Job.Solve.Lambda; found.certificate.Lambda != lambda {
		return nil, pipeline.BadConfig(fmt.Errorf("solve.from: the potentials of run %s were solved with λ = %g, solve.lambda is %g: set it to %g", id, found.certificate.Lambda, lambda, found.certificate.Lambda))
	}
	return found.v, nil
}

// start returns the potentials of solve.start, at this job's λ. Any model with
// as many clusters may have made them: they are only tried.
func (s *Stage) start(ctx context.Context, a *pipeline.Attempt, head int) ([]float64, error) {
	found, err := s.published(ctx, a, "solve.start", a.Run.Job.Solve.Start, head)
	if err != nil {
		return nil, err
	}
	for k := range found.v {
		found.v[k] *= a.Run.Job.Solve.Lambda / found.certificate.Lambda
	}
	return found.v, nil
}
