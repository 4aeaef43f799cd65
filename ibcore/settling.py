"""What a plane would show of nothing, and of fewer samples: floors, and whether it has settled."""

import math
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ibcore.checks import stream
from ibcore.interface import Estimator, MutualInformation, apply, takes_x

PARTS = {"half": 2, "quarter": 4}
_VALUES = ("i_xz", "i_zy")
CHECKS = [f"{column}_{kind}" for column in _VALUES for kind in ("floor", *PARTS)]
_LEAST = 0.05  # bits that matter on a plane
_SHARE = 0.1  # of an estimate


def settle(estimator: Estimator, z: Tensor, y: Tensor, x: Tensor | None) -> list[dict[str, Any]]:
    """Return a row an estimate: its name, and `CHECKS` in bits.

    Floors are the same estimates where the samples' labels, and inputs x, are permuted: I(X;T) has
    one only where the estimator takes x. "half" and "quarter" are means over the two halves and the
    four quarters of the samples in random order, so that they are no noisier than the whole.
    What can't be estimated, as from too few samples, is NaN.
    """
    order = torch.randperm(len(y), generator=stream(0, "settling")).to(y.device)
    shuffled = _attempt(estimator, z, y[order], None if x is None else x[order])
    rows = {name: {"i_zy_floor": mi.i_zy} for name, mi in shuffled.items()}
    if x is not None and takes_x(estimator):
        for name, mi in shuffled.items():
            rows[name]["i_xz_floor"] = mi.i_xz
    for kind, count in PARTS.items():
        parts = [
            _attempt(estimator, z[part], y[part], None if x is None else x[part])
            for part in order.tensor_split(count)
        ]
        for name in set(rows).union(*parts):
            found = [part.get(name, MutualInformation(math.nan, math.nan)) for part in parts]
            for column in _VALUES:
                mean = float(np.mean([getattr(mi, column) for mi in found]))
                rows.setdefault(name, {})[f"{column}_{kind}"] = mean
    return [
        {"estimator": name, **dict.fromkeys(CHECKS, math.nan), **row} for name, row in rows.items()
    ]


def _attempt(
    estimator: Estimator, z: Tensor, y: Tensor, x: Tensor | None
) -> dict[str, MutualInformation]:
    """Return the estimates, or none where there are too few samples or classes for any."""
    try:
        return apply(estimator, z, y, x)
    except (ArithmeticError, RuntimeError, ValueError):
        return {}


def at_floor(rows: pd.DataFrame) -> pd.Series:
    """Return where labels or inputs that were permuted give a good part of an estimate.

    A twentieth of a bit, and a tenth of the estimate.
    """
    return _either(rows, "floor", lambda value, floor, _: floor >= _allowed(value))


def unsettled(rows: pd.DataFrame) -> pd.Series:
    """Return where quarters of the samples give another estimate than all of them.

    By a twentieth of a bit, by a tenth of the estimate, and by two of its errors. Halves are asked
    where quarters are too small for an estimate.
    """
    parts = {f"{c}_quarter": rows[f"{c}_quarter"].fillna(rows[f"{c}_half"]) for c in _VALUES}
    return _either(
        rows.assign(**parts),
        "quarter",
        lambda value, quarter, error: (
            (value - quarter).abs() >= np.fmax(_allowed(value), 2 * error)
        ),
    )


def uncertain(rows: pd.DataFrame) -> pd.Series:
    """Return where an error is as large as the estimate itself."""
    found = [
        (rows[f"{column}_error"] > 0) & (rows[f"{column}_error"] >= rows[column].abs())
        for column in _VALUES
    ]
    return found[0] | found[1]


def _allowed(value: pd.Series) -> pd.Series:
    return (_SHARE * value.abs()).clip(lower=_LEAST)


def _either(rows: pd.DataFrame, kind: str, holds: Any) -> pd.Series:
    found: list[pd.Series] = [
        holds(rows[column], rows[f"{column}_{kind}"], rows[f"{column}_error"]) for column in _VALUES
    ]
    return found[0] | found[1]


FLAGS = {"uncertain": uncertain, "at the floor": at_floor, "unsettled": unsettled}
