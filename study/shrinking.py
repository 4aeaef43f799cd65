"""Chapter 10: ways to make a trained network's file smaller, each to the same loss of accuracy."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, softplus
from torch.nn.utils import prune

from ibcore.capacity.rank import accuracy_of
from ibcore.checks import stream
from ibcore.codec import Steps, coded_sizes, compress, pack, quantise
from ibcore.codec.container import State
from ibcore.codec.quantise import PRECISE
from ibcore.data import Dataset
from ibcore.discrete import entropy
from ibcore.tolerated import HangsOnRoundingError
from ibcore.training import fit
from study import advice
from study.measures import placed
from study.sizes import count, graph_of, network, without_graph

SHARES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)  # of the weights that are pruned
ENERGIES = (0.999, 0.995, 0.99, 0.98, 0.95, 0.9, 0.8, 0.7, 0.5)  # of a matrix that a rank keeps
MEANS = (256, 128, 64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2)  # values a tensor may have
PRICES = (0.03, 0.1, 0.3, 1.0)  # of a bit of weights, in bits of the training labels
SIZES = (0.5, 2.0)  # steps of penalised weights, by the root mean square of their tensor before
_FINEST, _COARSEST = -10.0, 3.0  # log₂ of a step that all tensors share
_HALVINGS = 10
ANEW = 1000  # more than a seed, for the start of another ticket
_CALIBRATION = 2000  # training samples whose inputs rounding sees, at most


class Small(NamedTuple):
    """A smaller network, and what is written of it.

    Args:
        model: the network as it comes back from the file.
        state: what the file holds.
    """

    model: nn.Module
    state: State


@dataclass(frozen=True, eq=False)  # a task is itself alone, so that what it made can be kept
class Task:
    """What a network is trained on, and which samples choose and which report.

    Args:
        kind: of network, see `sizes.network`.
        ds: the data, as the network takes them.
        widths: of the hidden layers.
        seed: of weights and batches.
        epochs: passes over the training samples.
        learn: step size and samples a step.
        choose: indices of samples that a size is chosen by.
        report: indices of samples that its accuracy is reported on.
        lost: accuracy that may be lost, a share.
    """

    kind: str
    ds: Dataset
    widths: tuple[int, ...]
    seed: int
    epochs: int
    learn: Mapping[str, Any]
    choose: Tensor
    report: Tensor
    lost: float

    @cached_property
    def graph(self) -> tuple[Tensor, ...]:
        """What the network takes beside x."""
        return graph_of(self.kind, self.ds)

    def fresh(self, seed: int | None = None) -> nn.Module:
        """Return the network before its training."""
        drawn = network(self.kind, self.ds, self.widths, self.seed if seed is None else seed)
        return placed(drawn, self.ds)

    def train(self, model: nn.Module, epochs: int | None = None, **more: Any) -> None:
        """Train a network of this task in place; `more` goes to `fit`."""
        count = max(1, self.epochs if epochs is None else epochs)
        options = {"snapshots": [count], "progress": False, **self.learn, **more}
        fit(model, self.ds, epochs=count, seed=self.seed, **options)

    def accuracy(self, model: nn.Module, index: Tensor) -> float:
        """Return the share of right answers on some samples."""
        ds = self.ds
        if self.graph:
            return accuracy_of(model, model, ds.x, ds.y, index, None, *self.graph)
        return accuracy_of(model, model, ds.x[index], ds.y[index], None, 4096)

    def inputs(self) -> Tensor | None:
        """Return training inputs for second-order rounding; layers of graphs have none."""
        return None if self.graph else self.ds.x[self.ds.train[:_CALIBRATION]]


def task_of(
    kind: str,
    ds: Dataset,
    widths: Sequence[int],
    seed: int,
    epochs: int,
    learn: Mapping[str, Any],
    lost: float,
    choose: Tensor | None = None,
) -> Task:
    """Return a task; without `choose` the held-out samples choose and report by halves."""
    half = len(ds.test) // 2
    chosen, reported = (ds.test[:half], ds.test[half:]) if choose is None else (choose, ds.test)
    data = without_graph(kind, ds)
    return Task(kind, data, tuple(widths), seed, epochs, learn, chosen, reported, lost)


def measured(task: Task, small: Small) -> dict[str, float]:
    """Return what a smaller network takes and answers.

    bytes (of the file), entropy_bytes (of its whole numbers and steps at order 0, without the code
    book; NaN where none are written), mask, signs, magnitudes (bits), parameters, kept (share of
    the numbers of matrices that are not 0), choose_accuracy, test_accuracy.
    """
    table = coded_sizes(small.state)
    whole = {n: _numbers(w) for n, w in small.state.items()}
    numbers = [w for w in whole.values() if w is not None]
    order_0 = sum(w.numel() * entropy(torch.unique(w, return_counts=True)[1]) for w in numbers) / 8
    matrices = [w for w in small.model.parameters() if w.ndim > 1]
    return {
        "bytes": float(table["bytes"].iloc[-1]),
        "entropy_bytes": order_0 if numbers else math.nan,
        **{name: float(table[name].iloc[-1]) for name in ("mask", "signs", "magnitudes")},
        "parameters": count(small.model),
        "kept": sum(int((w != 0).sum()) for w in matrices) / sum(w.numel() for w in matrices),
        "choose_accuracy": task.accuracy(small.model, task.choose),
        "test_accuracy": task.accuracy(small.model, task.report),
    }


def _numbers(written: Tensor | Steps) -> Tensor | None:
    if isinstance(written, Steps):
        levels = written.levels
        return levels.sign() * ((levels.abs() + 1) // 2) if written.dependent else levels
    return None if written.is_floating_point() else written


def with_weights(model: nn.Module, state: State) -> nn.Module:
    """Return a copy with the weights of a state."""
    other = copy.deepcopy(model)
    other.load_state_dict({n: w.values() if isinstance(w, Steps) else w for n, w in state.items()})
    return other.eval()


# By rounding alone


def as_it_is(task: Task, model: nn.Module) -> Small:
    """Nothing is lost."""
    return Small(model, dict(model.state_dict()))


def nearest(task: Task, model: nn.Module) -> Small:
    """Round to the nearest multiple of a step, by the root mean square of each tensor.

    The coarsest step that loses little enough is searched by halving.
    """
    low, high, best = _FINEST, _COARSEST, as_it_is(task, model)
    least = _least(task, model)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        state = quantise(model, 2.0**middle, trade=0.0)
        small = Small(with_weights(model, state), state)
        enough = task.accuracy(small.model, task.choose) >= least
        low, high, best = (middle, high, small) if enough else (low, middle, best)
    return best


def k_means(task: Task, model: nn.Module) -> Small:
    """Give each tensor a few values, the means of clusters [han2016deep]."""
    tried = (_clustered(model, values, task.seed) for values in MEANS)
    return smallest(task, model, (Small(with_weights(model, back), w) for w, back in tried))


def by_cost(task: Task, model: nn.Module) -> Small:
    """Round by the cost of bits, without inputs."""
    return coded(task, model, model, None)


def by_inputs(task: Task, model: nn.Module) -> Small:
    """Round by the cost of bits and the layers' inputs."""
    return coded(task, model, model, task.inputs())


def coded(task: Task, model: nn.Module, before: nn.Module, inputs: Tensor | None) -> Small:
    """Return a network's smallest file that loses at most `lost` of the accuracy `before`.

    Where the network has lost more by itself, the file loses no more of what is left; where its
    answer hangs on rounding, the file loses nothing at all.
    """
    lost = max(0.0, task.accuracy(model, task.choose) - _least(task, before))
    ds = task.ds
    x, y = (ds.x, ds.y) if task.graph else (ds.x[task.choose], ds.y[task.choose])
    try:
        found = compress(
            model, None, x, y, *task.graph, lost=min(lost, 0.99), calibration=inputs,
            chosen=task.choose if task.graph else None, batch_size=None if task.graph else 4096,
        )  # fmt: skip
    except HangsOnRoundingError:
        return as_it_is(task, model)
    return Small(with_weights(model, found.state), found.state)


def _least(task: Task, before: nn.Module) -> float:
    return task.accuracy(before, task.choose) - task.lost - 1e-12


def _clustered(model: nn.Module, many: int, seed: int) -> tuple[State, State]:
    """Return indices and means, and the weights that come back of them.

    Index 0 is the mean nearest to 0, so that signs and magnitudes stay what they are.
    """
    written: dict[str, Tensor | Steps] = {}
    back: dict[str, Tensor | Steps] = {}
    for name, weight in model.state_dict().items():
        back[name] = written[name] = weight
        if not weight.is_floating_point() or weight.ndim < 2 or weight.numel() <= many:
            continue
        flat = weight.double().reshape(-1).numpy()
        drawn = stream(seed, f"k-means, {name}")
        some = flat[torch.randperm(len(flat), generator=drawn)[:20_000].numpy()]
        clusters = KMeans(min(many, len(np.unique(some))), n_init=1, random_state=seed)
        means = np.sort(clusters.fit(some[:, None]).cluster_centers_[:, 0])
        index = np.searchsorted((means[1:] + means[:-1]) / 2, flat)
        del written[name]
        zero, values = int(np.abs(means).argmin()), torch.from_numpy(means).float()
        written[f"{name}.index"] = torch.from_numpy(index - zero).reshape(weight.shape)
        written[f"{name}.means"] = values
        back[name] = values[torch.from_numpy(index)].reshape(weight.shape).to(weight)
    return written, back


# By fewer weights


def pruned_at_once(task: Task, model: nn.Module) -> Small:
    """Put the smallest weights of all layers to 0, and train no more."""
    return _coded_last(task, model, (_cut(model, share) for share in SHARES))


def prunable(task: Task, model: nn.Module) -> float:
    """Return the largest share of the smallest weights that can be 0 for `lost` of accuracy."""
    least, low, high = _least(task, model), 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        enough = task.accuracy(_cut(model, middle), task.choose) >= least
        low, high = (middle, high) if enough else (low, middle)
    return low


def pruned_gradually(task: Task, model: nn.Module) -> Small:
    """Prune in steps that grow smaller, training between them [zhu2017prune]."""

    def cut() -> Iterator[nn.Module]:
        net = copy.deepcopy(model)
        for share in SHARES:
            train_masked(task, net, masks(net, share), -(-task.epochs // 3))
            yield net

    return _coded_last(task, model, cut())


def ticket(task: Task, model: nn.Module) -> Small:
    """Prune by trained weights, train the rest anew from where it began [frankle2019lottery]."""
    return _coded_last(task, model, rewound(task, model, task.seed).values())


def drawn_anew(task: Task, model: nn.Module) -> Small:
    """Train the ticket's weights from another start."""
    return _coded_last(task, model, rewound(task, model, task.seed + ANEW).values())


@lru_cache(maxsize=2)  # of one task: both starts, which a table and two techniques look at
def rewound(task: Task, model: nn.Module, seed: int) -> dict[float, nn.Module]:
    """Return networks with ever fewer weights, trained from the start that a seed draws."""
    found = {}
    for share in SHARES:
        found[share] = task.fresh(seed)
        train_masked(task, found[share], masks(model, share), task.epochs)
    return found


def narrower(task: Task, model: nn.Module) -> Small:
    """Train anew with the widths that `diagnose` recommends."""
    report = advice.judged(task.kind, model, task.ds, task.seed)
    slim = replace(task, widths=advice.widths_of(report))
    net = slim.fresh()
    slim.train(net)
    return coded(slim, net, model, slim.inputs())


def masks(model: nn.Module, share: float) -> dict[str, Tensor]:
    """Return which weights of all matrices stay when the smallest share is cut."""
    matrices = {n: w.detach() for n, w in model.named_parameters() if w.ndim > 1}
    sizes = torch.cat([w.abs().reshape(-1) for w in matrices.values()]).sort().values
    cut = round(share * len(sizes))
    bound = sizes[cut - 1] if cut else -1.0
    return {name: (w.abs() > bound).to(w) for name, w in matrices.items()}


def train_masked(task: Task, model: nn.Module, kept: Mapping[str, Tensor], epochs: int) -> None:
    """Train while some weights stay 0."""
    places = [(model.get_submodule(n.rpartition(".")[0]), n.rpartition(".")[2]) for n in kept]
    for (module, name), mask in zip(places, kept.values(), strict=True):
        prune.custom_from_mask(module, name, mask)
    task.train(model, epochs)
    for module, name in places:
        prune.remove(module, name)


def _cut(model: nn.Module, share: float) -> nn.Module:
    """Return a copy whose smallest share of weights is 0."""
    kept, out = masks(model, share), copy.deepcopy(model)
    with torch.no_grad():
        for name, mask in kept.items():
            out.get_parameter(name).mul_(mask)
    return out


def low_rank(task: Task, model: nn.Module) -> Small:
    """Write matrices as products of two thin ones, by their largest singular values."""
    return _coded_last(task, model, (factored(model, energy) for energy in ENERGIES))


def factored(model: nn.Module, energy: float) -> nn.Module:
    """Return a copy whose layers keep a share of their squared singular values in two thin ones.

    Layers inside others, in groups, or that would have no fewer weights stay as they are.
    """
    out = copy.deepcopy(model)
    for name, module in list(out.named_children()):
        if not isinstance(module, nn.Linear | nn.Conv2d) or getattr(module, "groups", 1) > 1:
            continue
        u, s, v = torch.linalg.svd(module.weight.detach().flatten(1).double(), full_matrices=False)
        held = s.square().cumsum(0) / s.square().sum()
        rank = int((held < energy).sum()) + 1
        if rank * (len(u) + v.shape[1]) >= module.weight.numel():
            continue
        root = s[:rank].sqrt()
        first, second = (root[:, None] * v[:rank]), u[:, :rank] * root
        setattr(out, name, _in_two(module, first, second))
    return out.to(next(model.parameters()))


def _in_two(module: nn.Linear | nn.Conv2d, first: Tensor, second: Tensor) -> nn.Module:
    rank, bias = len(first), module.bias
    thin: nn.Module
    wide: nn.Module
    if isinstance(module, nn.Linear):
        thin = nn.Linear(module.in_features, rank, bias=False)
        wide = nn.Linear(rank, module.out_features)
        shapes = (first.shape, second.shape)
    else:
        names = ("stride", "padding", "dilation", "padding_mode")
        options: dict[str, Any] = {name: getattr(module, name) for name in names}
        size: Any = module.kernel_size
        thin = nn.Conv2d(module.in_channels, rank, size, bias=False, **options)
        wide = nn.Conv2d(rank, module.out_channels, 1)
        shapes = (thin.weight.shape, wide.weight.shape)
    state = {"0.weight": first.reshape(shapes[0]), "1.weight": second.reshape(shapes[1])}
    both = nn.Sequential(thin, wide)
    both.load_state_dict(state | {"1.bias": torch.zeros(len(second)) if bias is None else bias})
    return both


def _coded_last(task: Task, model: nn.Module, path: Iterable[nn.Module]) -> Small:
    """Return the file of the last network on a path that leaves half of the loss to rounding."""
    least, best = _least(task, model) + task.lost / 2, model
    for net in path:  # to its end: a network trained anew may do worse than one with fewer weights
        if task.accuracy(net, task.choose) >= least:
            best = copy.deepcopy(net)
    return coded(task, best, model, task.inputs())


# By training for few bits


class Penalised(nn.Module):
    """A network whose weights are multiples of steps, with a price on their bits.

    The answer is that of the rounded weights, with gradients as if they weren't. Bits are those of
    a logistic density, whose scale is a product of one a row and one a column of each matrix.
    """

    def __init__(self, model: nn.Module, size: float) -> None:
        super().__init__()
        self.model = model
        named = [(n, w.detach()) for n, w in model.named_parameters() if w.ndim > 1]
        self.steps = {n: float(np.float32(size * w.square().mean().sqrt())) for n, w in named}
        self.rows, self.columns = nn.ParameterDict(), nn.ParameterDict()
        for name, weight in named:
            flat = weight.flatten(1).abs() / self.steps[name]
            key = name.replace(".", "/")
            self.rows[key] = nn.Parameter(torch.zeros(len(flat)).to(flat))
            self.columns[key] = nn.Parameter(_unsoft(flat.mean(0) + 0.1))

    def weights(self) -> dict[str, Tensor]:
        """Return the rounded matrices."""
        found = {}
        for name, step in self.steps.items():
            weight = self.model.get_parameter(name)
            found[name] = weight + ((weight / step).round() * step - weight).detach()
        return found

    def forward(self, x: Tensor, *args: Any) -> Any:
        """Return the answer of the rounded network."""
        return functional_call(self.model, self.weights(), (x, *args))

    def bits(self) -> Tensor:
        """Return the bits of all matrices, a number with gradients."""
        total = torch.zeros(())
        for name, step in self.steps.items():
            key = name.replace(".", "/")
            u = (self.model.get_parameter(name) / step).flatten(1).abs()
            scale = softplus(self.columns[key]) * self.rows[key].exp()[:, None] + 1e-3
            # log of σ((½ − u)/s) − σ((−½ − u)/s), in a form that can't be log 0
            a, b = (0.5 - u) / scale, (-0.5 - u) / scale
            log = -softplus(-a) - softplus(b) + torch.log(-torch.expm1(b - a))
            total = total.to(u) - log.sum() / math.log(2)
        return total

    def small(self) -> Small:
        """Return the rounded network and what is written of it; biases get fine steps."""
        state: dict[str, Tensor | Steps] = {}
        for name, weight in self.model.state_dict().items():
            step = self.steps.get(name)
            if step is None and weight.is_floating_point() and weight.any():
                step = float(np.float32(PRECISE * weight.double().square().mean().sqrt()))
            if step is None:
                state[name] = weight
            else:
                levels = (weight.double() / step).round().long()
                state[name] = Steps(levels, step, weight.dtype)
        return Small(with_weights(self.model, state), state)


def _unsoft(values: Tensor) -> Tensor:
    """Return what softplus makes these values of."""
    return values + torch.log(-torch.expm1(-values))


def penalised(task: Task, model: nn.Module) -> Small:
    """Train on with a price on the weights' bits, while the answer keeps [oktay2020scalable]."""
    return smallest(task, model, (s for size in SIZES for s in priced(task, model, size=size)))


def smallest(task: Task, model: nn.Module, tried: Iterable[Small]) -> Small:
    """Return the smallest file of those that lose little enough, or the lossless one."""
    least = _least(task, model)
    good = [small for small in tried if task.accuracy(small.model, task.choose) >= least]
    return min([as_it_is(task, model), *good], key=lambda small: len(pack(small.state)))


def priced(
    task: Task,
    model: nn.Module,
    prices: Sequence[float] = PRICES,
    epochs: int | None = None,
    size: float = SIZES[-1],
) -> Iterator[Small]:
    """Yield networks trained on at ever higher prices of a bit of their weights.

    The loss is the cross-entropy of the training labels and `price` times the bits of the weights,
    both by the number of labels: at a price of 1 it is the length of a code in two parts.
    """
    net = Penalised(copy.deepcopy(model), size)
    for price in prices:
        _train_priced(task, net, price, epochs)
        yield copy.deepcopy(net).small()  # training goes on


def _train_priced(task: Task, net: Penalised, price: float, epochs: int | None) -> None:
    by_label = price * math.log(2) / len(task.ds.train)

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(logits, y) + by_label * net.bits()

    task.train(net, epochs, loss=loss)


TECHNIQUES: dict[str, Callable[[Task, nn.Module], Small]] = {
    "as it is": as_it_is,
    "nearest": nearest,
    "k-means": k_means,
    "by the cost of bits": by_cost,
    "by inputs and cost": by_inputs,
    "pruned at once": pruned_at_once,
    "pruned gradually": pruned_gradually,
    "lottery ticket": ticket,
    "ticket, drawn anew": drawn_anew,
    "narrower": narrower,
    "low rank": low_rank,
    "penalised": penalised,
}
