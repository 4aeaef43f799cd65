"""Networks in which every layer is a named submodule; all return logits."""

import math
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any

import torch
from scipy.special import ndtr, ndtri
from torch import Tensor, nn

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


class FullyConnected(nn.Sequential):
    """A fully connected network that returns logits.

    Zˡ⁺¹ = σ(Zˡ Wˡ + bˡ); submodules are linear1, tanh1, linear2, ... after the activation's name.
    Inputs of any shape (n_samples, ...) are flattened. Weights are normal with deviation
    1/√(inputs), cut at two deviations; biases are zero.

    Args:
        widths: units of the input, of each hidden layer and of the output.
        activation: "tanh", "relu", "sigmoid" or "identity".
        seed: decides the weights; None draws from torch's global generator.
    Raises:
        ValueError: fewer than two widths, a width below one, or an unknown activation.
    Source: the thesis, eq. 1.2 [landsverk2021inductive]; the weights of Shwartz-Ziv & Tishby
        (2017) [shwartz2017opening].
    """

    def __init__(
        self, widths: Sequence[int], activation: str = "tanh", seed: int | None = None
    ) -> None:
        _check_widths(widths, 2)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (inputs, outputs) in enumerate(pairwise(widths), 1):
            layers[f"linear{number}"] = nn.Linear(inputs, outputs)
            if number < len(widths) - 1:
                layers[f"{activation}{number}"] = _activation(activation)
        super().__init__(layers)
        _draw_weights(self, seed)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, shape (n_samples, widths[-1])."""
        logits: Tensor = super().forward(x.flatten(1))
        return logits


class GraphConvolutional(nn.Module):
    """A graph convolutional network that returns a row of logits for each node.

    Zˡ⁺¹ = σ(D̃^(−1/2) Ã D̃^(−1/2) Zˡ Wˡ + bˡ) with Ã = A + I; submodules are conv1, relu1, conv2, ...
    Weights are drawn as those of `FullyConnected`: one seed gives both the same ones, and on a
    graph without edges they are the same function.

    Args:
        widths: numbers a node, units of each hidden layer, and classes.
        activation: "tanh", "relu", "sigmoid" or "identity".
        seed: decides the weights; None draws from torch's global generator.
    Raises:
        ValueError: fewer than two widths, a width below one, or an unknown activation.
    Source: Kipf & Welling (2017); the thesis, eq. 1.12 [kipf2017semi, landsverk2021inductive].
    """

    def __init__(
        self, widths: Sequence[int], activation: str = "relu", seed: int | None = None
    ) -> None:
        from torch_geometric.nn import GCNConv  # here, because it takes seconds to import

        super().__init__()
        _check_widths(widths, 2)
        for number, (inputs, outputs) in enumerate(pairwise(widths), 1):
            # The edges are normalised once a graph, in `_adjacency`, and not in every layer.
            self.add_module(f"conv{number}", GCNConv(inputs, outputs, normalize=False))
            if number < len(widths) - 1:
                self.add_module(f"{activation}{number}", _activation(activation))
        self._edges: tuple[Tensor, int, torch.dtype, int] | None = None
        self._normalised = torch.empty(0)
        self.inputs = widths[0]
        _draw_weights(self, seed)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the graph: torch can't copy a sparse matrix."""
        return {**self.__dict__, "_edges": None, "_normalised": torch.empty(0)}

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Return logits, shape (n_nodes, widths[-1]).

        Args:
            x: numbers of each node, shape (n_nodes, widths[0]).
            edge_index: edges from row 0 to row 1, shape (2, n_edges); an undirected edge is listed
                in both directions.
        Raises:
            ValueError: x or edges of another shape, or edges to nodes that don't exist.
        """
        _check_shape("numbers of the nodes", x, "n_nodes", self.inputs)
        adjacency = self._adjacency(x, edge_index)
        for name, module in self.named_children():
            x = module(x, adjacency) if name.startswith("conv") else module(x)
        return x

    def _adjacency(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Return D̃^(−1/2) Ã D̃^(−1/2), sparse; made anew when the graph is another one."""
        from torch_geometric.nn.conv.gcn_conv import gcn_norm
        from torch_geometric.utils import to_torch_csr_tensor

        known, version = self._edges, (edge_index._version, x.dtype, len(x))
        if known is None or known[0] is not edge_index or known[1:] != version:
            _check_edges(edge_index, len(x))
            # Outside inference mode, as a matrix made in it could never be trained with.
            with torch.inference_mode(False), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sparse")  # torch calls them beta
                edges, weight = gcn_norm(edge_index, None, len(x), dtype=x.dtype)
                self._normalised = to_torch_csr_tensor(edges.flip(0), weight, (len(x), len(x)))
            self._edges = (edge_index, *version)
        return self._normalised


class LastStep(nn.Module):
    """Picks the last element of a sequence, so that a tracker can record it by name."""

    def forward(self, states: Tensor) -> Tensor:
        """Return the last state, (n_samples, units), of states (n_samples, steps, units)."""
        return states[:, -1]


class Recurrent(nn.Module):
    """A stacked recurrent network that returns logits from the last state of its last layer.

    a⟨t⟩ = σ(W_aa a⟨t−1⟩ + W_ax x⟨t⟩ + b); a layer's states are the next layer's inputs. Submodules
    are rnn1, last1, rnn2, last2, ..., linear; last1, last2, ... put out the last state of a layer.
    Weights are drawn as those of `FullyConnected`.

    Args:
        inputs: numbers an element of the sequence.
        hidden: units of each layer.
        classes: units of the output.
        activation: "tanh" or "relu".
        seed: decides the weights; None draws from torch's global generator.
    Raises:
        ValueError: no layers, a width below one, or an unknown activation.
    Source: Elman (1990); the thesis, eq. 1.9 and 1.10 [elman1990finding, landsverk2021inductive].
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        classes: int,
        activation: str = "tanh",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        _check_widths([inputs, *hidden, classes], 3)
        if activation not in ("tanh", "relu"):
            raise ValueError(f"unknown activation {activation!r}: known are ['relu', 'tanh']")
        for number, (before, units) in enumerate(pairwise(map(int, [inputs, *hidden])), 1):
            layer = nn.RNN(before, units, nonlinearity=activation, batch_first=True)
            self.add_module(f"rnn{number}", layer)
            self.add_module(f"last{number}", LastStep())
        self.linear = nn.Linear(hidden[-1], classes)
        self.inputs = inputs
        _draw_weights(self, seed)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, shape (n_samples, classes).

        Args:
            x: sequences, shape (n_samples, steps, inputs).
        Raises:
            ValueError: x has another shape.
        """
        _check_shape("sequences", x, "n_samples", "steps", self.inputs)
        for name, module in self.named_children():
            if name.startswith("rnn"):
                x, _ = module(x)
            elif name.startswith("last"):
                last = module(x)
        logits: Tensor = self.linear(last)
        return logits


class LeNet(nn.Sequential):
    """A convolutional network for 28 × 28 images that returns logits.

    Submodules: conv1 (10 channels, 5 × 5), relu1, pool1, conv2 (20 channels), relu2, pool2,
    flatten, linear1 (50 units), relu3, linear2 (10 logits). Maps can be tracked before pooling
    (relu1, relu2) and after it (pool1, pool2). Weights are drawn as those of `FullyConnected`.

    Args:
        seed: decides the weights; None draws from torch's global generator.
    Source: LeCun et al. (1998), in the form of the thesis, section 5.1.3
        [lecun1998gradient, landsverk2021inductive].
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(1, 10, 5),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(10, 20, 5),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
                linear1=nn.Linear(320, 50),
                relu3=nn.ReLU(),
                linear2=nn.Linear(50, 10),
            )
        )
        _draw_weights(self, seed)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, shape (n_samples, 10).

        Raises:
            ValueError: x is not of shape (n_samples, 1, 28, 28).
        """
        _check_shape("images", x, "n_samples", 1, 28, 28)
        logits: Tensor = super().forward(x)
        return logits


def _check_widths(widths: Sequence[int], least: int) -> None:
    whole = all(isinstance(width, Integral) for width in widths)
    if not whole or len(widths) < least or min(widths) < 1:
        raise ValueError(
            f"widths must be a list of {least} or more positive whole numbers, got {widths!r}"
        )


def _check_shape(kind: str, x: Tensor, *shape: str | int) -> None:
    """Raise ValueError where x has other dimensions than the numbers in `shape`; names are free."""
    fits = x.ndim == len(shape) and all(
        isinstance(want, str) or want == got for want, got in zip(shape, x.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"{kind} must have shape ({wanted}), got {tuple(x.shape)}")


def _check_edges(edge_index: Tensor, nodes: int) -> None:
    if edge_index.ndim != 2 or len(edge_index) != 2 or edge_index.is_floating_point():
        raise ValueError(
            f"edges must be whole numbers of shape (2, n_edges), got {edge_index.dtype} of shape "
            f"{tuple(edge_index.shape)}"
        )
    if edge_index.numel() and not 0 <= int(edge_index.min()) <= int(edge_index.max()) < nodes:
        raise ValueError(
            f"edges join nodes {int(edge_index.min())} to {int(edge_index.max())}, but x has "
            f"nodes 0 to {nodes - 1}"
        )


def _activation(name: str) -> nn.Module:
    if name not in _ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}: known are {sorted(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]()


@torch.no_grad()
def _draw_weights(model: nn.Module, seed: int | None) -> None:
    """Draw each weight matrix from a normal of deviation 1/√(inputs), cut at two; zero biases.

    Quantiles of uniform numbers, in float64 and rounded to the weights' dtype at the end. Torch
    computes them by instructions that differ between processors, and so in the last bit, which
    training amplifies; SciPy has one function for all of them.
    """
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    low, high = ndtr(-2.0), ndtr(2.0)
    for weight in model.parameters():
        if weight.ndim < 2:
            nn.init.zeros_(weight)
        else:
            drawn = torch.rand(weight.shape, generator=generator, dtype=torch.float64, device="cpu")
            normal = torch.from_numpy(ndtri(low + (high - low) * drawn.numpy()))
            weight.copy_(normal / math.sqrt(weight[0].numel()))
