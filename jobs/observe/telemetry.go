package observe

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"sela/pipeline"
)

// telemetry makes a trace of a command, with a span for each stage and each
// attempt at a task, and counts rows and retries. It is on where the standard
// variables name a collector, which is spoken to by OTLP over HTTP.
type telemetry struct {
	shutdown []func(context.Context) error
	warn     func(string, error)
	tracer   trace.Tracer
	root     trace.Span
	ctx      context.Context // of the root

	rows     metric.Int64Counter
	retries  metric.Int64Counter
	stageS   metric.Float64Histogram
	commandS metric.Float64Histogram

	mu     sync.Mutex
	stages map[string]context.Context // of the stages' spans
	tasks  map[[2]string]trace.Span
	labels []attribute.KeyValue // command and job
}

// signals are the kinds of telemetry that the environment asks for.
func signals(getenv func(string) string) (traces, metrics bool, err error) {
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") {
		return false, false, nil
	}
	wanted := func(signal string) (bool, error) {
		exporter := strings.ToLower(getenv("OTEL_" + signal + "_EXPORTER"))
		if exporter == "none" || exporter == "" && getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") == "" {
			return false, nil
		}
		if exporter != "" && exporter != "otlp" {
			return false, fmt.Errorf("OTEL_%s_EXPORTER is %q; this program has otlp and none", signal, exporter)
		}
		protocol := getenv("OTEL_EXPORTER_OTLP_" + signal + "_PROTOCOL")
		if protocol == "" {
			protocol = getenv("OTEL_EXPORTER_OTLP_PROTOCOL")
		}
		if protocol != "" && protocol != "http/protobuf" {
			return false, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL is %q; this program speaks http/protobuf (port 4318)", protocol)
		}
		return true, nil
	}
	traces, err = wanted("TRACES")
	metrics, err2 := wanted("METRICS")
	return traces, metrics, errors.Join(err, err2)
}

func newTelemetry(o Options, started time.Time, warn func(string, error)) (listener, error) {
	traces, metrics, err := signals(o.Getenv)
	if err != nil || !traces && !metrics {
		return nil, err
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { warn("opentelemetry", err) }))
	ctx := context.Background()
	about, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "sela"), attribute.String("service.version", o.Version)),
		resource.WithTelemetrySDK(), resource.WithFromEnv()) // the environment has the last word
	if err != nil && about == nil {
		return nil, err
	}
	t := &telemetry{warn: warn, stages: map[string]context.Context{}, tasks: map[[2]string]trace.Span{}, labels: []attribute.KeyValue{attribute.String("sela.command", o.Command)}}
	var tracers []sdktrace.TracerProviderOption
	if traces {
		exporter, err := otlptracehttp.New(ctx)
		if err != nil {
			return nil, err
		}
		tracers = append(tracers, sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))
	} else {
		tracers = append(tracers, sdktrace.WithSampler(sdktrace.NeverSample()))
	}
	provider := sdktrace.NewTracerProvider(tracers...)
	t.shutdown = append(t.shutdown, provider.Shutdown)
	t.tracer = provider.Tracer("sela")
	meters := []sdkmetric.Option{sdkmetric.WithResource(about)}
	if metrics {
		exporter, err := otlpmetrichttp.New(ctx)
		if err != nil {
			return nil, errors.Join(err, provider.Shutdown(ctx))
		}
		meters = append(meters, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter)))
	}
	meter := sdkmetric.NewMeterProvider(meters...)
	t.shutdown = append(t.shutdown, meter.Shutdown)
	if err := t.instruments(meter.Meter("sela")); err != nil {
		return nil, err
	}
	// A scheduler may have begun the trace: see the environment as a carrier.
	parent := propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": o.Getenv("TRACEPARENT"), "tracestate": o.Getenv("TRACESTATE")})
	t.ctx, t.root = t.tracer.Start(parent, "sela "+o.Command, trace.WithTimestamp(started), trace.WithAttributes(t.labels...))
	return t, nil
}

func (t *telemetry) instruments(m metric.Meter) (err error) {
	var errs [4]error
	t.rows, errs[0] = m.Int64Counter("sela.rows", metric.WithUnit("{row}"), metric.WithDescription("Rows that a stage did: images, labels or files."))
	t.retries, errs[1] = m.Int64Counter("sela.task.retries", metric.WithUnit("{attempt}"), metric.WithDescription("Attempts at tasks that failed and are made again."))
	t.stageS, errs[2] = m.Float64Histogram("sela.stage.duration", metric.WithUnit("s"), metric.WithDescription("Wall time of a stage."))
	t.commandS, errs[3] = m.Float64Histogram("sela.command.duration", metric.WithUnit("s"), metric.WithDescription("Wall time of a command."))
	return errors.Join(errs[:]...)
}

func (t *telemetry) job(j *pipeline.Job) {
	name := attribute.String("sela.job", j.Name)
	t.root.SetAttributes(name)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.labels = append(t.labels, name)
}

func (t *telemetry) run(r *pipeline.Record) {
	// A trace may name its run, series may not.
	t.root.AddEvent("run", trace.WithAttributes(attribute.String("sela.run", r.Run), attribute.String("sela.model", r.Provenance.Model)))
	t.root.SetAttributes(attribute.String("sela.run", r.Run))
}

// of are the labels of a stage's series.
func (t *telemetry) of(stage string, more ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributes(append(append(t.labels[:len(t.labels):len(t.labels)], attribute.String("sela.stage", stage)), more...)...)
}

func (t *telemetry) event(e pipeline.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	stage := attribute.String("sela.stage", e.Stage)
	key := [2]string{e.Stage, e.Task}
	switch e.Kind {
	case pipeline.StageStarted:
		t.endStage(e.Stage) // of the round before, if it was cut off
		t.stages[e.Stage], _ = t.tracer.Start(t.ctx, e.Stage, trace.WithAttributes(stage, attribute.Int("sela.tasks", e.Tasks), attribute.Int("sela.tasks_done_before", e.Skipped)))
	case pipeline.TaskStarted:
		parent := t.stages[e.Stage]
		if parent == nil {
			parent = t.ctx
		}
		_, t.tasks[key] = t.tracer.Start(parent, e.Stage+" task", trace.WithAttributes(stage, attribute.String("sela.task", e.Task)))
	case pipeline.RowsDone:
		t.rows.Add(t.ctx, e.Rows, t.of(e.Stage))
	case pipeline.TaskRetried:
		t.retries.Add(t.ctx, 1, t.of(e.Stage))
		t.endTask(key, e)
	case pipeline.TaskCommitted, pipeline.TaskDiscarded:
		t.endTask(key, e)
	case pipeline.StageDone:
		t.stageS.Record(t.ctx, e.Elapsed.Seconds(), t.of(e.Stage))
		if ctx := t.stages[e.Stage]; ctx != nil {
			trace.SpanFromContext(ctx).SetAttributes(attribute.Int64("sela.rows", e.Rows))
		}
		t.endStage(e.Stage)
	}
}

func (t *telemetry) endTask(key [2]string, e pipeline.Event) {
	span := t.tasks[key]
	if span == nil {
		return
	}
	delete(t.tasks, key)
	span.SetAttributes(attribute.String("sela.outcome", string(e.Kind)))
	if e.Err != nil {
		span.SetStatus(codes.Error, pipeline.ClassOf(e.Err).String())
		span.RecordError(e.Err)
	}
	span.End()
}

func (t *telemetry) endStage(stage string) {
	if ctx := t.stages[stage]; ctx != nil {
		trace.SpanFromContext(ctx).End()
		delete(t.stages, stage)
	}
}

func (t *telemetry) end(ctx context.Context, s *summary) {
	t.mu.Lock()
	failed := func(span trace.Span) {
		if !s.success() {
			span.SetStatus(codes.Error, pipeline.ClassOf(s.Err).String())
		}
	}
	for _, span := range t.tasks {
		failed(span)
		span.End()
	}
	for stage, ctx := range t.stages {
		failed(trace.SpanFromContext(ctx))
		t.endStage(stage)
	}
	t.commandS.Record(t.ctx, s.ended.Sub(s.started).Seconds(), metric.WithAttributes(append(t.labels, attribute.Int("sela.exit_code", s.Code))...))
	t.root.SetAttributes(attribute.Int("sela.exit_code", s.Code))
	failed(t.root)
	if !s.success() {
		t.root.RecordError(s.Err)
	}
	t.root.End(trace.WithTimestamp(s.ended))
	t.mu.Unlock()
	var group sync.WaitGroup
	for _, shutdown := range t.shutdown {
		group.Go(func() {
			if err := shutdown(ctx); err != nil {
				t.warn("opentelemetry", err)
			}
		})
	}
	group.Wait()
}
