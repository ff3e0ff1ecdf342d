"""Writes scores.json: clusterings and their scores by scikit-learn.

Made with Python 3.11.7, scikit-learn 1.9.1, numpy 2.4.6, scipy 1.17.1:

    python scores.py > scores.json
"""

import json

import numpy as np
from sklearn import metrics
from sklearn.metrics.cluster import contingency_matrix


def case(name, clusters, truth):
    clusters, truth = np.asarray(clusters), np.asarray(truth)
    table = contingency_matrix(truth, clusters)
    return {
        "name": name,
        "clusters": clusters.tolist(),
        "truth": truth.tolist(),
        "nmi": metrics.normalized_mutual_info_score(truth, clusters),
        "ami": metrics.adjusted_mutual_info_score(truth, clusters),
        "ari": metrics.adjusted_rand_score(truth, clusters),
        "purity": float(table.max(axis=0).sum() / table.sum()),
    }


def main():
    rng = np.random.default_rng(7)
    n = 2000
    truth = rng.integers(0, 10, n)
    noisy = np.where(rng.random(n) < 0.6, truth, rng.integers(0, 10, n))
    balanced = rng.permutation(np.arange(n) % 128)
    skewed = np.minimum(rng.geometric(0.15, n), 30)
    cases = [
        case("identical", truth[:50], truth[:50]),
        case("renamed", 1000 - 7 * truth[:50], truth[:50]),
        case("noisy", noisy, truth),
        case("finer", truth * 3 + rng.integers(0, 3, n), truth),
        case("coarser", truth // 3, truth),
        case("independent, 128 equal clusters", balanced, truth),
        case("skewed sizes", skewed, np.where(rng.random(n) < 0.5, skewed % 7, truth)),
        case("extreme labels", [-(2**31), 2**31 - 1, -1, -1, 0], [0, 0, -1, -1, 5]),
        case("worse than chance", [0, 0, 1, 1, 2, 2], [0, 1, 2, 0, 1, 2]),
        case("two pairs crossed", [0, 0, 1, 1], [0, 1, 0, 1]),
        case("small", [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 2, 2]),
        case("one cluster", np.zeros(20, int), truth[:20]),
        case("one class", truth[:20], np.zeros(20, int)),
        case("one cluster, one class", np.zeros(20, int), np.ones(20, int)),
        case("singletons", np.arange(20), truth[:20]),
        case("singletons both", np.arange(20), np.arange(20)[::-1]),
        case("singletons, one class", np.arange(20), np.zeros(20, int)),
        case("one row", [3], [4]),
        case("two rows", [0, 1], [5, 5]),
    ]
    print("[")
    print(",\n".join(json.dumps(c, separators=(",", ":")) for c in cases))
    print("]")


if __name__ == "__main__":
    main()
