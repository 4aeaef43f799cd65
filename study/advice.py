"""Chapter 09: what those who judge layers advise, acted on: retrained, and counted."""

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import cache
from itertools import pairwise
from typing import Any

import pandas as pd
from torch import nn

from ibcore.capacity import SaturationTracker, diagnose, initial_widths
from ibcore.data import Dataset, load
from ibcore.training import fit
from study.measures import Tables, facts, float_type
from study.sizes import SCORES, count, hidden_layers, trained, without_graph

SHAPES = {"784-1024-20-20-20-10": (1024, 20, 20, 20), "784-300-100-10": (300, 100)}
ROUNDS = 3  # times that advice is asked for again, at most
AIM = (0.2, 0.4)  # saturation that delve's maintainers aim for, all layers scaled by one factor
WIDTHS = tuple[int, ...]
_LEARN: dict[str, Any] = {"learning_rate": 1e-3, "batch_size": 128}
_GRAPH: dict[str, Any] = {"learning_rate": 5e-3, "batch_size": None}


def followed(a: Mapping[str, Any]) -> Tables:
    """Return what each adviser makes of one shape on MNIST, and the evidence of the original."""
    options = {"seed": a["seed"], "dtype": float_type(a["dtype"]), "source": a["source"]}
    ds = load("mnist", size=a["images"], test_size=a["images"] // 2, **options)
    start = SHAPES[a["shape"]]

    @cache
    def train(widths: WIDTHS) -> tuple[nn.Module, dict[str, float]]:
        return trained("fc", ds, widths, a["seed"], a["epochs"], _LEARN)

    model, scores = train(start)
    report = judged("fc", model, ds, a["seed"])
    rows = [{"adviser": "none", "widths": _word(start), **scores}]
    first = widths_of(report)
    by_adviser = {
        "diagnose": first,
        "diagnose, asked again": _again(start, first, train, ds, a["seed"]),
        "as many directions as hold 99 % of the variance": tuple(report["directions"].clip(1)),
        "saturation of 20 to 40 %": _scaled_to_aim(start, report, train, ds),
        "all scaled alike, to the size of diagnose": alike(start, first, ds),
        "from the data alone": initial_widths(ds.x[ds.train], ds.y[ds.train], layers=len(start)),
    }
    for adviser, widths in by_adviser.items():
        rows.append({"adviser": adviser, "widths": _word(widths), **train(widths)[1]})
    size = train(first)[1]["parameters"]
    rows.append({"adviser": "magnitude of whole units", **pruned(model, ds, size, a)})
    keys = {"shape": a["shape"], "run": a["seed"]}
    return {
        "facts": facts(ds).assign(run=a["seed"]),
        "advice": pd.DataFrame(rows).assign(**keys),
        "evidence": report.assign(alpha=_exponents(model), **keys),
    }


def on_cora(a: Mapping[str, Any]) -> Tables:
    """Return the accuracy on Cora, in its usual split, of C3E's widths and of others."""
    ds = load("cora", source=a["source"], dtype=float_type(a["dtype"]), seed=a["seed"])
    start: WIDTHS = (64, 64)
    model, scores = trained("gcn", ds, start, a["seed"], a["epochs"], _GRAPH)
    first = widths_of(judged("gcn", model, ds, a["seed"]))
    rows = [{"adviser": "none", "widths": _word(start), **scores}]
    others: dict[str, WIDTHS] = {
        "diagnose": first,
        "from the data alone": initial_widths(ds.x[ds.train], ds.y[ds.train]),
        "C3E": tuple(a["widths"]),
    }
    for adviser, widths in others.items():
        found = trained("gcn", ds, widths, a["seed"], a["epochs"], _GRAPH)[1]
        rows.append({"adviser": adviser, "widths": _word(widths), **found})
    return {"advice": pd.DataFrame(rows).assign(shape="Cora, graph", run=a["seed"])}


def judged(kind: str, model: nn.Module, ds: Dataset, seed: int) -> pd.DataFrame:
    """Return `diagnose` of a network, without its print; a network that guesses is no surprise."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the network is right on")
        names = hidden_layers(kind, _hidden(model, kind))
        return diagnose(model, without_graph(kind, ds), layers=names, seed=seed, quiet=True)


def _hidden(model: nn.Module, kind: str) -> int:
    word = "rnn" if kind == "rnn" else "relu"
    return sum(name.startswith(word) for name, _ in model.named_modules())


def widths_of(report: pd.DataFrame) -> WIDTHS:
    """Return the widths that a report of `diagnose` recommends."""
    return tuple(int(width) for width in report["width"])


def _again(
    start: WIDTHS,
    first: WIDTHS,
    train: Callable[[WIDTHS], tuple[nn.Module, dict[str, float]]],
    ds: Dataset,
    seed: int,
) -> WIDTHS:
    """Return the widths where `diagnose` has no more to say, or those of the last round."""
    before, widths = start, first
    for _ in range(ROUNDS - 1):
        if widths == before:
            break
        before, widths = widths, widths_of(judged("fc", train(widths)[0], ds, seed))
    return widths


def _scaled_to_aim(
    start: WIDTHS,
    report: pd.DataFrame,
    train: Callable[[WIDTHS], tuple[nn.Module, dict[str, float]]],
    ds: Dataset,
) -> WIDTHS:
    """Return the widths, scaled by one factor, at which the mean saturation is as is aimed for."""
    widths, found = start, float(report["saturation"].mean())
    for _ in range(ROUNDS):
        if AIM[0] <= found <= AIM[1]:
            break
        factor = found / (sum(AIM) / 2)
        widths = tuple(max(1, round(width * factor)) for width in widths)
        model = train(widths)[0]
        with SaturationTracker(model, hidden_layers("fc", len(widths))) as tracker:
            tracker.look(0, ds.x[ds.train])
        found = float(tracker.table["saturation"].mean())
    return widths


def alike(start: WIDTHS, other: WIDTHS, ds: Dataset) -> WIDTHS:
    """Return the widths scaled by one factor to at most the parameters of other widths."""
    inputs, classes = ds.x[0].numel(), len(ds.classes)

    def size(widths: Sequence[int]) -> int:
        return sum((a + 1) * b for a, b in pairwise([inputs, *widths, classes]))

    most, low, high = (
        size(other),
        0.0,
        max(1.0, *(b / a for a, b in zip(start, other, strict=True))),
    )
    for _ in range(40):
        middle = (low + high) / 2
        tried = [max(1, math.floor(width * middle)) for width in start]
        low, high = (middle, high) if size(tried) <= most else (low, middle)
    return tuple(max(1, math.floor(width * low)) for width in start)


def pruned(model: nn.Module, ds: Dataset, size: float, a: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy without its units of the smallest weights, trained on for half as long.

    Units go from all layers together until no more parameters than `size` are left.
    """
    import torch_pruning as tp

    model = deepcopy(model)
    last = list(model.modules())[-1]
    example, steps = ds.x[:2], 40
    pruner = tp.pruner.MagnitudePruner(
        model, example, importance=tp.importance.MagnitudeImportance(p=2), global_pruning=True,
        pruning_ratio=0.99, iterative_steps=steps, ignored_layers=[last],
    )  # fmt: skip
    for _ in range(steps):
        if count(model) <= size:
            break
        pruner.step()
    half = max(1, a["epochs"] // 2)
    history = fit(
        model, ds, epochs=half, seed=a["seed"], snapshots=[half], progress=False, **_LEARN
    )
    scores = {name: float(history.table[name].iloc[-1]) for name in SCORES}
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    widths = [m.out_features for m in linear[:-1]]
    return {"widths": _word(widths), **scores, "parameters": count(model)}


def _exponents(model: nn.Module) -> list[float]:
    """Return for each hidden layer WeightWatcher's α; NaN for fewer than 50 eigenvalues."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of a fit that finds no tail
        import weightwatcher  # prints as it is imported

        table = weightwatcher.WeightWatcher(model=model).analyze(min_evals=50)
    found = dict(zip(table["name"], table["alpha"], strict=True)) if len(table) else {}
    linear = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    return [float(found.get(name, math.nan)) for name in linear[:-1]]


def _word(widths: Sequence[int]) -> str:
    return "-".join(str(int(width)) for width in widths)
