"""Chapter 10: how small trained networks can be written, and what their files' sizes say."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import brotli
import pandas as pd
import torch
from torch import Tensor, nn

from ibcore.capacity import memory_capacity, prequential_by_rehearsal
from ibcore.checks import stream
from ibcore.codec import coded_sizes, pack, quantise
from ibcore.codec.__main__ import general
from ibcore.data import Dataset, load
from ibcore.discrete import label_entropy
from ibcore.estimators.adaptive import AdaptiveBinning
from ibcore.hooks import ActivationTracker
from ibcore.models import FullyConnected
from ibcore.training import snapshot_epochs
from study import published, shrinking
from study.capacity import LEDGER, SHAPES
from study.measures import Tables, facts, float_type
from study.published import LENETS
from study.shrinking import TECHNIQUES, Small, Task, measured, task_of
from study.sizes import CORA_SHARE, KINDS, TRAINING, data_of, epochs_of, trained

MAY_BE_EMPTY = frozenset({"parts", "kinds", "techniques"})
MAY_BE_ZERO: frozenset[str] = frozenset()
MAY_REPEAT: frozenset[str] = frozenset()
ESTIMATORS: frozenset[str] = frozenset()
PARTS = ("techniques", "sizes", "course", "learned", "marks")
WITHOUT = {  # techniques that layers of a kind have no form for
    "gcn": ("by inputs and cost", "low rank"),
    "rnn": ("low rank",),
}
CURVE = (-5.0, -4.0, -3.0, -2.0, -1.0, 0.0)  # log₂ of the steps of rate-accuracy curves
INPUTS_STEP = -4.0  # log₂: steps by curvature are smaller by about so much for the same error
_KNOWN = {"parts": PARTS, "kinds": KINDS, "techniques": TECHNIQUES, "shapes": LENETS}
_TIMES = ("bits", "cora", "names", "mnist")


@dataclass(frozen=True)
class Settings:
    """What the chapter can be asked for; the defaults are those of the record."""

    parts: tuple[str, ...] = ()  # of the chapter, names in study.compression; none takes all
    kinds: tuple[str, ...] = ()  # of networks, names in study.sizes; none takes all
    techniques: tuple[str, ...] = ()  # names in study.shrinking; none takes all
    source: str = "original"  # of the data: "original", "stand-in", or "any" of the two
    bits_epochs: int = 200  # passes over the 12-bit inputs
    cora_epochs: int = 60  # passes over the nodes of Cora, all in one batch
    names_epochs: int = 40  # passes over the names
    mnist_epochs: int = 8  # passes over the images
    size: int = 10000  # images to train on, and at most as many to choose and report by
    lost: float = 0.005  # accuracy that a smaller file may lose, a share
    runs: int = 2  # networks (seeds) that every technique is tried on
    size_runs: int = 2  # networks of each shape and data set
    course_runs: int = 3  # networks that are followed while they learn
    course_epochs: int = 4000  # passes of these over the 12-bit inputs
    snapshots: int = 10  # epochs at which they are looked at, even on a log axis
    samples: tuple[int, ...] = (250, 500, 1000, 2000)  # images with true and with random labels
    learned_epochs: int = 400  # passes over these, at most
    learned_runs: int = 3  # sets of random labels
    mark_runs: int = 3  # networks of the published shapes
    images: int = 60000  # that these are trained on, a sixth of them to choose by
    shapes: tuple[str, ...] = tuple(LENETS)  # of these
    rate_epochs: int = 20  # passes at the first price of a bit, and two fifths at each further
    prices: tuple[float, ...] = (0.1, 0.2, 0.4)  # of a bit of weights; LeNet-5: three times
    seed: int = 100  # first seed: none of those that techniques were tried with
    dtype: str = "float32"  # float type of data and weights


def check(settings: Settings) -> None:
    """Raise ValueError where settings don't fit one another."""
    s = settings
    for name, known in _KNOWN.items():
        if unknown := sorted(set(getattr(s, name)) - set(known)):
            raise ValueError(f"compression: {name} has {unknown}: there are {list(known)}")
    if not s.lost < 0.5:
        raise ValueError(f"compression: lost is a share of the answers below 0.5, got {s.lost}")
    if s.size < 20 or s.images < 60:
        raise ValueError(f"compression: {s.size} and {s.images} images are too few to choose by")


def jobs(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the jobs: a part, a kind of network and a seed each."""
    s, found = settings, dict[str, dict[str, Any]]()
    epochs = {f"{name}_epochs": getattr(s, f"{name}_epochs") for name in _TIMES}
    shared = {"source": s.source, "size": s.size, "lost": s.lost, "dtype": s.dtype, **epochs}

    def add(part: str, names: Iterable[Any], runs: int, **more: Any) -> None:
        if s.parts and part not in s.parts:
            return
        for name in names:
            for seed in range(s.seed, s.seed + runs):
                key = f"{part}-{str(name).lower().replace(', ', '-').replace(' ', '-')}-{seed}"
                found[key] = {"part": part, "name": name, "seed": seed, **more}

    def chosen(kinds: Iterable[str]) -> list[str]:
        return [kind for kind in kinds if not s.kinds or kind in s.kinds]

    techniques = s.techniques or tuple(TECHNIQUES)
    add("techniques", chosen(KINDS), s.runs, techniques=techniques, **shared)
    add("sizes", chosen(LEDGER), s.size_runs, **shared)
    course = {"epochs": s.course_epochs, "snapshots": s.snapshots}
    add("course", ("tanh", "relu"), s.course_runs, lost=s.lost, dtype=s.dtype, **course)
    learned = {"source": s.source, "epochs": s.learned_epochs, "lost": s.lost, "dtype": s.dtype}
    add("learned", s.samples, s.learned_runs, **learned)
    marks = {"images": s.images, "epochs": s.rate_epochs, "prices": s.prices}
    add("marks", s.shapes, s.mark_runs, source=s.source, lost=s.lost, dtype=s.dtype, **marks)
    return found


def run(arguments: Mapping[str, Any]) -> Tables:
    """Return the tables of one job; bytes are of whole files, with header and checksum.

    facts: see `measures.facts`, and run.
    techniques: kind, technique, run, before (accuracy of the network as it was, on the samples
        that choose and on those that report: before_choose, before_test), columns of `measured`.
    curve: kind, rounding, run, step (log₂), columns of `measured`.
    general: kind, run, form (fp32, fp16, int8), bytes by compressor, plain and regrouped.
    tensors: kind, technique, run, columns of `coded_sizes`.
    tickets: kind, run, start (rewound, drawn anew), share (pruned), accuracies.
    sizes: kind, shape, run, scores, parameters, columns of `measured` of the smallest file, whole
        (bytes without loss), prunable (share), and in bits: labels (N·H(Y)), learned (N·H(Y) less
        the loss on it), held (memory-equivalent capacity), prequential (length of the labels).
    course: activation, run, epoch, layer, i_xz, i_zy (adaptive bins), scores, columns of
        `measured`.
    learned: samples, labels (true, random), technique, run, needed (N·H(Y), bits), columns of
        `measured`; accuracies are of the training samples.
    marks: shape, technique, price, run, code (bits of the file, and of the training labels given
        it), needed (N·H(Y), bits), columns of `measured`.
    """
    return _PARTS[arguments["part"]](arguments)


# Every technique on every kind of network


def _data(a: Mapping[str, Any]) -> tuple[str, str, tuple[int, ...], Dataset]:
    """Return data set, kind of network, widths and data: with many held out, to choose by."""
    name, net, widths = KINDS[a["name"]]
    options: dict[str, Any] = {"seed": a["seed"], "dtype": float_type(a["dtype"])}
    if name == "tishby":
        return name, net, widths, load(name, train_fraction=0.5, **options)
    if name == "mnist":
        most = 10000 if a["size"] >= 10000 else a["size"] // 2
        options |= {"source": a["source"], "size": a["size"], "test_size": most}
        return name, net, widths, load(name, **options)
    return name, net, widths, data_of(name, a, a["seed"]).split(CORA_SHARE, a["seed"])


def _techniques(a: Mapping[str, Any]) -> Tables:
    name, net, widths, ds = _data(a)
    task = task_of(net, ds, widths, a["seed"], epochs_of(name, a), TRAINING[name], a["lost"])
    model = task.fresh()
    task.train(model)
    keys = {"kind": a["name"], "run": a["seed"]}
    before = {
        "before_choose": task.accuracy(model, task.choose),
        "before_test": task.accuracy(model, task.report),
    }
    rows, tensors = [], []
    for technique in a["techniques"]:
        if technique in WITHOUT.get(net, ()):
            continue
        small = TECHNIQUES[technique](task, model)
        rows.append({"technique": technique, **before, **measured(task, small)})
        tensors.append(coded_sizes(small.state).assign(technique=technique))
    return {
        "facts": facts(ds).assign(run=a["seed"]),
        "techniques": pd.DataFrame(rows).assign(**keys),
        "curve": pd.DataFrame(_curve(task, model)).assign(**keys),
        "general": pd.DataFrame(_general(model)).assign(**keys),
        "tensors": pd.concat(tensors, ignore_index=True).assign(**keys),
        "tickets": pd.DataFrame(_tickets(task, model)).assign(**keys),
    }


def _curve(task: Task, model: nn.Module) -> list[dict[str, Any]]:
    """Return size and accuracy at steps from fine to coarse, by three ways to round."""
    inputs = task.inputs()
    ways: dict[str, Callable[[float], Any]] = {
        "nearest": lambda step: quantise(model, 2.0**step, trade=0.0),
        "cost of bits": lambda step: quantise(model, 2.0**step, trade=0.3),
    }
    if inputs is not None:
        ways["inputs and cost"] = lambda step: quantise(
            model, 2.0 ** (step + INPUTS_STEP), inputs, trade=0.3
        )
    rows = []
    for way, step in itertools.product(ways, CURVE):
        state = ways[way](step)
        small = Small(shrinking.with_weights(model, state), state)
        rows.append({"rounding": way, "step": step, **measured(task, small)})
    return rows


def _tickets(task: Task, model: nn.Module) -> list[dict[str, Any]]:
    """Return the accuracy of sparse networks trained from their own start, and from another."""
    starts = {"rewound": task.seed, "drawn anew": task.seed + shrinking.ANEW}
    return [
        {"start": start, "share": share, "test_accuracy": task.accuracy(net, task.report)}
        for start, seed in starts.items()
        for share, net in shrinking.rewound(task, model, seed).items()
    ]


def _general(model: nn.Module) -> list[dict[str, Any]]:
    """Return bytes of the weights by general compressors and by the weight file, nothing lost."""
    rows = []
    weights = {n: w.detach() for n, w in model.state_dict().items() if w.is_floating_point()}
    for form, change in FORMS.items():
        changed = {name: change(w).contiguous() for name, w in weights.items()}
        flat = [w.reshape(-1).view(torch.uint8).reshape(w.numel(), -1) for w in changed.values()]
        row: dict[str, Any] = {"form": form, "memory": sum(w.numel() for w in flat)}
        for layout, turned in (("plain", False), ("regrouped", True)):
            data = b"".join((w.T if turned else w).contiguous().numpy().tobytes() for w in flat)
            for name, press in COMPRESSORS.items():
                row[f"{name}, {layout}"] = len(press(data))
        rows.append(row | {"weight file": len(pack(changed))})
    return rows


def _eight_bits(weight: Tensor) -> Tensor:
    most = weight.abs().max().clamp(min=1e-30)
    return (weight / most * 127).round().to(torch.int8)


FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "fp32": lambda w: w.float(),
    "fp16": lambda w: w.half(),
    "int8": _eight_bits,
}
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    **general(),
    "brotli-11": lambda data: bytes(brotli.compress(data, quality=11)),
}


# Networks of many sizes


def _sizes(a: Mapping[str, Any]) -> Tables:
    name, net, _, ds = _data(a)
    y = ds.y[ds.train]
    labels, rows = len(y) * label_entropy(y), []
    learn = TRAINING[name]
    code = _prequential(ds, learn["learning_rate"], a["seed"])
    for shape in SHAPES:
        epochs = epochs_of(name, a)
        model, scores = trained(net, ds, shape, a["seed"], epochs, learn)
        task = task_of(net, ds, shape, a["seed"], epochs, learn, a["lost"])
        small = shrinking.coded(task, model, model, task.inputs())
        held = math.nan  # the rules don't speak of graphs
        if not task.graph:
            held = float(memory_capacity(model, ds.x[:1])["bits"].sum())
        rows.append(
            {
                "shape": "-".join(map(str, shape)),
                **scores,
                **measured(task, small),
                "whole": len(pack(model)),
                "prunable": shrinking.prunable(task, model),
                "labels": labels,
                "learned": labels - len(y) * scores["train_loss"],
                "held": held,
                "prequential": code,
            }
        )
    return {"sizes": pd.DataFrame(rows).assign(kind=a["name"], run=a["seed"])}


def _prequential(ds: Dataset, rate: float, seed: int) -> float:
    """Return the length of the training labels in a code that learns as it goes, in bits."""
    order = ds.train[torch.randperm(len(ds.train), generator=stream(seed, "order"))]
    sizes = [ds.x[0].numel(), 64, 64, len(ds.classes)]
    model = FullyConnected(sizes, "relu", seed=seed).to(ds.x.dtype)
    code = prequential_by_rehearsal(
        model, ds.x[order], ds.y[order], learning_rate=rate, seed=seed, progress=False
    )
    return float(code["bits"].sum())


# While a network learns


def _course(a: Mapping[str, Any]) -> Tables:
    """Follow the thesis's network: the plane of its layers, and the size of its file."""
    ds = load("tishby", train_fraction=0.85, seed=a["seed"], dtype=float_type(a["dtype"]))
    learn, widths = {"learning_rate": 4e-4, "batch_size": 512}, (10, 7, 5, 4, 3)
    task = task_of("fc", ds, widths, a["seed"], a["epochs"], learn, a["lost"], ds.train)
    model = FullyConnected([12, *widths, 2], a["name"], seed=a["seed"]).to(ds.x.dtype)
    looks, parts = snapshot_epochs(a["epochs"], a["snapshots"]), []
    estimate = AdaptiveBinning()

    def look(epoch: int, history: Any) -> None:
        if epoch not in looks:
            return
        with ActivationTracker(model) as tracker:
            layers = tracker.collect(ds.x)
        found = {n: estimate(z, ds.y)["AdaptiveBinning"] for n, z in layers.items()}
        small = shrinking.coded(task, model, model, task.inputs())
        rows = pd.DataFrame(
            [{"layer": n, "i_xz": mi.i_xz, "i_zy": mi.i_zy} for n, mi in found.items()]
        )
        rows["train_accuracy"] = task.accuracy(model, ds.train)
        parts.append(rows.assign(epoch=epoch, **measured(task, small)))

    task.train(model, on_epoch=look, snapshots=looks)
    table = pd.concat(parts, ignore_index=True)
    return {"course": table.assign(activation=a["name"], run=a["seed"])}


# What labels cost


def _learned(a: Mapping[str, Any]) -> Tables:
    """Learn true and random labels of the same images by heart; write what knows them."""
    options = {"seed": a["seed"], "dtype": float_type(a["dtype"]), "source": a["source"]}
    ds = load("mnist", size=a["name"], test_size=10, **options)
    index, rows = ds.train, []
    drawn = torch.randint(len(ds.classes), ds.y.shape, generator=stream(a["seed"], "random labels"))
    for labels, y in (("true", ds.y), ("random", drawn.to(ds.y))):
        data = replace(ds, y=y)
        learn = {"learning_rate": 1e-3, "batch_size": 64}
        task = task_of("fc", data, (64, 64), a["seed"], a["epochs"], learn, a["lost"], index)
        model = task.fresh()
        _by_heart(task, model)
        keys = {"labels": labels, "needed": len(index) * label_entropy(y[index])}
        every = -(-a["epochs"] // 8)
        smallest = {"by inputs and cost": shrinking.by_inputs(task, model)}
        priced = shrinking.priced(task, model, epochs=every)
        smallest["penalised"] = shrinking.smallest(task, model, priced)
        for technique, small in smallest.items():
            found = measured(task, small) | {"test_accuracy": math.nan}
            rows.append({**keys, "technique": technique, **found})
    return {"learned": pd.DataFrame(rows).assign(samples=a["name"], run=a["seed"])}


def _by_heart(task: Task, model: nn.Module) -> None:
    """Train until all is right, or the passes are used up."""

    def enough(epoch: int, history: Any) -> bool:
        return epoch % 10 == 0 and task.accuracy(model, task.choose) == 1

    task.train(model, on_epoch=enough)


_PARTS: dict[str, Callable[[Mapping[str, Any]], Tables]] = {
    "techniques": _techniques,
    "sizes": _sizes,
    "course": _course,
    "learned": _learned,
    "marks": published.marks,
}
