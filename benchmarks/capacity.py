"""What following a layer costs, beside the training that it follows and beside delve."""

import importlib.util
import tempfile
import time
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import row, seconds
from ibcore.capacity import SaturationTracker
from ibcore.data import Dataset
from ibcore.models import LeNet
from ibcore.training import fit

DELVE = "delve==0.1.50"
WEIGHTS = [nn.Conv2d, nn.Linear]  # what delve follows


def bench_tracker() -> None:
    """Follow LeNet on pictures of MNIST's size, one look at 1000 of them an epoch of 10 000."""
    pictures = torch.rand(10_100, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    parts = {"train": torch.arange(10_000), "test": torch.arange(10_000, 10_100)}
    ds = Dataset.from_arrays(pictures, torch.arange(10_100) % 10, **parts)
    options: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-3, "batch_size": 64}
    options |= {"snapshots": [1], "progress": False}
    model = LeNet(seed=0)
    some = ds.x[ds.train[:1000]]
    with SaturationTracker(model, WEIGHTS) as tracker:
        look = seconds(lambda: tracker.look(1, some), 5)
        tracker.look(1, some, batch_size=100)
        error = worst(model, some, tracker)
    training = seconds(lambda: fit(LeNet(seed=0), ds, **options), 2)
    row("Saturation of LeNet, a look, by an epoch of 10 000 pictures",
        f"{look / training:.1%}", "< 5 %", look < 0.05 * training)  # fmt: skip
    row("  eigenvalues, farthest from those in one piece", f"{error:.0e}", "<= 1e-6", error <= 1e-6)
    bench_delve(model, ds)


def worst(model: nn.Module, x: Tensor, tracker: SaturationTracker) -> float:
    """Return the largest difference of eigenvalues, by the largest of each layer."""
    found: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda m, i, o, n=name: found.update({n: o.detach()}))
        for name, module in tracker.layers.items()
    ]
    moments = tracker.moments()
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    errors = []
    for name, (_, covariance) in moments.items():
        z = found[name].double().movedim(1, -1).flatten(0, -2)
        truth = torch.linalg.eigvalsh(z.T.cov(correction=0))
        errors.append(float((torch.linalg.eigvalsh(covariance) - truth).abs().max() / truth.max()))
    return max(errors)


def bench_delve(model: nn.Module, ds: Dataset) -> None:
    """Pass a batch of 1024 pictures through the same network, followed by either.

    One batch, as delve's release counts only the last.
    """
    if not importlib.util.find_spec("delve"):
        row("  by delve's time", f"pip install {DELVE}", "< 1", False)
        return
    from delve import SaturationTracker as Delve

    batch = ds.x[ds.train[:1024]]

    def ours() -> None:
        with SaturationTracker(model, WEIGHTS) as tracker, torch.no_grad():
            model(batch)
            tracker.used()

    def passes() -> None:
        with torch.no_grad():
            model(batch)

    bare, mine = seconds(passes, 5), seconds(ours, 5)
    with tempfile.TemporaryDirectory() as folder:
        model.train()
        theirs = Delve(folder, "csv", model, device="cpu", stats=["lsat"])

        def delve() -> None:
            passes()
            theirs.add_saturations()

        other = seconds(delve, 5)
        theirs.close()
    ratio = (mine - bare) / (other - bare)
    row(f"  by delve's time ({(other - bare) * 1e3:.0f} ms)", f"{ratio:.2f}", "< 1", ratio < 1)


def main() -> None:
    """Print the table."""
    start = time.perf_counter()
    bench_tracker()
    print(f"({time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main()
