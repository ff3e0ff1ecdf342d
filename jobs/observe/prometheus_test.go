package observe

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

var measured = regexp.MustCompile(`(?m)^(sela_last_\w*(?:seconds)\{.*\}|sela_stage_duration_seconds\{.*stage="solve"\}) .*$`)

func TestTextFile(t *testing.T) {
	dir := t.TempDir()
	end := func(o Outcome) string {
		t.Helper()
		w := Begin(Options{Command: "run", Textfiles: dir, Getenv: environment(nil), Warn: func(m string, err error) { t.Error(m, err) }})
		perform(w)
		w.End(o)
		raw, err := os.ReadFile(filepath.Join(dir, "sela_letters_run.prom"))
		if err != nil {
			t.Fatal(err)
		}
		parser := expfmt.NewTextParser(model.LegacyValidation)
		if _, err := parser.TextToMetricFamilies(strings.NewReader(string(raw))); err != nil {
			t.Fatalf("not what Prometheus reads: %v\n%s", err, raw)
		}
		if strings.Contains(string(raw), "run-17") {
			t.Errorf("series name the run:\n%s", raw)
		}
		return string(raw)
	}
	success := func(text string) string {
		return regexp.MustCompile(`(?m)^` + lastSuccess + `\{.*$`).FindString(text)
	}
	if none := end(failed); success(none) != "" || !strings.Contains(none, `sela_last_exit_code{command="run",sela_job="letters"} 65`) {
		t.Errorf("a first run that failed:\n%s", none)
	}
	done := end(published)
	want, err := os.ReadFile("testdata/run.prom")
	if err != nil {
		t.Fatal(err)
	}
	if got := measured.ReplaceAllString(done, "$1 MEASURED"); got != string(want) {
		t.Errorf("text file\n%s\nwant\n%s", got, want)
	}
	time.Sleep(2 * time.Millisecond) // the times have milliseconds
	if after := end(failed); success(after) == "" || success(after) != success(done) {
		t.Errorf("after a failure the last success is %q, it was %q", success(after), success(done))
	}
	if again := end(nothing); success(again) == success(done) || success(again) == "" {
		t.Errorf("nothing to do is a success: %q, it was %q", success(again), success(done))
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	info, err := os.Stat(filepath.Join(dir, "sela_letters_run.prom"))
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v: the exporter is another user", info.Mode(), err)
	}
}

func TestPushgateway(t *testing.T) {
	r, said := newReceiver(t), &warnings{}
	for _, o := range []Outcome{published, failed} {
		w := Begin(Options{Command: "extract", Pushgateway: r.URL + "/base", Getenv: environment(nil), Warn: said.warn})
		perform(w)
		w.End(o)
	}
	pushed := r.got("/base")
	if len(pushed) != 2 || len(said.all) > 0 {
		t.Fatalf("%d requests; %s", len(pushed), said.text())
	}
	for i, q := range pushed {
		if q.method != "POST" || q.path != "/base/metrics/job/sela/sela_job/letters/command/extract" || !strings.HasPrefix(q.kind, "text/plain") {
			t.Errorf("%s %s of %s", q.method, q.path, q.kind)
		}
		// What a POST does not name stays: the last success, of one that failed.
		if has := strings.Contains(string(q.body), lastSuccess); has != (i == 0) {
			t.Errorf("request %d names the last success: %t", i, has)
		}
		if strings.Contains(string(q.body), "run-17") {
			t.Errorf("series name the run:\n%s", q.body)
		}
	}
}
