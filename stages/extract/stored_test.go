package extract_test

import (
	"slices"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/schemas"
	"sela/stages/extract"
	"sela/stages/internal/onnx/onnxtest"
)

// TestStoredPrecision: with uint16 the shards hold what a compact table gives
// back of the float32 rows, and all other tables the same bytes.
func TestStoredPrecision(t *testing.T) {
	clusters := []int{40, 7}
	extracted := func(stored string) (map[string]string, []rows) {
		r := world(t, pictures(t, 1100), onnxtest.Classifier{Hidden: 20, Clusters: clusters}, func(j *pipeline.Job) {
			j.Extract.Stored = stored
			withFeatures(j)
		})
		r.Through(t, r.Run, extract.Name)
		return digests(t, r.Run), []rows{read(t, r.Run, "logprobs/head-0"), read(t, r.Run, "logprobs/head-1")}
	}
	exact, want := extracted("float32")
	compact, got := extracted("uint16")
	for name, sum := range exact {
		if logprobs := strings.HasPrefix(name, "logprobs/"); logprobs == (compact[name] == sum) {
			t.Errorf("%s: the same bytes: %t", name, !logprobs)
		}
	}
	for h, k := range clusters {
		codes := make([]uint16, k)
		for i := range want[h].numbers {
			if err := schemas.RoundTrip(want[h].values[i*k:(i+1)*k], codes); err != nil {
				t.Fatal(err)
			}
		}
		if len(got[h].numbers) != 1100 || !slices.Equal(got[h].numbers, want[h].numbers) || !slices.Equal(got[h].values, want[h].values) {
			t.Errorf("head %d has other rows", h)
		}
		if len(got[h].sums) != len(want[h].sums) {
			t.Errorf("head %d has %d digests, want %d", h, len(got[h].sums), len(want[h].sums))
		}
	}
}
