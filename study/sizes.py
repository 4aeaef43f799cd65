"""Chapter 09: networks of a kind in any widths, the data they learn, and how they are trained."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ibcore.data import Dataset, load
from ibcore.models import FullyConnected, GraphConvolutional, Recurrent, _draw_weights
from ibcore.training import fit
from study.measures import float_type, placed

# A kind: its data set, its network, and the widths of the hidden layers that are ordinary there.
KINDS: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "bits, fully connected": ("tishby", "fc", (32, 32, 32)),
    "Cora, fully connected": ("cora", "fc", (32, 32)),
    "Cora, graph": ("cora", "gcn", (32, 32)),
    "names, fully connected": ("names", "fc", (64, 64)),
    "names, recurrent": ("names", "rnn", (32, 32)),
    "MNIST, fully connected": ("mnist", "fc", (64, 64, 64)),
    "MNIST, convolutional": ("mnist", "conv", (16, 16, 64)),
}
TRAINING: dict[str, dict[str, Any]] = {
    "tishby": {"learning_rate": 2e-3, "batch_size": 256},
    "cora": {"learning_rate": 5e-3, "batch_size": None},
    "names": {"learning_rate": 1e-3, "batch_size": 64},
    "mnist": {"learning_rate": 1e-3, "batch_size": 64},
}
CORA_SHARE = 0.6  # of the nodes to train on: a hundredth of 140 labels is no label


def data_of(name: str, a: Mapping[str, Any], seed: int) -> Dataset:
    """Return a data set of the chapter: Cora with more nodes to train on than is usual."""
    options: dict[str, Any] = {"seed": seed, "dtype": float_type(a["dtype"])}
    if name == "tishby":
        return load(name, train_fraction=0.85, **options)
    options["source"] = a["source"]
    if name == "mnist":
        return load(name, size=a["size"], test_size=a["size"] // 2, **options)
    ds = load(name, **options)
    return ds.split(CORA_SHARE, seed) if name == "cora" else ds


def network(kind: str, ds: Dataset, widths: Sequence[int], seed: int) -> nn.Module:
    """Return an untrained network: "fc" or "conv" with ReLU, "gcn" with ReLU, "rnn" with tanh."""
    classes, one = len(ds.classes), ds.x[0]
    if kind == "gcn":
        return GraphConvolutional([one.numel(), *widths, classes], "relu", seed=seed)
    if kind == "rnn":
        return Recurrent(one.shape[-1], widths, classes, "tanh", seed=seed)
    if kind == "conv":
        return _convolutional(widths, classes, seed)
    return FullyConnected([one.numel(), *widths, classes], "relu", seed=seed)


def _convolutional(widths: Sequence[int], classes: int, seed: int) -> nn.Module:
    """Return a network of two convolutions and a linear layer for images of 28 × 28."""
    first, second, third = widths
    model = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, first, 5, stride=2),  # 12 × 12
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(first, second, 5, stride=2),  # 4 × 4
            relu2=nn.ReLU(),
            flatten=nn.Flatten(),
            linear1=nn.Linear(16 * second, third),
            relu3=nn.ReLU(),
            linear2=nn.Linear(third, classes),
        )
    )
    _draw_weights(model, seed)
    return model


def hidden_layers(kind: str, count: int) -> list[str]:
    """Return the names of the layers whose units are the widths, from the first to the last."""
    word = "rnn" if kind == "rnn" else "relu"
    return [f"{word}{number}" for number in range(1, count + 1)]


def graph_of(kind: str, ds: Dataset) -> tuple[Tensor, ...]:
    """Return what the network takes beside x."""
    return (ds.edge_index,) if kind == "gcn" and ds.edge_index is not None else ()


def without_graph(kind: str, ds: Dataset) -> Dataset:
    """Return the data as the network takes them: only a graph network sees edges."""
    return ds if kind == "gcn" else replace(ds, edge_index=None)


def trained(
    kind: str,
    ds: Dataset,
    widths: Sequence[int],
    seed: int,
    epochs: int,
    learn: Mapping[str, Any],
    watch: Callable[[nn.Module], Any] | None = None,
) -> tuple[nn.Module, dict[str, float]]:
    """Return a network after its training, and its scores at the end.

    Args:
        kind: see `network`.
        ds: the data.
        widths: of the hidden layers.
        seed: of weights and batches.
        epochs: passes over the training samples.
        learn: step size and samples a step, see `TRAINING`.
        watch: called with the network before its training; what it returns is called after each
            epoch.
    """
    ds = without_graph(kind, ds)
    model = placed(network(kind, ds, widths, seed), ds)
    on_epoch = watch(model) if watch else None
    history = fit(
        model, ds, epochs=epochs, seed=seed, snapshots=[epochs], on_epoch=on_epoch, progress=False,
        **learn,
    )  # fmt: skip
    scores = {name: float(history.table[name].iloc[-1]) for name in SCORES}
    return model, scores | {"parameters": count(model)}


SCORES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


def count(model: nn.Module) -> int:
    """Return the number of a network's parameters."""
    return sum(weight.numel() for weight in model.parameters())


def held_out(ds: Dataset, most: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return inputs and labels of held-out samples; of a graph all, and which of them count."""
    index = ds.test[:most]
    if ds.edge_index is not None:
        return ds.x, ds.y, index
    return ds.x[index], ds.y[index], None


def epochs_of(name: str, a: Mapping[str, Any]) -> int:
    """Return the epochs that the settings give a data set."""
    return int(a[f"{'bits' if name == 'tishby' else name}_epochs"])
