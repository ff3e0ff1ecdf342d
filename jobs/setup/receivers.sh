#!/usr/bin/env bash
# Installs what the tests send metrics and traces to into a folder: Prometheus'
# push gateway and node exporter (Debian's packages, unpacked there, nothing is
# started) and an OpenTelemetry collector, built from its modules.
#
#   jobs/setup/receivers.sh .build/receivers
#
# Needs apt-get and dpkg, Go, and the network.
set -euo pipefail

# The only place where the collector's version is pinned; its modules are checked
# against the checksum database, Debian's packages by apt.
collector=v0.165.0

say() { printf 'receivers: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[[ $# -eq 1 ]] || die "give the folder, as in: $0 .build/receivers"
mkdir -p "$1"
cd "$1"

packages=(prometheus-pushgateway prometheus-node-exporter)
unpack() {
	rm -f ./*.deb
	apt-get download -qq "${packages[@]}" 2>/dev/null || return
	for deb in ./*.deb; do dpkg -x "$deb" debian; done
	rm -f ./*.deb
}
if [[ ! -x debian/usr/bin/prometheus-pushgateway || ! -x debian/usr/bin/prometheus-node-exporter ]]; then
	command -v apt-get >/dev/null || die "this system has no apt-get: put ${packages[*]} into $PWD/debian/usr/bin"
	say "fetching ${packages[*]} with apt"
	if ! unpack; then
		if ((EUID == 0)); then apt-get update -qq; else sudo -n apt-get update -qq; fi || die "apt-get update failed"
		unpack || die "apt-get could not fetch ${packages[*]}"
	fi
fi
if [[ ! -x otelcol-$collector/otelcol ]]; then
	say "building OpenTelemetry's collector $collector"
	cat >collector.yaml <<-YAML
		dist: {name: otelcol, output_path: ./otelcol-$collector, version: ${collector#v}}
		receivers: [{gomod: go.opentelemetry.io/collector/receiver/otlpreceiver $collector}]
		exporters: [{gomod: go.opentelemetry.io/collector/exporter/debugexporter $collector}]
	YAML
	GOFLAGS='' CGO_CPPFLAGS='' go run "go.opentelemetry.io/collector/cmd/builder@$collector" --config collector.yaml >collector.log 2>&1 ||
		{ tail -n 5 collector.log >&2; die "the collector cannot be built"; }
fi
ln -sf "otelcol-$collector/otelcol" otelcol
ln -sf debian/usr/bin/prometheus-pushgateway debian/usr/bin/prometheus-node-exporter .
