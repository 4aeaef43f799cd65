"""Chapter 07: networks that fit too little or too much, on purpose, and all that might tell."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from ibcore.checks import stream
from ibcore.data import Dataset, load
from ibcore.discrete import label_entropy
from ibcore.estimators import Pairwise
from ibcore.estimators.adaptive import AdaptiveBinning
from ibcore.estimators.noise import Proportional
from ibcore.hooks import ActivationTracker
from ibcore.interface import Estimator
from ibcore.tolerated import HangsOnRoundingError, ToleratedNoise
from study.measures import Tables, facts, float_type
from study.sizes import (
    CORA_SHARE,
    KINDS,
    TRAINING,
    epochs_of,
    graph_of,
    hidden_layers,
    network,
    trained,
    without_graph,
)  # fmt: skip

MAY_BE_EMPTY = frozenset({"kinds", "variants"})
MAY_BE_ZERO: frozenset[str] = frozenset()
MAY_REPEAT: frozenset[str] = frozenset()
ESTIMATORS: frozenset[str] = frozenset()
VARIANTS = ("ordinary", "narrow", "wide", "brief", "noisy labels")
SETS = ("training", "held out", "all")  # samples that planes are measured on
_TIMES = ("bits", "cora", "names", "mnist")
_QUERIES = 300  # samples that I(X;T) is a mean over, with tolerated noise


@dataclass(frozen=True)
class Settings:
    """What the chapter can be asked for; the defaults are those of the record."""

    kinds: tuple[str, ...] = ()  # of networks, names in study.sizes; none takes all
    variants: tuple[str, ...] = ()  # of their training, names in study.model_fit; none takes all
    source: str = "original"  # of the data: "original", "stand-in", or "any" of the two
    shares: tuple[float, ...] = (1.0, 0.7, 0.5, 0.35, 0.25, 0.125)  # of the training samples
    bits_epochs: int = 200  # passes over all training samples; over fewer, as many steps
    cora_epochs: int = 100  # passes, all samples in one batch
    names_epochs: int = 60  # as bits_epochs
    mnist_epochs: int = 8  # as bits_epochs
    size: int = 4000  # images to train on, and as many held out
    narrower: int = 8  # times, of a narrow network
    wider: int = 4  # times, of a wide one
    briefer: int = 8  # times, of a brief training
    flipped: float = 0.2  # of the training labels, where they are noisy
    validation: int = 100  # held-out samples that validate; none of them is reported on
    samples: int = 500  # that planes are measured on, at most
    bins: int = 30  # of the adaptive bins
    noise_variance: float = 0.1  # sigma squared of the bounds, squared activation
    tolerance: float = 0.01  # bits by which the answer may change
    runs: int = 5  # networks (seeds) of each kind, share and variant
    seed: int = 100  # first seed: none of those that settings were tried with
    dtype: str = "float32"  # float type of data and weights


def check(settings: Settings) -> None:
    """Raise ValueError where settings don't fit one another."""
    s = settings
    for name, known in (("kinds", KINDS), ("variants", VARIANTS)):
        if unknown := sorted(set(getattr(s, name)) - set(known)):
            raise ValueError(f"model_fit: {name} has {unknown}: there are {list(known)}")
    if max(s.shares) > 1:
        raise ValueError(f"model_fit: shares lie above 0 and up to 1, got {list(s.shares)}")
    if not s.flipped < 1:
        raise ValueError(f"model_fit: flipped is a share below 1, got {s.flipped}")


def jobs(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the jobs: a kind of network and a seed each."""
    s = settings
    names = (
        "source", "shares", "size", "narrower", "wider", "briefer", "flipped", "validation",
        "samples", "bins", "noise_variance", "tolerance", "dtype",
    )  # fmt: skip
    shared = {name: getattr(s, name) for name in names}
    shared |= {f"{name}_epochs": getattr(s, f"{name}_epochs") for name in _TIMES}
    shared["variants"] = s.variants or VARIANTS
    found = {}
    for kind in (kind for kind in KINDS if not s.kinds or kind in s.kinds):
        for seed in range(s.seed, s.seed + s.runs):
            key = f"{kind.lower().replace(', ', '-').replace(' ', '-')}-{seed}"
            found[key] = {"name": kind, "seed": seed, **shared}
    return found


def run(arguments: Mapping[str, Any]) -> Tables:
    """Return the tables of one job.

    facts: see `measures.facts`, and run.
    networks: kind, run, share, variant, samples (trained on), scores, and what is at hand without a
        plane: validation (accuracy), margin (median over the training samples of the right logit
        less the largest other), norm (of all weights), distance (from the start: Σ (w − w₀)² / 2s²
        over weight matrices, s the deviation of w₀, in bits), label_entropy (of the labels trained
        on, in bits).
    planes: kind, run, share, variant, samples (one of `SETS`), n (of these), estimator, layer,
        place (from the first, 1), i_xz, i_zy. Within a kind a set has as many samples for all
        shares, held-out ones as many as training ones. Estimators: adaptive "bins"; "bound", the
        lower of the pairwise ones, and "proportional", the same with noise by the scale of the
        layer; "tolerated" noise of the last layer, which a graph has for "all" alone.
    """
    a = arguments
    name, net, widths = KINDS[a["name"]]
    whole, validate = _data(name, a)
    sets = _sets(whole, a)
    rows, planes = [], []
    for share in a["shares"]:
        some = replace(whole, train=whole.train[: _count(whole, share)])
        for variant in a["variants"]:
            ds, units, epochs, learn = _varied(variant, some, widths, name, share, a)
            model, scores = trained(net, ds, units, a["seed"], epochs, learn)
            model = model.cpu().eval()
            keys = {"kind": a["name"], "run": a["seed"], "share": share, "variant": variant}
            start = network(net, ds, units, a["seed"]).to(ds.x.dtype)
            held = {**keys, "samples": len(ds.train), **scores}
            rows.append(held | _at_hand(model, start, net, ds, validate))
            planes += [{**keys, **row} for row in _planes(model, net, ds, sets, a)]
    return {
        "facts": facts(whole).assign(run=a["seed"]),
        "networks": pd.DataFrame(rows),
        "planes": pd.DataFrame(planes),
    }


def _data(name: str, a: Mapping[str, Any]) -> tuple[Dataset, Tensor]:
    """Return the data, half or more held out, and the indices of those that validate."""
    options: dict[str, Any] = {"seed": a["seed"], "dtype": float_type(a["dtype"])}
    if name == "mnist":
        options |= {"size": a["size"], "test_size": a["size"]}
    if name in ("tishby", "names"):
        options["train_fraction"] = 0.5
    if name != "tishby":
        options["source"] = a["source"]
    ds = load(name, **options)
    ds = ds.split(CORA_SHARE, a["seed"]) if name == "cora" else ds
    order = stream(a["seed"], "shares")
    train = ds.train[torch.randperm(len(ds.train), generator=order)]
    test = ds.test[torch.randperm(len(ds.test), generator=order)]
    few = min(a["validation"], len(test) // 2)
    return replace(ds, train=train, test=test[few:]), test[:few]


def _sets(ds: Dataset, a: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return indices by set, the same for all shares: of the training samples those in each."""
    most = a["samples"]
    drawn = torch.randperm(len(ds.x), generator=stream(a["seed"], "all samples"))
    fewest = ds.train[: _count(ds, min(a["shares"]))]
    return dict(
        zip(SETS, (fewest[:most], ds.test[: len(fewest)][:most], drawn[:most]), strict=True)
    )


def _count(ds: Dataset, share: float) -> int:
    return max(1, round(share * len(ds.train)))


def _varied(
    variant: str,
    ds: Dataset,
    widths: tuple[int, ...],
    name: str,
    share: float,
    a: Mapping[str, Any],
) -> tuple[Dataset, tuple[int, ...], int, Mapping[str, Any]]:
    """Return data, widths, epochs and how to learn; fewer samples get as many steps as all."""
    learn = TRAINING[name]
    epochs = epochs_of(name, a)
    if learn["batch_size"] is not None:
        epochs = math.ceil(epochs / share)
    if variant == "narrow":
        widths = tuple(max(1, width // a["narrower"]) for width in widths)
    elif variant == "wide":
        widths = tuple(width * a["wider"] for width in widths)
    elif variant == "brief":
        epochs = max(1, epochs // a["briefer"])
    elif variant == "noisy labels":
        ds = replace(ds, y=flipped(ds, a["flipped"], a["seed"]))
    return ds, widths, epochs, learn


def flipped(ds: Dataset, share: float, seed: int) -> Tensor:
    """Return the labels, a share of those trained on replaced by another class each."""
    draw, y = stream(seed, "flipped"), ds.y.clone()
    wrong = ds.train[torch.randperm(len(ds.train), generator=draw)[: round(share * len(ds.train))]]
    more = torch.randint(1, len(ds.classes), wrong.shape, generator=draw).to(y)
    y[wrong] = (y[wrong] + more) % len(ds.classes)
    return y


@torch.no_grad()
def _at_hand(
    model: nn.Module, start: nn.Module, net: str, ds: Dataset, validate: Tensor
) -> dict[str, float]:
    logits = model(ds.x, *graph_of(net, ds))
    own = logits[ds.train].gather(1, ds.y[ds.train, None])
    others = logits[ds.train].scatter(1, ds.y[ds.train, None], -math.inf).amax(1, keepdim=True)
    distance = 0.0
    for old, new in zip(start.parameters(), model.parameters(), strict=True):
        if old.ndim > 1:
            distance += float((new - old).double().square().sum() / (2 * old.double().var()))
    return {
        "validation": float((logits[validate].argmax(1) == ds.y[validate]).double().mean()),
        "margin": float((own - others).median()),
        "norm": math.sqrt(sum(float(w.double().square().sum()) for w in model.parameters())),
        "distance": distance / math.log(2),
        "label_entropy": label_entropy(ds.y[ds.train]),
    }


def _planes(
    model: nn.Module, net: str, ds: Dataset, sets: Mapping[str, Tensor], a: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield what each layer says of the samples of each set."""
    estimators: dict[str, tuple[Estimator, str]] = {
        "bins": (AdaptiveBinning(a["bins"]), "AdaptiveBinning"),
        "bound": (Pairwise(a["noise_variance"]), "BD"),
        "proportional": (Pairwise(Proportional()), "BD"),
    }
    graph = graph_of(net, ds)
    names = [name.replace("rnn", "last") for name in hidden_layers(net, len(KINDS[a["name"]][2]))]
    with ActivationTracker(model, names) as tracker:
        layers = tracker.collect(without_graph(net, ds).x, *graph)
    for name, index in sets.items():
        keys, y = {"samples": name, "n": len(index)}, ds.y[index]
        for place, layer in enumerate(names, start=1):
            for word, (estimate, key) in estimators.items():
                found = estimate(layers[layer][index], y)[key]
                shown = {"estimator": word, "layer": layer, "place": place}
                yield {**keys, **shown, "i_xz": found.i_xz, "i_zy": found.i_zy}
        if graph and name != "all":
            continue
        x, y = (ds.x, ds.y) if graph else (ds.x[index], y)
        shown = {"estimator": "tolerated", "layer": names[-1], "place": len(names)}
        yield {**keys, **shown, "n": len(x), **_tolerated(model, names[-1], x, y, graph, a)}


def _tolerated(
    model: nn.Module,
    layer: str,
    x: Tensor,
    y: Tensor,
    graph: tuple[Tensor, ...],
    a: Mapping[str, Any],
) -> dict[str, float]:
    try:
        found = ToleratedNoise(a["tolerance"], queries=_QUERIES)(model, layer, x, y, *graph)
    except HangsOnRoundingError:
        return {"i_xz": math.nan, "i_zy": math.nan}
    return {"i_xz": found.i_xz, "i_zy": found.i_zy}
