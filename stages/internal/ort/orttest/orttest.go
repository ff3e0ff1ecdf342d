// Package orttest gives tests an ONNX Runtime.
package orttest

import (
	"os"
	"path/filepath"
	"testing"

	"sela/stages/internal/ort"
)

// Library returns the library that SELA_ONNXRUNTIME names, else the one that
// `make onnxruntime` put into this repository's .build/lib, else whatever
// [ort.Find] finds on this machine. Without one the test is skipped; where CI
// is "true" or SELA_REQUIRE_ORT is set, it fails, so that nothing goes untested
// unnoticed.
func Library(t testing.TB) ort.Library {
	t.Helper()
	lib, err := ort.Find(os.Getenv("SELA_ONNXRUNTIME"), []string{filepath.Join(root(t), ".build", "lib")})
	if err == nil {
		return lib
	}
	if os.Getenv("CI") == "true" || os.Getenv("SELA_REQUIRE_ORT") != "" {
		t.Fatal(err)
	}
	t.Skipf("skipped, because this test runs models: %v", err)
	return ort.Library{}
}

// Open returns the test process's ONNX Runtime. It stays open for the tests
// that follow.
func Open(t testing.TB) *ort.Runtime {
	t.Helper()
	rt, err := ort.Open(Library(t))
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

// root returns the folder of the go.mod above the test's working folder.
func root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the working folder")
		}
		dir = parent
	}
}
