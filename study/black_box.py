"""Chapter 06: what was claimed of information planes, measured in many ways on four data sets."""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from ibcore.checks import stream
from ibcore.data import Dataset, load
from ibcore.discrete import quantise
from ibcore.ensemble import fit_ensemble
from ibcore.estimators import Binning, Exact, Pairwise
from ibcore.estimators.adaptive import AdaptiveBinning
from ibcore.hooks import ActivationTracker, GradientTracker
from ibcore.interface import Estimator, MutualInformation
from ibcore.layers import select_layers
from ibcore.models import FullyConnected, GraphConvolutional, LeNet, Recurrent
from ibcore.recorder import PlaneRecorder
from ibcore.tolerated import HangsOnRoundingError, Tolerated, ToleratedNoise
from ibcore.training import History, Snapshot, fit, snapshot_epochs
from study import planted
from study.measures import Tables, facts, float_type, placed, plane_rows

MAY_BE_EMPTY = frozenset({"arms"})
MAY_BE_ZERO = frozenset({"flips"})
MAY_REPEAT: frozenset[str] = frozenset()
ESTIMATORS: frozenset[str] = frozenset()
BLOCK = 10  # seeds that are trained at once
RESCALED = 4.0  # what a layer is multiplied by, for the estimates that have a scale
MOST_UNITS = 128  # of a layer whose tolerated noise is measured
_KINDS = {"tanh": nn.Tanh, "relu": nn.ReLU, "softsign": nn.Softsign, "softplus": nn.Softplus}
_LEVELS = {"tanh": (-1.0, 1.0), "relu": (0.0, 4.0)}  # what quantised units are cut to
_MAIN, _PART = {"seeds": "runs", "dear": True}, {"seeds": "some_runs", "dear": True}
_CHEAP = {"seeds": "some_runs", "dear": False}  # the dear estimates don't look at these
# An arm: one network, trained one way. What it doesn't name is that of the first one.
BITS: dict[str, dict[str, Any]] = {
    "tanh": _MAIN,
    "relu": _MAIN | {"kind": "relu"},
    "tanh-5": _MAIN | {"share": 0.05},
    "relu-5": _MAIN | {"kind": "relu", "share": 0.05},
    "tanh-45": _PART | {"share": 0.45},
    "softsign": _PART | {"kind": "softsign"},
    "softplus": _PART | {"kind": "softplus"},
    "tanh-full-batch": _PART | {"batch_size": None, "longer": 3},
    "tanh-decay": _PART | {"decay": 0.05},
    "relu-decay": _PART | {"decay": 0.05, "kind": "relu"},
    "tanh-sgd": _PART | {"optimizer": "sgd"},
    "relu-sgd": _PART | {"optimizer": "sgd", "kind": "relu"},
    "tanh-4-bits": _CHEAP | {"bits": 4},
    "tanh-8-bits": _CHEAP | {"bits": 8},
    "relu-4-bits": _CHEAP | {"bits": 4, "kind": "relu"},
    "relu-8-bits": _CHEAP | {"bits": 8, "kind": "relu"},
    "tanh-1-layer": _CHEAP | {"depth": 1},
    "tanh-3-layers": _CHEAP | {"depth": 3},
}
OTHERS: dict[str, dict[str, Any]] = {
    "cora-fcn": {"data": "cora", "network": "fcn", "kind": "relu"},
    "cora-fcn-tanh": {"data": "cora", "network": "fcn", "kind": "tanh"},
    "cora-gcn": {"data": "cora", "network": "gcn", "kind": "relu"},
    "names-fcn": {"data": "names", "network": "fcn", "kind": "relu"},
    "names-fcn-tanh": {"data": "names", "network": "fcn", "kind": "tanh"},
    "names-rnn": {"data": "names", "network": "rnn", "kind": "relu"},
    "mnist-fcn": {"data": "mnist", "network": "fcn", "kind": "relu"},
    "mnist-fcn-tanh": {"data": "mnist", "network": "fcn", "kind": "tanh"},
    "mnist-lenet": {"data": "mnist", "network": "lenet", "kind": "relu"},
}
_HIDDEN = {"cora": (64, 64, 64), "names": (64, 64, 64), "mnist": (128, 64, 32)}
_BATCH = {"cora": None, "names": 64, "mnist": 64}  # samples a step
_WATCHED = {"rnn": "last*", "lenet": ["pool2", "relu3"]}


@dataclass(frozen=True)
class Settings:
    """What the chapter can be asked for; the defaults are those of the record."""

    arms: tuple[str, ...] = ()  # networks to train, names of study.black_box; none takes all
    source: str = "original"  # of Cora, names, MNIST: "original", "stand-in", or "any" of the two
    widths: tuple[int, ...] = (12, 10, 7, 5, 4, 3, 2)  # units on the 12 bits, input to output
    share: float = 0.85  # of the 4096 inputs to train on, where an arm says nothing else
    epochs: int = 2000  # passes over the training samples, on the 12 bits
    learning_rate: float = 2e-3  # step size of Adam
    sgd_rate: float = 0.1  # step size of gradient descent with momentum 0.9
    batch_size: int = 512  # samples a step
    snapshots: int = 25  # epochs looked at, even on a log axis
    few_snapshots: int = 5  # of these, epochs at which the dear estimates look
    runs: int = 50  # networks (seeds) of the four main arms
    some_runs: int = 20  # networks of each other arm on the 12 bits
    dear_runs: int = 10  # networks of an arm that the dear estimates look at
    bin_width: float = 0.07  # of the fixed bins, in units of the activation
    bins: int = 30  # of the adaptive bins
    noise_variance: float = 0.1  # sigma squared of the bounds, squared activation
    tolerance: float = 0.01  # bits by which the answer may change
    data_runs: int = 5  # networks of each arm on other data
    data_rate: float = 1e-3  # their step size of Adam
    cora_epochs: int = 200  # passes over the training nodes, all in one batch
    names_epochs: int = 40  # passes over the names
    mnist_epochs: int = 20  # passes over the images
    size: int = 4000  # images to train on, and half as many to test on
    samples: int = 2000  # that planes of these data are measured on, at most
    planted_runs: int = 10  # networks for what is known of tolerated noise
    classes: tuple[int, ...] = (2, 5, 10, 20)  # of Gaussian clusters, to count directions
    flips: tuple[float, ...] = (0.0, 0.05, 0.11, 0.25)  # of the labels of pictures
    seed: int = 100  # first seed: none of those that hypotheses were found with
    dtype: str = "float32"  # float type of data and weights


def check(settings: Settings) -> None:
    """Raise ValueError where settings don't fit one another."""
    s = settings
    if len(s.widths) < 5 or (s.widths[0], s.widths[-1]) != (12, 2):
        raise ValueError(
            "black_box: widths must run from 12 bits over three hidden layers or more to 2 labels, "
            f"got {list(s.widths)}"
        )
    if not 0 < s.share < 1:
        raise ValueError(f"black_box: share must lie between 0 and 1, got {s.share}")
    if unknown := sorted(set(s.arms) - {*BITS, *OTHERS}):
        raise ValueError(f"black_box: arms has {unknown}: there are {[*BITS, *OTHERS]}")
    if not s.dear_runs <= s.some_runs <= s.runs:
        raise ValueError(
            "black_box: dear_runs ≤ some_runs ≤ runs must hold, as one is a part of the other; got "
            f"{s.dear_runs}, {s.some_runs} and {s.runs}"
        )
    if max(s.flips) >= 0.5:
        raise ValueError(f"black_box: flips must lie from 0 to below 0.5, got {list(s.flips)}")
    if min(s.classes) < 2:
        raise ValueError(f"black_box: classes must be at least 2, got {list(s.classes)}")


def jobs(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the jobs: blocks of seeds of each arm, and what is planted."""
    s = settings
    looks = {name: getattr(s, name) for name in _LOOKS}
    found: dict[str, dict[str, Any]] = {}

    def add(arm: str, given: Mapping[str, Any], seeds: range, size: int, dear: int) -> None:
        for first in range(0, len(seeds), size):
            block = list(seeds[first : first + size])
            asked = {**given, "arm": arm, "seeds": block, "dear": first < dear}
            found[f"{arm}-{block[0]}"] = {**looks, **asked}

    size = min(BLOCK, s.dear_runs)
    chosen = s.arms or (*BITS, *OTHERS)
    for arm, says in BITS.items():
        if arm in chosen:
            seeds = range(s.seed, s.seed + getattr(s, says["seeds"]))
            add(arm, _of_bits(s, says), seeds, size, s.dear_runs if says["dear"] else 0)
    for arm, says in OTHERS.items():
        if arm in chosen:
            held = {
                "part": "others",
                **says,
                "source": s.source,
                "epochs": getattr(s, f"{says['data']}_epochs"),
                "learning_rate": s.data_rate,
                "batch_size": _BATCH[says["data"]],
                "size": s.size,
                "samples": s.samples,
            }
            add(arm, held, range(s.seed, s.seed + s.data_runs), 1, s.data_runs)
    for name, given in planted.jobs(s).items():
        found[name] = {"part": "planted", "dtype": s.dtype, **given}
    return found


_LOOKS = [
    "snapshots", "few_snapshots", "bin_width", "bins", "noise_variance", "tolerance", "dtype",
]  # fmt: skip


def _of_bits(s: Settings, says: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an arm on the 12 bits is, in full."""
    depth = says.get("depth", len(s.widths) - 2)
    rate = s.sgd_rate if says.get("optimizer") == "sgd" else s.learning_rate
    return {
        "part": "bits",
        "widths": [*s.widths[: depth + 1], s.widths[-1]],
        "kind": says.get("kind", "tanh"),
        "bits": says.get("bits", 0),
        "share": says.get("share", s.share),
        "epochs": s.epochs * says.get("longer", 1),
        "learning_rate": rate,
        "batch_size": says.get("batch_size", s.batch_size),
        "optimizer": says.get("optimizer", "adam"),
        "decay": says.get("decay", 0.0),
    }


def run(arguments: Mapping[str, Any]) -> Tables:
    """Return the tables of one job; layers are those of the network, information is in bits.

    facts: see `measures.facts`, and arm, run (the first of the block).
    scores: `History.table`, arm.
    gradients: arm, run, epoch, drift (log₂ of the sum of mean_norm over weights by that of
        deviation_norm; see `ibcore.snr`), deviation (the latter sum); none with one batch.
    planes: rows of the planes, arm. Estimators: "bins" of fixed width, "adaptive" bins, "4 bits"
        and "8 bits" after the training, "exact" where units have few values, the bounds' "pairwise"
        (the lower one), and "tolerated" noise; "×4": the layer multiplied by four.
    tolerated: arm, run, epoch, layer, and `ibcore.tolerated.Tolerated`, which is NaN where the
        answer hangs on rounding.
    clusters: arm, run, epoch, layer, within (variance within classes, share of all).
    planted: kind ("unread" or "classes"), run, form, classes, before and after (I(X;T)), ceiling,
        directions, accuracy.
    oracle: run, flip, truth (I(T;Y) of a picture and its label after a noisy channel), estimator,
        i_zy, i_xz, ceiling, accuracy.
    depends: what tolerated noise hangs on: run, kind, layer, tolerance, samples, calibrated, rate,
        i_xz, i_zy, directions, ceiling.
    """
    a = dict(arguments)
    return _PARTS[a["part"]](a)


@dataclass(frozen=True)
class Levels:
    """Exact information of a layer that is rounded to 2^bits levels between its limits.

    Args:
        bits: of a unit.
    Source: Lorenzen, Igel & Nielsen (2022), section 3 [lorenzen2022information].
    """

    bits: int

    def __call__(self, z: Tensor, y: Tensor) -> dict[str, MutualInformation]:
        """Return {"Exact": information} of z, shape (n_samples, ...), in bits."""
        return Exact()(quantise(z, self.bits), y)


class Quantised(nn.Module):
    """An activation that takes 2^bits values; gradients pass as if it didn't.

    Args:
        kind: "tanh" or "relu", the latter cut at 4.
        bits: of a unit.
    Source: Lorenzen, Igel & Nielsen (2022), section 3 [lorenzen2022information].
    """

    def __init__(self, kind: str, bits: int) -> None:
        super().__init__()
        self.activation, self.bits = _KINDS[kind](), bits
        self.low, self.high = _LEVELS[kind]

    def forward(self, z: Tensor) -> Tensor:
        """Return the levels, of the shape of z."""
        exact = self.activation(z).clamp(self.low, self.high)
        found: Tensor = exact + (quantise(exact, self.bits, self.low, self.high) - exact).detach()
        return found


def network(widths: list[int], kind: str, seed: int, bits: int = 0) -> nn.Sequential:
    """Return a fully connected network with the weights of `FullyConnected` and any activation."""
    named = FullyConnected(widths, "identity", seed=seed).named_children()
    return nn.Sequential(
        OrderedDict(
            (name.replace("identity", kind), Quantised(kind, bits) if bits else _KINDS[kind]())
            if isinstance(layer, nn.Identity)
            else (name, layer)
            for name, layer in named
        )
    )


class _Watch:
    """What looks at the snapshots of one arm: planes at all of them, states for the dear at few."""

    def __init__(self, ds: Dataset, samples: Tensor, few: list[int], a: Mapping[str, Any]) -> None:
        self.y, self.samples = ds.y[samples], samples
        cheap: dict[str, Estimator] = {
            "bins": Binning(width=a["bin_width"]),
            "bins ×4": Binning(width=a["bin_width"] / RESCALED),
            "adaptive": AdaptiveBinning(a["bins"]),
            "4 bits": Levels(4),
            "8 bits": Levels(8),
        }
        sigma = a["noise_variance"]
        dear: dict[str, Estimator] = {
            "pairwise": Pairwise(sigma),
            "pairwise ×4": Pairwise(sigma / RESCALED**2),
        }
        cheap = {"exact": Exact()} if a.get("bits") else cheap
        self._cheap = PlaneRecorder(self.y, cheap, check=False)
        self._dear = PlaneRecorder(self.y, dear, check=False)
        self._few = few if a["dear"] else []
        self.clusters: list[dict[str, Any]] = []
        self.states: dict[tuple[int, int], dict[str, Tensor]] = {}
        self.model = nn.Module()

    def __call__(self, snapshot: Snapshot) -> None:
        run, epoch, layers = snapshot
        layers = {name: z[self.samples.to(z.device)] for name, z in layers.items()}
        self._cheap(Snapshot(run, epoch, layers))
        for layer, z in layers.items():
            within = variance_within(z, self.y)
            self.clusters.append({"run": run, "epoch": epoch, "layer": layer, "within": within})
        if epoch in self._few:
            self._dear(Snapshot(run, epoch, layers))
            held = self.model.state_dict()
            self.states[run, epoch] = {name: value.clone() for name, value in held.items()}

    def planes(self, arm: str) -> pd.DataFrame:
        """Return the rows of both planes, estimators called by their labels."""
        found = [self._cheap, self._dear] if self._few else [self._cheap]
        rows = pd.concat([plane_rows(recorder.plane(), arm=arm) for recorder in found])
        rows = rows[~rows["estimator"].str.endswith(" KL")]
        return rows.assign(estimator=rows["estimator"].str.rsplit(" ", n=1).str[0])


def variance_within(z: Tensor, y: Tensor) -> float:
    """Return the share of a layer's variance that lies within classes; NaN where there is none.

    Args:
        z: activations, shape (n_samples, ...).
        y: labels, shape (n_samples,).
    """
    z = z.flatten(1).double()
    centred = z - z.mean(0)
    for label in y.unique():
        members = y == label
        z = z.where(~members[:, None], z - z[members].mean(0))
    whole = float(centred.square().sum())
    return float(z.square().sum()) / whole if whole > 0 else float("nan")


def _bits(a: dict[str, Any]) -> Tables:
    ds = load("tishby", dtype=float_type(a["dtype"]))
    few = snapshot_epochs(a["epochs"], a["few_snapshots"])
    watch = _Watch(ds, torch.arange(len(ds.y)), few, a)

    def build(seed: int) -> nn.Module:
        model = placed(network(a["widths"], a["kind"], seed, a["bits"]), ds)
        if seed == a["seeds"][0]:
            watch.model = model  # the one that each network is looked at in
        return model

    if a["optimizer"] == "sgd":
        optimizer: Any = partial(torch.optim.SGD, momentum=0.9)
    else:
        optimizer = partial(torch.optim.AdamW, weight_decay=a["decay"])
    history = fit_ensemble(
        build,
        [ds.split(a["share"], seed) for seed in a["seeds"]],
        seeds=a["seeds"],
        epochs=a["epochs"],
        learning_rate=a["learning_rate"],
        batch_size=a["batch_size"],
        snapshots=sorted({*snapshot_epochs(a["epochs"], a["snapshots"]), *few}),
        layers=f"{a['kind']}*",
        on_snapshot=watch,
        optimizer=optimizer,
        progress=False,
    )
    first = ds.split(a["share"], a["seeds"][0])
    return _tables(watch, history, first, build(a["seeds"][0]), f"{a['kind']}*", a)


def _others(a: dict[str, Any]) -> Tables:
    seed, dtype = a["seeds"][0], float_type(a["dtype"])
    options = {"size": a["size"], "test_size": a["size"] // 2} if a["data"] == "mnist" else {}
    ds = load(a["data"], source=a["source"], seed=seed, dtype=dtype, **options)
    ds = ds if a["network"] == "gcn" else replace(ds, edge_index=None)
    graph = () if ds.edge_index is None else (ds.edge_index,)
    order = torch.randperm(len(ds.y), generator=stream(seed, "black box"))
    samples = torch.arange(len(ds.y)) if graph else order[: a["samples"]].sort().values
    few = snapshot_epochs(a["epochs"], a["few_snapshots"])
    watch = _Watch(ds, samples, few, a)
    watch.model = model = placed(_other_network(ds, a, seed), ds)
    layers = _WATCHED.get(a["network"], f"{a['kind']}*")
    gradients = GradientTracker(model)
    with ActivationTracker(model, layers) as tracker, gradients:
        history = fit(
            model,
            ds,
            epochs=a["epochs"],
            learning_rate=a["learning_rate"],
            batch_size=a["batch_size"],
            seed=seed,
            snapshots=sorted({*snapshot_epochs(a["epochs"], a["snapshots"]), *few}),
            tracker=tracker,
            gradients=gradients,
            on_snapshot=watch,
            progress=False,
        )
    return _tables(watch, history, ds, placed(_other_network(ds, a, seed), ds), layers, a, *graph)


def _other_network(ds: Dataset, a: Mapping[str, Any], seed: int) -> nn.Module:
    classes, hidden = len(ds.classes), _HIDDEN[a["data"]]
    if a["network"] == "lenet":
        return LeNet(seed=seed)
    if a["network"] == "rnn":
        return Recurrent(ds.x.shape[2], hidden, classes, a["kind"], seed=seed)
    widths = [ds.x[0].numel(), *hidden, classes]
    kind = GraphConvolutional if a["network"] == "gcn" else FullyConnected
    return kind(widths, a["kind"], seed=seed)


def _tables(
    watch: _Watch,
    history: History,
    ds: Dataset,
    model: nn.Module,
    layers: str | Sequence[str],
    a: Mapping[str, Any],
    *graph: Tensor,
) -> Tables:
    arm, x = a["arm"], ds.x[watch.samples]
    names = list(select_layers(model, layers))
    found = {
        "facts": facts(ds, watch.samples).assign(arm=arm, run=a["seeds"][0]),
        "scores": history.table.assign(arm=arm),
        "clusters": pd.DataFrame(watch.clusters).assign(arm=arm),
    }
    if rows := list(_drift(history.gradients)):
        found["gradients"] = pd.DataFrame(rows).assign(arm=arm)
    planes, measured = [watch.planes(arm)], list(_tolerated(watch, names, model, x, a, *graph))
    if measured:
        found["tolerated"] = pd.DataFrame(measured).assign(arm=arm)
        held = {"n_samples": len(x), "label_entropy": planes[0]["label_entropy"].iloc[0]}
        planes.append(as_plane(found["tolerated"]).assign(**held))
    return found | {"planes": pd.concat(planes, ignore_index=True)}


def as_plane(tolerated: pd.DataFrame) -> pd.DataFrame:
    """Return what tolerated noise finds as rows of a plane."""
    rows = tolerated[["arm", "run", "epoch", "layer", "i_xz", "i_zy"]].copy()
    rows["estimator"] = "tolerated"
    empty = MutualInformation(0.0, 0.0)._asdict()
    for name in empty.keys() - {"i_xz", "i_zy"}:
        rows[name] = tolerated.get(name, empty[name])
    return rows.assign(finite=True)


def _drift(gradients: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield, for each look, how far the gradients' mean stands above their deviation."""
    if gradients.empty:
        return
    for (run, epoch), rows in gradients.groupby(["run", "epoch"]):
        mean, deviation = rows["mean_norm"].sum(), rows["deviation_norm"].sum()
        if deviation > 0:
            ratio = torch.tensor(mean / deviation, dtype=torch.float64)
            drift = float(ratio.clamp(min=1e-12).log2())
            yield {"run": run, "epoch": epoch, "drift": drift, "deviation": deviation}


def _tolerated(
    watch: _Watch,
    names: list[str],
    model: nn.Module,
    x: Tensor,
    a: Mapping[str, Any],
    *graph: Tensor,
) -> Iterator[dict[str, Any]]:
    """Yield what each layer tolerates at the few snapshots, but for layers with too many units."""
    measure: Callable[..., Any] = ToleratedNoise(a["tolerance"])
    with ActivationTracker(model, names) as tracker:
        shapes = tracker.collect(x, *graph)
    narrow = [name for name in names if shapes[name][0].numel() <= MOST_UNITS]
    for (run, epoch), state in watch.states.items():
        model.load_state_dict(state)
        part, seen = _behind_maps(model, x) if isinstance(model, LeNet) else (model, x)
        for layer in narrow:
            try:
                found = measure(part, layer, seen, watch.y, *graph)
            except HangsOnRoundingError:
                found = Tolerated._make([math.nan] * len(Tolerated._fields))
            yield {"run": run, "epoch": epoch, "layer": layer, **found._asdict()}


@torch.no_grad()
def _behind_maps(model: LeNet, x: Tensor) -> tuple[nn.Sequential, Tensor]:
    """Return what follows LeNet's maps, and what it is given: the same answer in less time."""
    layers = OrderedDict(model.named_children())
    while "flatten" in layers:
        x = layers.popitem(last=False)[1](x)
    return nn.Sequential(layers), x


_PARTS = {"bits": _bits, "others": _others, "planted": planted.run}
