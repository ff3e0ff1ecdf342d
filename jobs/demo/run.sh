#!/usr/bin/env bash
# The demo: draw letters, make an untrained network, label the letters, and say
# how the labels agree with the letters nobody told it.
set -euo pipefail
build=$1 demo=$2
sela=$build/sela
mkdir -p "$demo"
"$build/demo" images --out "$demo"
cp jobs/demo/job.yaml "$demo/job.yaml"
if [ ! -f "$demo/model.onnx" ]; then
	"$sela" model new --arch resnet-s --size 32 --heads 4 --clusters 26 --seed 1 --calibrate "$demo/images" --out "$demo/model.onnx" >/dev/null
fi
code=0
"$sela" run "$demo/job.yaml" || code=$?
[ "$code" = 0 ] || [ "$code" = 99 ] || exit "$code"
"$build/demo" report --labels "$demo/labels" --truth "$demo/truth/truth.csv"
