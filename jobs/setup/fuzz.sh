#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time (default 30s).
#
# Go 1.26 sometimes reports its own end of the fuzzing time as a failure of the
# target ("context deadline exceeded", golang/go#75804, mended in Go 1.27). A
# failure with that as its only message is the time being up; a real one names
# the input that it wrote.
set -euo pipefail
cd "$(dirname "$0")/../.."
time=${1:-30s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

only_time_was_up() {
	[ "$(sed -n '/^--- FAIL: Fuzz/,/^FAIL/p' "$log" | sed '1d;$d')" = '    context deadline exceeded' ] &&
		! grep -q 'Failing input written' "$log"
}

git ls-files '*_test.go' | xargs grep -l '^func Fuzz' | xargs -n1 dirname | sort -u | while read -r dir; do
	grep -ho '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | awk '{print $2}' | while read -r target; do
		echo "$dir $target"
		if go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x "./$dir" </dev/null >"$log" 2>&1; then
			tail -n 1 "$log"
		elif only_time_was_up; then
			grep '^fuzz: elapsed' "$log" | tail -n 1
		else
			cat "$log"
			exit 1
		fi
	done
done
