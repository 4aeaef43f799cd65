"""What every estimator promises, as laws that are checked: the table of the book's chapter.

Each law returns what was measured and the limit that it must not pass. A law that an estimator
does not promise is measured all the same, so that the table says what happens then.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ibcore.discrete import label_entropy, quantise
from ibcore.estimators import (
    Binning,
    Exact,
    InfoNCE,
    Ksg,
    Mine,
    MonteCarlo,
    Nwj,
    Pairwise,
    Renyi,
    Smile,
)
from ibcore.interface import Estimator, MutualInformation, apply

_N = 600  # samples of each law
_NOISE = 0.1  # σ² of the estimators that assume noise
_ROUNDING = 1e-6  # bits: what sums in another order, or of rounded values, may be off by


@dataclass(frozen=True)
class Subject:
    """An estimator, and what it promises.

    Args:
        estimator: the estimator.
        exact: whether a permutation of the samples changes no more than rounding; if not, it may
            change as much as the seed does, and `spread` bits are allowed.
        scale_free: whether the unit of z doesn't matter.
        bounded: whether I(T;Y) can't pass H(Y).
        below: names of the estimates that stay below the information of the noisy layer.
        above: names of those that stay above it.
        spread: bits, what seeds may change.
    """

    estimator: Estimator
    exact: bool = True
    scale_free: bool = False
    bounded: bool = True
    below: Sequence[str] = ()
    above: Sequence[str] = ()
    spread: float = 0.1


def subjects(seed: int = 0) -> dict[str, Subject]:
    """Return every estimator of the package by its name, with its promises."""
    quick = {"seed": seed, "steps": 200}
    critic: dict[str, Any] = {"exact": False, "scale_free": True, "bounded": False}
    return {
        "Pairwise": Subject(Pairwise(_NOISE), below=["BD"], above=["KL"]),
        "Binning": Subject(Binning(width=0.5)),
        "Exact": Subject(Exact(), scale_free=True),
        "MonteCarlo": Subject(MonteCarlo(_NOISE, seed=seed), exact=False),
        "Ksg": Subject(Ksg(), scale_free=True, bounded=False),
        "Renyi": Subject(Renyi(), scale_free=True, bounded=False),
        "Mine": Subject(Mine(**quick), below=["Mine"], **critic),
        "Nwj": Subject(Nwj(**quick), below=["Nwj"], **critic),
        "InfoNCE": Subject(InfoNCE(**quick), below=["InfoNCE"], **critic),
        "Smile": Subject(Smile(**quick), spread=0.5, **critic),
    }


@dataclass(frozen=True)
class Layer:
    """A layer for the laws: x and y, z a function of x, and t = z + ε with ε ~ N(0, 0.1 I).

    `before` is what the estimator says of t, which most laws compare with.
    """

    x: Tensor = field(repr=False)
    y: Tensor = field(repr=False)
    z: Tensor = field(repr=False)
    t: Tensor = field(repr=False)
    before: dict[str, MutualInformation] = field(default_factory=dict, repr=False)


def layer(seed: int = 0) -> Layer:
    """Return 600 samples of a small tanh layer and of labels that it decides on, with errors."""
    generator = torch.Generator().manual_seed(seed)
    x, weights, noise, lot = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((_N, 6), (6, 3), (_N, 3), (_N,))
    )
    z = torch.tanh(x @ weights / math.sqrt(6))
    t = z + math.sqrt(_NOISE) * noise
    return Layer(x, (z[:, 0] + 0.3 * lot > 0).long(), z, t)


def check(subject: Subject, seed: int = 0) -> pd.DataFrame:
    """Return a row a law: law, measured (bits), limit (bits), promised, holds.

    Args:
        subject: the estimator and its promises.
        seed: of the layer.
    """
    found = layer(seed)
    found = replace(found, before=_values(subject, found.t, found.y, found.x))
    rows = []
    for name, (law, promise) in LAWS.items():
        measured, limit = law(subject, found)
        rows.append(
            {
                "law": name,
                "measured": measured,
                "limit": limit,
                "promised": promise(subject),
                "holds": measured <= limit,
            }
        )
    return pd.DataFrame(rows)


def _values(subject: Subject, z: Tensor, y: Tensor, x: Tensor) -> dict[str, MutualInformation]:
    return apply(subject.estimator, z, y, x)


def _difference(subject: Subject, found: Layer, z: Tensor, rows: Tensor | None = None) -> float:
    """Return the largest difference of an estimate on (t, y, x) to that on (z, y, x) by rows."""
    y, x = (found.y, found.x) if rows is None else (found.y[rows], found.x[rows])
    before = found.before
    after = _values(subject, z, y, x)
    return max(
        abs(a - b)
        for name in before
        for a, b in zip(before[name][:2], after[name][:2], strict=True)
    )


def _independence(subject: Subject, found: Layer) -> tuple[float, float]:
    """I(T;Y) of labels that were drawn by lot."""
    lot = torch.randint(0, 2, (_N,), generator=torch.Generator().manual_seed(1))
    values = _values(subject, found.t[:, :1], lot, found.x)
    return max(abs(mi.i_zy) for mi in values.values()), 0.05


def _one_bit(subject: Subject, found: Layer) -> tuple[float, float]:
    """I(T;Y) − 1 where the layer holds a fair coin, and no more."""
    y = torch.arange(_N) % 2
    z = 4.0 * y[:, None] - 2.0 + 0.05 * found.t[:, :1]
    z = quantise(z, 8) if isinstance(subject.estimator, Exact) else z
    return max(abs(mi.i_zy - 1) for mi in _values(subject, z, y, z).values()), 0.1


def _permutation(subject: Subject, found: Layer) -> tuple[float, float]:
    rows = torch.randperm(_N, generator=torch.Generator().manual_seed(2))
    limit = _ROUNDING if subject.exact else subject.spread
    return _difference(subject, found, found.t[rows], rows), limit


def _ceiling_x(subject: Subject, found: Layer) -> tuple[float, float]:
    values = _values(subject, 100 * found.z, found.y, found.x)
    return max(mi.i_xz for mi in values.values()) - math.log2(_N), _ROUNDING


def _ceiling_y(subject: Subject, found: Layer) -> tuple[float, float]:
    values = _values(subject, 100 * found.z, found.y, found.x)
    return max(mi.i_zy for mi in values.values()) - label_entropy(found.y), _ROUNDING


def _direction(subject: Subject, found: Layer) -> tuple[float, float]:
    """How far a lower bound lies above the noisy layer's information, or an upper one below."""
    truth = MonteCarlo(_NOISE, draws=16)(found.z, found.y)["MonteCarlo"].i_xz
    noisy = isinstance(subject.estimator, Pairwise)
    values = _values(subject, found.z, found.y, found.x) if noisy else found.before
    gaps = [values[name].i_xz - truth for name in subject.below]
    gaps += [truth - values[name].i_xz for name in subject.above]
    return max(gaps, default=math.nan), 0.05


def _coarsening(subject: Subject, found: Layer) -> tuple[float, float]:
    """What a layer gains by being rounded to half as many levels: the DPI allows nothing."""
    fine = quantise(found.t, 4, -2.0, 2.0)
    coarse = torch.floor((fine + 2) / (2 * 4 / 15) + 1e-9)
    a, b = (_values(subject, z, found.y, found.x) for z in (fine, coarse))
    return max(b[n].i_xz - a[n].i_xz for n in a), _ROUNDING


def _scale(subject: Subject, found: Layer) -> tuple[float, float]:
    return _difference(subject, found, 10 * found.t), _ROUNDING


def _dtype(subject: Subject, found: Layer) -> tuple[float, float]:
    single = found.t.float()
    same = _values(subject, single.double(), found.y, found.x)
    shared = replace(found, t=single.double(), before=same)
    return _difference(subject, shared, single), _ROUNDING


def _layout(subject: Subject, found: Layer) -> tuple[float, float]:
    return _difference(subject, found, found.t.T.contiguous().T), _ROUNDING


def _repeat(subject: Subject, found: Layer) -> tuple[float, float]:
    return _difference(subject, found, found.t), 0.0


Law = Callable[[Subject, Layer], tuple[float, float]]
LAWS: dict[str, tuple[Law, Callable[[Subject], bool]]] = {
    "independent labels: 0 bits": (
        _independence,
        lambda s: not isinstance(s.estimator, Exact),
    ),
    "one bit is one bit": (_one_bit, lambda s: True),
    "order of the samples does not matter": (_permutation, lambda s: True),
    "I(X;T) ≤ log₂N": (_ceiling_x, lambda s: s.bounded or isinstance(s.estimator, InfoNCE)),
    "I(T;Y) ≤ H(Y)": (_ceiling_y, lambda s: s.bounded),
    "stated side of the truth": (_direction, lambda s: bool(s.below or s.above)),
    "rounding loses information (DPI)": (_coarsening, lambda s: isinstance(s.estimator, Exact)),
    "unit of the layer does not matter": (_scale, lambda s: s.scale_free),
    "float32 as float64": (_dtype, lambda s: True),
    "memory layout does not matter": (_layout, lambda s: True),
    "same seed, same value": (_repeat, lambda s: True),
}
