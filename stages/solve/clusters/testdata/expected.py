"""Writes expected.json: clusterings by scikit-learn, whitenings by NumPy and
assignments by SciPy, of numbers that clusters_test.go makes by the same formula.

Made with Python 3.11.7, scikit-learn 1.9.1, numpy 2.4.6, scipy 1.17.1:

    python expected.py > expected.json
"""

import json

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans


def uniform(n, seed):
    """n numbers in [-1/2, 1/2), exact in float32: the top bits of splitmix64."""
    with np.errstate(over="ignore"):
        x = np.uint64(seed) * np.uint64(1 << 32) + np.arange(n, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24) - np.float32(0.5)


def rows(n, width, groups, spread, seed):
    """n rows about so many places, float32."""
    places = uniform(groups * width, seed).reshape(groups, width)
    noise = uniform(n * width, seed + 1).reshape(n, width)
    return places[np.arange(n) % groups] + np.float32(spread) * noise


def unit(x):
    x = np.asarray(x, dtype=np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def whiten(x, components):
    x = np.asarray(x, dtype=np.float64)
    mean = x.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(x, rowvar=False))
    order = np.argsort(-values)[:components]
    order = order[values[order] > 1e-10 * values.max()]
    matrix = (vectors[:, order] / np.sqrt(values[order])).T
    return mean, matrix, values[order].sum() / values.sum()


def kmeans(x, clusters):
    start = x[np.arange(clusters) * (len(x) // clusters)].astype(np.float32)
    found = KMeans(clusters, init=start.astype(np.float64), n_init=1, max_iter=20, tol=0, algorithm="lloyd").fit(x)
    return {"clusters": clusters, "labels": found.labels_.tolist(), "inertia": float(found.inertia_), "iterations": int(found.n_iter_)}


def main():
    cases = []
    for n, width, groups, spread, seed, clusters in [(900, 12, 6, 0.8, 1, 6), (2600, 16, 9, 1.5, 3, 20), (1500, 5, 4, 2.0, 5, 64), (1024, 33, 3, 1.0, 7, 2)]:
        x = rows(n, width, groups, spread, seed)
        cases.append({"n": n, "width": width, "groups": groups, "spread": spread, "seed": seed} | kmeans(unit(x), clusters))
    whitened = []
    for n, width, groups, spread, seed, components, copies in [(1100, 12, 6, 0.8, 11, 5, 0), (2100, 10, 3, 0.3, 13, 256, 0), (800, 9, 5, 0.5, 15, 256, 3)]:
        x = rows(n, width, groups, spread, seed)
        if copies:  # columns that say nothing new
            x[:, -copies:] = x[:, :copies]
        mean, matrix, variance = whiten(x, components)
        y = unit((x - mean) @ matrix.T)
        whitened.append({"n": n, "width": width, "groups": groups, "spread": spread, "seed": seed, "components": components, "copies": copies,
                         "mean": mean.tolist(), "matrix": matrix.tolist(), "variance": float(variance)} | kmeans(y, 7))
    assignments = []
    for n, m, seed in [(40, 40, 21), (25, 60, 22), (60, 25, 23), (128, 128, 24)]:
        gain = uniform(n * m, seed).astype(np.float64).reshape(n, m)
        i, j = linear_sum_assignment(gain, maximize=True)
        match = np.full(n, -1)
        match[i] = j
        assignments.append({"rows": n, "columns": m, "seed": seed, "match": match.tolist(), "gain": float(gain[i, j].sum())})
    print(json.dumps({"kmeans": cases, "whitened": whitened, "assignments": assignments}, separators=(",", ":")))


main()
