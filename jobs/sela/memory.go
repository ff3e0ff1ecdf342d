package main

import (
	"bufio"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// memoryLimit is the memory that this process may use, in bytes: the machine's,
// or less where its control group, one that holds it, or the limit of its
// address space or data (ulimit -v, -d) says so. 0: unknown.
func memoryLimit() int64 {
	limit := int64(0)
	lower := func(n uint64) {
		if n > 0 && n < 1<<62 && (limit == 0 || int64(n) < limit) {
			limit = int64(n)
		}
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		lower(uint64(info.Totalram) * uint64(info.Unit))
	}
	for _, resource := range []int{unix.RLIMIT_AS, unix.RLIMIT_DATA} {
		var r unix.Rlimit
		if unix.Getrlimit(resource, &r) == nil {
			lower(r.Cur)
		}
	}
	for _, file := range groupLimits("/proc/self/cgroup", "/sys/fs/cgroup") {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue // no such limit
		}
		var n uint64
		if _, err := fmt.Sscan(string(raw), &n); err == nil { // "max" is none
			lower(n)
		}
	}
	return limit
}

// groupLimits names the files that may limit the memory of a process whose
// groups the file own lists: those of its group and of all above it up to the
// mounted root, in both versions of control groups (cgroups(7)).
func groupLimits(own, root string) []string {
	f, err := os.Open(own)
	if err != nil {
		return nil // no control groups
	}
	defer f.Close()
	var files []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		part := strings.SplitN(lines.Text(), ":", 3) // number:controllers:path
		if len(part) != 3 {
			continue
		}
		mount, file := root, "memory.max"
		if part[1] == "memory" {
			mount, file = path.Join(root, "memory"), "memory.limit_in_bytes"
		} else if part[1] != "" {
			continue
		}
		for at := path.Clean("/" + part[2]); ; at = path.Dir(at) {
			files = append(files, path.Join(mount, at, file))
			if at == "/" {
				break
			}
		}
	}
	return files
}
