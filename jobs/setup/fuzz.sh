#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time (default 30s).
set -euo pipefail
cd "$(dirname "$0")/../.."
time=${1:-30s}
git ls-files '*_test.go' | xargs grep -l '^func Fuzz' | xargs -n1 dirname | sort -u | while read -r dir; do
	grep -ho '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | awk '{print $2}' | while read -r target; do
		echo "$dir $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x "./$dir" </dev/null >/tmp/fuzz.$$ 2>&1 || { cat /tmp/fuzz.$$; exit 1; }
		tail -n 1 /tmp/fuzz.$$
	done
done
rm -f /tmp/fuzz.$$
