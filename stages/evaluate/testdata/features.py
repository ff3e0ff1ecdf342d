"""Writes features.json: nearest neighbours by NumPy and logistic regression by
scikit-learn, both in float64, on features that are exact in float32.

    pip install numpy==1.26.4 scikit-learn==1.7.2 && python features.py
"""
import json

import numpy as np
from sklearn.linear_model import LogisticRegression

rng = np.random.default_rng(5)


def features(rows, dim, classes, spread):
    labels = rng.integers(0, classes, rows)
    centres = rng.normal(size=(classes, dim))
    x = centres[labels] * spread + rng.normal(size=(rows, dim)) * np.exp(rng.normal(size=dim)) + rng.normal(size=dim)
    return (np.round(x * 64) / 64).astype(np.float32), labels  # short in JSON


def neighbours():
    bank, labels = features(300, 19, 5, 0.4)
    queries, truth = features(60, 19, 5, 0.4)
    bank[40:70] = bank[10:40]  # equal rows: the lower is the nearer
    bank[200] = 0
    queries[7] = 0
    b, q = bank.astype(np.float64), queries.astype(np.float64)
    norm = lambda m: np.sqrt((m * m).sum(1, keepdims=True))
    unit = lambda m: np.divide(m, norm(m), out=np.zeros_like(m), where=norm(m) > 0)
    # Row by row, so that equal rows have equal cosines.
    cosines = np.array([[float(np.dot(u, v)) for v in unit(b)] for u in unit(q)])
    order = np.lexsort((np.broadcast_to(np.arange(len(b)), cosines.shape), -cosines), axis=1)
    out = []
    for k, sigma in [(1, 0.1), (10, 0.1), (50, 0.5), (300, 0.1)]:
        chosen = order[:, :k]
        weights = np.exp(np.take_along_axis(cosines, chosen, 1) / sigma)
        votes = np.zeros((len(q), 5))
        for c in range(5):
            votes[:, c] = (weights * (labels[chosen] == c)).sum(1)
        out.append({"k": k, "sigma": sigma, "predicted": votes.argmax(1).tolist()})
    return {"bank": bank.tolist(), "labels": labels.tolist(), "queries": queries.tolist(), "order": order[:, :60].tolist(), "votes": out}


def regression():
    x, labels = features(900, 23, 4, 0.3)
    test, truth = features(300, 23, 4, 0.3)
    x[:, 3], test[:, 3] = 2.5, 2.5  # constant
    mean, std = x.astype(np.float64).mean(0), x.astype(np.float64).std(0)
    std[std == 0] = 1
    z, t = (x - mean) / std, (test - mean) / std
    fits = []
    for l2 in [1e-2, 1e-3, 1e-4, 1e-5]:
        m = LogisticRegression(C=1 / (l2 * len(z)), tol=1e-12, max_iter=100000).fit(z, labels)
        logp = m.predict_log_proba(z)
        loss = -logp[np.arange(len(z)), labels].mean() + l2 / 2 * (m.coef_**2).sum()
        fits.append({"l2": l2, "objective": loss, "weights": m.coef_.T.round(9).tolist(), "predicted": m.predict(t).tolist()})
    return {"train": x.tolist(), "labels": labels.tolist(), "test": test.tolist(), "truth": truth.tolist(), "fits": fits}


with open("features.json", "w") as f:
    json.dump({"neighbours": neighbours(), "regression": regression()}, f)
    f.write("\n")
