#!/usr/bin/env python3
"""Times other Sinkhorn solvers on one matrix of log-probabilities.

The problem is that of the solver benchmark: for X, float32 [N, K] of log p in nats,
find v such that c_k = mean_i softmax_k(lambda X_ik + v_k) equals 1/K. Everybody gets
the same matrix in memory and is judged by the same float64 computation of
|c - b|_1 from the potentials it returns, made outside the clock.

    python peers.py matrix.npy --cap 300 > peers.jsonl

Each peer runs in a process of its own (own peak memory, own failures), one after the
other, and prints one JSON line:

    targets      for each: the moment the error was first seen at or below it, or null
    best         the moment of the smallest error
    own_stop     the moment the reference's own rule holds, where it came in time
    trace        the moment after every call of the solver
    prepare_s    conversion, shifting, exponentials and compilation, not in seconds
    rss_gib      peak resident memory of the process, the mapped matrix included
    failed       what went wrong

A moment is iterations (a row and a column update each), wall seconds and CPU seconds
of the solve alone, and the error. On a busy machine compare the CPU seconds. A peer is
continued from its own potentials: the clock stops between calls, and a later target
starts where the earlier one ended, so no second counts twice. GeomLoss cannot be: it is
run afresh with doubled budgets, each timed alone.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from importlib.metadata import version

import numpy as np

CADENCE = 10  # iterations between stop tests, as in the reference


def marginal_error(x, lam, v):
    """|c - b|_1 in float64, from the potentials alone."""
    mass = np.zeros(x.shape[1])
    for start in range(0, len(x), 2048):
        score = lam * x[start : start + 2048].astype(np.float64) + v
        score = np.exp(score - score.max(1, keepdims=True))
        mass += (1 / score.sum(1)) @ score
    return float(np.abs(mass / len(x) - 1 / x.shape[1]).sum())


def cost(x, dtype):
    """-X shifted by each row's maximum: the same problem, kinder to solvers that exponentiate."""
    x = x.astype(dtype)  # before the subtraction, which float32 would round
    return x.max(1, keepdims=True) - x


# A peer prepares in peer(x, lam, dtype, tol) and returns advance(budget, target): it does at
# most budget further iterations, stops earlier where its own test says that target is
# met, and returns (iterations done, potentials v in nats, float64).


def sela(x, lam, dtype, tol):
    """SeLa's loop as published, in linear domain: PS ** lambda, K x N, two matrix-vector products."""
    n, k = x.shape
    ps = np.exp(x.T.astype(dtype))
    ps **= lam
    state = {"c": np.full((n, 1), 1 / n), "count": 0}

    def advance(budget, target):
        c, r = state["c"], state.get("r")
        for done in range(1, budget + 1):
            mass = ps @ c
            if r is not None and state["count"] % CADENCE == 0 and np.abs(r * mass - 1 / k).sum() <= target:
                done -= 1
                break
            r = (1 / k) / mass
            c_new = ((1 / n) / (r.T @ ps)).T
            if state["count"] % CADENCE == 0 and advance.own_stop is None:
                if np.nansum(np.abs(c / c_new - 1)) <= tol:
                    advance.own_stop = state["count"] + 1, time.perf_counter(), time.process_time(), np.log(r[:, 0])
            c = c_new
            state["count"] += 1
        state.update(c=c, r=r)
        return done, np.log(r[:, 0])

    advance.own_stop = None
    return advance


def numpy_log(x, lam, dtype, tol):
    """The same iteration in the log domain, blocked and fused: one exponential per entry."""
    n, k = x.shape
    scaled = lam * x.astype(dtype)
    state = {"v": np.zeros(k, dtype)}

    def advance(budget, target):
        v = state["v"]
        for done in range(1, budget + 1):
            mass = np.zeros(k)
            for start in range(0, n, 256):
                score = scaled[start : start + 256] + v
                score -= score.max(1, keepdims=True)
                np.exp(score, out=score)
                mass += (1 / score.sum(1)) @ score
            mass /= n
            if done % CADENCE == 0 and np.abs(mass - 1 / k).sum() <= target:
                break
            v = v - np.log(k * mass).astype(dtype)
        state["v"] = v
        return done, v.astype(np.float64)

    return advance


def torch_log(x, lam, dtype, tol):
    """The usual torch loop: logsumexp over the columns' side, then over the rows'."""
    import torch

    n, k = x.shape
    scaled = torch.from_numpy(-lam * cost(x, dtype))
    state = {"f": -torch.logsumexp(scaled, 1), "v": torch.zeros(k, dtype=scaled.dtype)}

    def advance(budget, target):
        f, v = state["f"], state["v"]
        for done in range(1, budget + 1):
            column = torch.logsumexp(scaled + f[:, None], 0) - float(np.log(n))
            if done % CADENCE == 0 and ((column + v).exp() - 1 / k).abs().sum().item() <= target:
                break
            v = -column - float(np.log(k))
            f = -torch.logsumexp(scaled + v, 1)
        state.update(f=f, v=v)
        return done, v.double().numpy()

    return advance


def pot(name, start, potential, **options):
    """POT's solver of that name; its rule is an L2 norm, so the ratio of the norms is tracked."""

    def peer(x, lam, dtype, tol):
        import ot

        n, k = x.shape
        matrix = cost(x, dtype)
        a, b = np.full(n, 1 / n, dtype), np.full(k, 1 / k, dtype)
        state = {"warm": None, "ratio": 1 / np.sqrt(k)}

        def advance(budget, target):
            solve = getattr(ot.bregman, name)
            plan, log = solve(a, b, matrix, 1 / lam, numItermax=budget, stopThr=target * state["ratio"],
                              log=True, warn=False, warmstart=state["warm"], **options)
            gap = plan.sum(0, dtype=np.float64) - 1 / k
            state["ratio"] = np.linalg.norm(gap) / np.abs(gap).sum()
            state["warm"] = start(log)
            return log.get("niter", log.get("n_iter")) + 1, log[potential].astype(np.float64)

        return advance

    return peer


def ott(x, lam, dtype, tol):
    """OTT-JAX on a Geometry from the cost matrix, compiled once; its rule is our L1 error."""
    import jax

    jax.config.update("jax_enable_x64", dtype == "float64")
    import jax.numpy as jnp
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn

    matrix = jnp.asarray(cost(x, dtype))
    state = {"potentials": tuple(jnp.zeros(size, matrix.dtype) for size in x.shape)}
    steps = 2 * CADENCE  # of the compiled program; longer budgets repeat it, from the last potentials

    def run(matrix, potentials, threshold):
        problem = linear_problem.LinearProblem(geometry.Geometry(matrix, epsilon=1 / lam))
        solver = sinkhorn.Sinkhorn(threshold=threshold, inner_iterations=CADENCE, max_iterations=steps)
        out = sinkhorn.iterations(problem, solver, potentials)
        return out.f, out.g, out.errors

    compiled = jax.jit(run).lower(matrix, state["potentials"], 0.0).compile()

    def advance(budget, target):
        done = 0
        while done < budget:
            f, g, errors = jax.block_until_ready(compiled(matrix, state["potentials"], target))
            state["potentials"] = f, g
            checked = np.asarray(errors)[errors >= 0]  # -1 where it stopped before
            done += CADENCE * len(checked)
            if checked[-1] <= target:
                break
        return done, np.asarray(g, np.float64) * lam

    return advance


def geomloss(x, lam, dtype, tol):
    """GeomLoss's annealed, averaged iteration on a cost matrix: no warm start, no stop rule."""
    import torch
    from geomloss import ot

    matrix = torch.from_numpy(cost(x, dtype))

    def advance(budget, _):
        out = ot.solve(matrix, reg=1 / lam, max_iter=budget)
        return budget, out.potential_b.double().numpy() * lam

    advance.afresh = True
    return advance


PEERS = {  # the function and the package that does the work
    "sela": (sela, "numpy"),
    "numpy-log": (numpy_log, "numpy"),
    "torch-log": (torch_log, "torch"),
    "pot-log": (pot("sinkhorn_log", lambda log: (log["log_u"], log["log_v"]), "log_v"), "POT"),
    # At the default tau, 1e3 < N, it absorbs at every iteration, and its stop test right after never holds.
    "pot-stabilized": (
        pot("sinkhorn_stabilized", lambda log: log["warmstart"], "logv", tau=1e12, print_period=CADENCE), "POT"),
    "ott": (ott, "ott-jax"),
    "geomloss": (geomloss, "geomloss"),
}
RUNS = ["sela:float64", "numpy-log:float64", "torch-log:float64", "torch-log:float32", "pot-log:float64",
        "pot-log:float32", "pot-stabilized:float64", "ott:float64", "ott:float32", "geomloss:float32"]


def measure(run, x, lam, targets, cap, tol):
    """Runs one peer to each target in turn, or to the cap."""
    name, dtype = run.split(":")
    peer, package = PEERS[name]
    began = time.perf_counter()
    advance = peer(x, lam, dtype, tol)
    report = {"peer": run, "package": f"{package} {version(package)}", "targets": {}, "best": None}
    report.update(own_stop=None, trace=[], prepare_s=round(time.perf_counter() - began, 2))
    afresh, iterations, wall, cpu, budget, now = hasattr(advance, "afresh"), 0, 0.0, 0.0, CADENCE, None

    def moment(count, wall, cpu, v):
        error = marginal_error(x, lam, v)
        return {"iterations": count, "seconds": round(wall, 3), "cpu_seconds": round(cpu, 3),
                "error": error if np.isfinite(error) else None}  # JSON has no NaN

    for target in sorted(targets, reverse=True):
        ask = target
        while (now is None or now["error"] > target) and wall < cap and budget and "failed" not in report:
            iterations, wall, cpu = (0, 0.0, 0.0) if afresh else (iterations, wall, cpu)
            # Where the clocks would have stood at zero, had the calls followed one another.
            zero, zero_cpu = time.perf_counter() - wall, time.process_time() - cpu
            done, v = advance(budget, ask)
            iterations, wall, cpu = iterations + done, time.perf_counter() - zero, time.process_time() - zero_cpu
            if getattr(advance, "own_stop", None) and report["own_stop"] is None:
                count, at, at_cpu, own = advance.own_stop
                report["own_stop"] = moment(count, at - zero, at_cpu - zero_cpu, own)
            if not np.isfinite(v).all():
                report["failed"] = f"potentials not finite at iteration {iterations}"
                break
            now = moment(iterations, wall, cpu, v)
            report["trace"].append(now)
            ask *= 0.7 if done < budget else 1  # its own test was content: ask for more, should ours not be
            fitting = CADENCE * max(1, int(min(cap - wall, cap / 5) * iterations / wall / CADENCE))
            budget = fitting if not afresh else 2 * budget if 2 * wall <= cap else 0
        report["targets"][str(target)] = now if now and now["error"] <= target else None
    report["best"] = min(report["trace"], key=lambda m: m["error"], default=None)
    report["rss_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("matrix", help=".npy, float32 [N, K], log p in nats")
    parser.add_argument("--peer", action="append", choices=RUNS, help="run this one, may be repeated (default: all)")
    parser.add_argument("--lambda", dest="lam", type=float, default=25, help="lambda (default 25)")
    parser.add_argument("--target", nargs="+", type=float, default=[1e-3, 1e-6], help="L1 errors (default 1e-3 1e-6)")
    parser.add_argument("--cap", type=float, default=300, help="seconds of solving per peer (default 300)")
    parser.add_argument("--tol", type=float, default=0.1, help="the reference's own stop rule (default 0.1)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="cores given to each peer (default all)")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()

    if args.inside:
        x = np.load(args.matrix, mmap_mode="r")
        print(json.dumps(measure(args.peer[0], x, args.lam, args.target, args.cap, args.tol)), flush=True)
        return
    cores = sorted(os.sched_getaffinity(0))[: args.threads]
    threads = {f"{library}_NUM_THREADS": str(args.threads) for library in ("OMP", "OPENBLAS", "MKL")}
    environment = dict(os.environ, JAX_PLATFORMS="cpu", **threads)
    for run in args.peer or RUNS:
        command = [sys.executable, __file__, args.matrix, "--inside", "--peer", run, f"--lambda={args.lam}",
                   f"--cap={args.cap}", f"--tol={args.tol}", "--target", *map(str, args.target)]
        child = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: os.sched_setaffinity(0, cores))
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        failed = json.dumps({"peer": run, "failed": f"exit {child.returncode}: {last}"})
        print(failed if child.returncode else child.stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
