#!/usr/bin/env bash
# gpu.sh BUILD [COMMAND…]: gets ONNX Runtime's CUDA build and the CUDA libraries it
# needs (as Python packages, unpacked into BUILD/gpu, not installed), and runs the
# command with them, on a machine with an NVIDIA GPU. Without a command it only
# gets them.
set -euo pipefail
build=$(mkdir -p "$1" && realpath "$1")
shift
version=1.24.4
gpu=$build/gpu

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
[ $# -gt 0 ] || exit 0
command -v nvidia-smi >/dev/null || { echo "gpu: no NVIDIA GPU here (nvidia-smi is missing)" >&2; exit 78; }
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
SELA_ONNXRUNTIME=$(echo "$gpu"/site/onnxruntime/capi/libonnxruntime.so.*)
LD_LIBRARY_PATH=$(find "$gpu/site/nvidia" -maxdepth 2 -name lib -printf '%p:')${LD_LIBRARY_PATH:-}
export SELA_ONNXRUNTIME LD_LIBRARY_PATH SELA_GPU=1
exec "$@"
