package runtest

import (
	"testing"

	"sela/stages/label"
)

func TestRunReachesLabels(t *testing.T) {
	r := New(t, Options{Broken: 2})
	r.Through(t, r.Run, label.Name)
	found := 0
	for key := range Objects(t, r.Run.Work, r.Path("labels/")) {
		t.Log(key)
		found++
	}
	if found != 2 {
		t.Errorf("%d label files, want one for each of two heads", found)
	}
}
