package observe

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// TestReceivers sends to those who listen in production: a push gateway, a node
// exporter and an OpenTelemetry collector say what they have understood.
func TestReceivers(t *testing.T) {
	programs := os.Getenv("SELA_RECEIVERS")
	if programs == "" {
		t.Skip("SELA_RECEIVERS names no folder with receivers: run make test-receivers")
	}
	files := t.TempDir()
	gateway, node, otlp := freeAddress(t), freeAddress(t), freeAddress(t)
	config := filepath.Join(t.TempDir(), "otelcol.yaml")
	text := fmt.Sprintf(`receivers: {otlp: {protocols: {http: {endpoint: "%s"}}}}
exporters: {debug: {verbosity: detailed}}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {traces: {receivers: [otlp], exporters: [debug]}, metrics: {receivers: [otlp], exporters: [debug]}}
`, otlp)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	serve(t, gateway, filepath.Join(programs, "prometheus-pushgateway"), "--web.listen-address", gateway)
	serve(t, node, filepath.Join(programs, "prometheus-node-exporter"), "--web.listen-address", node, "--collector.disable-defaults", "--collector.textfile", "--collector.textfile.directory", files)
	collected := serve(t, otlp, filepath.Join(programs, "otelcol"), "--config", config)

	said := &warnings{}
	vars := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + otlp, "TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	for name, value := range vars {
		t.Setenv(name, value)
	}
	for _, o := range []Outcome{published, failed} { // the second leaves the success of the first where it is
		w := Begin(Options{Command: "run", Version: "v1", Pushgateway: "http://" + gateway, Textfiles: files, Getenv: environment(vars), Warn: said.warn})
		perform(w)
		w.End(o)
	}
	if len(said.all) > 0 {
		t.Fatal(said.text())
	}

	for name, url := range map[string]string{"push gateway": "http://" + gateway + "/metrics", "node exporter": "http://" + node + "/metrics"} {
		series := scrape(t, url)
		for metric, want := range map[string]float64{"sela_last_exit_code": 65, "push_failure_time_seconds": 0, "node_textfile_scrape_error": 0} {
			for _, m := range series[metric].GetMetric() {
				if got := m.GetGauge().GetValue() + m.GetUntyped().GetValue(); got != want {
					t.Errorf("%s: %s is %v, want %v", name, metric, got, want)
				}
			}
		}
		code, success := series["sela_last_exit_code"].GetMetric(), series[lastSuccess].GetMetric()
		if len(code) != 1 || len(success) != 1 || success[0].GetGauge().GetValue() <= 0 {
			t.Fatalf("%s: exit codes %v, last success %v", name, code, success)
		}
		if of := fmt.Sprint(code[0].GetLabel()); !strings.Contains(of, "letters") || !strings.Contains(of, "run") {
			t.Errorf("%s: labels %s", name, of)
		}
		if stages := series["sela_stage_duration_seconds"].GetMetric(); len(stages) != 3 {
			t.Errorf("%s: stages %v", name, stages)
		}
	}

	for _, want := range []string{
		"service.name: Str(sela)", "Trace ID       : 0af7651916cd43dd8448eb211c80319c", "Parent ID      : b7ad6b7169203331",
		"Name           : sela run", "Name           : extract", "Status code    : Error", "Name: sela.rows", "Name: sela.stage.duration",
	} {
		if got := collected(); !strings.Contains(got, want) {
			t.Errorf("the collector has no %q in\n%s", want, got)
		}
	}
}

// freeAddress is one of this machine on which nobody listens.
func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// serve runs a server until the test ends, waits until it listens, and returns a
// function that reads what it has printed.
func serve(t *testing.T, address, program string, args ...string) (printed func() string) {
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	printed = func() string {
		raw, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
		out.Close()
	})
	for patience := time.Now().Add(time.Minute); time.Now().Before(patience); time.Sleep(50 * time.Millisecond) {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return printed
		}
		select {
		case <-ended:
			t.Fatalf("%s ended: %s", program, printed())
		default:
		}
	}
	t.Fatalf("%s does not listen: %s", program, printed())
	return nil
}

// scrape reads a page as Prometheus does.
func scrape(t *testing.T, url string) map[string]*dto.MetricFamily {
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v: %s", url, resp.Status, err, raw)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	series, err := parser.TextToMetricFamilies(strings.NewReader(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return series
}
