"""Reads published and exported labels as teams downstream do.

Arguments: the reader, and a folder with the jobs "loose" and "tars". Each has
labels/runs/second, as it was published, and expected.json, what sela itself
reads there: rows, columns, types and values must be the same, nulls included.
"""

import csv
import glob
import json
import math
import os
import shutil
import struct
import sys
import tarfile

COLUMNS = ["row", "key", "member", "sha256", "label", "prob", "model_label", "model_prob", "prev_label"]


def float32(x):
    return None if x is None else struct.unpack("f", struct.pack("f", x))[0]


class Job:
    def __init__(self, root, name):
        self.folder = f"{root}/{name}"
        self.run = f"{self.folder}/labels/runs/second"
        with open(f"{self.folder}/expected.json") as f:
            told = json.load(f)
        self.top_k = told["top_k"]
        self.columns = COLUMNS + ["top_k"] * self.top_k
        self.rows = {}
        for r in told["labels"]:
            row = {c: r[c] for c in COLUMNS}
            for c in ("prob", "model_prob"):
                row[c] = float32(row[c])
            if self.top_k:
                row["top_k"] = [{"label": k, "prob": float32(p)} for k, p in r["top_k"]]
            self.rows.setdefault(r["head"], []).append(row)
        self.potentials, self.quarantine = told["potentials"], told["quarantine"]
        assert len(self.rows) == 2 and len(self.rows[0]) == len(self.rows[1]) > 100

    def all(self):
        return [dict(row, head=h) for h in sorted(self.rows) for row in self.rows[h]]

    def compare(self, found, what, head=None):
        """found are dicts of Python values, with head unless one is given."""
        want = self.all() if head is None else self.rows[head]
        found = sorted(found, key=lambda r: (r.get("head", 0), r["row"]))
        assert len(found) == len(want), f"{what}: {len(found)} rows, sela reads {len(want)}"
        for f, w in zip(found, want):
            assert f == w, f"{what}: {f}\nsela reads {w}"

    def parts(self, head):
        return sorted(glob.glob(f"{self.run}/labels/head={head}/part-*.parquet"))


def jobs(root):
    loose, tars = Job(root, "loose"), Job(root, "tars")
    assert len(loose.parts(0)) == 2, "the labels should be in several parts"
    assert loose.top_k and not tars.top_k
    prev = [r["prev_label"] for r in loose.rows[0]]
    assert None in prev and any(p is not None for p in prev)
    assert all(r["prob"] is None for r in tars.rows[0])
    return loose, tars


def strange(job, into):
    """A copy of the label tables with files beside them that readers skip."""
    folder = f"{into}/{os.path.basename(job.folder)}"
    shutil.copytree(f"{job.run}/labels", folder)
    for name in ("_SUCCESS", "_manifest.json", "head=0/_temporary.parquet"):
        with open(f"{folder}/{name}", "w") as f:
            f.write("no table")
    return folder


def duckdb(job):
    import duckdb

    source = f"read_parquet('{job.run}/labels/*/*.parquet', hive_partitioning = true)"
    types = {c: t for c, t, *_ in duckdb.sql(f"DESCRIBE SELECT * FROM {source}").fetchall()}
    want = dict(zip(COLUMNS, ["BIGINT", "VARCHAR", "VARCHAR", "VARCHAR", "INTEGER", "FLOAT", "INTEGER", "FLOAT", "INTEGER"]))
    if job.top_k:
        want["top_k"] = 'STRUCT("label" INTEGER, prob FLOAT)[]'
    assert types == dict(want, head="BIGINT"), types
    table = duckdb.sql(f"SELECT * FROM {source}")
    job.compare([dict(zip(table.columns, r)) for r in table.fetchall()], "duckdb")
    for h, v in enumerate(job.potentials):
        found = duckdb.sql(f"SELECT cluster, potential FROM '{job.run}/potentials/head-{h}.parquet' ORDER BY cluster").fetchall()
        assert found == list(enumerate(v)), found
    found = duckdb.sql(f"SELECT * FROM '{job.run}/quarantine/part-*.parquet'").fetchall()
    want = [(q["Row"], q["Key"], q["KeyHex"], q["Member"], q["Stage"], q["Class"], q["Message"]) for q in job.quarantine]
    assert sorted(found) == sorted(want) and found, found
    # Statistics must not hide rows.
    for row in job.rows[1][::97]:
        n = duckdb.execute(f"SELECT count(*) FROM {source} WHERE key = ? AND member = ? AND head = 1 AND label = ?", [row["key"], row["member"], row["label"]]).fetchall()
        assert n == [(1,)], (row, n)


def arrow_types(job):
    import pyarrow as pa

    f = pa.float32()
    types = dict(zip(COLUMNS, [pa.int64(), pa.string(), pa.string(), pa.string(), pa.int32(), f, pa.int32(), f, pa.int32()]))
    if job.top_k:
        types["top_k"] = pa.list_(pa.field("element", pa.struct([pa.field("label", pa.int32(), False), pa.field("prob", f, False)]), False))
    return types


def pyarrow(job):
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    schema = pq.read_schema(job.parts(0)[0])
    assert {f.name: f.type for f in schema} == arrow_types(job), schema
    assert [f.name for f in schema if f.nullable] == ["prob", "prev_label"], schema
    table = ds.dataset(strange(job, "."), partitioning="hive").to_table()
    assert table.schema.field("head").type == pa.int32(), table.schema
    job.compare(table.to_pylist(), "pyarrow dataset")
    job.compare([dict(r, head=int(r["head"])) for r in pq.read_table(f"{job.run}/labels").to_pylist()], "pyarrow parquet")
    assert pq.read_metadata(job.parts(1)[0]).metadata[b"sela.version"] == b"1"


def pandas(job):
    import pandas as pd

    frame = pd.read_parquet(f"{job.run}/labels")
    types = {c: str(t) for c, t in frame.dtypes.items()}
    nulls = any(r["prev_label"] is None for r in job.all())
    want = dict(zip(COLUMNS, ["int64", "str", "str", "str", "int32", "float32", "int32", "float32", "float64" if nulls else "int32"]))
    if all(r["prob"] is None for r in job.all()):
        assert types["prob"] in ("float32", "object"), types
        want["prob"] = types["prob"]
    if all(r["prev_label"] is None for r in job.all()):
        want["prev_label"] = types["prev_label"]
    if job.top_k:
        want["top_k"] = "object"
    assert types == dict(want, head="category"), types
    assert frame["prob"].isna().sum() == sum(r["prob"] is None for r in job.all())

    exact = pd.read_parquet(f"{job.run}/labels", dtype_backend="pyarrow")
    arrow = {"row": "int64[pyarrow]", "label": "int32[pyarrow]", "prob": "float[pyarrow]", "prev_label": "int32[pyarrow]", "key": "string[pyarrow]"}
    assert {c: str(exact.dtypes[c]) for c in arrow} == arrow, exact.dtypes
    for c in exact:
        exact[c] = exact[c].astype(object).where(exact[c].notna(), None)
    found = [dict(r, head=int(r["head"])) for r in exact.to_dict("records")]
    for r in found:
        if job.top_k:
            r["top_k"] = list(r["top_k"])
    job.compare(found, "pandas")


def polars(job):
    import polars as pl

    frame = pl.scan_parquet(f"{job.run}/labels", hive_partitioning=True).collect()
    want = dict(zip(COLUMNS, [pl.Int64, pl.String, pl.String, pl.String, pl.Int32, pl.Float32, pl.Int32, pl.Float32, pl.Int32]))
    if job.top_k:
        want["top_k"] = pl.List(pl.Struct({"label": pl.Int32, "prob": pl.Float32}))
    assert dict(frame.schema) == dict(want, head=pl.Int64), frame.schema
    job.compare(frame.to_dicts(), "polars")
    some = pl.scan_parquet(f"{job.run}/labels/**/*.parquet", hive_partitioning=True).filter(pl.col("head") == 1, pl.col("label") == 3)
    assert some.select(pl.len()).collect().item() == sum(r["label"] == 3 for r in job.rows[1])


def spark(root):
    from pyspark.sql import SparkSession

    session = (SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").config("spark.driver.host", "127.0.0.1")
               .config("spark.driver.bindAddress", "127.0.0.1").config("spark.ui.showConsoleProgress", "false").getOrCreate())
    session.sparkContext.setLogLevel("ERROR")
    for job in jobs(root):
        frame = session.read.parquet(os.path.abspath(strange(job, ".")))
        want = dict(zip(COLUMNS, ["bigint", "string", "string", "string", "int", "float", "int", "float", "int"]))
        if job.top_k:
            want["top_k"] = "array<struct<label:int,prob:float>>"
        assert dict(frame.dtypes) == dict(want, head="int"), frame.dtypes
        job.compare([row.asDict(recursive=True) for row in frame.collect()], "spark")
    session.stop()


def datasets(job):
    import datasets as hf

    hf.disable_progress_bars()
    names = hf.get_dataset_config_names(job.run)
    assert names == ["head0", "head1"], names
    value = hf.Value
    want = dict(zip(COLUMNS, map(value, ["int64", "string", "string", "string", "int32", "float32", "int32", "float32", "int32"])))
    if job.top_k:
        want["top_k"] = hf.List({"label": value("int32"), "prob": value("float32")})
    for h, name in enumerate(names):
        told = hf.load_dataset_builder(job.run, name).info
        assert told.features == want, told.features  # from the card alone
        assert told.splits["train"].num_examples == len(job.rows[h])
        loaded = hf.load_dataset(job.run, name)
        assert list(loaded) == ["train"] and loaded["train"].features == want, loaded
        job.compare(list(loaded["train"]), f"datasets {name}", head=h)
        job.compare(list(hf.load_dataset(job.run, name, split="train", streaming=True)), f"datasets {name}, streamed", head=h)
        # Without the card the types come from the files: the card tells the same.
        plain = hf.load_dataset("parquet", data_files=job.parts(h), split="train")
        assert plain.features == want, plain.features
    try:
        hf.load_dataset(job.run)
        raise SystemExit("heads are different label spaces: none is the default")
    except ValueError as e:
        assert "head0" in str(e), e
    # A folder that lacks a part does not load as if it were whole.
    if len(job.parts(0)) > 1:
        shutil.copytree(job.run, "cut")
        os.remove("cut/labels/head=0/part-00001.parquet")
        try:
            hf.load_dataset("cut", "head0")
            raise SystemExit("a part is missing and nobody noticed")
        except hf.exceptions.DatasetsError as e:
            assert "Splits" in type(e).__name__, e


def croissant(job):
    import hashlib
    import mlcroissant as mlc

    data = mlc.Dataset(jsonld=f"{job.run}/croissant.json")
    assert not data.metadata.ctx.issues.errors, data.metadata.ctx.issues.report()
    assert data.metadata.ctx.conforms_to.value.endswith("croissant/1.0"), data.metadata.ctx.conforms_to
    print("warnings:", sorted(data.metadata.ctx.issues.warnings))
    files = [n for n in data.metadata.distribution if isinstance(n, mlc.FileObject)]
    assert len(files) == len(glob.glob(f"{job.run}/*/**/*.parquet", recursive=True))
    for f in files:
        raw = open(f"{job.run}/{f.content_url}", "rb").read()
        assert hashlib.sha256(raw).hexdigest() == f.sha256 and f.content_size == f"{len(raw)} B", f
    for h in job.rows:
        found = []
        for record in data.records(record_set=f"head{h}"):
            row = {}
            for name, value in record.items():
                column = name.split("/")[1]
                if isinstance(value, bytes):
                    value = value.decode()
                if column == "top_k":
                    value = [{k.split("/")[-1]: v for k, v in element.items()} for element in value]
                row[column] = value
            assert isinstance(row["label"], int) and isinstance(row["key"], str), row
            found.append(row)
        job.compare(found, "croissant", head=h)


def imagefolder(job):
    import pandas as pd

    with open(f"{job.folder}/imagefolder/labels.csv", newline="", encoding="utf-8") as f:
        lines = list(csv.DictReader(f))
    frame = pd.read_csv(f"{job.folder}/imagefolder/labels.csv", dtype={"confidence": "float32"})
    want = job.rows[1]
    assert len(lines) == len(frame) == len(want) and list(frame) == ["path", "label", "confidence"]
    for line, (_, series), row in zip(lines, frame.iterrows(), want):
        assert line["path"] == series["path"] == row["key"] and os.path.isfile(f"{job.folder}/images/{line['path']}"), (line, row)
        assert int(line["label"]) == series["label"] == row["label"], (line, row)
        assert float32(float(line["confidence"])) == series["confidence"] == row["prob"], (line, row)
    sure = pd.read_csv(f"{job.folder}/imagefolder-sure/labels.csv")
    assert list(sure["path"]) == [r["key"] for r in want if r["prob"] >= 0.5] and 0 < len(sure) < len(want)


def webdataset(job):
    import webdataset as wds

    shards = sorted(os.path.basename(p) for p in glob.glob(f"{job.folder}/images/*.tar"))
    assert sorted(f for f in os.listdir(f"{job.folder}/webdataset") if f.endswith(".tar")) == shards
    want = {(r["key"], r["member"]): r for r in job.rows[1]}
    seen = 0
    for shard in shards:
        # Both as WebDataset takes them apart into samples.
        images = {s["__key__"]: s for s in wds.WebDataset(f"{job.folder}/images/{shard}", shardshuffle=False)}
        labels = wds.WebDataset(f"{job.folder}/webdataset/{shard}", shardshuffle=False).decode()
        for s in labels:
            image = images[s["__key__"]]  # every label pairs with an image
            ext = [e for e in image if e in ("jpg", "png")]
            row = want.pop((shard, f"{s['__key__']}.{ext[0]}"))
            assert type(s["cls"]) is int and s["cls"] == row["label"], (s, row)
            told = dict(s["json"])
            told["model_prob"] = float32(told["model_prob"])
            assert told == {c: row[c] for c in COLUMNS if c != "row"}, (told, row)
            seen += 1
        left = set(images) - {s["__key__"] for s in wds.WebDataset(f"{job.folder}/webdataset/{shard}", shardshuffle=False)}
        assert len(left) == 1, left  # the broken one
    assert not want and seen == len(job.rows[1])
    with tarfile.open(f"{job.folder}/webdataset/{shards[0]}") as t:
        assert all(m.mtime == 0 and m.uid == 0 and m.isreg() for m in t)


def labelstudio(job):
    from urllib.parse import unquote, urlsplit

    from label_studio_sdk.label_interface import LabelInterface

    with open(f"{job.folder}/labelstudio/config.xml") as f:
        interface = LabelInterface(f.read())
    interface.validate()
    found = []
    for path in sorted(glob.glob(f"{job.folder}/labelstudio/tasks-*.json")):
        with open(path) as f:
            tasks = json.load(f)
        for task in tasks:
            (prediction,) = task.pop("predictions")
            assert interface.validate_task(task), task
            assert interface.validate_prediction(prediction), prediction
            (result,) = prediction["result"]
            url = urlsplit(task["data"]["image"])
            assert (url.scheme, url.netloc, url.query, url.fragment) == ("https", "images.example", "", ""), url
            assert prediction["model_version"] == "loose/second/head1"
            found.append((unquote(url.path), task["data"]["sha256"], int(result["value"]["choices"][0]), float32(prediction["score"])))
    assert found == [("/all/" + r["key"], r["sha256"], r["label"], r["prob"]) for r in job.rows[1]]
    wrong = dict(prediction, result=[dict(result, value={"choices": ["8"]})])
    assert not interface.validate_prediction(wrong), "a choice that the interface lacks passes"


def torch(job):
    import hashlib
    import torch

    class Labels(torch.utils.data.Dataset):  # the README shows it
        def __init__(self, folder, images):
            self.images, files = images, json.load(open(f"{folder}/index.json"))["files"]
            array = lambda name, dtype, width: torch.from_file(f"{folder}/{name}", size=files[name]["bytes"] // width, dtype=dtype)
            self.targets, self.probs = array("labels.int64", torch.int64, 8), array("probs.float32", torch.float32, 4)
            self.names, self.ends = array("names.utf8", torch.uint8, 1), array("ends.int64", torch.int64, 8)
        def __len__(self):
            return len(self.targets)
        def __getitem__(self, i):
            key, member = bytes(self.names[self.ends[i - 1] if i else 0:self.ends[i]].tolist()).decode().split("\0")
            path = os.path.join(self.images, key)
            data = tarfile.open(path).extractfile(member).read() if member else open(path, "rb").read()
            return data, int(self.targets[i])

    folder = f"{job.folder}/torch"
    index = json.load(open(f"{folder}/index.json"))
    assert index["images"] == len(job.rows[1]) and index["clusters"] == 8 and index["head"] == 1 and index["version"] == 1
    for name, told in index["files"].items():
        raw = open(f"{folder}/{name}", "rb").read()
        assert len(raw) == told["bytes"] and hashlib.sha256(raw).hexdigest() == told["sha256"], name
    labels = Labels(folder, f"{job.folder}/images")
    assert len(labels) == len(job.rows[1])
    loader = torch.utils.data.DataLoader(labels, batch_size=16, num_workers=2, collate_fn=lambda items: items)
    found = [item for batch in loader for item in batch]
    for (data, target), prob, row in zip(found, labels.probs.tolist(), job.rows[1]):
        assert hashlib.sha256(data).hexdigest() == row["sha256"] and target == row["label"], row
        assert math.isnan(prob) if row["prob"] is None else prob == row["prob"], (prob, row)
    assert torch.bincount(labels.targets, minlength=8).tolist() == [sum(r["label"] == k for r in job.rows[1]) for k in range(8)]


def main():
    reader, root = sys.argv[1:]
    if reader == "spark":
        spark(root)
        read = jobs(root)
    else:
        read = jobs(root)
        if reader in ("imagefolder", "labelstudio"):
            read = read[:1]
        if reader == "webdataset":
            read = read[1:]
        for job in read:
            globals()[reader](job)
    print(f"{reader}: {' and '.join(str(len(j.all())) for j in read)} rows are what sela reads")


if __name__ == "__main__":
    main()
