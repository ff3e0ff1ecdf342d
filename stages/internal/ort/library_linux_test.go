package ort_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sela/stages/internal/ort"
	"sela/stages/internal/ort/orttest"
)

// patched copies the library with each occurrence of old replaced by new of
// the same length.
func patched(t *testing.T, path, old, new string) {
	t.Helper()
	data, err := os.ReadFile(orttest.Library(t).Path)
	if err != nil {
		t.Fatal(err)
	}
	if len(old) != len(new) || old != "" && !bytes.Contains(data, []byte(old)) {
		t.Fatalf("cannot patch %q to %q", old, new)
	}
	if old != "" {
		data = bytes.ReplaceAll(data, []byte(old), []byte(new))
	}
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	want := orttest.Library(t)
	if want.Version == "" || len(want.SHA256) != 64 || !filepath.IsAbs(want.Path) {
		t.Fatalf("incomplete: %+v", want)
	}
	dir := t.TempDir()
	good, empty, junk, old := filepath.Join(dir, "good"), filepath.Join(dir, "empty"), filepath.Join(dir, "junk"), filepath.Join(dir, "old")
	for _, d := range []string{good, empty, junk, old} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Only a versioned name, as in the wheel.
	if err := os.Symlink(want.Path, filepath.Join(good, "libonnxruntime.so.1.99.0")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(junk, "libonnxruntime.so.1"), []byte("not a library"), 0o644); err != nil {
		t.Fatal(err)
	}
	major, minor, _ := strings.Cut(want.Version, ".")
	minor, patch, _ := strings.Cut(minor, ".")
	oldVersion := strings.Join([]string{major, strings.Repeat("9", len(minor)-1) + "0", patch}, ".")
	if oldVersion >= "1.24" {
		oldVersion = "1." + strings.Repeat("0", len(minor)-1) + "9." + patch
	}
	patched(t, filepath.Join(old, "libonnxruntime.so"), "VERS_"+want.Version, "VERS_"+oldVersion)

	found, err := ort.Find("", []string{filepath.Join(dir, "absent"), empty, junk, old, good})
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(found.Path) != good || found.SHA256 != want.SHA256 || found.Version != want.Version {
		t.Errorf("found %+v, want that in %s", found, good)
	}
	for _, explicit := range []string{want.Path, good, filepath.Join(good, "libonnxruntime.so.1.99.0")} {
		found, err := ort.Find(explicit, []string{junk})
		if err != nil || found.SHA256 != want.SHA256 {
			t.Errorf("explicit %s: %+v, %v", explicit, found, err)
		}
	}
	for _, tt := range []struct{ explicit, want string }{
		{filepath.Join(dir, "absent"), "no such file"},
		{empty, "holds no ONNX Runtime library"},
		{junk, "not a shared library"},
		{filepath.Join(old, "libonnxruntime.so"), "is version " + oldVersion + ", needed is 1.24"},
	} {
		_, err := ort.Find(tt.explicit, []string{good})
		if !errors.Is(err, ort.ErrLibrary) || !strings.Contains(err.Error(), tt.want) ||
			!strings.Contains(err.Error(), tt.explicit) || !strings.Contains(err.Error(), "make onnxruntime") {
			t.Errorf("explicit %s: %v, want %q", tt.explicit, err, tt.want)
		}
	}
}

func TestFindListsPlaces(t *testing.T) {
	dir := t.TempDir()
	lib, err := ort.Find("", []string{dir})
	if err == nil {
		t.Skipf("skipped: %s is installed on this machine", lib.Path)
	}
	for _, want := range []string{dir, "/usr/local/lib", "onnxruntime/capi", "make onnxruntime"} {
		if !errors.Is(err, ort.ErrLibrary) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}

func TestOpenIsOncePerProcess(t *testing.T) {
	lib := orttest.Library(t)
	first := orttest.Open(t)
	if again := orttest.Open(t); again != first {
		t.Error("opened twice")
	}
	if first.Library().Version != lib.Version {
		t.Errorf("the file says version %s, the library %s", lib.Version, first.Library().Version)
	}
	lib.SHA256 = strings.Repeat("0", 64)
	if _, err := ort.Open(lib); !errors.Is(err, ort.ErrLibrary) || !strings.Contains(err.Error(), "already runs") {
		t.Errorf("another library: %v", err)
	}
}

func TestCloseAndReopen(t *testing.T) {
	rt := orttest.Open(t)
	s, err := rt.NewSession(filepath.Join("testdata", "linear.onnx"), ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	slot, err := s.NewSlot(t.Context(), []int64{1, 3, 4, 4})
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.Close(); err == nil || !strings.Contains(err.Error(), "still open: 2") {
		t.Errorf("closed under a session: %v", err)
	}
	for range 2 {
		if err := errors.Join(s.Close(), slot.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := rt.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := rt.NewSession(filepath.Join("testdata", "linear.onnx"), ort.Options{}); !errors.Is(err, ort.ErrLibrary) {
		t.Errorf("session of a closed runtime: %v", err)
	}
	bad := filepath.Join(t.TempDir(), "libonnxruntime.so")
	if err := os.WriteFile(bad, []byte("junk"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := ort.Open(ort.Library{Path: bad}); !errors.Is(err, ort.ErrLibrary) || !strings.Contains(err.Error(), bad) {
		t.Errorf("opened junk: %v", err)
	}
	s = open(t, "linear.onnx", ort.Options{})
	if err := s.Run(t.Context(), newSlot(t, s, []int64{1, 3, 4, 4})); err != nil {
		t.Errorf("after reopening: %v", err)
	}
}

func TestMissingLibraries(t *testing.T) {
	path := filepath.Join(t.TempDir(), "libonnxruntime_providers_cuda.so")
	patched(t, path, "libstdc++.so.6", "libcudnn_.so.9")
	if got := ort.MissingLibraries(path); len(got) != 1 || got[0] != "libcudnn_.so.9" {
		t.Errorf("missing %q", got)
	}
	if got := ort.MissingLibraries(orttest.Library(t).Path); len(got) != 0 {
		t.Errorf("missing %q of a library that loads", got)
	}
}

func TestVersions(t *testing.T) {
	for name, want := range map[string]string{
		"/x/libonnxruntime.so": "", "/x/libonnxruntime.so.1": "", "/x/libonnxruntime.dylib": "",
		"/x/libonnxruntime.so.1.24.3": "1.24.3", "/x/libonnxruntime.1.24.3.dylib": "1.24.3", "/x/other.so": "",
	} {
		if got := ort.VersionInName(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for version, ok := range map[string]bool{"": true, "1.24.0": true, "1.100.2": true, "1.23.2": false, "1.9.0": false, "2.0.0": false, "1": false} {
		if err := ort.CheckVersion(version); (err == nil) != ok {
			t.Errorf("version %q: %v", version, err)
		}
	}
}
