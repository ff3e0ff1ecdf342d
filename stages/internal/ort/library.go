package ort

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// ErrLibrary is in the chain of every error about the shared library: absent,
// unreadable, of another processor, too old, or already opened from elsewhere.
var ErrLibrary = errors.New("ONNX Runtime library")

// minMinor is the oldest 1.x whose C interface serves: the binding is compiled
// against version 24 of the interface, which 1.24 introduced and every later
// release keeps.
const minMinor = 24

const remedy = "run `make onnxruntime`, or name a library of version 1.24 or later"

// Library is an ONNX Runtime shared library on this machine.
type Library struct {
	Path    string `json:"path"`              // absolute, symbolic links kept: providers are loaded from its folder
	Version string `json:"version,omitempty"` // as the file states it, like "1.24.3"; empty where the file format does not say
	SHA256  string `json:"sha256"`            // of the file's bytes, lower-case hex
}

// Find returns the library to use. A non-empty explicit (a file, or a folder
// that holds one) is used or refused, and nothing else is tried. Otherwise the
// first usable library wins: in dirs, beside the running executable (its
// folder, lib/ in it, ../lib), in the system's library folders, and in Python's
// system-wide site-packages, where the onnxruntime wheel keeps one. A library
// that is too old or made for another processor is passed over. The error, an
// [ErrLibrary], lists every place and why it did not serve.
//
// Find reads files and nothing else: no environment variable counts, and the
// library is not loaded.
func Find(explicit string, dirs []string) (Library, error) {
	if explicit != "" {
		lib, err := inspectPlace(explicit)
		if err != nil {
			return Library{}, fmt.Errorf("%w %s: %w; %s", ErrLibrary, explicit, err, remedy)
		}
		return lib, nil
	}
	var looked strings.Builder
	for _, place := range places(dirs) {
		lib, err := inspectPlace(place)
		if err == nil {
			return lib, nil
		}
		fmt.Fprintf(&looked, "\n  %s: %v", place, err)
	}
	return Library{}, fmt.Errorf("%w not found; %s. Looked in:%s", ErrLibrary, remedy, looked.String())
}

// places lists the folders to search, without repetition, patterns expanded.
func places(dirs []string) []string {
	all := slices.Clone(dirs)
	if exe, err := os.Executable(); err == nil {
		if resolved, err := filepath.EvalSymlinks(exe); err == nil {
			exe = resolved
		}
		dir := filepath.Dir(exe)
		all = append(all, filepath.Join(dir, "lib"), dir, filepath.Join(dir, "..", "lib"))
	}
	triplet := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]
	all = append(all, "/usr/local/lib", "/usr/lib64", filepath.Join("/usr/lib", triplet), "/usr/lib",
		"/opt/onnxruntime/lib", "/opt/homebrew/lib")
	for _, packages := range []string{
		"/usr/local/lib/python3*/site-packages", "/usr/local/lib/python3*/dist-packages",
		"/usr/lib/python3*/dist-packages", "/usr/lib/python3*/site-packages", "/usr/lib64/python3*/site-packages",
		"/opt/venv/lib/python3*/site-packages", "/opt/conda/lib/python3*/site-packages",
	} {
		pattern := filepath.Join(packages, "onnxruntime", "capi")
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			found = []string{pattern}
		}
		all = append(all, found...)
	}
	var distinct []string
	for _, p := range all {
		if p = filepath.Clean(p); !slices.Contains(distinct, p) {
			distinct = append(distinct, p)
		}
	}
	return distinct
}

// inspectPlace returns the best usable library of a folder, or the file itself.
func inspectPlace(place string) (Library, error) {
	fi, err := os.Stat(place)
	if err != nil {
		return Library{}, bare(err)
	}
	if !fi.IsDir() {
		return inspectFile(place)
	}
	var errs []error
	for _, name := range candidates(place) {
		lib, err := inspectFile(name)
		if err == nil {
			return lib, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", filepath.Base(name), err))
	}
	if len(errs) == 0 {
		return Library{}, errors.New("holds no ONNX Runtime library")
	}
	return Library{}, errors.Join(errs...)
}

// candidates lists a folder's library files, the plain names before versioned
// ones and newer versions before older ones.
func candidates(dir string) []string {
	plain, versioned := []string{"libonnxruntime.so.1", "libonnxruntime.so"}, "libonnxruntime.so.1.*"
	if runtime.GOOS == "darwin" {
		plain, versioned = []string{"libonnxruntime.dylib"}, "libonnxruntime.1.*.dylib"
	}
	var found []string
	for _, name := range plain {
		if path := filepath.Join(dir, name); exists(path) {
			found = append(found, path)
		}
	}
	more, err := filepath.Glob(filepath.Join(dir, versioned))
	if err != nil { // a folder whose name is itself a pattern
		return found
	}
	slices.SortFunc(more, func(a, b string) int { return minorOf(versionInName(b)) - minorOf(versionInName(a)) })
	return append(found, more...)
}

func inspectFile(path string) (Library, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return Library{}, err
	}
	lib := Library{Path: abs, Version: versionInName(abs)}
	if runtime.GOOS == "linux" {
		if lib.Version, err = versionOfELF(abs); err != nil {
			return Library{}, err
		}
	}
	if err := checkVersion(lib.Version); err != nil {
		return Library{}, err
	}
	f, err := os.Open(abs)
	if err != nil {
		return Library{}, bare(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return Library{}, bare(err)
	}
	lib.SHA256 = hex.EncodeToString(h.Sum(nil))
	return lib, nil
}

// versionOfELF reads the release from the library's symbol versions, where its
// linker script puts one node named VERS_ and the release. It is empty for a
// build without them.
func versionOfELF(path string) (string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return "", fmt.Errorf("not a shared library: %w", bare(err))
	}
	defer f.Close()
	want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	if m, known := want[runtime.GOARCH]; known && f.Machine != m {
		return "", fmt.Errorf("made for %v, this processor is %s", f.Machine, runtime.GOARCH)
	}
	// A library without version nodes reports an error here, and is fine.
	versions, _ := f.DynamicVersions()
	for _, v := range versions {
		if release, ok := strings.CutPrefix(v.Name, "VERS_"); ok {
			return release, nil
		}
	}
	return "", nil
}

// checkVersion accepts an unknown version: opening the library will tell.
func checkVersion(version string) error {
	if version == "" {
		return nil
	}
	major, _, _ := strings.Cut(version, ".")
	if major != "1" || minorOf(version) < minMinor {
		return fmt.Errorf("is version %s, needed is 1.%d or a later 1.x", version, minMinor)
	}
	return nil
}

// versionInName returns "1.24.3" for libonnxruntime.so.1.24.3 and
// libonnxruntime.1.24.3.dylib, and "" for a name without a version.
func versionInName(path string) string {
	name := strings.TrimSuffix(filepath.Base(path), ".dylib")
	name = strings.TrimPrefix(strings.TrimPrefix(name, "libonnxruntime."), "so.")
	if strings.Count(name, ".") == 0 || strings.Trim(name, "0123456789.") != "" {
		return ""
	}
	return name
}

func minorOf(version string) int {
	parts := strings.Split(version, ".")
	if len(parts) < 2 {
		return -1
	}
	minor, err := strconv.Atoi(parts[1])
	if err != nil {
		return -1
	}
	return minor
}

// bare drops the path from a file error whose message will name it anyway.
func bare(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
