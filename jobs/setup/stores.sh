#!/usr/bin/env bash
# Runs a command while three object stores serve on this machine: versitygw (S3,
# with real signatures), fake-gcs-server (Google Cloud Storage) and azurite
# (Azure Blob Storage), each with an empty bucket (but for Azure, where a signed
# request makes the container: the tests do) in memory or in a folder that
# goes with it. They are installed into .build/stores unless they are there.
#
#   jobs/setup/stores.sh go test -run Store ./jobs/sela/...
#
# The command finds their URLs in SELA_STORES, and credentials for them where
# the providers' tools look for them. Needs Go, npm and curl.
set -euo pipefail

# The only place where versions are pinned. The Go modules are checked against
# the checksum database, the npm package against its digest.
versitygw=v1.8.0
fake_gcs_server=v1.56.1
azurite=3.37.0

say() { printf 'stores: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
dir=$root/.build/stores
[[ $# -gt 0 ]] || die "give the command to run, as in: $0 go test ./jobs/sela/stores"
mkdir -p "$dir"

# go_install PATH@VERSION: each version in a folder of its own.
go_install() {
	local bin=$dir/${1##*@}
	[[ -x $bin/$(basename "${1%@*}") ]] && return
	say "building $1"
	GOFLAGS='' CGO_CPPFLAGS='' GOBIN=$bin go install "$1" || die "go could not install $1"
}
go_install "github.com/versity/versitygw/cmd/versitygw@$versitygw"
go_install "github.com/fsouza/fake-gcs-server@$fake_gcs_server"
if [[ ! -e $dir/azurite-$azurite/.ready ]]; then
	command -v npm >/dev/null || die "npm is not on this machine: azurite comes from there"
	say "fetching azurite $azurite with npm"
	npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$dir/azurite-$azurite" "azurite@$azurite" >&2 ||
		die "npm could not fetch azurite $azurite"
	touch "$dir/azurite-$azurite/.ready"
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/sela-stores.XXXXXX")
servers=()
stop() {
	# What they hold goes with them: nothing is worth an orderly end.
	for pid in "${servers[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
	wait 2>/dev/null || true
	rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# free_port: one that nobody listens on.
free_port() {
	local port
	while :; do
		port=$((20000 + RANDOM))
		(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
	done
}

# start NAME PORT COMMAND...: in the background, until it listens.
start() {
	local name=$1 port=$2
	shift 2
	"$@" >"$work/$name.log" 2>&1 </dev/null &
	local pid=$!
	servers+=("$pid")
	for _ in $(seq 1200); do
		(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.1
	done
	tail -n 5 "$work/$name.log" >&2
	die "$name does not start on port $port"
}

random() { od -An -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }

export AWS_ACCESS_KEY_ID=user$(random 8) AWS_SECRET_ACCESS_KEY=$(random 20) AWS_SESSION_TOKEN=
export AWS_EC2_METADATA_DISABLED=true AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null
export AZURE_STORAGE_ACCOUNT=account AZURE_STORAGE_KEY=$(random 64 | head -c 88)
s3_port=$(free_port) gcs_port=$(free_port) azure_port=$(free_port)
export STORAGE_EMULATOR_HOST=127.0.0.1:$gcs_port

mkdir -p "$work/s3/bucket"
ROOT_ACCESS_KEY=$AWS_ACCESS_KEY_ID ROOT_SECRET_KEY=$AWS_SECRET_ACCESS_KEY \
	start versitygw "$s3_port" "$dir/$versitygw/versitygw" --port "127.0.0.1:$s3_port" --quiet posix "$work/s3"
start fake-gcs-server "$gcs_port" "$dir/$fake_gcs_server/fake-gcs-server" -backend memory -scheme http -host 127.0.0.1 -port "$gcs_port" \
	-public-host "$STORAGE_EMULATOR_HOST" -external-url "http://$STORAGE_EMULATOR_HOST" -log-level error
AZURITE_ACCOUNTS=$AZURE_STORAGE_ACCOUNT:$AZURE_STORAGE_KEY \
	start azurite "$azure_port" node "$dir/azurite-$azurite/node_modules/azurite/dist/src/blob/main.js" --silent --skipApiVersionCheck \
	--disableProductStyleUrl --inMemoryPersistence --blobHost 127.0.0.1 --blobPort "$azure_port"

curl -fsS -X POST -H 'Content-Type: application/json' -d '{"name": "bucket"}' "http://$STORAGE_EMULATOR_HOST/storage/v1/b?project=p" >/dev/null ||
	die "fake-gcs-server makes no bucket"
export SELA_REQUIRE_STORES=1
export SELA_STORES="s3://bucket?endpoint=http://127.0.0.1:$s3_port&region=us-east-1&use_path_style=true&hostname_immutable=true
gs://bucket?anonymous=true
azblob://bucket?protocol=http&domain=127.0.0.1:$azure_port&localemu=true"
"$@"
