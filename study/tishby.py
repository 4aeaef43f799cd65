"""Chapter 01: small networks learn a rule on 12 bits; two estimators look at their layers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd
from torch import Tensor, nn

from ibcore.data import Dataset, load
from ibcore.ensemble import fit_ensemble
from ibcore.estimators import Binning, Pairwise, named
from ibcore.models import FullyConnected
from ibcore.recorder import PlaneRecorder
from ibcore.training import History, Snapshot, snapshot_epochs
from study.measures import (
    Tables,
    check_rows,
    facts,
    float_type,
    noise_rows,
    placed,
    plane_rows,
    stacked,
)

MAY_BE_EMPTY = frozenset({"others"})
MAY_BE_ZERO: frozenset[str] = frozenset()
MAY_REPEAT: frozenset[str] = frozenset()
ESTIMATORS = frozenset({"others"})
BLOCK = 10  # seeds that are trained at once
BOUND_BLOCK = 5  # of these where bounds are measured, which take as long as the training
EDGES = [5, 10, 20, 30, 50, 100, 200, 500]  # bin edges on [-1, 1]
_SHARED = [
    "data", "widths", "activation", "epochs", "learning_rate", "batch_size", "snapshots", "dtype",
]  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What the chapter can be asked for; the defaults are those of the record."""

    data: str = "tishby"  # data set, a name that ibcore.load takes
    widths: tuple[int, ...] = (12, 10, 7, 5, 4, 3, 2)  # units, input to output
    activation: str = "tanh"  # of the hidden layers
    fractions: tuple[float, ...] = (0.05, 0.45, 0.85)  # shares to train on
    runs: int = 50  # networks (seeds) a share
    epochs: int = 8000  # passes over the training samples
    learning_rate: float = 4e-4  # step size of Adam
    batch_size: int = 512  # samples a step
    snapshots: int = 100  # epochs looked at, even on a log axis
    bin_edges: int = 30  # on [-1, 1], for the planes of figure 4.2
    noise_variance: float = 0.1  # sigma squared of the bounds, squared activation
    bound_runs: int = 10  # seeds for the bounds, the slower estimate
    relu_bin_width: float = 0.07  # bins for ReLU, in units of the activation
    others: tuple[str, ...] = ()  # estimators to draw more planes with, "Ksg", "Renyi", "InfoNCE"
    other_snapshots: int = 5  # epochs at which these look
    seed: int = 0  # first seed
    dtype: str = "float32"  # float type of data and weights


def check(settings: Settings) -> None:
    """Raise ValueError where settings don't fit one another."""
    s = settings
    if s.data != "tishby":
        raise ValueError(f'tishby: data must be "tishby", the 12-bit data, got {s.data!r}')
    if len(s.widths) < 3 or (s.widths[0], s.widths[-1]) != (12, 2):
        raise ValueError(
            "tishby: widths must run from 12 bits over a hidden layer or more to 2 labels, got "
            f"{list(s.widths)}"
        )
    if s.activation not in ("tanh", "sigmoid"):
        raise ValueError(
            'tishby: activation must be "tanh" or "sigmoid", whose values lie in the bins on '
            f"[-1, 1], got {s.activation!r}"
        )
    percents = [round(100 * share) for share in s.fractions]
    if len(percents) != 3 or s.fractions[-1] >= 1 or any(b <= a for a, b in pairwise(percents)):
        raise ValueError(
            "tishby: fractions must be three shares of the data, little, some and much, each a "
            f"percent or more above the one before and below 1, got {list(s.fractions)}"
        )
    if s.bin_edges < 2:
        raise ValueError(f"tishby: bin_edges must be at least 2, got {s.bin_edges}")


def jobs(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the jobs: blocks of seeds of each share, of both activations, and the others.

    The first `bound_runs` seeds of the largest share have blocks of their own, so that no other
    job depends on what is measured there.
    """
    s = settings
    shared: dict[str, Any] = {name: getattr(s, name) for name in _SHARED}
    binned = shared | {"part": "planes", "bin_edges": s.bin_edges, "check": False}
    gradients = binned | {"part": "gradients"}
    bounds = binned | {"part": "bounds", "noise_variance": s.noise_variance}
    seeds, most = range(s.seed, s.seed + s.runs), s.fractions[-1]
    few, rest = seeds[: s.bound_runs], seeds[s.bound_runs :]
    found: dict[str, dict[str, Any]] = {}
    for share in s.fractions[:-1]:
        found |= _blocks(f"share-{share}", seeds, BLOCK, binned | {"share": share})
    found |= _blocks(f"share-{most}", few, BOUND_BLOCK, bounds | {"share": most})
    found |= _blocks(f"share-{most}", rest, BLOCK, gradients | {"share": most})
    for share in s.fractions:
        found[f"share-{share}-{s.seed}"]["check"] = True
    for kind in (s.activation, "relu"):
        compared = {"part": "kinds", "share": most, "bin_width": s.relu_bin_width}
        found |= _blocks(kind, few, BLOCK, shared | compared | {"activation": kind})
    if s.others:
        looks = {"snapshots": s.other_snapshots, "noise_variance": s.noise_variance}
        asked = {"part": "others", "share": most, "others": s.others}
        found |= _blocks("others", seeds[:1], 1, shared | asked | looks)
    return found


def run(arguments: Mapping[str, Any]) -> Tables:
    """Return the tables of one job.

    facts: see `measures.facts`, and share, run (the first of the block), ones (samples labelled 1).
    scores: `History.table`, share.
    planes: rows of the binned planes, share.
    checks: what was checked of the planes and the bounds at the first run, share.
    gradients: `History.gradients` of the largest share, share.
    bounds: rows of the planes between two bounds, share.
    by_noise: `measures.noise_rows` of the last epoch, run.
    by_bins: run, layer, scale (bin edges), i_xz (bits): the same under other bins.
    kinds: rows of the planes with the same bins, activation.
    others: rows of the planes of the estimators that were asked for, share.
    """
    a = dict(arguments)
    return _PARTS[a["part"]](load(a["data"], dtype=float_type(a["dtype"])), a)


def _blocks(
    name: str, seeds: range, size: int, arguments: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return a job a block of seeds, called after its first seed."""
    blocks = [list(seeds[first : first + size]) for first in range(0, len(seeds), size)]
    return {f"{name}-{block[0]}": {**arguments, "seeds": block} for block in blocks}


def _train(ds: Dataset, a: Mapping[str, Any], watch: Callable[[Snapshot], Any]) -> History:
    def build(seed: int) -> nn.Module:
        return placed(FullyConnected(a["widths"], a["activation"], seed=seed), ds)

    return fit_ensemble(
        build,
        [ds.split(a["share"], seed) for seed in a["seeds"]],
        seeds=a["seeds"],
        epochs=a["epochs"],
        learning_rate=a["learning_rate"],
        batch_size=a["batch_size"],
        snapshots=snapshot_epochs(a["epochs"], a["snapshots"]),
        layers=f"{a['activation']}*",
        on_snapshot=watch,
        progress=False,
    )


def _rows(recorder: PlaneRecorder, name: str, a: Mapping[str, Any]) -> Tables:
    """Return the rows of a plane of a share, and what was checked of it."""
    plane = recorder.plane()
    found = {name: plane_rows(plane, share=a["share"])}
    return found | {"checks": check_rows(plane, share=a["share"])} if a["check"] else found


def _planes(ds: Dataset, a: Mapping[str, Any], *others: Callable[[Snapshot], Any]) -> Tables:
    """Return what is made of every share; others look at the snapshots as well."""
    planes = PlaneRecorder(ds.y, Binning(a["bin_edges"]), check=a["check"])
    looks: list[Callable[[Snapshot], Any]] = [planes, *others]

    def watch(snapshot: Snapshot) -> None:
        for look in looks:
            look(snapshot)

    history = _train(ds, a, watch)
    first = ds.split(a["share"], a["seeds"][0])
    of = {"share": a["share"], "run": a["seeds"][0], "ones": int(ds.y.sum())}
    found = _rows(planes, "planes", a) | {
        "facts": facts(first).assign(**of),
        "scores": history.table.assign(share=a["share"]),
    }
    if a["part"] != "planes":
        found["gradients"] = history.gradients.assign(share=a["share"])
    return found


def _bounds(ds: Dataset, a: Mapping[str, Any]) -> Tables:
    bounds = PlaneRecorder(ds.y, Pairwise(a["noise_variance"]), check=a["check"])
    scales: list[Tables] = []

    def watch(snapshot: Snapshot) -> None:
        if snapshot.epoch == a["epochs"]:
            scales.append(_scales(snapshot, ds.y))

    planes = _planes(ds, a, bounds, watch)
    return stacked([planes, _rows(bounds, "bounds", a), *scales])


def _scales(snapshot: Snapshot, y: Tensor) -> Tables:
    """Return what the layers have by the noise and by the bins that are assumed."""
    by_bins = [
        (snapshot.run, layer, count, Binning(count)(z, y)["Binning"].i_xz)
        for layer, z in snapshot.activations.items()
        for count in EDGES
    ]
    return {
        "by_noise": noise_rows(snapshot.activations, y, run=snapshot.run),
        "by_bins": pd.DataFrame(by_bins, columns=["run", "layer", "scale", "i_xz"]),
    }


def _kinds(ds: Dataset, a: Mapping[str, Any]) -> Tables:
    recorder = PlaneRecorder(ds.y, Binning(width=a["bin_width"]), check=False)
    _train(ds, a, recorder)
    return {"kinds": plane_rows(recorder.plane(), activation=a["activation"])}


def _others(ds: Dataset, a: Mapping[str, Any]) -> Tables:
    estimators = named(a["others"], a["noise_variance"])
    recorder = PlaneRecorder(ds.y, estimators, x=ds.x, check=False)
    _train(ds, a, recorder)
    return {"others": plane_rows(recorder.plane(), share=a["share"])}


_PARTS = {
    "planes": _planes,
    "gradients": _planes,
    "bounds": _bounds,
    "kinds": _kinds,
    "others": _others,
}
