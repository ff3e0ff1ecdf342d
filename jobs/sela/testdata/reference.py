"""Checks published label sets against independent readers and arithmetic.

Arguments: two folders, each with work/ and labels/ of a run called "reference".
Both must hold the same labels; the first one is checked against a float64
NumPy transcription of SeLa's self-labelling step (Asano et al. 2020, section
3.2; the published implementation's order of operations).
"""

import hashlib
import json
import pathlib
import sys

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

RUN = "runs/reference"


def self_label(log_p, lam, tol):
    """The reference on an N x K matrix: labels and iterations.

    P**lam is scaled by rows and columns in turn; every tenth iteration, from
    the first, the summed relative change of the column scalings is compared
    with tol. The label is the argmax under the last row scaling.
    """
    ps = np.exp(lam * log_p).T  # K x N
    k, n = ps.shape
    c = np.full((n, 1), 1.0 / n)
    counter, err = 0, np.inf
    while err > tol:
        r = (1.0 / k) / (ps @ c)
        c_new = (1.0 / n) / (r.T @ ps).T
        if counter % 10 == 0:
            err = np.nansum(np.abs(c / c_new - 1.0))
        c = c_new
        counter += 1
    return np.argmax(ps * c.T * r, axis=0), counter


def block_table(folder):
    files = sorted(pathlib.Path(folder).glob("*.parquet"))
    tables = [pq.read_table(f) for f in files]
    rows = np.concatenate([t["row"].to_numpy() for t in tables])
    values = [t.column(t.column_names[1]) for t in tables]
    matrix = np.concatenate([v.combine_chunks().flatten().to_numpy().reshape(len(v), -1) for v in values])
    return rows, matrix.astype(np.float64)


def main():
    one, two = (pathlib.Path(a) for a in sys.argv[1:3])
    manifest = json.loads((one / "labels" / RUN / "_manifest.json").read_text())
    other = json.loads((two / "labels" / RUN / "_manifest.json").read_text())

    def content(m):
        return [(f["name"], f["rows"], f["bytes"], f["sha256"]) for f in m["files"] if f["name"].startswith("labels/")]

    assert content(manifest) == content(other), "label files depend on workers or shards"
    print(f"{len(content(manifest))} label files are byte-identical for other thread, worker and shard numbers")
    for f in manifest["files"]:
        data = (one / "labels" / RUN / f["path"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == f["sha256"], f["path"]

    spec = json.loads((one / "labels" / RUN / "run.json").read_text())["job"]
    lam, tol = spec["solve"]["lambda"], spec["solve"]["tolerance"]
    heads, clusters = spec["model"]["heads"], spec["model"]["clusters"]
    total = 0
    for h in range(heads):
        rows, log_p = block_table(one / "work" / RUN / f"logprobs/head-{h}")
        assert (np.diff(rows) > 0).all() and log_p.shape[1] == clusters
        assert np.abs(np.exp(log_p).sum(axis=1) - 1).max() < 1e-5
        labels, iterations = self_label(log_p, lam, tol)
        table = pq.read_table(next((one / "labels" / RUN / f"labels/head={h}").glob("*.parquet"))).to_pandas()
        assert (table["row"].to_numpy() == rows).all(), f"head {h}: rows"
        assert not table.duplicated(["key", "member"]).any(), f"head {h}: an image twice"
        different = int((table["label"].to_numpy() != labels).sum())
        assert different == 0, f"head {h}: {different} labels differ from the reference"
        assert (table["model_label"].to_numpy() == log_p.argmax(axis=1)).all()
        meta = pq.read_metadata(one / "labels" / RUN / f"potentials/head-{h}.parquet").metadata
        certificate = json.loads(meta[b"certificate"])
        assert certificate["iterations"] == iterations, (certificate["iterations"], iterations)
        assert certificate["marginal_l1"] < 1e-2
        counts = np.bincount(labels, minlength=clusters)
        assert counts.max() == certificate["largest_count"] and counts.min() == certificate["smallest_count"]
        total += len(rows)
        print(f"head {h}: {len(rows)} labels equal to NumPy's after {iterations} iterations, "
              f"marginal error {certificate['marginal_l1']:.1e}, cluster sizes {counts.min()} to {counts.max()}")

    folder = str(one / "labels" / RUN / "labels")
    by_head = duckdb.sql(
        f"SELECT head, count(*) AS n, count(DISTINCT label) AS k, count(DISTINCT (key, member)) AS images "
        f"FROM read_parquet('{folder}/*/*.parquet', hive_partitioning = true) GROUP BY head ORDER BY head").fetchall()
    assert len(by_head) == heads and sum(r[1] for r in by_head) == total and all(r[1] == r[3] for r in by_head), by_head
    frame = pd.read_parquet(folder)
    assert len(frame) == total and frame["head"].nunique() == heads
    print(f"DuckDB and pandas read {total} rows of {heads} heads")


if __name__ == "__main__":
    main()
