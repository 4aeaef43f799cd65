"""Chapter 03: a fully connected and a recurrent network tell the language of a name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import nn

from ibcore.data import Dataset, load
from ibcore.estimators import named
from ibcore.hooks import ActivationTracker
from ibcore.models import FullyConnected, Recurrent
from ibcore.recorder import PlaneRecorder
from ibcore.training import fit, snapshot_epochs
from study.measures import (
    Tables,
    facts,
    float_type,
    noise_policies,
    noise_rows,
    placed,
    plane_rows,
    stacked,
)

MAY_BE_EMPTY = frozenset({"others"})
MAY_BE_ZERO: frozenset[str] = frozenset()
MAY_REPEAT: frozenset[str] = frozenset()
ESTIMATORS = frozenset({"others"})
NETWORKS = ("FCN", "RNN")
_SHARED = [
    "data", "source", "train_fraction", "hidden", "epochs", "learning_rate", "batch_size",
    "low_noise", "high_noise", "dtype",
]  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What the chapter can be asked for; the defaults are those of the record."""

    data: str = "names"  # data set, a name that ibcore.load takes
    source: str = "original"  # "original", "stand-in", or "any" of the two
    train_fraction: float = 0.8  # share of the names to train on
    hidden: tuple[int, ...] = (200, 200, 200)  # units of the hidden layers
    activation: str = "relu"  # of the hidden layers of both networks
    runs: int = 10  # seeds: names, split, weights and batches
    epochs: int = 60  # passes over the training names
    learning_rate: float = 1e-3  # step size of Adam
    batch_size: int = 64  # names a step
    snapshots: int = 25  # epochs looked at, even on a log axis
    policy_snapshots: int = 8  # epochs at which all noise policies are compared
    low_noise: float = 0.001  # sigma squared, squared activation
    high_noise: float = 0.1  # sigma squared, squared activation
    other_activation: str = "tanh"  # of a second pair of networks
    others: tuple[str, ...] = ()  # estimators to draw more planes with, "Ksg", "Renyi", "InfoNCE"
    other_snapshots: int = 5  # epochs at which these look
    seed: int = 0  # first seed
    dtype: str = "float32"  # float type of data and weights


def check(settings: Settings) -> None:
    """Raise ValueError where settings don't fit one another."""
    if settings.data != "names":
        raise ValueError(f'names: data must be "names", rows of letters, got {settings.data!r}')
    if settings.train_fraction >= 1:
        raise ValueError(f"names: train_fraction must be below 1, got {settings.train_fraction}")
    if settings.activation == settings.other_activation:
        raise ValueError(f"names: other_activation must differ from {settings.activation!r}")


def jobs(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the jobs: for each seed the networks and those with the other activation."""
    s = settings
    shared: dict[str, Any] = {name: getattr(s, name) for name in _SHARED}
    looks: dict[str, Any] = {"snapshots": s.snapshots, "policy_snapshots": s.policy_snapshots}
    found: dict[str, dict[str, Any]] = {}
    for seed in range(s.seed, s.seed + s.runs):
        main = {"part": "planes", "seed": seed, "activation": s.activation, **looks}
        last = {"part": "ends", "seed": seed, "activation": s.other_activation}
        found[f"{s.activation}-{seed}"] = shared | main
        found[f"{s.other_activation}-{seed}"] = shared | last
    if s.others:
        asked = {"part": "others", "seed": s.seed, "activation": s.activation}
        looks = {"others": s.others, "snapshots": s.other_snapshots}
        found[f"others-{s.seed}"] = shared | asked | looks
    return found


def run(arguments: Mapping[str, Any]) -> Tables:
    """Return the tables of one job.

    facts: see `measures.facts`, and run.
    scores: `History.table`, network, activation.
    weights: network, activation, run, count (weights of a network).
    planes: rows of the planes, network: both constant noises at all snapshots.
    policies: the same, and activation: all noise policies at fewer snapshots.
    by_noise: `measures.noise_rows` of the last epoch, network, run.
    others: the same as planes, of the estimators that were asked for.
    """
    a = dict(arguments)
    ds = load(
        a["data"],
        source=a["source"],
        seed=a["seed"],
        train_fraction=a["train_fraction"],
        dtype=float_type(a["dtype"]),
    )
    parts = [_PARTS[a["part"]](kind, ds, a) for kind in NETWORKS]
    if a["part"] == "planes":
        parts.append({"facts": facts(ds).assign(run=a["seed"])})
    return stacked(parts)


def _build(kind: str, ds: Dataset, a: Mapping[str, Any]) -> nn.Module:
    steps, letters = ds.x.shape[1:]
    if kind == "FCN":
        widths = [steps * letters, *a["hidden"], len(ds.classes)]
        return placed(FullyConnected(widths, a["activation"], seed=a["seed"]), ds)
    model = Recurrent(letters, a["hidden"], len(ds.classes), a["activation"], seed=a["seed"])
    return placed(model, ds)


def _train(
    kind: str, ds: Dataset, a: Mapping[str, Any], looks: list[int], watch: Any
) -> pd.DataFrame:
    model = _build(kind, ds, a)
    watched = f"{a['activation']}*" if kind == "FCN" else "last*"
    settings = {name: a[name] for name in ("epochs", "learning_rate", "batch_size", "seed")}
    with ActivationTracker(model, watched) as tracker:
        history = fit(
            model,
            ds,
            tracker=tracker,
            snapshots=looks,
            on_snapshot=watch,
            progress=False,
            **settings,
        )
    return history.table.assign(network=kind, activation=a["activation"])


def _planes(kind: str, ds: Dataset, a: Mapping[str, Any]) -> Tables:
    policies = noise_policies(a["low_noise"], a["high_noise"])
    constant = {label: policies[label] for label in list(policies)[:2]}
    few = snapshot_epochs(a["epochs"], a["policy_snapshots"])
    planes, compared = (PlaneRecorder(ds.y, e, check=False) for e in (constant, policies))

    scales: list[pd.DataFrame] = []

    def watch(snapshot: Any) -> None:
        planes(snapshot)
        if snapshot.epoch in few:
            compared(snapshot)
        if snapshot.epoch == a["epochs"]:
            found = noise_rows(snapshot.activations, ds.y, network=kind, run=a["seed"])
            scales.append(found)

    looks = sorted({*snapshot_epochs(a["epochs"], a["snapshots"]), *few})
    scores = _train(kind, ds, a, looks, watch)
    keys = {"network": kind, "activation": a["activation"]}
    count = sum(p.numel() for p in _build(kind, ds, a).parameters())
    return {
        "scores": scores,
        "weights": pd.DataFrame([{**keys, "run": a["seed"], "count": count}]),
        "planes": plane_rows(planes.plane(), network=kind),
        "policies": plane_rows(compared.plane(), **keys),
        "by_noise": pd.concat(scales),
    }


def _ends(kind: str, ds: Dataset, a: Mapping[str, Any]) -> Tables:
    policies = noise_policies(a["low_noise"], a["high_noise"])
    recorder = PlaneRecorder(ds.y, policies, check=False)
    scores = _train(kind, ds, a, [a["epochs"]], recorder)
    rows = plane_rows(recorder.plane(), network=kind, activation=a["activation"])
    return {"scores": scores, "policies": rows}


def _others(kind: str, ds: Dataset, a: Mapping[str, Any]) -> Tables:
    estimators = named(a["others"], a["high_noise"])
    recorder = PlaneRecorder(ds.y, estimators, x=ds.x, check=False)
    _train(kind, ds, a, snapshot_epochs(a["epochs"], a["snapshots"]), recorder)
    return {"others": plane_rows(recorder.plane(), network=kind)}


_PARTS = {"planes": _planes, "ends": _ends, "others": _others}
