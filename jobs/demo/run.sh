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
"$sela" run "$demo/job.yaml" >"$demo/result.json" || code=$?
if [ "$code" != 0 ] && [ "$code" != 99 ]; then
	cat "$demo/result.json"
	exit "$code"
fi
echo
"$build/demo" report --labels "$demo/labels" --truth "$demo/truth/truth.csv" --result "$demo/result.json"
folder=$demo/labels/runs/$(sed -n 's/.*"run":"\([^"]*\)".*/\1/p' "$demo/result.json")
cat <<EOF

the tables are in $folder/labels; read them with

  duckdb -c "SELECT head, label, count(*) FROM read_parquet('$folder/labels/*/*.parquet', hive_partitioning = true) GROUP BY ALL ORDER BY ALL"
  python3 -c "import pandas; print(pandas.read_parquet('$folder/labels'))"

check them again with: $sela verify $demo/job.yaml
EOF
