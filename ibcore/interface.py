"""What estimators share: their result, and their protocol."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor


class MutualInformation(NamedTuple):
    """Information of a representation Z about the input X and the label Y, in bits.

    Args:
        i_xz: I(X;Z).
        i_zy: I(Z;Y).
        i_xz_error: standard or numerical error of I(X;Z); NaN where the estimator knows none.
        i_zy_error: that of I(Z;Y).
        ceiling: what no estimate of I(X;Z) from these samples can pass.
        singleton_share: share of the occupied bins that hold one sample; NaN without bins.
    """

    i_xz: float
    i_zy: float
    i_xz_error: float = math.nan
    i_zy_error: float = math.nan
    ceiling: float = math.inf
    singleton_share: float = math.nan


class Estimate(NamedTuple):
    """Mutual information of two samples in bits, and its standard or numerical error in bits."""

    bits: float
    error: float


class Estimator(Protocol):
    """Anything that maps a representation and its labels to named estimates in bits.

    One that needs the inputs of the network takes them as x, shape (n_samples, ...), too, and
    raises ValueError without them. Its estimates go by the name of its class, or of its bounds.
    """

    def __call__(self, z: Tensor, y: Tensor) -> dict[str, MutualInformation]:
        """Return one `MutualInformation` for each bound or variant, by its name.

        Args:
            z: representation, shape (n_samples, ...), any float dtype.
            y: labels, shape (n_samples,), any integer dtype.
        """
        ...


def apply(
    estimator: Callable[..., Any], z: Tensor, y: Tensor, x: Tensor | None
) -> dict[str, MutualInformation]:
    """Return an estimator's estimates, and give it the inputs x if it takes them.

    One that returns a pair alone, (i_xz, i_zy), has it under the estimator's own name.

    Raises:
        ValueError: it returns something else than names with two to six numbers each.
    """
    found = estimator(z, y, x=x) if takes_x(estimator) else estimator(z, y)
    if isinstance(found, tuple):
        found = {named(estimator): found}
    try:
        if not (found and isinstance(found, Mapping) and all(isinstance(k, str) for k in found)):
            raise TypeError
        return {name: MutualInformation(*map(_number, pair)) for name, pair in found.items()}
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{named(estimator)} must return a dict from names to (i_xz, i_zy), got {found!r:.80}"
        ) from error


def _number(value: Any) -> float:
    if isinstance(value, str):  # "12" would be two numbers
        raise TypeError
    return float(value.detach() if isinstance(value, Tensor) else value)


def takes_x(estimator: Callable[..., Any]) -> bool:
    """Whether an estimator takes the inputs of the network, as x or among any others."""
    parameters = inspect.signature(estimator).parameters.values()
    return any(p.name == "x" or p.kind is p.VAR_KEYWORD for p in parameters)


def named(estimator: object) -> str:
    """Return what an error calls an estimator: its class, or the function's own name."""
    return getattr(estimator, "__name__", type(estimator).__name__)
