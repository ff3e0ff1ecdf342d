"""Checks published label sets against independent readers and arithmetic.

Argument: a folder with the jobs' folders, each with work/ and labels/ of a run
called "reference": sinkhorn, lists and exact, twice each, which must hold the
same labels. The first is checked against a float64 NumPy transcription of
SeLa's self-labelling step (Asano et al. 2020, section 3.2; the published
implementation's order of operations), the others against the first and against
the shares that they promise.
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


def manifest_of(job):
    return json.loads((job / "labels" / RUN / "_manifest.json").read_text())


def label_table(job, head):
    return pq.read_table(next((job / "labels" / RUN / f"labels/head={head}").glob("*.parquet"))).to_pandas()


def certificate_of(job, head):
    meta = pq.read_metadata(job / "labels" / RUN / f"potentials/head-{head}.parquet").metadata
    return json.loads(meta[b"certificate"]), json.loads(meta.get(b"stored", b"null"))


def check_same(one, two):
    """The label files of both are the same bytes, and what the manifest says."""
    def content(m):
        return [(f["name"], f["rows"], f["bytes"], f["sha256"]) for f in m["files"] if f["name"].startswith("labels/")]

    manifest = manifest_of(one)
    assert content(manifest) == content(manifest_of(two)), "label files depend on workers or shards"
    print(f"{one.name}: {len(content(manifest))} label files are byte-identical for other thread, worker and shard numbers")
    for f in manifest["files"]:
        data = (one / "labels" / RUN / f["path"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == f["sha256"], f["path"]


def check_default(job, reference, head, log_p, lam):
    """The default method ends at the equal shares that the reference's stop rule comes close to."""
    certificate, _ = certificate_of(job, head)
    table = label_table(job, head)
    v, _ = potentials(job, head)
    x = lam * log_p + v
    x -= x.max(axis=1, keepdims=True)
    share = np.exp(x)
    share = (share / share.sum(axis=1, keepdims=True)).mean(axis=0)
    error = np.abs(share - 1 / len(v)).sum()
    assert error <= 1.01e-6, error
    assert (table["label"].to_numpy() == (lam * log_p + v).argmax(axis=1)).all()
    flips = int((table["label"].to_numpy() != reference["label"].to_numpy()).sum())
    assert flips <= len(table) // 1000, flips
    return certificate["passes"], error, flips


def check_exact(job, reference, head):
    """Every cluster has its share of the rows, rounded down or up."""
    certificate, stored = certificate_of(job, head)
    table = label_table(job, head)
    counts = np.bincount(table["label"].to_numpy(), minlength=certificate["clusters"])
    assert set(counts) <= {len(table) // len(counts), -(-len(table) // len(counts))}, counts
    exact = certificate["exact_counts"]
    assert 0 <= exact["gap_nats"] < 1e-3 * abs(exact["cost_nats"]), exact
    moved = int((table["label"].to_numpy() != reference["label"].to_numpy()).sum())
    return counts.min(), counts.max(), moved, exact["gap_nats"], stored["label_flips"], stored["rows"]


def potentials(job, head):
    table = pq.read_table(job / "labels" / RUN / f"potentials/head-{head}.parquet")
    return table["potential"].to_numpy(), table["cluster"].to_numpy()


def main():
    root = pathlib.Path(sys.argv[1])
    for name in ("sinkhorn", "lists", "exact"):
        check_same(root / f"{name}-1", root / f"{name}-2")
    one = root / "sinkhorn-1"
    spec = json.loads((one / "labels" / RUN / "run.json").read_text())["job"]
    lam, heads, clusters = spec["solve"]["lambda"], spec["model"]["heads"], spec["model"]["clusters"]
    total, default, exact = 0, [], []
    for h in range(heads):
        rows, log_p = block_table(one / "work" / RUN / f"logprobs/head-{h}")
        assert (np.diff(rows) > 0).all() and log_p.shape[1] == clusters
        assert np.abs(np.exp(log_p).sum(axis=1) - 1).max() < 1e-5
        certificate, _ = certificate_of(one, h)
        labels, iterations = self_label(log_p, lam, certificate["tol"])
        table = label_table(one, h)
        assert (table["row"].to_numpy() == rows).all(), f"head {h}: rows"
        assert not table.duplicated(["key", "member"]).any(), f"head {h}: an image twice"
        different = int((table["label"].to_numpy() != labels).sum())
        assert different == 0, f"head {h}: {different} labels differ from the reference"
        assert (table["model_label"].to_numpy() == log_p.argmax(axis=1)).all()
        assert certificate["iterations"] == iterations, (certificate["iterations"], iterations)
        assert certificate["marginal_l1"] < 1e-2
        counts = np.bincount(labels, minlength=clusters)
        assert counts.max() == certificate["largest_count"] and counts.min() == certificate["smallest_count"]
        total += len(rows)
        print(f"head {h}: {len(rows)} labels equal to NumPy's after {iterations} iterations, "
              f"marginal error {certificate['marginal_l1']:.1e}, cluster sizes {counts.min()} to {counts.max()}")
        default.append(check_default(root / "lists-1", table, h, log_p, lam))
        exact.append(check_exact(root / "exact-1", table, h))
    passes, errors, flips = zip(*default)
    print(f"lists: {min(passes)} to {max(passes)} passes to a marginal error of at most {max(errors):.1e}, "
          f"{sum(flips)} of {total} labels are not the reference's")
    low, high, moved, gaps, stored_flips, stored_rows = zip(*exact)
    print(f"exact counts from uint16 shards: cluster sizes {min(low)} to {max(high)}, {sum(moved)} of {total} labels are not the "
          f"reference's, at most {max(gaps):.1e} nats from the optimum; uint16 flips {sum(stored_flips)} of {sum(stored_rows)} sampled labels")

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
