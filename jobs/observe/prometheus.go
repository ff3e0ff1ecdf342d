package observe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"sela/pipeline"
)

// prometheus leaves a command's figures, at its end, with a Pushgateway, in a
// text file, or both. Series have the labels sela_job and command, and stage
// where they are of one; never a run's id, for series do not go away.
type prometheus struct {
	gateway *url.URL // nil for none
	folder  string   // "" for none
	client  *http.Client
	warn    func(string, error)
}

func newPrometheus(o Options, client *http.Client, warn func(string, error)) (listener, error) {
	if o.Pushgateway == "" && o.Textfiles == "" {
		return nil, nil
	}
	p := &prometheus{folder: o.Textfiles, client: client, warn: warn}
	if o.Pushgateway != "" {
		u, err := parseURL("the Pushgateway", o.Pushgateway)
		if err != nil && p.folder == "" {
			return nil, err
		}
		if err != nil {
			warn("pushgateway", err)
		}
		p.gateway = u
	}
	return p, nil
}

func (p *prometheus) job(*pipeline.Job)    {}
func (p *prometheus) run(*pipeline.Record) {}
func (p *prometheus) event(pipeline.Event) {}

func (p *prometheus) end(ctx context.Context, s *summary) {
	if s.jobName == "" {
		return // series without a job would be nobody's
	}
	families := figures(s)
	if p.gateway != nil {
		if err := p.push(ctx, s, families); err != nil {
			p.warn("pushgateway", err)
		}
	}
	if p.folder != "" {
		if err := p.write(s, families); err != nil {
			p.warn("prometheus text file", err)
		}
	}
}

// lastSuccess is the time of the last success. A failure leaves it as it was.
const lastSuccess = "sela_last_success_timestamp_seconds"

// figures are the metrics of a command that has ended.
func figures(s *summary) []*dto.MetricFamily {
	var all []*dto.MetricFamily
	gauge := func(name, help string, value float64, labels ...string) {
		labels = append([]string{"command", s.command, "sela_job", s.jobName}, labels...)
		m := &dto.Metric{Gauge: &dto.Gauge{Value: &value}}
		for i := 0; i < len(labels); i += 2 {
			m.Label = append(m.Label, &dto.LabelPair{Name: &labels[i], Value: &labels[i+1]})
		}
		for _, f := range all {
			if f.GetName() == name {
				f.Metric = append(f.Metric, m)
				return
			}
		}
		all = append(all, &dto.MetricFamily{Name: &name, Help: &help, Type: dto.MetricType_GAUGE.Enum(), Metric: []*dto.Metric{m}})
	}
	seconds := func(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
	gauge("sela_last_start_timestamp_seconds", "When the last command began.", seconds(s.started))
	gauge("sela_last_end_timestamp_seconds", "When the last command ended.", seconds(s.ended))
	if s.success() {
		gauge(lastSuccess, "When a command last ended well: labels were made, or there was nothing to make.", seconds(s.ended))
	}
	gauge("sela_last_exit_code", "Exit code of the last command; 99 says that there was nothing to make.", float64(s.Code))
	gauge("sela_last_duration_seconds", "Wall time of the last command.", s.ended.Sub(s.started).Seconds())
	if s.Err == nil {
		gauge("sela_images", "Images that the last run found.", float64(s.Images))
		gauge("sela_images_quarantined", "Images of the last run that could not be used.", float64(s.Rejected))
		if s.Labels != "" {
			gauge("sela_labels", "Labels of all heads that the last run published.", float64(s.Rows))
		}
	}
	for _, st := range s.stages {
		gauge("sela_stage_duration_seconds", "Wall time of a stage in the last command.", st.elapsed.Seconds(), "stage", st.name)
		gauge("sela_stage_rows", "Rows that a stage did in the last command: images, labels or files.", float64(st.rows), "stage", st.name)
		gauge("sela_stage_tasks", "Tasks that a stage did in the last command.", float64(st.tasks), "stage", st.name)
		gauge("sela_stage_task_retries", "Attempts at tasks that failed and were made again, in the last command.", float64(st.retries), "stage", st.name)
	}
	return all
}

func encode(families []*dto.MetricFamily) ([]byte, error) {
	var text bytes.Buffer
	encoder := expfmt.NewEncoder(&text, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := encoder.Encode(f); err != nil {
			return nil, err
		}
	}
	return text.Bytes(), nil
}

// push adds the metrics to those of the group: POST leaves a metric that it does
// not name, such as the last success of a command that failed, as it is.
func (p *prometheus) push(ctx context.Context, s *summary, families []*dto.MetricFamily) error {
	text, err := encode(families)
	if err != nil {
		return err
	}
	u := p.gateway.JoinPath("metrics", "job", "sela", "sela_job", s.jobName, "command", s.command)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(text))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
	_, err = answer(p.client, r)
	return err
}

// write replaces the text file of the job and command, at once: the node
// exporter reads it at any time. Of a command that failed the last success is
// taken over from the file before.
func (p *prometheus) write(s *summary, families []*dto.MetricFamily) (err error) {
	path := filepath.Join(p.folder, fmt.Sprintf("sela_%s_%s.prom", s.jobName, s.command))
	if !s.success() {
		if before := readFamily(path, lastSuccess); before != nil {
			families = append(families, before)
		}
	}
	text, err := encode(families)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(p.folder, ".sela-*.tmp") // the node exporter reads *.prom
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(0o644), f.Close()) // the node exporter is another user
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// readFamily reads a metric of a text file, nil where there is none.
func readFamily(path, name string) *dto.MetricFamily {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(f)
	if err != nil {
		return nil
	}
	return families[name]
}
