package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// Every group above a process may limit it, in both versions.
func TestGroupLimits(t *testing.T) {
	own := filepath.Join(t.TempDir(), "cgroup")
	for text, want := range map[string][]string{
		"0::/\n":     {"/g/memory.max"},
		"0::/c/d\n":  {"/g/c/d/memory.max", "/g/c/memory.max", "/g/memory.max"},
		"0::/../x\n": {"/g/x/memory.max", "/g/memory.max"}, // a group beside the namespace's root
		"0::/a:b\n":  {"/g/a:b/memory.max", "/g/memory.max"},
		"1:cpu:/q\n": nil,
		"nonsense\n": nil,
		"":           nil,
		"9:pids:/\n4:memory:/a/b\n0::/c\n": {"/g/memory/a/b/memory.limit_in_bytes", "/g/memory/a/memory.limit_in_bytes", "/g/memory/memory.limit_in_bytes",
			"/g/c/memory.max", "/g/memory.max"},
	} {
		if err := os.WriteFile(own, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := groupLimits(own, "/g"); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := groupLimits(own+".missing", "/g"); got != nil {
		t.Errorf("without control groups: %q", got)
	}
}

// A limit of the address space or of the data is one of memory.
func TestMemoryLimit(t *testing.T) {
	all := memoryLimit()
	if all < 64<<20 {
		t.Fatalf("this machine has %d bytes", all)
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_DATA, &old); err != nil {
		t.Fatal(err)
	}
	lower := old
	lower.Cur = uint64(all) - 1<<20
	if err := unix.Setrlimit(unix.RLIMIT_DATA, &lower); err != nil {
		t.Fatal(err)
	}
	got := memoryLimit()
	if err := unix.Setrlimit(unix.RLIMIT_DATA, &old); err != nil {
		t.Fatal(err)
	}
	if got != all-1<<20 {
		t.Errorf("%d bytes, want the limit of %d", got, all-1<<20)
	}
}
