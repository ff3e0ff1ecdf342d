#!/usr/bin/env bash
# For a machine with an NVIDIA GPU: gets ONNX Runtime's CUDA build and the CUDA
# libraries it needs (as Python packages, unpacked, not installed), and compares
# CUDA with the CPU: log-probabilities, labels of a whole run, images normalised
# on the device, an epoch of training, determinism, signals, and images per second; the solver's passes
# and solves, and their entries per second against the bandwidth of the device's
# memory. With --get it only gets them.
set -euo pipefail
build=$(mkdir -p "${1:-.build}" && realpath "${1:-.build}")
only=${2:-}
version=1.24.4
gpu=$build/gpu
cd "$(dirname "$0")/../.."

if [ ! -f "$gpu/ready" ]; then
	rm -rf "$gpu" && mkdir -p "$gpu/wheels"
	# The CUDA 12 line; an installed CUDA of that line serves as well.
	python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: -d "$gpu/wheels" \
		"onnxruntime-gpu==$version" nvidia-cudnn-cu12 nvidia-cublas-cu12 nvidia-cuda-runtime-cu12 nvidia-cufft-cu12 \
		nvidia-curand-cu12 nvidia-cuda-nvrtc-cu12 nvidia-nvjitlink-cu12
	for wheel in "$gpu"/wheels/*.whl; do
		python3 -m zipfile -e "$wheel" "$gpu/site"
	done
	rm -rf "$gpu/wheels"
	touch "$gpu/ready"
fi
[ "$only" = --get ] && exit 0
command -v nvidia-smi >/dev/null || { echo "gpu-check: no NVIDIA GPU here (nvidia-smi is missing)" >&2; exit 78; }
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
SELA_ONNXRUNTIME=$(echo "$gpu"/site/onnxruntime/capi/libonnxruntime.so.*)
LD_LIBRARY_PATH=$(find "$gpu/site/nvidia" -maxdepth 2 -name lib -printf '%p:')${LD_LIBRARY_PATH:-}
export SELA_ONNXRUNTIME LD_LIBRARY_PATH SELA_GPU=1

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
