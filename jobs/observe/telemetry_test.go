package observe

import (
	"bytes"
	"compress/gzip"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"

	collectmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collecttraces "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	tracedata "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// TestTelemetry plays the collector.
func TestTelemetry(t *testing.T) {
	r, said := newReceiver(t), &warnings{}
	vars := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": r.URL, "OTEL_EXPORTER_OTLP_HEADERS": "authorization=SEKRET", "OTEL_RESOURCE_ATTRIBUTES": "team=vision",
		"TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	for name, value := range vars {
		t.Setenv(name, value)
	}
	w := Begin(Options{Command: "run", Version: "v1", Getenv: environment(vars), Warn: said.warn})
	perform(w)
	w.End(failed)
	if len(said.all) > 0 {
		t.Fatal(said.text())
	}

	var spans []*tracedata.Span
	for _, q := range r.got("/v1/traces") {
		var sent collecttraces.ExportTraceServiceRequest
		unpack(t, q, &sent)
		for _, of := range sent.ResourceSpans {
			if about := text(of.Resource.Attributes); !strings.Contains(about, "service.name=sela ") || !strings.Contains(about, "team=vision ") || !strings.Contains(about, "service.version=v1 ") {
				t.Errorf("resource %s", about)
			}
			for _, s := range of.ScopeSpans {
				spans = append(spans, s.Spans...)
			}
		}
		if q.auth != "SEKRET" {
			t.Errorf("authorization %q", q.auth)
		}
	}
	names := map[string]string{} // of spans, by id
	for _, s := range spans {
		names[string(s.SpanId)] = s.Name
	}
	var tree []string
	for _, s := range spans {
		parent := names[string(s.ParentSpanId)]
		state := "ok"
		if s.Status.GetCode() == tracedata.Status_STATUS_CODE_ERROR {
			state = s.Status.Message
		}
		tree = append(tree, s.Name+" < "+parent+": "+state)
		if string(s.TraceId) != "\x0a\xf7\x65\x19\x16\xcd\x43\xdd\x84\x48\xeb\x21\x1c\x80\x31\x9c" {
			t.Errorf("span %s is of trace %x, not of the scheduler's", s.Name, s.TraceId)
		}
		if s.Name == "sela run" {
			if string(s.ParentSpanId) != "\xb7\xad\x6b\x71\x69\x20\x33\x31" {
				t.Errorf("the parent is %x", s.ParentSpanId)
			}
			for _, must := range []string{"sela.job=letters ", "sela.run=run-17 ", "sela.exit_code=65 "} {
				if !strings.Contains(text(s.Attributes), must) {
					t.Errorf("%s lacks %s", text(s.Attributes), must)
				}
			}
		}
	}
	slices.Sort(tree)
	want := []string{"extract < sela run: ok", "extract task < extract: bug", "extract task < extract: ok", "extract task < extract: ok",
		"list < sela run: ok", "list task < list: ok", "sela run < : data", "solve < sela run: data", "solve task < solve: data"}
	if !slices.Equal(tree, want) {
		t.Errorf("spans\n%s\nwant\n%s", strings.Join(tree, "\n"), strings.Join(want, "\n"))
	}

	var series []string
	rows := int64(0)
	for _, q := range r.got("/v1/metrics") {
		var sent collectmetrics.ExportMetricsServiceRequest
		unpack(t, q, &sent)
		for _, of := range sent.ResourceMetrics {
			for _, s := range of.ScopeMetrics {
				for _, m := range s.Metrics {
					series = append(series, m.Name)
					for _, p := range m.GetSum().GetDataPoints() {
						if m.Name == "sela.rows" {
							rows += p.GetAsInt()
						}
						if a := text(p.Attributes); !strings.Contains(a, "sela.job=letters ") || strings.Contains(a, "run-17") {
							t.Errorf("%s has %s", m.Name, a)
						}
					}
				}
			}
		}
	}
	slices.Sort(series)
	if want := []string{"sela.command.duration", "sela.rows", "sela.stage.duration", "sela.task.retries"}; !slices.Equal(series, want) || rows != 14 {
		t.Errorf("series %v, want %v; %d rows", series, want, rows)
	}
}

func unpack(t *testing.T, q request, into proto.Message) {
	t.Helper()
	body := q.body
	if z, err := gzip.NewReader(bytes.NewReader(body)); err == nil {
		if body, err = io.ReadAll(z); err != nil {
			t.Fatal(err)
		}
	}
	if err := proto.Unmarshal(body, into); err != nil {
		t.Fatal(err)
	}
}

// text writes attributes as name=value, each with a space behind it.
func text(attributes []*common.KeyValue) string {
	var b strings.Builder
	for _, a := range attributes {
		value := a.Value.GetStringValue()
		if i, ok := a.Value.Value.(*common.AnyValue_IntValue); ok {
			value = strconv.FormatInt(i.IntValue, 10)
		}
		b.WriteString(a.Key + "=" + value + " ")
	}
	return b.String()
}
