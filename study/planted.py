"""What is known beforehand: units that nothing reads, classes, pictures with noisy labels."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

import pandas as pd
import torch
from torch import Tensor, nn

from ibcore.checks import stream
from ibcore.data import Dataset, load
from ibcore.estimators import Binning, Ksg, Pairwise
from ibcore.estimators.adaptive import AdaptiveBinning
from ibcore.hooks import ActivationTracker
from ibcore.models import FullyConnected, LeNet
from ibcore.tolerated import ToleratedNoise
from ibcore.training import fit
from study.measures import Tables, float_type, placed

UNREAD = 10  # units that are added
_LAYER = 3  # to this hidden layer
_DIGITS = (3, 8)  # of the pictures
_DIMENSIONS, _HIDDEN, _MEMBERS = 32, (64, 64), 100  # of the clusters: inputs, units, members each
_EPOCHS = {"classes": 30, "oracle": 5}
_TOLERANCES = (0.001, 0.01, 0.1)  # bits
_SAMPLES = (4096, 1024, 256)


def jobs(s: Any) -> dict[str, dict[str, Any]]:
    """Return the jobs of what is planted, by the chapter's settings: a seed each."""
    shared = {"tolerance": s.tolerance}
    training = {
        "widths": s.widths, "share": s.share, "epochs": s.epochs, "batch_size": s.batch_size,
        "learning_rate": s.learning_rate,
    }  # fmt: skip
    pictures = {"source": s.source, "size": s.size, "flips": s.flips, "bins": s.bins}
    pictures |= {"bin_width": s.bin_width, "noise_variance": s.noise_variance}
    found: dict[str, dict[str, Any]] = {}
    for seed in range(s.seed, s.seed + s.planted_runs):
        found[f"unread-{seed}"] = {"kind": "unread", "seed": seed, **training, **shared}
    for seed in range(s.seed, s.seed + s.data_runs):
        found[f"classes-{seed}"] = {"kind": "classes", "seed": seed, "classes": s.classes, **shared}
        found[f"oracle-{seed}"] = {"kind": "oracle", "seed": seed, **pictures, **shared}
        for kind in ("tanh", "relu"):
            given = {"kind": "depends", "activation": kind, "seed": seed, **training}
            found[f"depends-{kind}-{seed}"] = given
    return found


def run(a: Mapping[str, Any]) -> Tables:
    """Return the tables of one job; see `black_box.run`."""
    name = {"unread": "planted", "classes": "planted"}.get(a["kind"], a["kind"])
    return {name: pd.DataFrame(_KINDS[a["kind"]](a)).assign(run=a["seed"])}


def _trained(a: Mapping[str, Any], kind: str) -> tuple[FullyConnected, Dataset]:
    ds = load("tishby", dtype=float_type(a["dtype"])).split(a["share"], a["seed"])
    model = FullyConnected(a["widths"], kind, seed=a["seed"])
    placed(model, ds)
    settings = {name: a[name] for name in ("epochs", "learning_rate", "batch_size", "seed")}
    fit(model, ds, snapshots=[a["epochs"]], progress=False, **settings)
    return model, ds


def with_unread(model: FullyConnected, layer: int, count: int, seed: int) -> nn.Module:
    """Return a copy in which a hidden layer has more units, which no unit behind it reads.

    Their weights are drawn as those of `FullyConnected`; the answer stays the same.

    Args:
        model: fully connected.
        layer: number of the hidden layer, from 1.
        count: units to add.
        seed: of their weights.
    """
    found = dict(model.named_children())
    before, after = (cast(nn.Linear, found[f"linear{n}"]) for n in (layer, layer + 1))
    wider, reader = (
        nn.Linear(before.in_features, before.out_features + count, dtype=before.weight.dtype),
        nn.Linear(after.in_features + count, after.out_features, dtype=after.weight.dtype),
    )
    drawn = next(FullyConnected([before.in_features, count, 2], seed=seed).parameters())
    with torch.no_grad():
        wider.weight.copy_(torch.cat([before.weight, drawn.to(before.weight)]))
        wider.bias.copy_(torch.cat([before.bias, before.bias.new_zeros(count)]))
        reader.weight.copy_(
            torch.cat([after.weight, after.weight.new_zeros(after.out_features, count)], dim=1)
        )
        reader.bias.copy_(after.bias)
    found |= {f"linear{layer}": wider, f"linear{layer + 1}": reader}
    copy = nn.Sequential()
    for name, module in found.items():
        copy.add_module(name, module)
    return copy.to(before.weight.device)


def _unread(a: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    model, ds = _trained(a, "relu")
    other = with_unread(model, _LAYER, UNREAD, a["seed"])
    for form in ("full", "diagonal"):
        measure = ToleratedNoise(a["tolerance"], form)
        before, after = (measure(m, f"relu{_LAYER}", ds.x, ds.y) for m in (model, other))
        yield {
            "kind": "unread",
            "form": form,
            "classes": len(ds.classes),
            "before": before.i_xz,
            "after": after.i_xz,
            "ceiling": math.log2(len(ds.y)),
            "directions": after.directions,
            "accuracy": _accuracy(model, ds),
        }


def clusters(classes: int, seed: int, dtype: torch.dtype = torch.float32) -> Dataset:
    """Return Gaussian clusters, a class each, with 100 members in 32 dimensions."""
    generator = stream(seed, "clusters")
    centres = 2 * torch.randn(classes, _DIMENSIONS, generator=generator, dtype=torch.float64)
    y = torch.arange(classes).repeat_interleave(_MEMBERS)
    noise = torch.randn(len(y), _DIMENSIONS, generator=generator, dtype=torch.float64)
    return Dataset.from_arrays((centres[y] + noise).to(dtype), y, name="clusters", seed=seed)


def _classes(a: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for classes in a["classes"]:
        ds = clusters(classes, a["seed"], float_type(a["dtype"]))
        model = FullyConnected([_DIMENSIONS, *_HIDDEN, classes], "relu", seed=a["seed"])
        placed(model, ds)
        epochs = _EPOCHS["classes"]
        fit(
            model, ds, epochs=epochs, learning_rate=1e-3, batch_size=32, seed=a["seed"],
            snapshots=[epochs], progress=False,
        )  # fmt: skip
        found = ToleratedNoise(a["tolerance"])(model, "relu2", ds.x, ds.y)
        yield {
            "kind": "classes",
            "form": "full",
            "classes": classes,
            "before": found.i_xz,
            "after": found.i_xz,
            "ceiling": math.log2(len(ds.y)),
            "directions": found.directions,
            "accuracy": _accuracy(model, ds),
        }


def _accuracy(model: nn.Module, ds: Dataset) -> float:
    with torch.no_grad():
        right = model(ds.x.to(next(model.parameters()).device)).argmax(1).cpu() == ds.y.cpu()
    return float(right.double().mean())


def _pictures(a: Mapping[str, Any]) -> Dataset:
    """Return pictures of two digits, labelled 0 and 1."""
    options = {"size": a["size"], "test_size": a["size"] // 2}
    dtype = float_type(a["dtype"])
    ds = load("mnist", source=a["source"], seed=a["seed"], dtype=dtype, **options)
    chosen = torch.isin(ds.y, torch.tensor(_DIGITS)).nonzero().squeeze(1)
    y = (ds.y[chosen] == _DIGITS[1]).long()
    half = {"train_fraction": 0.5, "seed": a["seed"]}
    return Dataset.from_arrays(ds.x[chosen], y, name="digits", **half)


def channel(flip: float) -> float:
    """Return what a binary symmetric channel leaves of one bit: 1 − h(flip), in bits."""
    parts = [p for p in (flip, 1 - flip) if p > 0]
    return 1 + sum(p * math.log2(p) for p in parts)


def _oracle(a: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what is found of I(T;Y) where the label of a picture went through a noisy channel.

    The classes are as many pictures each, so that the truth for a layer that tells the digits
    apart is `channel(flip)`: what a picture says of its noisy label.
    """
    ds = _pictures(a)
    model = placed(LeNet(seed=a["seed"]), ds)
    epochs, few = _EPOCHS["oracle"], int(torch.bincount(ds.y).min())
    fit(
        model, ds, epochs=epochs, learning_rate=1e-3, batch_size=64, seed=a["seed"],
        snapshots=[epochs], progress=False,
    )  # fmt: skip
    even = torch.cat([(ds.y == label).nonzero().squeeze(1)[:few] for label in (0, 1)])
    x, clean = ds.x[even], ds.y[even]
    with ActivationTracker(model, ["relu3"]) as tracker:
        z = tracker.collect(x)["relu3"]
    for flip in a["flips"]:
        generator = stream(a["seed"], f"flips of {flip:g}")
        y = clean ^ (torch.rand(len(clean), generator=generator, dtype=torch.float64) < flip)
        found: dict[str, Any] = {
            "bins": Binning(width=a["bin_width"])(z, y)["Binning"],
            "adaptive": AdaptiveBinning(a["bins"])(z, y)["AdaptiveBinning"],
            "pairwise": Pairwise(a["noise_variance"])(z, y)["BD"],
            "ksg": Ksg()(z, y, x=x)["Ksg"],
            "tolerated": ToleratedNoise(a["tolerance"])(model, "relu3", x, y),
        }
        for name, value in found.items():
            yield {
                "flip": flip,
                "truth": channel(flip),
                "estimator": name,
                "i_zy": value.i_zy,
                "i_xz": value.i_xz,
                "ceiling": math.log2(len(y)),
                "accuracy": _accuracy(model, ds),
            }


def _depends(a: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    model, ds = _trained(a, a["activation"])
    order = torch.randperm(len(ds.y), generator=stream(a["seed"], "depends"))

    def look(layer: str, tolerance: float, samples: int, calibrated: bool) -> dict[str, Any]:
        some: Tensor = order[:samples]
        measure = ToleratedNoise(tolerance, calibrated=calibrated)
        found = measure(model, layer, ds.x[some], ds.y[some])
        return {
            "kind": a["activation"],
            "layer": layer,
            "tolerance": tolerance,
            "samples": samples,
            "calibrated": calibrated,
            "rate": found.rate,
            "i_xz": found.i_xz,
            "i_zy": found.i_zy,
            "directions": found.directions,
            "ceiling": math.log2(samples),
        }

    for number in range(1, len(a["widths"]) - 1):
        layer = f"{a['activation']}{number}"
        for tolerance in _TOLERANCES:
            yield look(layer, tolerance, _SAMPLES[0], False)
        for samples in _SAMPLES[1:]:
            yield look(layer, _TOLERANCES[1], samples, False)
        yield look(layer, _TOLERANCES[1], _SAMPLES[0], True)


_KINDS = {"unread": _unread, "classes": _classes, "oracle": _oracle, "depends": _depends}
