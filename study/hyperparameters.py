"""Chapter 08: searches that plane quantities guide, and rules that say when a training may end."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from ibcore.data import Dataset
from ibcore.estimators import Pairwise
from ibcore.estimators.adaptive import AdaptiveBinning
from ibcore.hooks import ActivationTracker, GradientTracker
from ibcore.models import FullyConnected
from ibcore.training import Snapshot, fit
from study import scratch
from study.measures import Tables, facts, placed
from study.model_fit import _at_hand, _data, flipped
from study.search import SPACE, search
from study.sizes import KINDS, TRAINING, network, without_graph

MAY_BE_EMPTY = frozenset({"data", "objectives", "searched"})
MAY_BE_ZERO = frozenset({"noisy"})
MAY_REPEAT: frozenset[str] = frozenset()
ESTIMATORS: frozenset[str] = frozenset()
Measured = Mapping[str, float]
# What a search may go by, to be as large as can be. "validation" has labels that the rest lack;
# "held back" takes them from the training samples, and trains on fewer. The rest know no others.
HELD_BACK = "held back"
OBJECTIVES: dict[str, Callable[[Measured], float]] = {
    "validation": lambda m: m["validation"],
    HELD_BACK: lambda m: m["validation"],
    "training loss": lambda m: -m["train_loss"],
    "I(T;Y)": lambda m: m["i_zy"],
    "I(T;Y) − I(X;T|Y)": lambda m: 2 * m["i_zy"] - m["i_xz"],
    "error and bound": lambda m: m["train_accuracy"] - 1 - m["bound"],
}
DATA = {name: kind for kind, (name, net, _) in KINDS.items() if net == "fc"}


@dataclass(frozen=True)
class Settings:
    """What the chapter can be asked for; the defaults are those of the record."""

    data: tuple[str, ...] = ()  # sets, names of ibcore.data.load; none takes all four
    source: str = "original"  # of the data: "original", "stand-in", or "any" of the two
    objectives: tuple[str, ...] = ()  # of searches, names in study.hyperparameters; none takes all
    searched: tuple[str, ...] = ()  # hyper-parameters, names in study.search.SPACE; none takes all
    trials: int = 30  # networks of a search
    epochs: int = 20  # passes of each trial
    searches: int = 20  # of each objective on each data set
    most: int = 500  # samples to train on, at most
    size: int = 2000  # images, as many held out
    validation: int = 100  # held-out samples that validate; none of them is reported on
    bins: int = 30  # of the adaptive bins
    noise_variance: float = 0.1  # sigma squared of the bounds, squared activation
    noisy: tuple[float, ...] = (0.0, 0.2)  # shares of training labels that are wrong, for stopping
    course: int = 100  # passes of a training that rules may end
    batch_size: int = 64  # samples a step of these
    runs: int = 20  # of these trainings of each data set and share
    seed: int = 100  # first seed: none of those that settings were tried with
    dtype: str = "float64"  # float type of data and weights: a search hangs on the last digits


def check(settings: Settings) -> None:
    """Raise ValueError where settings don't fit one another."""
    s = settings
    known = {"data": list(DATA), "objectives": list(OBJECTIVES), "searched": list(SPACE)}
    for name, names in known.items():
        if unknown := sorted(set(getattr(s, name)) - set(names)):
            raise ValueError(f"hyperparameters: {name} has {unknown}: there are {names}")
    if not max(s.noisy) < 1:
        raise ValueError(f"hyperparameters: noisy are shares below 1, got {list(s.noisy)}")


def jobs(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the jobs: of a data set and seed all searches, or the trainings that rules may end."""
    s = settings
    names = ("source", "most", "size", "validation", "bins", "noise_variance", "dtype")
    shared = {name: getattr(s, name) for name in names}
    found: dict[str, dict[str, Any]] = {}
    for name in (name for name in DATA if not s.data or name in s.data):
        for seed in range(s.seed, s.seed + s.searches):
            found[f"search-{name}-{seed}"] = {
                "part": "search", "name": name, "seed": seed, **shared, "trials": s.trials,
                "epochs": s.epochs, "searched": s.searched or tuple(SPACE),
                "objectives": s.objectives or tuple(OBJECTIVES),
            }  # fmt: skip
        for seed in range(s.seed, s.seed + s.runs):
            found[f"course-{name}-{seed}"] = {
                "part": "course", "name": name, "seed": seed, **shared, "noisy": s.noisy,
                "epochs": s.course, "batch_size": s.batch_size,
            }  # fmt: skip
    return found


def run(arguments: Mapping[str, Any]) -> Tables:
    """Return the tables of one job.

    facts: see `measures.facts`, and run.
    trials: data, run, sampler, objective (what the search went by, "none" at random), and a trial
        as `search.search` has it, with what `measured` returns.
    courses: data, run, noisy (share of wrong labels), epoch, train_loss (bits), train_accuracy,
        test_accuracy, validation (accuracy), drift (log₂ of the sum of the gradients' mean norms by
        that of their deviations), i_xz and i_zy (of the last hidden layer on the training samples,
        by the lower bound).
    """
    a = arguments
    ds, validate = _data(a["name"], a)
    ds = replace(without_graph("fc", ds), train=ds.train[: a["most"]])
    keys = {"data": a["name"], "run": a["seed"]}
    told = {"facts": facts(ds).assign(run=a["seed"])}
    if a["part"] == "search":
        return told | {"trials": _trials(ds, validate, keys, a)}
    parts = [_course(ds, validate, share, a).assign(**keys, noisy=share) for share in a["noisy"]]
    return told | {"courses": pd.concat(parts, ignore_index=True)}


def _trials(
    ds: Dataset, validate: Tensor, keys: Mapping[str, Any], a: Mapping[str, Any]
) -> pd.DataFrame:
    known: dict[str, dict[str, float]] = {}  # the searches of a job begin with the same trials
    few = min(len(validate), len(ds.train) // 2)
    fewer = replace(ds, train=ds.train[few:])

    def evaluate(given: Mapping[str, Any]) -> dict[str, float]:
        key = json.dumps(given, sort_keys=True)
        if key not in known:
            known[key] = measured(given, ds, validate, a)
        return known[key]

    def held_back(given: Mapping[str, Any]) -> dict[str, float]:
        return measured(given, fewer, ds.train[:few], a)

    asked = json.dumps({k: v for k, v in a.items() if k not in ("trials", "objectives")})
    searches = [("random", "none"), *(("TPE", word) for word in a["objectives"])]
    parts = []
    with scratch.kept() as folder:
        for sampler, word in searches:
            found = search(
                held_back if word == HELD_BACK else evaluate,
                OBJECTIVES.get(word, lambda m: 0.0),
                sampler=sampler, trials=a["trials"], seed=a["seed"], searched=a["searched"],
                journal=folder / f"{searches.index((sampler, word))}.journal",
                asked=f"{word}, {asked}",
            )  # fmt: skip
            parts.append(found.assign(**keys, sampler=sampler, objective=word))
    return pd.concat(parts, ignore_index=True)


def measured(
    given: Mapping[str, Any], ds: Dataset, validate: Tensor, a: Mapping[str, Any]
) -> dict[str, float]:
    """Return what there is to know of a network of these parameters after its training.

    Scores as in a `History`, validation (accuracy), i_xz and i_zy of the last hidden layer by the
    lower bound on the training samples, bound: √((I(X;T|Y) + distance) / samples), with adaptive
    bins and the weights' distance from their start, see `study.model_fit`.

    Raises:
        TrainingDivergedError: the loss is no longer finite.
    """
    widths = [ds.x[0].numel(), *given["widths"], len(ds.classes)]
    kind = given["activation"]
    model, start = (
        placed(FullyConnected(widths, kind, seed=a["seed"]), ds) for _ in ("trained", "kept")
    )
    history = fit(
        model, ds, epochs=a["epochs"], learning_rate=given["learning_rate"],
        batch_size=given["batch_size"], seed=a["seed"], snapshots=[a["epochs"]], progress=False,
        optimizer=partial(torch.optim.AdamW, weight_decay=given["decay"]),
    )  # fmt: skip
    scores = history.scores[-1]
    model, start = model.cpu(), start.cpu()
    known = _at_hand(model, start, "fc", ds, validate)
    layer = f"{kind}{len(given['widths'])}"
    with ActivationTracker(model, [layer]) as tracker:
        z = tracker.collect(ds.x[ds.train])[layer]
    y = ds.y[ds.train]
    found = Pairwise(a["noise_variance"])(z, y)["BD"]
    binned = AdaptiveBinning(a["bins"])(z, y)["AdaptiveBinning"]
    bits = binned.i_xz - binned.i_zy + known["distance"]
    return {
        **{name: float(v) for name, v in scores.items() if name not in ("run", "epoch")},
        "validation": known["validation"],
        "i_xz": found.i_xz,
        "i_zy": found.i_zy,
        "bound": math.sqrt(bits / len(y)),
    }


def _course(ds: Dataset, validate: Tensor, share: float, a: Mapping[str, Any]) -> pd.DataFrame:
    """Return a training epoch by epoch; its network is the ordinary one of the data."""
    _, net, widths = KINDS[DATA[a["name"]]]
    ds = replace(ds, y=flipped(ds, share, a["seed"]))
    model = placed(network(net, ds, widths, a["seed"]), ds)
    y, rows = ds.y[ds.train], []
    layer = f"relu{len(widths)}"

    def look(snapshot: Snapshot) -> None:
        z = snapshot.activations[layer][ds.train.to(snapshot.activations[layer].device)]
        found = Pairwise(a["noise_variance"])(z.cpu(), y)["BD"]
        right = _right(model, ds, validate)
        rows.append({"validation": right, "i_xz": found.i_xz, "i_zy": found.i_zy})

    with ActivationTracker(model, [layer]) as tracker, GradientTracker(model) as gradients:
        history = fit(
            model, ds, epochs=a["epochs"], batch_size=a["batch_size"], seed=a["seed"],
            learning_rate=TRAINING[a["name"]]["learning_rate"], tracker=tracker,
            gradients=gradients, on_snapshot=look, snapshots=range(1, a["epochs"] + 1),
            progress=False,
        )  # fmt: skip
    sums = history.gradients.groupby("epoch")[["mean_norm", "deviation_norm"]].sum()
    ratio = (sums["mean_norm"] / sums["deviation_norm"]).map(math.log2)
    table = history.table.drop(columns=["run", "test_loss"]).assign(drift=ratio.to_numpy())
    return pd.concat([table, pd.DataFrame(rows)], axis=1)


@torch.no_grad()
def _right(model: nn.Module, ds: Dataset, index: Tensor) -> float:
    device = next(model.parameters()).device
    right = model(ds.x[index].to(device)).argmax(1).cpu() == ds.y[index]
    return float(right.double().mean())
