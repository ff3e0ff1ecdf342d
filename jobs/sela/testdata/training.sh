#!/usr/bin/env bash
# Trains networks that PyTorch exported on labels of CIFAR-10's test images that
# sela made: a vision transformer and a ResNet-50 of torchvision, whose last
# layer makes room for the labels' heads. One training is killed, goes on, is
# stopped, and goes on with the images at another place. Then a trained trunk
# starts another training.
set -euo pipefail
build=$(realpath "$1") shared=$2 python=$(realpath -s "$3")
if [ ! -d "$shared/cifar10" ]; then
	echo "skipped: $shared/cifar10 is missing (CIFAR-10 as tar shards of JPEG)"
	exit 0
fi
shared=$(realpath "$shared")
here=$(realpath "$(dirname "$0")")
dir=$build/training
rm -rf "$dir" && mkdir -p "$dir"
cd "$dir"
"$python" "$here/../../../stages/internal/onnx/grad/testdata/networks.py" export .

label() { # size images: makes labels of so many images at so many pixels
	"$build/sela" model new --arch resnet-s --size "$1" --heads 3 --clusters 10 --seed 7 \
		--calibrate "$shared/cifar10" --glob 'cifar10-test-*.tar' --out "model-$1.onnx"
	cat >"job-$1.yaml" <<-YAML
	job: labels
	images: {bucket: "$shared/cifar10", glob: "cifar10-test-00000.tar", limit: $2}
	work: {bucket: work-$1}
	labels: {bucket: labels-$1}
	model: {path: model-$1.onnx, heads: 3, clusters: 10}
	preprocess: {resize: $1, crop: $1}
	local: {dir: local}
	YAML
	"$build/sela" run "job-$1.yaml" --run-id one
}
learned() { # folder: the training loss fell in every epoch, and each head has its own
	"$python" - "$1" <<-'PYTHON'
	import csv, sys
	rows = list(csv.DictReader(open(sys.argv[1] + "/metrics.csv")))
	losses = [float(row["train_loss"]) for row in rows]
	print(sys.argv[1], "training loss", losses, "held-out accuracy", rows[-1]["held_out_accuracy"])
	assert len(losses) > 1 and losses == sorted(losses, reverse=True), losses
	assert len([name for name in rows[0] if name.endswith("_train_loss") and name.startswith("head_")]) == 3, rows[0]
	PYTHON
}
label 32 2000
label 64 192

train=("$build/sela" train --replace-heads --batch 32 --held-out 0.1 --warmup 0.1 --jitter 0,0,0,0 --grayscale 0 --scale 0.5,1)
vit=(--labels labels-32 --model transformer.onnx --epochs 4 --rate 0.02 --clip 1)
"${train[@]}" "${vit[@]}" --out vit
learned vit
"${train[@]}" --labels labels-64 --model resnet-50.onnx --epochs 3 --rate 0.01 --scale 1,1 --flip 0 --out resnet
learned resnet

# Ended at any moment, a training goes on to the same bytes.
begin() { # starts the training of the folder killed, and returns once it has made a checkpoint
	touch "$dir/before"
	"${train[@]}" "${vit[@]}" --out killed --checkpoint 1s &
	until [ killed/checkpoint.sela -nt before ]; do
		kill -0 $! # it has not failed
		sleep 0.1
	done
}
begin
kill -9 $!
wait $! && exit 1
begin
kill -TERM $!
code=0
wait $! || code=$?
if [ $code != 143 ] || [ -e killed/model.onnx ]; then
	echo "the training ended with $code instead of being stopped"
	exit 1
fi
mkdir moved
cp "$shared/cifar10/cifar10-test-00000.tar" moved
"${train[@]}" "${vit[@]}" --out killed --images moved
cmp killed/model.onnx vit/model.onnx
cmp killed/trunk.onnx vit/trunk.onnx

"${train[@]}" "${vit[@]}" --out tuned --epochs 1 --rate 0.005 --init vit/trunk.onnx --frozen encoder.pos_embedding | grep '"init":{"tensors":[1-9]'
echo "networks exported by PyTorch train on labels, go on after a kill and a stop to the same bytes, and start from a trunk"
