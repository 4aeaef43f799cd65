"""Chapter 09: how large networks had to be: planted layers, retrained ones, a ledger of bits."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from ibcore.capacity import (
    SaturationTracker,
    data_bits,
    initial_widths,
    intrinsic_dimension,
    label_information,
    linear_probes,
    memorised_bits,
    memory_capacity,
    prequential_by_blocks,
    prequential_by_rehearsal,
    weight_bits,
)
from ibcore.capacity.rank import LOST
from ibcore.checks import stream
from ibcore.data import Dataset
from ibcore.discrete import label_entropy
from ibcore.models import FullyConnected
from ibcore.tolerated import HangsOnRoundingError, ToleratedNoise
from ibcore.training import fit, snapshot_epochs
from study import advice
from study.measures import Tables, facts, float_type
from study.sizes import (
    KINDS,
    TRAINING,
    data_of,
    epochs_of,
    graph_of,
    held_out,
    hidden_layers,
    trained,
)

MAY_BE_EMPTY = frozenset({"parts", "kinds"})
MAY_BE_ZERO: frozenset[str] = frozenset()
MAY_REPEAT: frozenset[str] = frozenset({"c3e"})
ESTIMATORS: frozenset[str] = frozenset()
NARROW = 2  # units of a planted bottleneck
SMALLER, LARGER = 4, 4  # times that a layer is made so, to see by retraining what it was
SHAPES = ((4,), (16,), (64,), (256,), (16, 16), (64, 64), (256, 256), (64, 64, 64))
LEDGER = (
    "bits, fully connected",
    "names, fully connected",
    "MNIST, fully connected",
    "Cora, graph",
)
COURSE = ("bits, fully connected", "names, recurrent", "MNIST, fully connected", "Cora, graph")
TOLERANCE = 0.01  # bits by which the answer may change under tolerated noise
INPUTS = 20  # numbers a sample with a random label has
_FEW = 1000  # samples that weights, noise and probes are measured on
PARTS = ("planted", "acted", "advice", "cora", "ledger", "data", "memorised", "course")


@dataclass(frozen=True)
class Settings:
    """What the chapter can be asked for; the defaults are those of the record."""

    parts: tuple[str, ...] = ()  # of the chapter, names in study.capacity; none takes all
    kinds: tuple[str, ...] = ()  # of networks, names in study.sizes; none takes all
    source: str = "original"  # of the data: "original", "stand-in", or "any" of the two
    bits_epochs: int = 200  # passes over the 12-bit inputs
    cora_epochs: int = 60  # passes over the nodes of Cora, all in one batch
    names_epochs: int = 40  # passes over the names
    mnist_epochs: int = 8  # passes over the images
    size: int = 4000  # images to train on, and half as many to test on
    wide: int = 16  # times the ordinary width, that an over-sized layer is planted with
    planted_runs: int = 2  # networks (seeds) of each planted case
    acted_runs: int = 2  # networks of each case with one layer changed
    advice_runs: int = 5  # networks whose shape is changed as advisers say
    images: int = 20000  # that these are trained on, and half as many to test on
    advice_epochs: int = 15  # passes over them
    c3e: tuple[int, ...] = (1982, 1147)  # widths for Cora by C3E
    c3e_epochs: int = 40  # passes over Cora, in its usual split
    ledger_runs: int = 3  # networks of each shape and data set in the ledger of bits
    depths: tuple[int, ...] = (1, 2, 3)  # hidden layers of networks that learn random labels
    units: tuple[int, ...] = (8, 16, 32)  # of each of their hidden layers
    rates: tuple[float, ...] = (2e-3, 1e-2)  # step sizes of Adam that they learn with
    multiples: tuple[float, ...] = (1.5, 2.0, 2.5, 3.0)  # of their parameters: how many labels
    memory_steps: int = 3000  # steps of Adam, on all labels at once
    memory_runs: int = 2  # sets of random labels
    course_runs: int = 2  # networks that are followed while they learn
    snapshots: int = 6  # epochs looked at, even on a log axis
    seed: int = 110  # first seed: none of those that the rule was set with
    dtype: str = "float32"  # float type of data and weights


def check(settings: Settings) -> None:
    """Raise ValueError where settings don't fit one another."""
    s = settings
    if unknown := sorted(set(s.parts) - set(PARTS)):
        raise ValueError(f"capacity: parts has {unknown}: there are {list(PARTS)}")
    if unknown := sorted(set(s.kinds) - set(KINDS)):
        raise ValueError(f"capacity: kinds has {unknown}: there are {list(KINDS)}")
    if len(s.c3e) != 2:
        raise ValueError(f"capacity: c3e has two widths, got {list(s.c3e)}")
    if s.size % 2 or s.images % 2:
        raise ValueError(f"capacity: size and images must be even, got {s.size} and {s.images}")


def jobs(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the jobs: a part, a kind of network and a seed each."""
    s, found = settings, dict[str, dict[str, Any]]()
    epochs = {f"{name}_epochs": getattr(s, f"{name}_epochs") for name in _TIMES}
    shared = {"source": s.source, "size": s.size, "dtype": s.dtype, **epochs}
    planted = shared | {"wide": s.wide}

    def add(part: str, names: Sequence[Any], runs: int, **more: Any) -> None:
        if s.parts and part not in s.parts:
            return
        for name in names:
            for seed in range(s.seed, s.seed + runs):
                key = f"{part}-{_slug(str(name))}-{seed}"
                found[key] = {"part": part, "name": name, "seed": seed, **more}

    def chosen(kinds: Iterable[str]) -> list[str]:
        return [kind for kind in kinds if not s.kinds or kind in s.kinds]

    add("planted", chosen(KINDS), s.planted_runs, **planted)
    add("acted", chosen(KINDS), s.acted_runs, **planted)
    add("ledger", chosen(LEDGER), s.ledger_runs, **shared)
    add("data", chosen(LEDGER), 1, **shared)
    add("course", chosen(COURSE), s.course_runs, snapshots=s.snapshots, **shared)
    pictures = {"source": s.source, "images": s.images, "epochs": s.advice_epochs}
    add("advice", list(advice.SHAPES), s.advice_runs, dtype=s.dtype, **pictures)
    graph = {"source": s.source, "widths": s.c3e, "epochs": s.c3e_epochs, "dtype": s.dtype}
    add("cora", ["widths"], s.advice_runs, **graph)
    learned = {"rates": s.rates, "multiples": s.multiples, "steps": s.memory_steps}
    learned |= {"units": s.units, "dtype": s.dtype}
    add("memorised", s.depths, s.memory_runs, **learned)
    return found


_TIMES = ("bits", "cora", "names", "mnist")


def run(arguments: Mapping[str, Any]) -> Tables:
    """Return the tables of one job; bits are of the whole training set where not said otherwise.

    facts: see `measures.facts`, and run; of advice and data.
    layers: kind, case, run, place (of the layer, from 1), planted (bottleneck, over-sized or
        nothing), columns of `diagnose`, accuracies of the network.
    acted: kind, case, run, place ("0": the case itself), change (smaller, larger), parameters,
        scores.
    advice: shape, adviser, run, widths, parameters, scores.
    evidence: shape, run, columns of `diagnose`, alpha (WeightWatcher's).
    ledger: kind, shape, run, parameters, scores, saturation, and in bits: labels (N·H(Y)), learned
        (N·H(Y) less the loss on it), held (memory-equivalent capacity), weights (their entropy at
        the coarsest steps), written (of their change).
    weights: kind, shape, run, columns of `weight_bits`.
    data: kind, quantity, sort (estimate, upper bound, lower bound), value (bits a sample, or a
        number), total (over the training samples, in bits).
    memorised: depth, units, rate, run, columns of `memorised_bits`.
    course: kind, run, epoch, layer, columns of `Used`, and rate, directions_heard, i_xz (of the
        tolerated noise, in bits), probe (accuracy of a linear reader), scores.
    """
    a = arguments
    return _PARTS[a["part"]](a)


def cases(kind: str, wide: int) -> Iterator[tuple[str, tuple[int, ...], dict[int, str]]]:
    """Yield the cases of a kind: name, widths, and which places are planted as what."""
    ordinary = KINDS[kind][2]
    yield "ordinary", ordinary, {}
    for place, width in enumerate(ordinary):
        for verdict, other in (("bottleneck", NARROW), ("over-sized", wide * width)):
            widths = (*ordinary[:place], other, *ordinary[place + 1 :])
            yield f"{verdict} {place + 1}", widths, {place: verdict}


def _case(a: Mapping[str, Any], ds: Dataset, widths: Sequence[int]) -> tuple[nn.Module, Any]:
    name, net, _ = KINDS[a["name"]]
    return trained(net, ds, widths, a["seed"], epochs_of(name, a), TRAINING[name])


def _planted(a: Mapping[str, Any]) -> Tables:
    name, net, _ = KINDS[a["name"]]
    ds, parts = data_of(name, a, a["seed"]), []
    for case, widths, planted in cases(a["name"], a["wide"]):
        model, scores = _case(a, ds, widths)
        report = advice.judged(net, model, ds, a["seed"])
        said = [planted.get(place, "") for place in range(len(widths))]
        places = range(1, len(widths) + 1)
        keys = {"kind": a["name"], "case": case, "run": a["seed"]}
        accuracies = {n: scores[n] for n in ("train_accuracy", "test_accuracy")}
        parts.append(report.assign(**keys, place=places, planted=said, **accuracies))
    return {"layers": pd.concat(parts, ignore_index=True)}


def _acted(a: Mapping[str, Any]) -> Tables:
    name, _, ordinary = KINDS[a["name"]]
    ds, rows = data_of(name, a, a["seed"]), []
    for case, widths, _ in cases(a["name"], a["wide"]):
        changes: list[tuple[int, str, tuple[int, ...]]] = [(0, "none", widths)]
        for place, width in enumerate(widths):
            other = {"smaller": max(1, width // SMALLER), "larger": width * LARGER}
            if width > ordinary[place]:
                del other["larger"]  # wide as it is
            for change, units in other.items():
                changed = (*widths[:place], units, *widths[place + 1 :])
                changes.append((place + 1, change, changed))
        for place, change, changed in changes:
            scores = _case(a, ds, changed)[1]
            rows.append({"case": case, "place": place, "change": change, **scores})
    return {"acted": pd.DataFrame(rows).assign(kind=a["name"], run=a["seed"])}


def _ledger(a: Mapping[str, Any]) -> Tables:
    name, net, _ = KINDS[a["name"]]
    ds = data_of(name, a, a["seed"])
    y = ds.y[ds.train]
    labels = len(y) * label_entropy(y)
    given = initial_widths(ds.x[ds.train], y)
    x_out, y_out, chosen = held_out(ds, _FEW)
    graph = graph_of(net, ds)
    rows, tensors = [], []
    for shape in (*SHAPES, given):
        before: dict[str, Tensor] = {}

        def keep(model: nn.Module, state: dict[str, Tensor] = before) -> None:
            state.update(deepcopy(model.state_dict()))

        model, scores = trained(
            net, ds, shape, a["seed"], epochs_of(name, a), TRAINING[name], watch=keep
        )
        bits = weight_bits(
            model, x_out, y_out, *graph, lost=LOST, before=before, draws=2, seed=a["seed"],
            chosen=chosen, batch_size=None if graph else 4096,
        )  # fmt: skip
        keys = {"kind": a["name"], "shape": "-".join(map(str, shape)), "run": a["seed"]}
        keys["from_data"] = shape is given
        tensors.append(bits.assign(**keys))
        whole = bits[bits["weight"] == "all"].iloc[0]
        rows.append(
            {
                **keys,
                **scores,
                "saturation": _saturation(model, net, ds, len(shape)),
                "labels": labels,
                "learned": labels - len(y) * scores["train_loss"],
                "held": _held(model, ds) if net == "fc" else math.nan,
                "weights": whole["total"],
                "written": whole["written"] * whole["size"],
            }
        )
    return {
        "ledger": pd.DataFrame(rows),
        "weights": pd.concat(tensors, ignore_index=True),
        "facts": facts(ds).assign(run=a["seed"]),
    }


def _saturation(model: nn.Module, net: str, ds: Dataset, count: int) -> float:
    """Return the mean saturation of the hidden layers, on the training samples."""
    graph = graph_of(net, ds)
    with SaturationTracker(model, hidden_layers(net, count)) as tracker:
        x = ds.x if graph else ds.x[ds.train]
        tracker.look(0, x, *graph, batch_size=None if graph else 4096)
    return float(tracker.table["saturation"].mean())


def _held(model: nn.Module, ds: Dataset) -> float:
    return float(memory_capacity(model, ds.x[:1])["bits"].sum())


def _data(a: Mapping[str, Any]) -> Tables:
    name, net, ordinary = KINDS[a["name"]]
    ds = data_of(name, a, a["seed"])
    order = ds.train[torch.randperm(len(ds.train), generator=stream(a["seed"], "order"))]
    x, y, count = ds.x[order], ds.y[order], len(order)
    rows: list[tuple[str, str, float, float]] = []
    for _, row in data_bits(x.squeeze(1) if name == "mnist" else x, y, seed=a["seed"]).iterrows():
        quantity = f"{row['of']}, {row['method']}"
        rows.append((quantity, row["kind"], row["bits"], count * row["bits"]))

    model = _case(a, ds, ordinary)[0]
    with torch.no_grad():
        logits = model(ds.x, *graph_of(net, ds))[ds.test]
    shown = label_information(logits, ds.y[ds.test])
    rows.append(("labels by inputs, held-out", "lower bound", shown, count * shown))

    sizes = [x[0].numel(), *ordinary, len(ds.classes)]  # of the code: no graph, no recurrence
    build = partial(FullyConnected, sizes, "relu", seed=a["seed"])
    learn, epochs = TRAINING[name], epochs_of(name, a)

    def make() -> nn.Module:
        return build().to(x.dtype)

    def train(network: nn.Module, seen: Tensor, labels: Tensor) -> None:
        _fit_on(network, seen, labels, epochs, learn, a["seed"])

    for quantity, code in {
        "labels, prequential by blocks": prequential_by_blocks(make, x, y, train),
        "labels, prequential by rehearsal": prequential_by_rehearsal(
            make(), x, y, learning_rate=learn["learning_rate"], seed=a["seed"], progress=False
        ),
    }.items():
        total = float(code["bits"].sum())
        rows.append((quantity, "upper bound", total / count, total))
    try:
        for method, number in intrinsic_dimension(x, seed=a["seed"]).items():
            rows.append((f"dimension, {method}", "estimate", number, math.nan))
    except ValueError:  # words and bits lie on a grid, where distances tell nothing
        rows.append(("dimension", "not defined on a grid", math.nan, math.nan))
    table = pd.DataFrame(rows, columns=["quantity", "sort", "value", "total"])
    return {"data": table.assign(kind=a["name"], run=a["seed"])}


def _fit_on(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    epochs: int,
    learn: Mapping[str, Any],
    seed: int,
) -> None:
    """Train on some samples as on all."""
    some = Dataset.from_arrays(x, y, train=torch.arange(len(x)), test=torch.arange(0))
    fit(model, some, epochs=epochs, seed=seed, snapshots=[epochs], progress=False, **learn)


def _memorised(a: Mapping[str, Any]) -> Tables:
    parts = []
    for units in a["units"]:
        widths = [INPUTS, *[units] * a["name"], 2]
        size = sum(w.numel() for w in FullyConnected(widths, "relu", seed=0).parameters())
        counts = [int(size * multiple) for multiple in a["multiples"]]
        drawn = stream(a["seed"], "memorised")
        x = torch.randn(max(counts), INPUTS, generator=drawn, dtype=torch.float64)
        x = x.to(float_type(a["dtype"]))
        for rate in a["rates"]:
            make = partial(_fresh, widths, a["seed"], x.dtype)
            train = partial(_by_heart, rate=rate, steps=a["steps"])
            found = memorised_bits(make, x, train, counts, seed=a["seed"], progress=False)
            parts.append(found.assign(depth=a["name"], units=units, rate=rate, run=a["seed"]))
    return {"memorised": pd.concat(parts, ignore_index=True)}


def _fresh(widths: Sequence[int], seed: int, dtype: torch.dtype) -> nn.Module:
    return FullyConnected(widths, "relu", seed=seed).to(dtype)


def _by_heart(model: nn.Module, x: Tensor, y: Tensor, rate: float, steps: int) -> None:
    """Train on all samples at once, with a step that falls to nothing along half a cosine."""
    adam = torch.optim.Adam(model.parameters(), lr=rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(steps):
        adam.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        adam.step()
        falling.step()


def _course(a: Mapping[str, Any]) -> Tables:
    name, net, widths = KINDS[a["name"]]
    ds = data_of(name, a, a["seed"])
    graph, parts = graph_of(net, ds), []
    names = hidden_layers(net, len(widths))
    read = [n.replace("rnn", "last") for n in names]  # what stands for the layer, without steps
    some = ds.train[:_FEW]
    x, y = (ds.x, ds.y) if graph else (ds.x[some], ds.y[some])
    epochs = epochs_of(name, a)
    looks = snapshot_epochs(epochs, a["snapshots"])

    def watch(model: nn.Module) -> Any:
        def look(epoch: int, history: Any) -> None:
            if epoch not in looks:
                return
            with SaturationTracker(model, names) as tracker:
                inside = ds.x if graph else ds.x[ds.train]
                tracker.look(epoch, inside, *graph, batch_size=None if graph else 4096)
            probes = linear_probes(
                model, ds.x, ds.y, *graph, train=ds.train, test=ds.test, layers=read
            )
            nothing = (math.nan,) * 3  # a recurrent layer's last state is read by no other layer
            noise = [
                nothing if net == "rnn" and n != read[-1] else _tolerated(model, n, x, y, graph)
                for n in read
            ]
            table = tracker.table.assign(probe=[probes[n] for n in read])
            columns = ("rate", "directions_heard", "i_xz")
            for column, found in zip(columns, zip(*noise, strict=True), strict=True):
                table[column] = found
            parts.append(table)

        return look

    trained(net, ds, widths, a["seed"], epochs, TRAINING[name], watch=watch)
    table = pd.concat(parts, ignore_index=True)
    return {"course": table.assign(kind=a["name"], run=a["seed"], classes=len(ds.classes))}


def _tolerated(
    model: nn.Module, layer: str, x: Tensor, y: Tensor, graph: tuple[Tensor, ...]
) -> tuple[float, float, float]:
    """Return rate, directions and I(X;T) under the noise that the answer tolerates, or NaN."""
    was = model.training
    try:
        found = ToleratedNoise(TOLERANCE, queries=500)(model.eval(), layer, x, y, *graph)
    except HangsOnRoundingError:
        return math.nan, math.nan, math.nan
    finally:
        model.train(was)
    return found.rate, float(found.directions), found.i_xz


def _slug(name: str) -> str:
    return name.lower().replace(", ", "-").replace(" ", "-")


_PARTS = {
    "planted": _planted,
    "acted": _acted,
    "advice": lambda a: advice.followed({"shape": a["name"], **a}),
    "cora": advice.on_cora,
    "ledger": _ledger,
    "data": _data,
    "memorised": _memorised,
    "course": _course,
}
