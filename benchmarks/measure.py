"""Print what `make bench` promises, each as a ratio or a peak measured in this run.

python -m benchmarks
"""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

import ibcore
from ibcore.estimators import Binning, MonteCarlo, Pairwise
from ibcore.models import FullyConnected, LeNet

NOISE_VARIANCE = 0.1


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the shortest time of a few runs, after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def row(what: str, measured: str, wanted: str, ok: bool) -> None:
    """Print one line of the table as soon as it is known."""
    print(f"{what:<58} {measured:>22}   {wanted:<12} {'ok' if ok else 'MISSED'}", flush=True)


def one_number(z: Tensor, y: Tensor, factor: int, by_class: bool, squares: Callable) -> float:
    """Return one of the four numbers from a distance function, on its own."""

    def information(z: Tensor) -> Tensor:
        sums = torch.logsumexp(-squares(z) / (factor * NOISE_VARIANCE), 1)
        return -(sums - torch.log(torch.tensor(len(z)))).mean() / torch.log(torch.tensor(2.0))

    total = information(z)
    if by_class:
        for c in y.unique():
            total = total - (y == c).double().mean() * information(z[y == c])
    return float(total)


def four_numbers(z: Tensor, y: Tensor, squares: Callable) -> list[float]:
    """Return BD and KL, for X and for Y, each by a pass of its own."""
    return [one_number(z, y, f, by_class, squares) for f in (8, 2) for by_class in (False, True)]


def broadcast(z: Tensor) -> Tensor:
    """Return squared distances by the formula, in float64, with the N × N × d differences."""
    return (z[:, None].double() - z[None].double()).square().sum(-1)


def bench_pairwise() -> None:
    """Compare `Pairwise` with the formula and with four passes of torch.cdist."""
    generator = torch.Generator().manual_seed(0)
    z = torch.tanh(torch.randn(4096, 10, generator=generator))
    y = torch.randint(0, 2, (4096,), generator=generator)
    ours = seconds(lambda: Pairwise(NOISE_VARIANCE)(z, y), 9)
    formula = seconds(lambda: four_numbers(z, y, broadcast), 1)
    passes = seconds(lambda: four_numbers(z, y, lambda z: torch.cdist(z, z).square()), 3)
    found = Pairwise(NOISE_VARIANCE)(z, y)
    mine = [found["BD"].i_xz, found["BD"].i_zy, found["KL"].i_xz, found["KL"].i_zy]
    error = max(abs(a - b) for a, b in zip(mine, four_numbers(z, y, broadcast), strict=True))
    name = "Pairwise, N = 4096, d = 10, four numbers"
    row(f"{name}: {ours * 1e3:.0f} ms", "", "", True)
    row("  faster than the float64 broadcast formula", f"{formula / ours:.1f} x", ">= 20 x",
        formula / ours >= 20)  # fmt: skip
    row("  faster than four passes of cdist + logsumexp", f"{passes / ours:.1f} x", ">= 5 x",
        passes / ours >= 5)  # fmt: skip
    row("  difference from the formula", f"{error:.1e} bits", "<= 1e-3", error <= 1e-3)
    binning = seconds(lambda: Binning()(z, y), 9)
    row("Binning, the same data, by Pairwise's time", f"{binning / ours:.2f}", "", True)


def peak_gib() -> float:
    """Return this process's highest memory so far, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def large_pairwise(
    samples: int, dim: int, queue: "multiprocessing.queues.SimpleQueue[float]"
) -> None:
    """Measure time and memory beyond the input; runs in a process of its own."""
    generator = torch.Generator().manual_seed(0)
    small = torch.randn(1024, dim, generator=generator)
    Pairwise(float(dim))(small, torch.arange(1024) % 10)  # thread pools and buffers
    z = torch.randn(samples, dim, generator=generator)
    y = torch.arange(samples) % 10
    before = peak_gib()
    start = time.perf_counter()
    Pairwise(float(dim))(z, y)
    queue.put(time.perf_counter() - start)
    queue.put(peak_gib() - before)


def large_queries(
    samples: int, dim: int, queries: int, monte_carlo: int,
    queue: "multiprocessing.queues.SimpleQueue[float]",
) -> None:  # fmt: skip
    """Measure time and memory beyond the input of a mean over queries, in a process of its own."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(10, (samples,), generator=generator)
    z = torch.randn(samples, dim, generator=generator).add_(y[:, None] / 10)
    kind = MonteCarlo if monte_carlo else Pairwise
    kind(float(dim) / 8, queries=100)(z[:2048], y[:2048])  # thread pools and buffers
    before = peak_gib()
    start = time.perf_counter()
    kind(float(dim) / 8, queries=queries)(z, y)
    queue.put(time.perf_counter() - start)
    queue.put(peak_gib() - before)


def large_plane(samples: int, queue: "multiprocessing.queues.SimpleQueue[float]") -> None:
    """Measure LeNet's four layers on that many images; the memory is the whole process's."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(samples, 1, 28, 28, generator=generator)
    recorder = ibcore.PlaneRecorder(torch.arange(samples) % 10, [Pairwise(NOISE_VARIANCE)])
    start = time.perf_counter()
    layers = ["pool1", "pool2", "relu3", "linear2"]
    with ibcore.ActivationTracker(LeNet(seed=0), layers) as tracker:
        recorder((0, 1, tracker.collect(x, batch_size=4096)))
    queue.put(time.perf_counter() - start)
    queue.put(peak_gib())


def alone(measure: Callable[..., None], *arguments: int) -> tuple[float, float]:
    """Return the seconds and the GiB that a measurement in a process of its own found."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=measure, args=(*arguments, queue))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{measure.__name__} ended with exit code {process.exitcode}")
    return queue.get(), queue.get()


def bench_large() -> None:
    """Run 60 000 samples of 1024 dimensions, and LeNet's plane of as many images."""
    took, memory = alone(large_pairwise, 60_000, 1024)
    row(f"Pairwise, N = 60 000, d = 1024: {took:.0f} s, beyond the input", f"{memory:.2f} GiB",
        "<= 2 GiB", memory <= 2)  # fmt: skip
    for monte_carlo, name, queries in ((0, "Pairwise", 8192), (1, "MonteCarlo, 4 draws", 1024)):
        took, memory = alone(large_queries, 1_000_000, 64, queries, monte_carlo)
        row(f"{name}, {queries} of 1 000 000 queries, d = 64", f"{took:.0f} s",
            "<= 240 s", took <= 240)  # fmt: skip
        row("  beyond the input", f"{memory:.2f} GiB", "<= 2 GiB", memory <= 2)
    took, memory = alone(large_plane, 60_000)
    row(f"LeNet's plane, 60 000 images: {took:.0f} s, the whole process", f"{memory:.2f} GiB",
        "<= 4 GiB", memory <= 4)  # fmt: skip


def bench_ensemble(epochs: int = 10) -> None:
    """Compare `fit_ensemble` of 50 nets with 50 calls of `fit`."""
    ds = ibcore.load("tishby", train_fraction=0.85)
    settings = {
        "epochs": epochs, "learning_rate": 4e-4, "batch_size": 512, "snapshots": [],
        "progress": False,
    }  # fmt: skip

    def build(seed: int) -> FullyConnected:
        return FullyConnected([12, 10, 7, 5, 4, 3, 2], seed=seed)

    together = seconds(lambda: ibcore.fit_ensemble(build, ds, seeds=range(50), **settings), 3)
    apart = seconds(lambda: [ibcore.fit(build(s), ds, seed=s, **settings) for s in range(50)], 1)
    row(f"fit_ensemble, 50 nets: {together / epochs * 1e3:.0f} ms an epoch", "", "", True)
    row("  faster than 50 calls of fit", f"{apart / together:.1f} x", ">= 5 x",
        apart / together >= 5)  # fmt: skip


def main() -> None:
    """Print the table."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("The four large runs take some minutes.", flush=True)
    bench_large()  # first: a child starts with its parent's highest memory as its own
    bench_pairwise()
    bench_ensemble()
