#!/usr/bin/env bash
# Labels CIFAR-10's test images with an untrained network of 10 heads × 128
# clusters: as the reference does, with the default method, and with exact
# counts from compact shards. Verifies the published sets, makes them again with
# other worker and shard numbers and little memory, and has NumPy, pyarrow, pandas and DuckDB check
# all of it.
set -euo pipefail
build=$(realpath "$1") shared=$2
if [ ! -d "$shared/cifar10" ]; then
	echo "skipped: $shared/cifar10 is missing (CIFAR-10 as tar shards of JPEG)"
	exit 0
fi
shared=$(realpath "$shared")
here=$(realpath "$(dirname "$0")")
dir=$build/reference
rm -rf "$dir" && mkdir -p "$dir"
cd "$dir"
"$build/sela" model new --arch resnet-s --size 32 --heads 10 --clusters 128 --seed 7 \
	--calibrate "$shared/cifar10" --glob 'cifar10-test-*.tar' --out model.onnx

job() { # name, threads, workers, shard rows, more of extract, more of solve
	cat >"$1.yaml" <<YAML
job: $1
images: {bucket: "$shared/cifar10", glob: "cifar10-test-*.tar"}
work: {bucket: $1/work}
labels: {bucket: $1/labels}
model: {path: model.onnx, heads: 10, clusters: 128}
preprocess: {resize: 0, crop: 32}
runtime: {threads: $2}
extract: {shard_rows: $4, decoders: $2$5}
solve: {workers: $3$6}
local: {dir: local}
YAML
}
job sinkhorn-1 1 1 8192 "" ", method: sinkhorn"
job sinkhorn-2 2 3 2048 "" ", method: sinkhorn"
job lists-1 1 1 8192 "" ""
job lists-2 2 3 2048 "" ", memory: 1MiB"
job exact-1 1 1 8192 ", stored: uint16" ", balance: exact"
job exact-2 2 3 2048 ", stored: uint16" ", balance: exact, memory: 1MiB"
for name in {sinkhorn,lists,exact}-{1,2}; do
	"$build/sela" run "$name.yaml" --run-id reference
	"$build/sela" verify "$name.yaml"
done
"$build/venv/bin/python" "$here/reference.py" .
