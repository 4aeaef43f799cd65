"""Chapter 05, the 12-bit network: its plane by each estimator, chains, scales, seconds."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ibcore.data import Dataset, load
from ibcore.discrete import quantise
from ibcore.estimators import Binning, Exact, Ksg, MonteCarlo, Noisy, Pairwise, Renyi
from ibcore.hooks import ActivationTracker, Intervention
from ibcore.interface import Estimator, apply
from ibcore.models import FullyConnected
from ibcore.recorder import PlaneRecorder
from ibcore.training import fit, snapshot_epochs
from study.laws import CRITICS
from study.measures import Tables, check_rows, facts, float_type, plane_rows
from study.wide import printed

_WIDTHS = (12, 10, 7, 5, 4, 3, 2)
_LAYERS = "tanh*"
_KERNELS = (0.03, 0.1, 0.3, 1.0, 3.0)  # widths by the layer's total deviation
DATA = "12-bit data"


def planes(arguments: Mapping[str, Any]) -> Tables:
    """Return the plane of one network by one critic, or by all estimators that train none."""
    a = arguments
    ds = _data(a)
    recorder = PlaneRecorder(ds.y, _estimators(a), x=ds.x, check=False)
    scores = _train(ds, a, snapshot_epochs(a["epochs"], a["snapshots"]), recorder)[1]
    found = {"planes": plane_rows(recorder.plane())}
    if not a["critic"]:
        found |= {"facts": facts(ds).assign(data=DATA, run=a["seed"]), "scores": scores}
    return found


def floors(arguments: Mapping[str, Any]) -> Tables:
    """Return what is checked of such a plane at the last epoch: a critic trains seven times."""
    ds = _data(arguments)
    recorder = PlaneRecorder(ds.y, _estimators(arguments), x=ds.x)
    _train(ds, arguments, [arguments["epochs"]], recorder)
    return {"checks": check_rows(recorder.plane())}


def last(arguments: Mapping[str, Any]) -> Tables:
    """Return what the trained network's layers hold as chains, and by the scale that is assumed."""
    a = arguments
    ds = _data(a)
    model = _train(ds, a)[0]
    with ActivationTracker(model, _LAYERS) as tracker:
        layers = tracker.collect(ds.x)
    columns = ["construction", "layer", "i_xz", "i_zy"]
    chains = pd.DataFrame([*_quantised(model, ds, a), *_passed_on(model, ds, a)], columns=columns)
    scales = pd.DataFrame(
        [(layer, *row) for layer, z in layers.items() for row in _scales(z, ds, a)],
        columns=["layer", "estimator", "scale", "i_xz"],
    )
    return {"chains": chains.assign(run=a["seed"]), "scales": scales.assign(run=a["seed"])}


def first_layer(arguments: Mapping[str, Any]) -> Tables:
    """Return the seconds of each estimator on the first layer, and what MINE as printed finds."""
    a = arguments
    ds = _data(a)
    model = _train(ds, a)[0]
    with ActivationTracker(model, _LAYERS) as tracker:
        z = next(iter(tracker.collect(ds.x).values()))
    clock = {name: _clock(partial(apply, e, z, ds.y, ds.x)) for name, e in _timed(a).items()}
    squares = torch.cdist(z.double(), z.double()).square()
    spectrum = _clock(lambda: torch.linalg.eigvalsh(torch.exp(-squares / 2)))
    clock["Renyi, by eigenvalues: one spectrum"] = spectrum
    seconds = pd.DataFrame({"estimator": list(clock), "seconds": list(clock.values())})
    return {"seconds": seconds, "printed": printed(DATA, ds.x, z, a["seed"], a["mine_steps"])}


def _data(a: Mapping[str, Any]) -> Dataset:
    ds = load("tishby", source="original", dtype=float_type(a["dtype"]))
    return ds.split(0.85, a["seed"])


def _estimators(a: Mapping[str, Any]) -> list[Estimator]:
    variance = a["noise_variance"]
    if a["critic"]:
        return [Noisy(CRITICS[a["critic"]](steps=a["steps"]), variance)]
    quick = [Noisy(Ksg(), variance), Noisy(Renyi(), variance)]
    return [MonteCarlo(variance), Pairwise(variance), Binning(), *quick]


def _train(
    ds: Dataset, a: Mapping[str, Any], looks: Sequence[int] = (), watch: Any = None
) -> tuple[FullyConnected, pd.DataFrame]:
    """Return the network after its training and its scores; `watch` takes the snapshots."""
    model = FullyConnected(_WIDTHS, "tanh", seed=a["seed"]).to(ds.x.dtype)
    with ActivationTracker(model, _LAYERS) as tracker:
        history = fit(
            model,
            ds,
            epochs=a["epochs"],
            learning_rate=4e-4,
            batch_size=512,
            seed=a["seed"],
            snapshots=looks,
            tracker=tracker if watch else None,
            on_snapshot=watch,
            progress=False,
        )
    return model, history.table


def _quantised(model: FullyConnected, ds: Dataset, a: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Return a row a layer of the network that rounds its activations: counted, so exact."""

    def change(z: Tensor) -> Tensor:
        return quantise(z, a["quantised_bits"], -1.0, 1.0)

    with Intervention(model, change, _LAYERS), ActivationTracker(model, _LAYERS) as tracker:
        layers = tracker.collect(ds.x)
    name = "quantised in the network, exact"
    return [(name, layer, *Exact()(z, ds.y)["Exact"][:2]) for layer, z in layers.items()]


def _passed_on(model: FullyConnected, ds: Dataset, a: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Return a row a layer of the network with noise at every layer, which is passed on."""
    generator, deviation = torch.Generator().manual_seed(1), math.sqrt(a["noise_variance"])

    def change(z: Tensor) -> Tensor:
        drawn = torch.randn(z.shape, generator=generator, dtype=torch.float64)
        return z + (deviation * drawn).to(z.dtype)

    with ActivationTracker(model, _LAYERS) as tracker, Intervention(model, change, _LAYERS):
        passes = [tracker.collect(ds.x) for _ in range(a["paths"])]
    drawn, rows = MonteCarlo(a["noise_variance"], draws=2), []
    for layer in passes[0]:
        x, y = drawn.propagated(torch.stack([found[layer] for found in passes]), ds.y)
        rows.append(("noise at every layer, Monte Carlo", layer, x.bits, y.bits))
    return rows


def _scales(z: Tensor, ds: Dataset, a: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Return rows of estimator, scale and I(X;T) of one layer."""
    rows = []
    for v in a["variances"]:
        for e in (MonteCarlo(v, draws=2), Pairwise(v), Noisy(Ksg(), v)):
            rows += [(name, float(v), mi.i_xz) for name, mi in apply(e, z, ds.y, ds.x).items()]
    for count in a["bins"]:
        rows.append(("Binning", float(count), Binning(count)(z, ds.y)["Binning"].i_xz))
    span = math.sqrt(float(z.double().var(0).sum()))
    rows += [("Renyi", w, Renyi(width=w * span).entropy(z).bits) for w in _KERNELS]
    return rows


def _timed(a: Mapping[str, Any]) -> dict[str, Estimator]:
    variance = a["noise_variance"]
    return {
        "BD and KL": Pairwise(variance),
        "Binning": Binning(),
        "MonteCarlo": MonteCarlo(variance),
        "Renyi, α = 2": Renyi(),
        "Renyi, α = 1.01": Renyi(1.01),
        "Ksg": Noisy(Ksg(), variance),
        **{name: Noisy(kind(steps=a["steps"]), variance) for name, kind in CRITICS.items()},
    }


def _clock(work: Callable[[], Any]) -> float:
    """Return the seconds that a piece of work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
