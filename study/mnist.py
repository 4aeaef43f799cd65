"""Chapter 04: a fully connected network and LeNet learn to read digits."""

import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import nn

from ibcore.data import Dataset, load
from ibcore.estimators import Pairwise, named, noise
from ibcore.hooks import ActivationTracker
from ibcore.models import FullyConnected, LeNet
from ibcore.recorder import PlaneRecorder
from ibcore.training import History, Snapshot, default_device, fit, snapshot_epochs
from study import measures
from study.measures import Tables

MAY_BE_EMPTY = frozenset({"others"})
MAY_BE_ZERO: frozenset[str] = frozenset()
MAY_REPEAT = frozenset({"layer_noise"})
ESTIMATORS = frozenset({"others"})
NETWORKS = {"FCN": "fcn", "LeNet": "lenet", "small FCN": "small"}  # and what jobs call them
POLICIES = ("constant", "proportional")  # of the noise in the large plane
_MAPS = ["conv*", "relu*", "pool*", "linear*"]  # all that LeNet computes
_POOLED = ["pool1", "pool2", "relu3", "linear2"]  # the layers of LeNet's planes
_UNPOOLED = ["relu1", "relu2", "relu3", "linear2"]  # those of its distances
_PIXELS, _CLASSES = 28 * 28, 10
_IMAGES = {"original": (60_000, 10_000), "stand-in": (1297, 500)}  # to train and to test on
_LIKELIHOOD_SAMPLES = 1000  # of which the likelihood of the noise is taken
_SHARED = ["data", "source", "test_size", "dtype"]


@dataclass(frozen=True)
class Settings:
    """What the chapter can be asked for; the defaults are those of the record."""

    data: str = "mnist"  # data set, a name that ibcore.load takes
    source: str = "original"  # "original", "stand-in", or "any" of the two
    size: int = 4000  # training images; the planes are measured on them
    test_size: int = 10000  # test images
    widths: tuple[int, ...] = (784, 1024, 20, 20, 20, 10)  # units of the fully connected network
    small: tuple[int, ...] = (784, 26, 20, 20, 20, 10)  # of one with as many weights as LeNet
    runs: int = 5  # networks (seeds) of each kind
    epochs: int = 600  # passes of the fully connected network over the training images
    learning_rate: float = 1e-5  # its step size of Adam
    batch_size: int = 128  # images a step
    lenet_epochs: int = 20  # passes of LeNet, and of the networks compared with it
    lenet_rate: float = 1e-3  # their step size of Adam
    lenet_batch: int = 64  # images a step
    snapshots: int = 20  # epochs looked at, even on a log axis
    policy_snapshots: int = 6  # epochs at which all noise policies are compared
    low_noise: float = 0.001  # sigma squared, squared activation
    noise_variance: float = 0.1  # the same, of all planes that say nothing else
    layer_noise: tuple[float, ...] = (5.0, 2.0, 0.3, 0.125)  # sigma squared of each layer of LeNet
    sizes: tuple[int, ...] = (500, 1000, 2000, 4000)  # training images, for the test of accuracy
    size_runs: int = 3  # networks (seeds) a size
    size_epochs: int = 40  # passes over the training images
    all_size: int = 60000  # training images of the large plane
    all_epochs: tuple[int, ...] = (1, 10)  # epochs of the large plane
    others: tuple[str, ...] = ()  # estimators to draw more planes with, "Ksg", "Renyi", "InfoNCE"
    other_snapshots: int = 5  # epochs at which these look
    seed: int = 0  # first seed, and the seed of the subset
    dtype: str = "float32"  # float type of data and weights


def check(settings: Settings) -> None:
    """Raise ValueError where settings don't fit one another."""
    s = settings
    if s.data != "mnist":
        raise ValueError(f'mnist: data must be "mnist", images of digits, got {s.data!r}')
    for name in ("widths", "small"):
        widths = getattr(s, name)
        if len(widths) < 4 or (widths[0], widths[-1]) != (_PIXELS, _CLASSES):
            raise ValueError(
                f"mnist: {name} must lead from {_PIXELS} pixels to {_CLASSES} classes by two "
                f"hidden layers or more, got {list(widths)}"
            )
    if not float(f"{s.low_noise:g}") < float(f"{s.noise_variance:g}"):  # their labels
        raise ValueError(
            "mnist: low_noise must be below noise_variance, in their first six digits, got "
            f"{s.low_noise} and {s.noise_variance}"
        )
    if len(s.layer_noise) != len(_POOLED):
        raise ValueError(
            f"mnist: layer_noise needs a variance for each of the layers {_POOLED}, got "
            f"{list(s.layer_noise)}"
        )
    train, test = _IMAGES.get(s.source, _IMAGES["original"])
    limits = {
        "all_size": ([s.all_size], train, "the training images that there are"),
        "sizes": (s.sizes, train, "the training images that there are"),
        "test_size": ([s.test_size], test, "the test images that there are"),
        "size": ([s.size], s.all_size, "all_size, of which the planes of fewer images are a part"),
    }
    for name, (counts, most, why) in limits.items():
        if not all(_CLASSES <= count <= most for count in counts):
            raise ValueError(
                f"mnist: {name} must lie from {_CLASSES}, an image a class, to {most}, {why}; got "
                f"{getattr(s, name)}"
            )


def jobs(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the jobs: a network and a seed each; a size and a seed; an epoch of the large plane.

    The large plane has a job for each epoch and noise: on one thread a plane of 60 000 images takes
    about seven minutes, the training two. So the network is trained again in each of them.
    """
    s = settings
    shared: dict[str, Any] = {name: getattr(s, name) for name in _SHARED} | {"subset": s.seed}
    found: dict[str, dict[str, Any]] = {}
    for kind, short in NETWORKS.items():
        looks = {"snapshots": s.snapshots, "policy_snapshots": s.policy_snapshots}
        asked = {"part": "planes", "size": s.size, "noise_variance": s.noise_variance, **looks}
        asked |= {"low_noise": s.low_noise}
        asked |= {"layer_noise": s.layer_noise} if kind == "LeNet" else {}
        for seed in range(s.seed, s.seed + s.runs):
            found[f"{short}-{seed}"] = shared | _training(s, kind) | asked | {"seed": seed}
    for size in s.sizes:
        for seed in range(s.seed, s.seed + s.size_runs):
            asked = {"part": "sizes", "size": size, "seed": seed, "epochs": s.size_epochs}
            found[f"size-{size}-{seed}"] = shared | _fast(s, "FCN") | asked
    for policy in POLICIES:
        for epoch in s.all_epochs:
            asked = {"part": "large", "size": s.all_size, "some": s.size, "seed": s.seed}
            asked |= {"policy": policy, "epochs": epoch}
            asked |= {"noise_variance": s.noise_variance} if policy == "constant" else {}
            found[f"large-{policy}-{epoch}"] = shared | _fast(s, "LeNet") | asked
    for kind in ("FCN", "LeNet") if s.others else ():
        asked = {"part": "others", "size": s.size, "seed": s.seed, "others": s.others}
        asked |= {"snapshots": s.other_snapshots, "noise_variance": s.noise_variance}
        found[f"others-{NETWORKS[kind]}-{s.seed}"] = shared | _training(s, kind) | asked
    return found


def _training(s: Settings, kind: str) -> dict[str, Any]:
    """Return what one network is and how it learns: the FCN slowly, the two others fast."""
    slow = {"epochs": s.epochs, "learning_rate": s.learning_rate, "batch_size": s.batch_size}
    return _fast(s, kind) | (slow if kind == "FCN" else {})


def _fast(s: Settings, kind: str) -> dict[str, Any]:
    widths = {"FCN": {"widths": s.widths}, "small FCN": {"widths": s.small}}.get(kind, {})
    rates = {"learning_rate": s.lenet_rate, "batch_size": s.lenet_batch}
    return {"network": kind, **widths, "epochs": s.lenet_epochs, **rates}


def run(arguments: Mapping[str, Any]) -> Tables:
    """Return the tables of one job.

    facts: see `measures.facts`, and network, run.
    scores: `History.table`, network.
    weights: network, run, count (weights of a network).
    planes: rows of the planes, network: constant noise at all snapshots.
    policies: the same, all noise policies at fewer snapshots.
    rules: network, run, layer, by ("distance" or "squared distance"), noise: the variance that the
        percentile rule reads off the training images at the last epoch; FCN and LeNet alone.
    by_noise: `measures.noise_rows` of the training images at the same epoch, network, run; FCN and
        LeNet alone.
    distances: `measures.histogram_rows`, network, layer: the same epoch, first seed alone.
    sizes: `History.table`, size (training images).
    large: rows of the planes, measured ("all" images or a "part" of them).
    cost: measured, policy, epoch, seconds (of one plane), memory_gib (the most that the job's
        process held; where it made other jobs before, theirs counts too).
    others: the same as planes, of the estimators that were asked for.
    """
    a = dict(arguments)
    options = {"size": a["size"], "test_size": a["test_size"], "seed": a["subset"]}
    ds = load(a["data"], source=a["source"], dtype=measures.float_type(a["dtype"]), **options)
    return _PARTS[a["part"]](ds, a)


def _build(ds: Dataset, a: Mapping[str, Any]) -> nn.Module:
    if a["network"] == "LeNet":
        return measures.placed(LeNet(seed=a["seed"]), ds)
    return measures.placed(FullyConnected(a["widths"], "relu", seed=a["seed"]), ds)


def _layers(a: Mapping[str, Any]) -> list[str]:
    """Return the layers of a network's planes, first to last."""
    if a["network"] == "LeNet":
        return _POOLED
    return [f"relu{i}" for i in range(1, len(a["widths"]) - 1)]


def _train(
    ds: Dataset, a: Mapping[str, Any], looks: list[int], watch: Callable[[Snapshot], None]
) -> History:
    model = _build(ds, a)
    look: dict[str, Any] = {"snapshots": looks, "on_snapshot": watch, "progress": False}
    with ActivationTracker(model, _layers(a)) as tracker:
        return fit(model, ds, tracker=tracker, **look, **_course(a))


def _course(a: Mapping[str, Any]) -> dict[str, Any]:
    return {name: a[name] for name in ("epochs", "learning_rate", "batch_size", "seed")}


def _planes(ds: Dataset, a: Mapping[str, Any]) -> Tables:
    constant, policies = _estimators(a)
    few = snapshot_epochs(a["epochs"], a["policy_snapshots"])
    planes, compared = (
        PlaneRecorder(ds.y, e, samples=ds.train, check=False) for e in (constant, policies)
    )

    def watch(snapshot: Snapshot) -> None:
        planes(snapshot)
        if snapshot.epoch in few:
            compared(snapshot)

    looks = sorted({*snapshot_epochs(a["epochs"], a["snapshots"]), *few})
    history = _train(ds, a, looks, watch)
    (model,) = history.models
    keys = {"network": a["network"], "run": a["seed"]}
    count = sum(p.numel() for p in model.parameters())
    return {
        "facts": measures.facts(ds, ds.train).assign(**keys),
        "scores": history.table.assign(network=a["network"]),
        "weights": pd.DataFrame([{**keys, "count": count}]),
        "planes": measures.plane_rows(planes.plane(), network=a["network"]),
        "policies": measures.plane_rows(compared.plane(), network=a["network"]),
        **(_spread(model, ds, a) if a["network"] != "small FCN" else {}),
    }


def _estimators(a: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pairwise estimates with constant noise, LeNet's by layer too, and with any."""
    low, high = a["low_noise"], a["noise_variance"]
    policies = measures.noise_policies(low, high, _LIKELIHOOD_SAMPLES)
    label = list(policies)[1]
    constant: dict[str, Any] = {label: policies[label]}
    if a["network"] == "LeNet":
        by_layer = zip(_POOLED, map(Pairwise, a["layer_noise"]), strict=True)
        constant["per layer"] = dict(by_layer)
    return constant, {**constant, **policies}


def _spread(model: nn.Module, ds: Dataset, a: Mapping[str, Any]) -> Tables:
    """Return how far apart the training images are in each layer of a trained network."""
    lenet = a["network"] == "LeNet"
    with ActivationTracker(model, _MAPS if lenet else _layers(a)) as tracker:
        found = tracker.collect(ds.x[ds.train].to(default_device()))
    keys = {"network": a["network"], "run": a["seed"]}
    rules = [
        {**keys, "layer": layer, "by": by, "noise": noise.Percentile(power=power)(z)}
        for layer, z in found.items()
        for power, by in ((1, "distance"), (2, "squared distance"))
    ]
    measured = {layer: found[layer] for layer in _layers(a)}
    tables = {
        "rules": pd.DataFrame(rules),
        "by_noise": measures.noise_rows(measured, ds.y[ds.train], **keys),
    }
    if a["seed"] == a["subset"]:  # the first seed
        shown = _UNPOOLED if lenet else _layers(a)
        rows = [measures.histogram_rows(found[k], network=a["network"], layer=k) for k in shown]
        tables["distances"] = pd.concat(rows, ignore_index=True)
    return tables


def _sizes(ds: Dataset, a: Mapping[str, Any]) -> Tables:
    history = fit(_build(ds, a), ds, progress=False, **_course(a))
    return {"sizes": history.table.assign(size=a["size"])}


def _large(ds: Dataset, a: Mapping[str, Any]) -> Tables:
    constant = a["policy"] == "constant"
    estimator = {a["policy"]: Pairwise(a["noise_variance"] if constant else noise.Proportional())}
    samples = {"all": ds.train, "part": ds.train[: a["some"]]}
    recorders = {
        k: PlaneRecorder(ds.y, estimator, samples=v, check=False) for k, v in samples.items()
    }
    seconds = {}

    def watch(snapshot: Snapshot) -> None:
        for name, recorder in recorders.items():
            start = time.perf_counter()
            recorder(snapshot)
            seconds[name] = time.perf_counter() - start

    _train(ds, a, [a["epochs"]], watch)
    keys = {"policy": a["policy"], "epoch": a["epochs"], "memory_gib": _peak_memory()}
    planes = [
        measures.plane_rows(recorder.plane(), measured=k) for k, recorder in recorders.items()
    ]
    cost = [{"measured": name, "seconds": spent, **keys} for name, spent in seconds.items()]
    return {"large": pd.concat(planes, ignore_index=True), "cost": pd.DataFrame(cost)}


def _peak_memory() -> float:
    """Return the most memory that this process has held, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _others(ds: Dataset, a: Mapping[str, Any]) -> Tables:
    estimators = named(a["others"], a["noise_variance"])
    recorder = PlaneRecorder(ds.y, estimators, samples=ds.train, x=ds.x, check=False)
    _train(ds, a, snapshot_epochs(a["epochs"], a["snapshots"]), recorder)
    return {"others": measures.plane_rows(recorder.plane(), network=a["network"])}


_PARTS = {"planes": _planes, "sizes": _sizes, "large": _large, "others": _others}
