"""Chapter 05, wide and sparse inputs: our critics beside the truth, and MINE as printed."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from ibcore.data import Dataset, load
from ibcore.estimators import InfoNCE, Mine, MonteCarlo
from ibcore.hooks import ActivationTracker
from ibcore.models import FullyConnected
from ibcore.training import fit
from study.measures import Tables, facts, float_type

DATA = ("Cora", "names", "MNIST")
LOOKS = 10  # at MINE as printed, evenly spaced
_SEEDS = 3  # of MINE as printed
_HIDDEN = (200, 200, 200)
_SHARE = 0.01  # of a layer's total variance: σ² of each dimension's noise


def estimates(arguments: Mapping[str, Any]) -> Tables:
    """Return the critics and the truth on the layers of one data set's network, MINE as printed."""
    a = arguments
    ds = _data(a)
    layers = _layers(ds, a)
    order = torch.randperm(len(ds.x), generator=torch.Generator().manual_seed(a["seed"]))
    used = order[: a["images"]]
    x, y = ds.x[used], ds.y[used]
    rows = [
        (layer, *row) for layer, z in layers.items() for row in _layer(x, y, z[used], a["steps"])
    ]
    columns = ["layer", "side", "estimator", "i_xz", "i_xz_error"]
    found = pd.DataFrame(rows, columns=columns).assign(data=a["data"], samples=len(used))
    first = next(iter(layers.values()))[used]
    return {
        "facts": facts(ds).assign(data=a["data"], run=a["seed"]),
        "wide": found,
        "printed": printed(a["data"], x, first, a["seed"], a["mine_steps"]),
    }


def printed(data: str, x: Tensor, z: Tensor, seed: int, steps: int) -> pd.DataFrame:
    """Return the course of MINE as printed: data, samples, run, step, series, estimator, i_xz.

    Args:
        data: name of the data set.
        x: inputs, shape (n_samples, ...).
        z: representation, shape (n_samples, dim).
        seed: the first of three.
        steps: of Adam; the value is looked at ten times.
    """
    kinds = ("samples it learned from", "other samples")
    rows = [
        (run, step, kind, bits)
        for run in range(seed, seed + _SEEDS)
        for step, *both in _algorithm(x, z, run, steps)
        for kind, bits in zip(kinds, both, strict=True)
    ]
    found = pd.DataFrame(rows, columns=["run", "step", "series", "i_xz"])
    return found.assign(data=data, samples=len(x), estimator="Mine as printed")


def _data(a: Mapping[str, Any]) -> Dataset:
    options = {"source": a["source"], "seed": a["seed"], "dtype": float_type(a["dtype"])}
    if a["data"] == "MNIST":
        return load("mnist", size=a["images"], test_size=300, **options)
    return replace(load(a["data"].lower(), **options), edge_index=None)


def _layers(ds: Dataset, a: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the activations of a network of three hidden layers after its training."""
    widths = [ds.x[0].numel(), *_HIDDEN, len(ds.classes)]
    model = FullyConnected(widths, "relu", seed=a["seed"]).to(ds.x.dtype)
    fit(
        model,
        ds,
        epochs=a["hard_epochs"],
        learning_rate=1e-3,
        batch_size=256,
        seed=a["seed"],
        snapshots=[],
        progress=False,
    )
    with ActivationTracker(model, "relu*") as tracker:
        return tracker.collect(ds.x)


def _layer(x: Tensor, y: Tensor, z: Tensor, steps: int) -> Iterator[tuple[str, str, float, float]]:
    """Yield rows of side, estimator, I(X;side) and its error: the layer as it is, and noisy."""
    deviation = math.sqrt(_SHARE * float(z.double().var(0).sum()))
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(z.shape, generator=generator, dtype=torch.float64).to(z.dtype)
    sides = {"Z": z, "Z + ε": z + deviation * noise}
    for bound in (Mine(steps=steps), InfoNCE(steps=steps)):
        for side, t in sides.items():
            yield side, bound.name, *bound.between(x, t)
    yield "Z + ε", "truth", *MonteCarlo(deviation**2, draws=2).estimates(z, y)[0]


def _algorithm(x: Tensor, z: Tensor, seed: int, steps: int) -> Iterator[tuple[int, float, float]]:
    """Yield step, value on the half of the samples that the critic learns from, on the other.

    Source: the thesis, Algorithm 1 [landsverk2021inductive].
    """
    torch.manual_seed(seed)
    both, order = torch.cat([x.flatten(1), z], 1).double(), torch.randperm(len(x))
    first, last = (nn.Linear(n, m, dtype=both.dtype) for n, m in ((both.shape[1], 100), (100, 1)))
    critic = nn.Sequential(first, nn.ReLU(), last)
    adam, half = torch.optim.Adam(critic.parameters(), lr=1e-3), len(x) // 2
    split = x[0].numel()
    for step in range(1, steps + 1):
        bound = _donsker_varadhan(critic, both[order[torch.randint(half, (256,))]], split)
        adam.zero_grad()
        (-bound).backward()
        adam.step()
        if step % (steps // LOOKS) == 0:
            parts = (both[order[:half]], both[order[half:]])
            inside, outside = (float(_donsker_varadhan(critic, p, split).detach()) for p in parts)
            yield step, inside, outside


def _donsker_varadhan(critic: nn.Module, rows: Tensor, split: int) -> Tensor:
    """Return the bound in bits, with pairs of the product by a permutation of the second part."""
    shuffled = torch.cat([rows[:, :split], rows[torch.randperm(len(rows)), split:]], 1)
    joint, product = critic(rows).mean(), critic(shuffled).logsumexp(0).squeeze()
    bits: Tensor = (joint - product + math.log(len(rows))) / math.log(2)
    return bits
