"""Chapter 02: a fully connected and a graph convolutional network tell the field of a paper."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from ibcore.data import Dataset, load
from ibcore.estimators import Pairwise, named, noise
from ibcore.hooks import ActivationTracker, GradientTracker
from ibcore.models import FullyConnected, GraphConvolutional
from ibcore.recorder import PlaneRecorder
from ibcore.training import History, Snapshot, fit, snapshot_epochs
from study.measures import (
    Tables,
    facts,
    float_type,
    histogram_rows,
    noise_policies,
    noise_rows,
    placed,
    plane_rows,
    stacked,
)  # fmt: skip

MAY_BE_EMPTY = frozenset({"others"})
MAY_BE_ZERO = frozenset({"homophilies"})
MAY_REPEAT = frozenset({"layer_noise"})
ESTIMATORS = frozenset({"others"})
NETWORKS = {"FCN": FullyConnected, "GCN": GraphConvolutional}
FACTORS = np.geomspace(0.1, 10, 9)  # on the first layer's activations, no unit
_LIKELIHOOD_NODES = 1000  # that the noise of maximum likelihood is read off
_NETWORK = ["data", "hidden", "activation", "learning_rate", "dtype"]
_LOOKS = ["epochs", "snapshots", "policy_snapshots", "low_noise", "high_noise", "layer_noise"]


@dataclass(frozen=True)
class Settings:
    """What the chapter can be asked for; the defaults are those of the record."""

    data: str = "cora"  # data set, a name that ibcore.load takes
    source: str = "original"  # "original", "stand-in", or "any" of the two
    hidden: tuple[int, ...] = (200, 200, 200)  # units of the hidden layers
    activation: str = "relu"  # of the hidden layers
    runs: int = 10  # networks (seeds) of each kind
    epochs: int = 200  # passes over the training nodes, all of them in one batch
    learning_rate: float = 1e-3  # step size of Adam
    snapshots: int = 25  # epochs looked at, even on a log axis
    policy_snapshots: int = 8  # of these, epochs at which all noise policies are compared
    snr_epochs: int = 100  # passes in the runs for the gradients
    snr_batches: int = 4  # batches an epoch in these runs
    low_noise: float = 0.001  # sigma squared, squared activation
    high_noise: float = 0.1  # sigma squared, squared activation
    layer_noise: tuple[float, ...] = (0.001, 0.003, 0.01)  # sigma squared of each hidden layer
    homophilies: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # of edges within a class
    homophily_runs: int = 5  # graphs (seeds) a share
    homophily_epochs: int = 100  # passes over the training nodes
    others: tuple[str, ...] = ()  # estimators to draw more planes with, "Ksg", "Renyi", "InfoNCE"
    other_snapshots: int = 5  # epochs at which these look
    seed: int = 0  # first seed
    dtype: str = "float32"  # float type of data and weights


def check(settings: Settings) -> None:
    """Raise ValueError where settings don't fit one another."""
    s = settings
    if s.data != "cora":
        raise ValueError(f'cora: data must be "cora", words and a graph, got {s.data!r}')
    if len(s.layer_noise) != len(s.hidden):
        raise ValueError(
            f"cora: layer_noise needs one value for each of {len(s.hidden)} hidden layers, got "
            f"{list(s.layer_noise)}"
        )
    if max(s.homophilies) > 1:
        raise ValueError(f"cora: homophilies must be shares from 0 to 1, got {max(s.homophilies)}")
    if not float(f"{s.low_noise:g}") < float(f"{s.high_noise:g}"):  # their labels
        raise ValueError(
            f"cora: low_noise must be below high_noise, in their first six digits, got "
            f"{s.low_noise} and {s.high_noise}"
        )
    if s.snr_batches < 2:
        raise ValueError("cora: snr_batches must be at least 2, as one batch has no deviation")


def jobs(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the jobs: for each seed planes, gradients and one batch; one for each graph."""
    s = settings
    network: dict[str, Any] = {name: getattr(s, name) for name in _NETWORK}
    real = network | {"source": s.source, "data_seed": s.seed}
    looks: dict[str, Any] = {name: getattr(s, name) for name in _LOOKS}
    steps = {"epochs": s.snr_epochs, "batches": s.snr_batches}
    found: dict[str, dict[str, Any]] = {}

    def add(name: str, seed: int, *parts: Mapping[str, Any], **more: Any) -> None:
        given = {"part": name.split("-")[0], "seed": seed, **more}
        found[f"{name}-{seed}"] = {k: v for part in (*parts, given) for k, v in part.items()}

    for seed in range(s.seed, s.seed + s.runs):
        add("planes", seed, real, looks, distances=seed == s.seed)
        add("gradients", seed, real, steps)
        add("whole", seed, real, epochs=s.epochs)
    graph = {"epochs": s.homophily_epochs, "high_noise": s.high_noise}
    for seed in range(s.seed, s.seed + s.homophily_runs):
        for share in map(float, s.homophilies):
            add(f"homophily-{share}", seed, network, graph, homophily=share)
    if s.others:
        looks = {"epochs": s.epochs, "snapshots": s.other_snapshots}
        add("others", s.seed, real, looks, others=s.others, high_noise=s.high_noise)
    return found


def run(arguments: Mapping[str, Any]) -> Tables:
    """Return the tables of one job; networks are "FCN" and "GCN", information is in bits.

    facts: see `measures.facts`; edges (in both directions), homophily, run.
    scores: `History.table`, network.
    planes: rows of the planes, network: constant noise and that of each layer, at all snapshots.
    policies: the same: all noise policies at fewer snapshots.
    rules: network, run, layer, by ("distance" or "squared distance"), noise (sigma squared of the
        percentile rule at the last epoch).
    by_noise: `measures.noise_rows` of the last epoch, network, run.
    distances: left, right, share, network, run, layer: at the last epoch, of the first seed.
    rescaled: network (the FCN), run, policy, factor (on the first layer), layer, i_xz: at the
        last epoch.
    gradients: `History.gradients`, network, train_nodes.
    courses: `History.table`, network, train_nodes: of the same runs.
    whole: the same at the last epoch, the larger set of nodes in one batch.
    sweep: rows of the planes, network, homophily: at the last epoch.
    sweep_scores: `History.table`, network, homophily: at the last epoch.
    others: the same as planes, of the estimators that were asked for.
    """
    a = dict(arguments)
    ds = _data(a)
    return stacked(_PARTS[a["part"]](kind, ds, a) for kind in NETWORKS)


def _data(a: Mapping[str, Any]) -> Dataset:
    dtype = float_type(a["dtype"])
    if "homophily" in a:
        share = a["homophily"]
        return load(a["data"], source="stand-in", seed=a["seed"], dtype=dtype, homophily=share)
    return load(a["data"], source=a["source"], seed=a["data_seed"], dtype=dtype)


def _train(
    kind: str, ds: Dataset, a: Mapping[str, Any], watch: Any = None, **options: Any
) -> History:
    """Return what is seen of a network while it trains; `watch` takes its hidden layers."""
    widths = [ds.x.shape[1], *a["hidden"], len(ds.classes)]
    model = placed(NETWORKS[kind](widths, a["activation"], seed=a["seed"]), ds)
    seen = ds if kind == "GCN" else replace(ds, edge_index=None)
    settings = {name: a[name] for name in ("epochs", "learning_rate", "seed")}
    gradients = GradientTracker(model)
    with ActivationTracker(model, f"{a['activation']}*") as tracker, gradients:
        return fit(
            model, seen, tracker=tracker if watch else None, gradients=gradients,
            on_snapshot=watch, progress=False, **settings, **options,
        )  # fmt: skip


def _policies(a: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the noise policies of all snapshots, and those of a few."""
    by_label = noise_policies(a["low_noise"], a["high_noise"], limit=_LIKELIHOOD_NODES)
    each = {f"{a['activation']}{n}": Pairwise(v) for n, v in enumerate(a["layer_noise"], 1)}
    labels = list(by_label)
    always = {label: by_label[label] for label in labels[:2]} | {"per layer": each}
    return always, always | {label: by_label[label] for label in labels[2:]}


def _planes(kind: str, ds: Dataset, a: Mapping[str, Any]) -> Tables:
    planes, compared = (PlaneRecorder(ds.y, found, check=False) for found in _policies(a))
    few = snapshot_epochs(a["epochs"], a["policy_snapshots"])
    last: dict[str, Tensor] = {}

    def watch(snapshot: Snapshot) -> None:
        planes(snapshot)
        if snapshot.epoch in few:
            compared(snapshot)
        last.update(snapshot.activations)

    looks = sorted({*snapshot_epochs(a["epochs"], a["snapshots"]), *few})
    scores = _train(kind, ds, a, watch, snapshots=looks).table
    keys = {"network": kind, "run": a["seed"]}
    found = {
        "scores": scores.assign(network=kind),
        "planes": plane_rows(planes.plane(), network=kind),
        "policies": plane_rows(compared.plane(), network=kind),
        "rules": pd.DataFrame({**keys, **row} for row in _rules(last)),
        "by_noise": noise_rows(last, ds.y, **keys),
    }
    if a["distances"]:
        rows = [histogram_rows(z, **keys, layer=layer) for layer, z in last.items()]
        found["distances"] = pd.concat(rows)
    if kind == "FCN":
        rescaled = _rescaled(last, ds.y, a["high_noise"])
        found["rescaled"] = pd.DataFrame({**keys, **row} for row in rescaled)
        found["facts"] = _facts(ds).assign(run=a["seed"])
    return found


def _facts(ds: Dataset) -> pd.DataFrame:
    left, right = ds.y[ds.edge_index]
    within = float((left == right).double().mean())
    return facts(ds).assign(edges=len(left), homophily=within)


def _rules(last: Mapping[str, Tensor]) -> Iterator[dict[str, Any]]:
    for layer, z in last.items():
        for power, by in ((1, "distance"), (2, "squared distance")):
            yield {"layer": layer, "by": by, "noise": noise.Percentile(power=power)(z)}


def _rescaled(last: Mapping[str, Tensor], y: Tensor, high: float) -> Iterator[dict[str, Any]]:
    """Yield I(X;T) where the first layer is written in other units, and that of the others."""
    first, *others = last
    places = [(first, factor) for factor in FACTORS] + [(layer, 1.0) for layer in others]
    constant, proportional = Pairwise(high), Pairwise(noise.Proportional())
    for policy, estimator in (("constant", constant), ("proportional", proportional)):
        for layer, factor in places:
            found = estimator(last[layer] * factor, y)["BD"].i_xz
            yield {"policy": policy, "factor": factor, "layer": layer, "i_xz": found}


def _gradients(kind: str, ds: Dataset, a: Mapping[str, Any]) -> Tables:
    parts = []
    for part in (ds, _swapped(ds)):
        history = _train(kind, part, a, batch_size=-(-len(part.train) // a["batches"]))
        found = {"gradients": history.gradients, "courses": history.table}
        size = len(part.train)
        parts.append({k: t.assign(network=kind, train_nodes=size) for k, t in found.items()})
    return stacked(parts)


def _swapped(ds: Dataset) -> Dataset:
    """Return the data with the sets to train and to test on in each other's place."""
    return replace(ds, train=ds.test, test=ds.train)


def _whole(kind: str, ds: Dataset, a: Mapping[str, Any]) -> Tables:
    part = _swapped(ds)
    scores = _train(kind, part, a, snapshots=[a["epochs"]]).table
    return {"whole": scores.assign(network=kind, train_nodes=len(part.train))}


def _homophily(kind: str, ds: Dataset, a: Mapping[str, Any]) -> Tables:
    by_label = noise_policies(None, a["high_noise"])
    shown = {label: by_label[label] for label in ("proportional", f"σ² = {a['high_noise']:g}")}
    recorder = PlaneRecorder(ds.y, shown, check=False)
    scores = _train(kind, ds, a, recorder, snapshots=[a["epochs"]]).table
    rows = plane_rows(recorder.plane(), network=kind, homophily=a["homophily"])
    return {"sweep": rows, "sweep_scores": scores.assign(network=kind, homophily=a["homophily"])}


def _others(kind: str, ds: Dataset, a: Mapping[str, Any]) -> Tables:
    estimators = named(a["others"], a["high_noise"])
    recorder = PlaneRecorder(ds.y, estimators, x=ds.x, check=False)
    _train(kind, ds, a, recorder, snapshots=snapshot_epochs(a["epochs"], a["snapshots"]))
    return {"others": plane_rows(recorder.plane(), network=kind)}


_PARTS = {
    "planes": _planes, "gradients": _gradients, "whole": _whole, "homophily": _homophily,
    "others": _others,
}  # fmt: skip
