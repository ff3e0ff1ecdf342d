#!/usr/bin/env bash
# On a machine with an NVIDIA GPU, through gpu.sh: compares CUDA with the CPU:
# log-probabilities, labels of a whole run, images normalised on the device, an
# epoch of training, determinism, signals, and images per second; the solver's
# passes and solves, and their entries per second against the bandwidth of the
# device's memory.
set -euo pipefail
build=$(realpath "${1:-.build}")
cd "$(dirname "$0")/../.."

make build
"$build/sela" doctor || true # says what is there; TensorRT need not be
go test -run GPU -bench GPU -benchtime 2s -v ./stages/extract
go test -count 1 -bench GPU -benchtime 2s -v ./stages/solve/device

dir=$build/gpu-check
rm -rf "$dir" && mkdir -p "$dir"
"$build/demo" images --out "$dir"
"$build/sela" model new --arch resnet-s --size 16 --heads 4 --clusters 26 --seed 1 --resize 16 --calibrate "$dir/images" --out "$dir/network.onnx" >/dev/null
for run in cpu cuda device; do # device: as cuda, with images normalised there
	sed -e '/^train:/,$d' -e "s#bucket: work#bucket: $run/work#; s#bucket: labels#bucket: $run/labels#" jobs/demo/job.yaml >"$dir/$run.yaml"
	[ $run = cpu ] || echo 'runtime: {providers: [cuda, cpu]}' >>"$dir/$run.yaml"
	[ $run != device ] || sed -i 's/^preprocess: {/&normalise: device, /' "$dir/$run.yaml"
	"$build/sela" run "$dir/$run.yaml" --run-id gpu-check >"$dir/$run.json"
	"$build/sela" verify "$dir/$run.yaml" >/dev/null
	"$build/demo" report --labels "$dir/$run/labels" --truth "$dir/truth/classes.csv"
done
"$build/demo" compare --labels "$dir/cpu/labels" --other "$dir/cuda/labels"
"$build/demo" compare --labels "$dir/cuda/labels" --other "$dir/device/labels"

# One epoch on the same labels from the same weights: losses should agree to some
# digits, not bits.
for providers in cpu cuda,cpu; do
	"$build/sela" train --labels "$dir/cpu/labels" --arch resnet-s --epochs 1 --seed 1 --providers "$providers" --out "$dir/train-$providers" >/dev/null
	cut -d, -f1-7 "$dir/train-$providers/metrics.csv"
done
