package observe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"

	"sela/pipeline"
)

// lineage sends OpenLineage events: START when the job is read, RUNNING when a
// stage starts, and COMPLETE, FAIL or ABORT (a signal) at the end. A command is
// one run of OpenLineage's, with an id of its own: a run that is resumed, or
// whose stages are tasks of a scheduler, is several.
//
// What the labels are made of is the images' bucket; what is made is the labels
// bucket, with the manifest's digest as the version.
type lineage struct {
	target  *url.URL
	key     string // bearer token
	client  *http.Client
	courier *courier

	template lineageEvent // without time and type; its job is named once known
	namesake string       // what stands behind the job's name: .extract, .loop
}

// lineageEvent is a RunEvent of version 2-0-2 of the specification.
type lineageEvent struct {
	EventTime string           `json:"eventTime"`
	EventType string           `json:"eventType"`
	Producer  string           `json:"producer"`
	SchemaURL string           `json:"schemaURL"`
	Run       lineageRun       `json:"run"`
	Job       lineageJob       `json:"job"`
	Inputs    []lineageDataset `json:"inputs"`
	Outputs   []lineageDataset `json:"outputs"`
}

type lineageRun struct {
	RunID  string           `json:"runId"`
	Facets map[string]facet `json:"facets,omitempty"`
}

type lineageJob struct {
	Namespace string           `json:"namespace"`
	Name      string           `json:"name"`
	Facets    map[string]facet `json:"facets,omitempty"`
}

type lineageDataset struct {
	Namespace    string           `json:"namespace"`
	Name         string           `json:"name"`
	Facets       map[string]facet `json:"facets,omitempty"`
	OutputFacets map[string]facet `json:"outputFacets,omitempty"`
}

type facet map[string]any

const lineageSpec = "https://openlineage.io/spec/"

// newFacet returns a facet of a version of the specification.
func newFacet(producer, version, name string, fields facet) facet {
	fields["_producer"], fields["_schemaURL"] = producer, lineageSpec+"facets/"+version+"/"+name+".json#/$defs/"+name
	return fields
}

func newLineage(o Options, client *http.Client, warn func(string, error)) (listener, error) {
	base := o.Getenv("OPENLINEAGE_URL")
	if base == "" || strings.EqualFold(o.Getenv("OPENLINEAGE_DISABLED"), "true") {
		return nil, nil
	}
	u, err := parseURL("OPENLINEAGE_URL", base)
	if err != nil {
		return nil, err
	}
	endpoint := "api/v1/lineage"
	if e := o.Getenv("OPENLINEAGE_ENDPOINT"); e != "" {
		endpoint = e
	}
	namespace := "sela"
	if n := o.Getenv("OPENLINEAGE_NAMESPACE"); n != "" {
		namespace = n
	}
	l := &lineage{target: u.JoinPath(endpoint), key: o.Getenv("OPENLINEAGE_API_KEY"), client: client, courier: newCourier(func(err error) { warn("openlineage", err) })}
	producer := (&url.URL{Scheme: "urn", Opaque: "sela:" + url.PathEscape(o.Version)}).String()
	l.template = lineageEvent{Producer: producer, SchemaURL: lineageSpec + "2-0-2/OpenLineage.json#/$defs/RunEvent",
		Run: lineageRun{RunID: uuid.Must(uuid.NewV7()).String(), Facets: map[string]facet{
			"processing_engine": newFacet(producer, "1-1-1", "ProcessingEngineRunFacet", facet{"name": "sela", "version": o.Version}),
		}},
		Job: lineageJob{Namespace: namespace, Facets: map[string]facet{
			"jobType": newFacet(producer, "2-0-4", "JobTypeJobFacet", facet{"processingType": "BATCH", "integration": "SELA", "jobType": strings.ToUpper(o.Command)}),
		}},
		Inputs: []lineageDataset{}, Outputs: []lineageDataset{},
	}
	if o.Command != "run" {
		l.namesake = "." + o.Command
	}
	if parent := o.Getenv("OPENLINEAGE_PARENT_ID"); parent != "" {
		fields, err := parentRun(parent)
		if err != nil {
			warn("openlineage parent", err) // the events are worth something without it
		} else {
			l.template.Run.Facets["parent"] = newFacet(producer, "1-2-0", "ParentRunFacet", fields)
		}
	}
	return l, nil
}

// parentRun reads what Airflow's macro lineage_parent_id gives:
// <namespace>/<job>/<run id>. A namespace may hold slashes.
func parentRun(id string) (facet, error) {
	rest, run, ok := cutLast(id)
	namespace, name, ok2 := cutLast(rest)
	if _, err := uuid.Parse(run); err != nil || !ok || !ok2 || namespace == "" || name == "" {
		return nil, errors.New("OPENLINEAGE_PARENT_ID is not <namespace>/<job>/<run id>")
	}
	return facet{"run": map[string]string{"runId": run}, "job": map[string]string{"namespace": namespace, "name": name}}, nil
}

func cutLast(s string) (before, after string, found bool) {
	at := strings.LastIndexByte(s, '/')
	if at < 0 {
		return "", s, false
	}
	return s[:at], s[at+1:], true
}

// dataset names what a bucket URL points to as the specification has it: a
// namespace for the store, and the path below it.
func dataset(bucketURL string) lineageDataset {
	u, err := url.Parse(bucketURL)
	if err != nil {
		return lineageDataset{Namespace: "file", Name: "unknown"} // it was opened: it can be parsed
	}
	d := lineageDataset{Namespace: u.Scheme + "://" + u.Host, Name: strings.Trim(u.Path, "/")}
	switch u.Scheme {
	case "file":
		d = lineageDataset{Namespace: "file", Name: u.Path}
	case "azblob":
		d.Namespace = "abfss://" + u.Host
	}
	if d.Name == "" {
		d.Name = "/"
	}
	return d
}

func (l *lineage) job(j *pipeline.Job) {
	l.template.Job.Name = j.Name + l.namesake
	l.template.Inputs = append(l.template.Inputs, dataset(j.Images.Bucket))
	l.template.Outputs = append(l.template.Outputs, dataset(j.Labels.Bucket))
	l.courier.post(l.message("START", l.template))
}

func (l *lineage) run(*pipeline.Record) {}

func (l *lineage) event(e pipeline.Event) {
	if e.Kind == pipeline.StageStarted && e.Tasks > e.Skipped {
		l.courier.post(l.message("RUNNING", l.template))
	}
}

// message is an event of this moment, to be sent later.
func (l *lineage) message(kind string, e lineageEvent) message {
	e.EventType, e.EventTime = kind, time.Now().UTC().Format("2006-01-02T15:04:05.000Z07:00")
	raw, err := json.Marshal(e)
	return func(ctx context.Context) error {
		if err != nil {
			return err
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, l.target.String(), bytes.NewReader(raw))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", "application/json")
		if l.key != "" {
			r.Header.Set("Authorization", "Bearer "+l.key)
		}
		_, err = answer(l.client, r)
		return err
	}
}

func (l *lineage) end(ctx context.Context, s *summary) {
	if s.jobName == "" {
		return // no START went before
	}
	e, producer := l.template, l.template.Producer
	kind := "COMPLETE"
	switch {
	case s.success():
	case pipeline.ClassOf(s.Err) == pipeline.Interrupted:
		kind = "ABORT"
	default:
		kind = "FAIL"
		facets := map[string]facet{"errorMessage": newFacet(producer, "1-0-1", "ErrorMessageRunFacet", facet{"message": s.Err.Error(), "programmingLanguage": "Go"})}
		for name, f := range e.Run.Facets {
			facets[name] = f
		}
		e.Run.Facets = facets
	}
	if s.Err != nil || s.Labels == "" {
		e.Outputs = []lineageDataset{} // nothing was published
	} else {
		out := e.Outputs[0]
		out.Facets = map[string]facet{"version": newFacet(producer, "1-0-1", "DatasetVersionDatasetFacet", facet{"datasetVersion": s.Manifest})}
		out.OutputFacets = map[string]facet{"outputStatistics": newFacet(producer, "1-0-2", "OutputStatisticsOutputDatasetFacet",
			facet{"rowCount": s.Rows, "size": s.Bytes, "fileCount": s.Files})}
		e.Outputs = []lineageDataset{out}
	}
	l.courier.last(ctx, l.message(kind, e))
}
