"""What chapter 06 reads off its tables: one function a statistic, a value a seed."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from ibcore.plane import dpi_violations
from study.comparisons import learned, rank_products

Measured = Mapping[str, pd.DataFrame]
FALL = 0.2  # bits: the smallest fall that matters, as in the claims
_LOOKS = 5  # at the start or the end of a course


class NotTestable(ValueError):
    """The tables hold nothing that a claim could be tested on."""


_Function = Callable[..., pd.Series]


class Statistic(NamedTuple):
    """What claims may name.

    Args:
        function: (tables, arm, estimator, **options) → a value a run.
        bounds: between which the mean over runs lies by its nature: a share in 0 to 1.
        layer: of the planes that it reads, unless told otherwise: at their ceiling they say
            nothing. None where it reads no plane.
    """

    function: _Function
    bounds: tuple[float, float]
    layer: str | None


STATISTICS: dict[str, Statistic] = {}


def statistic(
    least: float = -math.inf, most: float = math.inf, layer: str | None = "last"
) -> Callable[[_Function], _Function]:
    """Make a function one that claims may name; see `Statistic`."""

    def named(function: _Function) -> _Function:
        STATISTICS[function.__name__] = Statistic(function, (least, most), layer)
        return function

    return named


def rows(t: Measured, table: str, arm: str, **where: str) -> pd.DataFrame:
    """Return the rows of an arm.

    Raises:
        NotTestable: there are none.
    """
    found = t.get(table, pd.DataFrame({"arm": []}))
    for column, value in {"arm": arm, **where}.items():
        found = found[found[column] == value] if column in found else found.iloc[:0]
    if found.empty:
        said = ", ".join(where.values())
        raise NotTestable(f"{arm} has no {table}{f' by {said}' if said else ''}")
    return found


def course(
    t: Measured, arm: str, estimator: str, layer: str = "last", column: str = "i_xz"
) -> pd.DataFrame:
    """Return information in bits: a row a run, a column an epoch.

    Args:
        t: tables of the chapter.
        arm: of the study.
        estimator: of the planes.
        layer: "last" (hidden), "hidden" (mean over the others), or "all" (mean).
        column: "i_xz", "i_zy", or "conditional" for I(X;T given Y) = I(X;T) − I(T;Y), as the label
            hangs on the layer by the input alone.
    Raises:
        NotTestable: it was not measured, or there are no others.
    """
    found = rows(t, "planes", arm, estimator=estimator)
    names = list(found["layer"].unique())
    chosen = {"last": names[-1:], "hidden": names[:-1], "all": names}[layer]
    if not chosen:
        raise NotTestable(f"{arm} has one layer that {estimator} measures")
    found = found[found["layer"].isin(chosen)]
    found = found.assign(conditional=found["i_xz"] - found["i_zy"])
    wide: pd.DataFrame = found.pivot_table(index="run", columns="epoch", values=column)
    return wide.sort_index(axis=1)


def others_peak(course: pd.DataFrame) -> pd.Series:
    """Return for each run the epoch where the mean of the *other* runs is highest.

    No value of a run decides where its own fall begins, so that noise alone gives falls of mean 0.

    Raises:
        NotTestable: fewer than three runs.
    """
    if len(course) < 3:
        raise NotTestable("fewer than three seeds have no peak of the others")
    found: pd.Series = (course.sum() - course).idxmax(axis=1)
    return found


def since(course: pd.DataFrame, start: pd.Series) -> pd.Series:
    """Return each run's last value less the one at its start."""
    first = [course.at[run, epoch] for run, epoch in start.items()]
    found: pd.Series = course.iloc[:, -1] - np.array(first)
    return found


@statistic()
def fall(
    t: Measured, arm: str, estimator: str, layer: str = "last", column: str = "i_xz"
) -> pd.Series:
    """Last value less the one where the other seeds peak, bits."""
    found = course(t, arm, estimator, layer, column)
    return since(found, others_peak(found))


@statistic()
def rise(t: Measured, arm: str, estimator: str, layer: str = "last") -> pd.Series:
    """I(T;Y) at the last look less the first, bits; of the layer with the least gain if asked."""
    if layer != "least":
        found = course(t, arm, estimator, layer, "i_zy")
        return found.iloc[:, -1] - found.iloc[:, 0]
    held = rows(t, "planes", arm, estimator=estimator)
    wide = held.pivot(index=["run", "layer"], columns="epoch", values="i_zy").sort_index(axis=1)
    return (wide.iloc[:, -1] - wide.iloc[:, 0]).groupby("run").min()


@statistic(layer=None)
def drift(t: Measured, arm: str, estimator: str, part: str = "early") -> pd.Series:
    """log₂ of the gradients' mean by their deviation, mean over five looks."""
    found = rows(t, estimator, arm).pivot(index="run", columns="epoch", values="drift")
    found = found.sort_index(axis=1)
    looks = found.iloc[:, :_LOOKS] if part == "early" else found.iloc[:, -_LOOKS:]
    return looks.mean(axis=1)


@statistic(0, 1)
def epochs_after_peak(t: Measured, arm: str, estimator: str) -> pd.Series:
    """Share of the epochs after the others' peak; 0 where too little falls."""
    found = course(t, arm, estimator)
    peaks = others_peak(found)
    shares: pd.Series = 1 - peaks / max(map(float, found.columns))
    return shares.where(since(found, peaks) <= -FALL, 0.0)


@statistic()
def turn_to_peak(t: Measured, arm: str, estimator: str) -> pd.Series:
    """log₂ of the epoch where the gradients turn by the one where I(X;T) peaks."""
    found = rows(t, "gradients", arm).pivot(index="run", columns="epoch", values="drift")
    smooth = found.sort_index(axis=1).T.rolling(3, center=True, min_periods=1).mean().T
    turns = smooth.diff(axis=1).iloc[:, 1:].idxmin(axis=1)
    peaks = course(t, arm, estimator).idxmax(axis=1)
    return _log2(turns / peaks)


@statistic()
def excess(t: Measured, arm: str, estimator: str) -> pd.Series:
    """I(X;T) less I(T;Y) at the end, bits."""
    return course(t, arm, estimator, column="conditional").iloc[:, -1]


@statistic(layer=None)
def learning_time(t: Measured, arm: str, estimator: str) -> pd.Series:
    """log₂ of the epochs to 95 % training accuracy, of one arm by another; "a/b"."""
    times = []
    for name in arm.split("/"):
        scores = rows(t, estimator, name)
        never = scores.groupby("run")["epoch"].max()  # an epoch that it takes at least
        times.append(learned(scores).reindex(never.index).fillna(never))
    return _log2(times[0] / times[1])


def _log2(ratios: pd.Series) -> pd.Series:
    found = ratios.dropna()
    return pd.Series(np.log2(found.to_numpy(dtype=float)), index=found.index)


@statistic(layer="all")
def paired_fall(t: Measured, arm: str, estimator: str, layer: str = "all") -> pd.Series:
    """Fall of one arm less that of another with the same seeds, bits; "a/b"."""
    a, b = (fall(t, name, estimator, layer) for name in arm.split("/"))
    return (a - b).dropna()


@statistic(-1, 1, layer=None)
def paired_within(t: Measured, arm: str, estimator: str) -> pd.Series:
    """Share of variance within classes at the end, one arm less another; "a/b"."""
    a, b = (_within(t, name).iloc[:, -1] for name in arm.split("/"))
    return (a - b).dropna()


def _within(t: Measured, arm: str) -> pd.DataFrame:
    found = rows(t, "clusters", arm)
    found = found[found["layer"] == found["layer"].iloc[-1]]
    wide: pd.DataFrame = found.pivot(index="run", columns="epoch", values="within")
    return wide.sort_index(axis=1)


@statistic(-1, 1)
def goes_with(
    t: Measured,
    arm: str,
    estimator: str,
    layer: str = "last",
    of: str = "fall",
    score: str = "test_accuracy",
    pooled: bool = False,
) -> pd.Series:
    """Products of ranks whose mean is Spearman's correlation; of compression, a fall turned round.

    Args:
        t: tables.
        arm: of the study; several that are pooled, with a plus between them.
        estimator: of the planes.
        layer: see `course`.
        of: "fall", or "conditional" for I(X;T given Y) at the end.
        score: "test_accuracy", or "gap" for training less test accuracy.
        pooled: whether several arms may be given.
    """
    a, b = [], []
    for name in arm.split("+") if pooled else [arm]:
        if of == "fall":
            found = -fall(t, name, estimator, layer)
        else:
            found = course(t, name, estimator, layer, of).iloc[:, -1]
        scores = rows(t, "scores", name)
        ends = scores[scores["epoch"] == scores["epoch"].max()].set_index("run")
        ends = ends.assign(gap=ends["train_accuracy"] - ends["test_accuracy"])[score]
        a.append(found)
        b.append(ends)
    names = arm.split("+") if pooled else [arm]
    return rank_products(pd.concat(a, keys=names), pd.concat(b, keys=names))


@statistic(layer=None)
def irrelevant(t: Measured, arm: str, estimator: str) -> pd.Series:
    """Information on the part of the input that the label doesn't need: no data here has one."""
    raise NotTestable(f"the input of {arm} has no part that the label does not need")


@statistic(-1, 1)
def clustering(t: Measured, arm: str, estimator: str, part: str = "all") -> pd.Series:
    """Rank correlation over the looks of I(X;T) and the variance within classes.

    Of all looks, or of those from the others' peak on ("late"), where there are three or more.
    """
    information, within = course(t, arm, estimator), _within(t, arm)
    looks = information.columns.intersection(within.columns)
    start = others_peak(information) if part == "late" else pd.Series(0, information.index)
    found = {}
    for run in information.index:
        held = looks[looks >= start[run]]
        if len(held) < 3:
            continue
        a, b = information.loc[run, held], within.loc[run, held]
        if a.nunique() > 1 and b.nunique() > 1:
            found[run] = float(spearmanr(a, b, nan_policy="omit").statistic)
    return pd.Series(found, dtype=float)


@statistic(0)
def rescaled(t: Measured, arm: str, estimator: str) -> pd.Series:
    """How far the fall moves when the layer is multiplied by four, bits."""
    return (fall(t, arm, estimator) - fall(t, arm, f"{estimator} ×4")).abs()


@statistic(0)
def phases(t: Measured, arm: str, estimator: str) -> pd.Series:
    """Turns of I(X;T) by `FALL` bits or more: from up to down or back."""
    return course(t, arm, estimator).apply(lambda run: float(turns(run.to_numpy())), axis=1)


def turns(values: np.ndarray, least: float = FALL) -> int:
    """Return how often a course turns, where smaller moves than `least` don't count."""
    count, direction = 0, 0
    low = high = values[0]
    for value in values[1:]:
        low, high = min(low, value), max(high, value)
        up, down = value - low >= least, high - value >= least
        if (up and direction <= 0) or (down and direction >= 0):
            count += direction != 0
            direction = 1 if up and direction <= 0 else -1
            low = high = value
    return count


@statistic()
def loss_to_fall(t: Measured, arm: str, estimator: str) -> pd.Series:
    """log₂ of the epoch where the training loss falls fastest by that where I(X;T) does."""
    information = course(t, arm, estimator)
    losses = rows(t, "scores", arm).pivot(index="run", columns="epoch", values="train_loss")
    losses = losses.sort_index(axis=1)[information.columns].reindex(information.index)
    a, b = (found.diff(axis=1).iloc[:, 1:].idxmin(axis=1) for found in (losses, information))
    return _log2(a / b)


@statistic(0, 1)
def falls_alone(t: Measured, arm: str, estimator: str) -> pd.Series:
    """1 where I(X;T) falls by `FALL` from the others' peak and I(T;Y) by less than 0.02, or 0."""
    information = course(t, arm, estimator)
    start = others_peak(information)
    label = since(course(t, arm, estimator, column="i_zy"), start)
    return ((since(information, start) <= -FALL) & (label > -0.02)).astype(float)


@statistic(0, layer=None)
def unread(t: Measured, arm: str, estimator: str, form: str = "full") -> pd.Series:
    """What units that nothing reads add to I(X;T), bits; not within a bit of the ceiling."""
    found = _of_kind(t, arm, "unread")
    found = found[(found["form"] == form) & (found["before"] < found["ceiling"] - 1)]
    return (found["after"] - found["before"]).abs()


@statistic(layer=None)
def directions(t: Measured, arm: str, estimator: str) -> pd.Series:
    """Directions less the number of classes and plus one: the one farthest off, by run."""
    found = _of_kind(t, arm, "classes")
    off = found["directions"] - (found["classes"] - 1)
    return off.groupby(level=0).apply(lambda run: float(run.iloc[int(run.abs().argmax())]))


def _of_kind(t: Measured, arm: str, kind: str) -> pd.DataFrame:
    found = t.get(arm, pd.DataFrame({"kind": []}))
    found = found[found["kind"] == kind]
    if found.empty:
        raise NotTestable(f"nothing was planted of the kind {kind}")
    return found.set_index("run")


@statistic(-1, 1, layer=None)
def order_kept(t: Measured, arm: str, estimator: str) -> pd.Series:
    """Rank correlation of the layers' I(X;T) at a tolerance with that at others: the lowest."""
    found = t.get("depends", pd.DataFrame({"kind": []}))
    found = found[found["kind"] == arm]
    if found.empty:
        raise NotTestable(f"{arm} was measured at one tolerance")
    found = found[(found["samples"] == found["samples"].max()) & ~found["calibrated"]]
    result = {}
    for run, part in found.groupby("run"):
        wide = part.pivot(index="layer", columns="tolerance", values="i_xz")
        ranks = wide.corr("spearman")
        result[run] = float(ranks.loc[0.01].min())
    return pd.Series(result)


@statistic(0, 1, "all")
def breaks(t: Measured, arm: str, estimator: str) -> pd.Series:
    """Share of pairs of layers and looks in which the next layer has 0.05 bits more."""
    found = rows(t, "planes", arm, estimator=estimator)
    layers = list(found["layer"].unique())
    if len(layers) < 2:
        raise NotTestable(f"{arm} has one layer that {estimator} measures")
    shares = {
        run: float(dpi_violations(part, layers, "i_xz", 0.05).mean())
        for run, part in found.groupby("run")
    }
    return pd.Series(shares)


@statistic(0, layer=None)
def oracle_error(t: Measured, arm: str, estimator: str) -> pd.Series:
    """I(T;Y) less what is known, mean of its absolute value over the channels, bits."""
    found = t.get("oracle", pd.DataFrame({"estimator": []}))
    found = found[found["estimator"] == estimator]
    if found.empty:
        raise NotTestable("there are no pictures whose information is known")
    return (found["i_zy"] - found["truth"]).abs().groupby(found["run"]).mean()
