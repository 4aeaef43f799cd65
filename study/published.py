"""Chapter 10: the two shapes that the smallest files are published of, trained for a small file."""

import copy
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from ibcore.checks import stream
from ibcore.codec import Steps
from ibcore.data import load
from ibcore.discrete import label_entropy
from ibcore.models import _draw_weights
from study import shrinking
from study.measures import Tables, facts, float_type, placed
from study.shrinking import Small, Task, measured, task_of, with_weights

LENETS = {"784-300-100-10": (12, 1.0), "LeNet-5": (5, 3.0)}  # passes as it is, factor of prices
MOVES = (6.0, 0.06, 1.5)  # degrees, share and pixels that an image is turned, stretched, shifted
_SIZE = 2.0  # step of matrices before it is learned, by their root mean square
_BIAS = 0.1  # the same of biases
_RISING = 0.7  # share of the passes at a price in which it rises
_FURTHER = 0.4  # of the passes at the first price, at each further one


def marks(a: Mapping[str, Any]) -> Tables:
    """Train a published shape on five sixths of the images; write it ever smaller."""
    options = {"seed": a["seed"], "dtype": float_type(a["dtype"]), "source": a["source"]}
    most = 10000 if a["images"] >= 10000 else a["images"] // 2
    ds = load("mnist", size=a["images"], test_size=most, **options)
    cut = len(ds.train) * 5 // 6
    ds, choose = replace(ds, train=ds.train[:cut]), ds.train[cut:]
    learn = {"learning_rate": 1e-3, "batch_size": 128}
    alone, factor = LENETS[a["name"]]
    epochs = min(alone, a["epochs"])
    task = task_of("fc", ds, (300, 100), a["seed"], epochs, learn, a["lost"], choose)
    model = lenet5(a["seed"]).to(ds.x.dtype) if a["name"] == "LeNet-5" else task.fresh()
    model = placed(model, ds)
    net = Rated(copy.deepcopy(model))
    task.train(model)
    found = {("as it is", 0.0): shrinking.as_it_is(task, model)}
    prices = [price * factor for price in a["prices"]]
    for price, small in zip(prices, at_prices(task, net, prices, a["epochs"]), strict=True):
        found["penalised", price] = small
    y = ds.y[ds.train]
    rows = []
    for (technique, price), small in found.items():
        row = measured(task, small)
        row["code"] = 8 * row["bytes"] + _loss(small.model, ds.x[ds.train], y)
        rows.append({"technique": technique, "price": price, **row})
    keys = {"needed": len(y) * label_entropy(y), "shape": a["name"], "run": a["seed"]}
    table = pd.DataFrame(rows).assign(**keys)
    return {"marks": table, "facts": facts(ds).assign(run=a["seed"])}


def lenet5(seed: int) -> nn.Module:
    """Return the LeNet-5 of 431 080 parameters that papers on pruning take."""
    model = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 20, 5), pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(20, 50, 5), pool2=nn.MaxPool2d(2), flatten=nn.Flatten(),
            linear1=nn.Linear(800, 500), relu1=nn.ReLU(), linear2=nn.Linear(500, 10),
        )
    )  # fmt: skip
    _draw_weights(model, seed)
    return model


class Moved(nn.Module):
    """A network that sees the images of its training a little turned, stretched and shifted.

    Each is moved anew whenever it is seen; beside it is 0. In evaluation nothing is moved.
    """

    def __init__(self, model: nn.Module, seed: int) -> None:
        super().__init__()
        self.model, self.drawn = model, stream(seed, "moves")

    def forward(self, x: Tensor) -> Any:
        """Return the network's answer."""
        return self.model(self._moved(x) if self.training else x)

    def _moved(self, x: Tensor) -> Tensor:
        shape = x.shape if x.ndim == 4 else (len(x), 1, *x.shape[-2:])
        a, b, c, *ways = (2 * torch.rand(5, len(x), generator=self.drawn) - 1).to(x)
        turn, wide, high = a * math.radians(MOVES[0]), 1 + b * MOVES[1], 1 + c * MOVES[1]
        right, down = (way * 2 * MOVES[2] / shape[-1] for way in ways)
        first = torch.stack([wide * turn.cos(), -wide * turn.sin(), right], 1)
        second = torch.stack([high * turn.sin(), high * turn.cos(), down], 1)
        grid = affine_grid(torch.stack([first, second], 1), list(shape), align_corners=False)
        return grid_sample(x.reshape(shape), grid, align_corners=False).reshape(x.shape)


class Rated(nn.Module):
    """A network whose weights are multiples of learned steps, with a price on their bits.

    The answer is that of the rounded weights, with gradients as if they weren't. Bits are those of
    a geometric density to both sides of 0, whose rate is a product of one a row and one a column
    of each matrix; the biases of a layer have one rate.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.steps, self.rows, self.columns = (nn.ParameterDict() for _ in range(3))
        for name, weight in model.named_parameters():
            w, key = weight.detach(), name.replace(".", "/")
            step = _SIZE * w.square().mean().sqrt() if w.ndim > 1 else torch.tensor(_BIAS).to(w)
            u = _matrix(w / step).abs()
            self.steps[key] = nn.Parameter(step.log())
            self.rows[key] = nn.Parameter(torch.zeros(len(u), 1).to(u))
            mean = u.mean(0) if w.ndim > 1 else u.mean()
            self.columns[key] = nn.Parameter(-(mean + 0.1).log())

    def forward(self, x: Tensor) -> Any:
        """Return the answer of the rounded network."""
        rounded = {}
        for name, u, step in self._levels():
            rounded[name] = (u + (u.round() - u).detach()) * step
        return functional_call(self.model, rounded, (x,))

    def bits(self) -> Tensor:
        """Return the bits of all weights, a number with gradients."""
        total = torch.zeros(())
        for name, u, _ in self._levels():
            key = name.replace(".", "/")
            rate = (self.rows[key] + self.columns[key]).clamp(-4, 3).exp()
            nats = rate * _matrix(u).abs() - torch.log(torch.tanh(rate / 2))
            total = total.to(u) + nats.sum() / math.log(2)
        return total

    def small(self) -> Small:
        """Return the rounded network and what is written of it; units that nobody reads are 0."""
        levels, sizes = dict[str, Tensor](), dict[str, float]()
        for name, _, step in self._levels():
            sizes[name] = float(np.float32(step.item()))
            weight = self.model.get_parameter(name).detach()
            levels[name] = (weight.double() / sizes[name]).round().long()
        names = [name for name in levels if name.endswith(".weight")]  # in the order of the layers
        for name, after in reversed(list(itertools.pairwise(names))):
            units = len(levels[name])
            unread = ~levels[after].reshape(len(levels[after]), units, -1).any(2).any(0)
            levels[name][unread] = 0
            levels[name.replace("weight", "bias")][unread] = 0
        state: dict[str, Tensor | Steps] = {
            name: Steps(levels[name], sizes[name], weight.dtype)
            for name, weight in self.model.state_dict().items()
        }
        return Small(with_weights(self.model, state), state)

    def _levels(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        for name, weight in self.model.named_parameters():
            step = self.steps[name.replace(".", "/")].exp()
            yield name, weight / step, step


def _matrix(w: Tensor) -> Tensor:
    return w.flatten(1) if w.ndim > 1 else w[None]


def at_prices(task: Task, net: Rated, prices: Sequence[float], passes: int) -> Iterator[Small]:
    """Yield the network after training with moved images at ever higher prices of a bit.

    A price rises over the first 0.7 of its passes, while Adam's step falls along a cosine to 0.
    """
    samples, last = len(task.ds.train), 0.0
    for price in prices:
        epochs = math.ceil(passes * _FURTHER) if last else passes
        steps = epochs * math.ceil(samples / task.learn["batch_size"])
        moved = Moved(net, task.seed)
        loss = _with_price(net, last, price, samples, _RISING * steps)
        task.train(moved, epochs, loss=loss, optimizer=partial(_falling, steps=steps))
        yield net.small()
        last = price


def _with_price(
    net: Rated, low: float, high: float, samples: int, rising: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss of a batch: by labels, and bits of weights at a price, a label's share."""
    taken = itertools.count(1)

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        price = low + (high - low) * min(1.0, next(taken) / rising)
        return cross_entropy(logits, y) + price * math.log(2) / samples * net.bits()

    return loss


def _falling(weights: Any, lr: float, steps: int) -> torch.optim.Optimizer:
    """Return Adam whose step size falls along a cosine to 0 in so many steps."""
    adam = torch.optim.Adam(weights, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    adam.register_step_post_hook(lambda *_: schedule.step())
    return adam


def _loss(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the cross-entropy of all labels together, in bits."""
    with torch.no_grad():
        parts = zip(x.split(4096), y.split(4096), strict=True)
        losses = (cross_entropy(model(b), c, reduction="sum") for b, c in parts)
        return float(sum(losses)) / math.log(2)
