"""The estimators of samples: accuracy on known laws, and time beside other implementations."""

import csv
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from sklearn.feature_selection._mutual_info import _compute_mi_cc
from torch import Tensor

from benchmarks.measure import NOISE_VARIANCE, row, seconds
from ibcore.data import load
from ibcore.estimators import InfoNCE, Ksg, Mine, MonteCarlo, Nwj, Pairwise, Renyi, Smile
from ibcore.hooks import ActivationTracker
from ibcore.models import FullyConnected
from ibcore.threads import one_thread
from ibcore.tolerated import ToleratedNoise
from ibcore.training import fit
from ibcore.trials import distributions as laws

REFERENCE = Path("build/reference")  # what benchmarks/reference.py wrote
HOW = f"no samples in {REFERENCE}: make bench-reference draws them"
WANTED = {"InfoNCE": 0.15, "MINE": 0.17, "KSG": 0.235}  # nats


def bench_renyi() -> None:
    """Compare α = 2 with `Pairwise`, and α = 1.01 with the eigenvalues of the three matrices."""
    generator = torch.Generator().manual_seed(0)
    z = torch.tanh(torch.randn(4096, 10, generator=generator))
    x = torch.randn(4096, 12, generator=generator)
    y = torch.randint(0, 2, (4096,), generator=generator)
    pairwise = seconds(lambda: Pairwise(NOISE_VARIANCE)(z, y), 9)
    two = seconds(lambda: Renyi()(z, y, x=x), 9)
    row(f"Rényi, α = 2, N = 4096: {two * 1e3:.0f} ms, by Pairwise's time", f"{two / pairwise:.2f}",
        "<= 1", two <= pairwise)  # fmt: skip
    random, exact = Renyi(1.01), Renyi(1.01, limit=4096)
    found = random.between(x, z)
    fast = seconds(lambda: random.between(x, z), 3)
    start = time.perf_counter()
    truth = exact.between(x, z)
    slow = time.perf_counter() - start
    error = abs(found.bits / truth.bits - 1)
    row(f"Rényi, α = 1.01: {fast:.1f} s, faster than eigenvalues", f"{slow / fast:.1f} x",
        ">= 10 x", slow >= 10 * fast)  # fmt: skip
    row("  difference from them", f"{error:.2%}", "<= 1 %", error <= 0.01)


def bench_ksg() -> None:
    """Compare with scikit-learn's, on the data where the definition is the same."""
    for size in (1000, 10_000):
        a, b = laws.gaussian(1, 0.75).sample(size, 0)
        one, two = a[:, 0].numpy(), b[:, 0].numpy()
        estimator = Ksg(3, ranks=False)
        ours = seconds(lambda: estimator.between(a, b), 9)  # noqa: B023
        theirs = seconds(lambda: _compute_mi_cc(one, two, 3), 9)  # noqa: B023
        error = abs(estimator.between(a, b).bits * math.log(2) - _compute_mi_cc(one, two, 3))
        row(f"KSG, N = {size}: by scikit-learn's time", f"{ours / theirs:.2f}", "<= 1",
            ours <= theirs)  # fmt: skip
        row("  difference from it", f"{error:.0e} nats", "<= 1e-6", error <= 1e-6)


def bench_gaussian() -> None:
    """Estimate the 4 nats of twenty pairs of Gaussians from 10 000 samples, over three seeds."""
    law = laws.gaussian(20, laws.correlation_for(4 / math.log(2), 20))
    errors = {}
    for estimator in (Mine(), Nwj(), InfoNCE(), Smile()):
        found = [estimator.between(*law.sample(10_000, s)).bits for s in range(3)]
        errors[estimator.name] = abs(np.mean(found) / law.bits - 1)
        row(f"{estimator.name}, Gaussian, d = 20, 4 nats, N = 10 000: error",
            f"{errors[estimator.name]:.1%}", "", True)  # fmt: skip
    best = min(errors.values())
    row("  the best of them", f"{best:.1%}", "<= 10 %", best <= 0.1)


def bench_reference() -> None:
    """Compare with benchmark-mi on its 40 tasks: mean absolute error, and processor time."""
    if not (files := sorted(REFERENCE.glob("*.npz"))):
        print(HOW)
        return
    with (REFERENCE / "estimates.csv").open(newline="") as file:
        theirs = list(csv.DictReader(file))
    tasks = [_task(path) for path in files]
    for name, estimator in (("InfoNCE", InfoNCE()), ("MINE", Mine()), ("KSG", Ksg())):
        found, start = [], time.process_time()
        for a, b, _ in tasks:
            found.append(estimator.between(a, b).bits * math.log(2))
        took = (time.process_time() - start) / len(tasks)
        error = np.mean([abs(f - truth) for f, (_, _, truth) in zip(found, tasks, strict=True)])
        rows = [r for r in theirs if r["estimator"] == name]
        before = np.mean([abs(float(r["nats"]) - float(r["true_nats"])) for r in rows])
        wait = np.mean([float(r["cpu_seconds"]) for r in rows])
        row(f"{name}, {len(tasks)} tasks, N = 5000: {before:.3f} nats theirs, ours",
            f"{error:.3f} nats", f"<= {WANTED[name]}", error <= WANTED[name])  # fmt: skip
        row("  lowest estimate", f"{min(found):.3f} nats", ">= -0.02", min(found) >= -0.02)
        row(f"  {took:.1f} processor seconds an estimate, by their {wait:.1f}",
            f"{took / wait:.2f}", "<= 1", took <= wait)  # fmt: skip


def _task(path: Path) -> tuple[Tensor, Tensor, float]:
    with np.load(path) as found:
        x, y = (torch.from_numpy(found[side]).double() for side in "xy")
        return x, y, float(found["true_nats"])


@contextmanager
def busy_core() -> Iterator[None]:
    """Keep one core busy with a process that does nothing."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def bench_threads() -> None:
    """Compare one thread with torch's threads as they are set, alone and beside a busy core."""
    pair = laws.gaussian(2, 0.7).sample(1000, 0)
    z = torch.tanh(torch.randn(4096, 10, generator=torch.Generator().manual_seed(0)))
    y = torch.arange(4096) % 2
    critic, pairwise = Nwj(steps=50), Pairwise(NOISE_VARIANCE)
    as_set = patch.object(Nwj, "_run", Nwj._run.__wrapped__)
    for where, beside in (("alone", nullcontext()), ("beside a busy core", busy_core())):
        with beside:
            one = seconds(lambda: critic.between(*pair), 5)
            with as_set:
                more = seconds(lambda: critic.between(*pair), 5)
            distances = seconds(lambda: pairwise(z, y), 5)
            with one_thread():
                single = seconds(lambda: pairwise(z, y), 5)
        row(f"Critics, 50 steps {where}: {one * 1e3:.0f} ms, faster than threads as set",
            f"{more / one:.1f} x", ">= 0.9 x", more >= 0.9 * one)  # fmt: skip
        row(f"Pairwise {where}: {distances * 1e3:.0f} ms, by its time on one thread",
            f"{distances / single:.2f}", "", True)  # fmt: skip


def bench_tolerated() -> None:
    """Time tolerated noise on one thread, and compare it with `MonteCarlo` on the same layer."""
    ds = load("tishby")
    model = FullyConnected([12, 10, 7, 5, 4, 3, 2], "tanh", seed=0)
    options = {"learning_rate": 2e-3, "batch_size": 512, "snapshots": [200], "progress": False}
    fit(model, ds, epochs=200, **options)
    wide = FullyConnected([12, 512, 2], "relu", seed=0)
    fit(wide, ds, epochs=20, **options | {"snapshots": [20]})
    asked = [
        ("form G, mean of five layers", model, [f"tanh{n}" for n in range(1, 6)], "full", 0.6),
        ("form D, mean of five layers", model, [f"tanh{n}" for n in range(1, 6)], "diagonal", 0.05),
        ("form G, 512 units", wide, ["relu1"], "full", 6.0),
    ]
    with one_thread():
        for name, network, layers, form, limit in asked:
            with ActivationTracker(network, layers) as tracker:
                found = tracker.collect(ds.x)
            measure = ToleratedNoise(form=form)
            took, truth = 0.0, 0.0
            for layer in layers:
                took += seconds(lambda: measure(network, layer, ds.x, ds.y), 1) / len(layers)  # noqa: B023  called at once
                truth += seconds(lambda: MonteCarlo(0.1)(found[layer], ds.y), 1) / len(layers)  # noqa: B023
            row(f"Tolerated noise, {name}, by MonteCarlo's time", f"{took / truth:.1f}", "", True)
            row("  seconds a layer on one thread", f"{took:.2f}", f"<= {limit:g}", took <= limit)


def main() -> None:
    """Print the table."""
    bench_tolerated()
    bench_threads()
    bench_renyi()
    bench_ksg()
    bench_gaussian()
    bench_reference()
