"""Writes reference.json: what the reference algorithm answers on generated inputs.

The algorithm is the textbook alternating scaling of a dense float64 matrix in
linear domain, written from its published definition:

    PS = P^lambda (K x N), c = 1/N
    repeat: r = (1/K) / (PS c);  c' = (1/N) / (r PS)
            on iterations 1, 11, 21, ...: err = sum |c/c' - 1|
            c = c'
    while err > tol; label = argmax_k PS_ki r_k.

The inputs are not stored: both this script and reference_test.go generate
them from 64-bit hashes with exactly rounded operations, and compare a SHA-256
of the float32 matrix.

    python reference.py > reference.json

Written with Python 3.11.7, NumPy 2.4.6.
"""

import base64
import hashlib
import json
import sys

import numpy as np

# name, rows, clusters, lambda, tol, scale of the logits, scale of the cluster bias
CASES = [
    ("flat-10-l10", 500, 10, 10.0, 0.1, 0.3, 0.0),
    ("flat-10-l25", 500, 10, 25.0, 0.1, 0.3, 0.3),
    ("mid-10-l10", 777, 10, 10.0, 0.01, 1.0, 0.5),
    ("sharp-10-l25", 2000, 10, 25.0, 0.1, 3.0, 1.0),
    ("flat-128-l10", 1500, 128, 10.0, 0.1, 0.3, 0.1),
    ("mid-128-l10", 2500, 128, 10.0, 0.1, 1.0, 0.5),
    ("mid-128-l25", 2500, 128, 25.0, 0.1, 1.0, 0.0),
    ("sharp-128-l25", 2048, 128, 25.0, 1.0, 3.0, 1.0),
    ("underflow-10-l25", 1200, 10, 25.0, 0.1, 6.0, 2.0),
    ("underflow-128-l25", 1500, 128, 25.0, 10.0, 9.0, 6.0),
    ("flat-1000-l25", 1500, 1000, 25.0, 1.0, 0.3, 0.1),
    ("mid-1000-l10", 1500, 1000, 10.0, 1.0, 1.0, 0.2),
    ("sharp-1000-l25", 1200, 1000, 25.0, 30.0, 3.0, 0.0),
    ("flat-3000-l10", 3100, 3000, 10.0, 0.1, 0.3, 0.0),
    ("mid-3000-l25", 3000, 3000, 25.0, 100.0, 1.0, 0.0),
]

GOLDEN = 0x9E3779B97F4A7C15


def uniform(seed, index):
    """splitmix64 of seed and index, as a multiple of 2^-53 in [0, 1)."""
    z = (np.uint64(seed) + index * np.uint64(GOLDEN)).astype(np.uint64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def bell(seed, index):
    """Sum of four uniforms, centred, of variance 1."""
    four = np.uint64(4)
    s = uniform(seed, index * four)
    for j in (1, 2, 3):
        s = s + uniform(seed, index * four + np.uint64(j))
    return (s - 2.0) * 1.7320508075688772


def log_probabilities(seed, rows, clusters, scale, bias):
    """float32 [rows, clusters]. The normaliser is rounded to 1/1024 nat, so
    that no library's exp or log can change the result."""
    index = np.arange(rows * clusters, dtype=np.uint64).reshape(rows, clusters)
    logits = scale * bell(seed, index)
    logits = logits + bias * bell(seed + 1, np.arange(clusters, dtype=np.uint64))
    top = logits.max(axis=1, keepdims=True)
    lse = top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    return (logits - np.floor(lse * 1024 + 0.5) / 1024).astype(np.float32)


def reference(p, lam, tol):
    ps = p.T.copy() ** lam
    clusters, rows = ps.shape
    c = np.full(rows, 1 / rows)
    err, iterations = np.inf, 0
    while err > tol:
        r = (1 / clusters) / (ps @ c)
        c_new = (1 / rows) / (r @ ps)
        if iterations % 10 == 0:
            err = np.nansum(np.abs(c / c_new - 1))
        c = c_new
        iterations += 1
        assert iterations < 20000
    return iterations, err, r, np.nanargmax(ps * r[:, None], axis=0)


def main():
    out = []
    for seed, (name, rows, clusters, lam, tol, scale, bias) in enumerate(CASES):
        x = log_probabilities(1000 * seed, rows, clusters, scale, bias)
        p = np.exp(x.astype(np.float64))
        iterations, err, r, labels = reference(p, lam, tol)
        underflow = float((p**lam == 0).mean())
        print(f"{name}: {iterations} iterations, err {err:.4g}, underflow {underflow:.3f}, "
              f"elements {rows * clusters * iterations / 1e6:.0f}M", file=sys.stderr)
        out.append({
            "name": name, "seed": 1000 * seed, "rows": rows, "clusters": clusters,
            "lambda": lam, "tol": tol, "scale": scale, "bias": bias,
            "sha256": hashlib.sha256(x.astype("<f4").tobytes()).hexdigest(),
            "iterations": iterations, "err": err,
            "log_r": base64.b64encode(np.log(r).astype("<f8").tobytes()).decode(),
            "labels": base64.b64encode(labels.astype("<u2").tobytes()).decode(),
        })
    json.dump(out, sys.stdout, indent=1)
    print()


main()
