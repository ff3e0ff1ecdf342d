#!/usr/bin/env bash
# The demo: draw letters, make an untrained network, and let it label them and
# learn from its labels in turn. The last table says how the labels agree with the
# letters nobody told it.
set -euo pipefail
build=$1 demo=$2
sela=$build/sela
rounds=4
mkdir -p "$demo"
"$build/demo" images --out "$demo"
cp jobs/demo/job.yaml "$demo/job.yaml"
"$sela" model new --arch resnet-s --size 16 --heads 4 --clusters 26 --seed 1 --out "$demo/network.onnx" >/dev/null
# A loop is of one build: the same build shows the finished one again.
loop=letters-$(cat "$sela" "$demo/job.yaml" | cksum | cut -d' ' -f1)
code=0
"$sela" loop "$demo/job.yaml" --rounds $rounds --loop-id "$loop" >"$demo/result.json" || code=$?
if [ "$code" != 0 ]; then
	cat "$demo/result.json"
	exit "$code"
fi
run=$(printf '%s-r%03d' "$loop" $rounds)
folder=$demo/labels/runs/$run
cat <<EOF

NMI with the truth says how far labels and letters agree; labels dealt at random have that by chance.
the last labels are in $folder/labels; read them with

  duckdb -c "SELECT head, label, count(*) FROM read_parquet('$folder/labels/*/*.parquet', hive_partitioning = true) GROUP BY ALL ORDER BY ALL"
  python3 -c "import pandas; print(pandas.read_parquet('$folder/labels'))"

the network that made them is $(sed -n 's/.*"model":"file:\/\/\([^"]*\)".*/\1/p' "$demo/result.json")
check them again with: $sela verify $demo/job.yaml

look at the clusters, with a browser: $demo/work/runs/$run/report/index.html
EOF
