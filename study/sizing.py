"""Chapter 09: from its tables to the values of its claims, one a seed."""

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pandas as pd
from scipy import stats

from study.advice import SHAPES as ADVISED

Measured = Mapping[str, pd.DataFrame]
POINT, HALF = 0.01, 0.005  # of accuracy
LARGE, LENET = ADVISED
_KEYS = ["kind", "case", "place"]


def values(t: Measured) -> dict[str, pd.Series]:
    """Return key → values by run, of all claims of study/claims/capacity.yml.

    What a run has no value for, as a share of no layers, is left out.
    """
    found = dict[str, pd.Series]()
    for verdict in ("bottleneck", "over-sized"):
        word = f"{verdict}s" if verdict == "bottleneck" else verdict
        both = told(t["layers"], verdict, t["layers"]["planted"] == verdict)
        found[f"{word}-right"], found[f"{word}-found"] = both
        known = with_truth(t)
        both = told(known, verdict, known[f"is {verdict}"].astype(bool))
        found[f"{word}-right-retrained"], found[f"{word}-found-retrained"] = both
        either = known[f"is {verdict}"].astype(bool) | (known["planted"] == verdict)
        found[f"{word}-right-known"] = told(known, verdict, either)[0]
    for key, shape in (("large", LARGE), ("lenet", LENET)):
        found |= {f"{key}-{name}": series for name, series in _followed(t, shape)}
    found["evenly"] = gap(t, LARGE, "diagnose", "all scaled alike, to the size of diagnose")
    pairs = [gap(t, shape, DIRECTIONS, "none") for shape in ADVISED]
    found["directions-width"] = pd.concat(pairs, axis=1).mean(axis=1)
    sizes = [ratio(t, shape, "saturation of 20 to 40 %") for shape in ADVISED]
    found["aim"] = pd.concat(sizes, axis=1).mean(axis=1)
    found["c3e"] = gap(t, "Cora, graph", "C3E", "none")
    found |= _of_ledger(t)
    found |= _of_random_labels(t["memorised"])
    found |= _of_tensors(t["weights"])
    found["plateau"] = plateau(t["course"]).groupby("run")["beyond"].agg(_mean_distance)
    return {
        key: series.replace([np.inf, -np.inf], np.nan).dropna() for key, series in found.items()
    }


DIRECTIONS = "as many directions as hold 99 % of the variance"


def told(layers: pd.DataFrame, verdict: str, truth: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Return, by run, the share of layers called so that are, and of those that are called so."""
    called = layers["verdict"] == verdict
    both = (called & truth).groupby(layers["run"]).sum()
    return both / called.groupby(layers["run"]).sum(), both / truth.groupby(layers["run"]).sum()


def with_truth(t: Measured) -> pd.DataFrame:
    """Return the layers that were retrained, with what that said: gain, loss, and what they are.

    Test accuracy with the layer four times as wide less that of the case (`gain`), and with a
    quarter less it (`loss`), means over seeds. A layer is a bottleneck if it gains more than a
    point, over-sized if it loses less than one. What was planted wide was not widened.
    """
    acted = t["acted"]
    mean = acted.groupby([*_KEYS, "change"])["test_accuracy"].mean()
    base = mean.xs("none", level="change").droplevel("place")
    rows = t["layers"].drop(columns=["gain", "loss"], errors="ignore")
    rows = rows[rows["kind"].isin(acted["kind"])].copy()
    for column, change in (("gain", "larger"), ("loss", "smaller")):
        changed = mean.xs(change, level="change")
        index = pd.MultiIndex.from_frame(rows[_KEYS])
        before = base.reindex(index.droplevel("place")).to_numpy()
        rows[column] = changed.reindex(index).to_numpy() - before
    rows["is bottleneck"] = rows["gain"] > POINT
    rows["is over-sized"] = rows["loss"] > -POINT
    return rows


def gap(t: Measured, shape: str, adviser: str, other: str) -> pd.Series:
    """Return, by run, the test accuracy after an advice less that after another."""
    table = _advice(t, shape, "test_accuracy")
    return table[adviser] - table[other]


def ratio(t: Measured, shape: str, adviser: str) -> pd.Series:
    """Return, by run, the parameters after an advice by those of the original."""
    table = _advice(t, shape, "parameters")
    return table[adviser] / table["none"]


def _advice(t: Measured, shape: str, column: str) -> pd.DataFrame:
    rows = t["advice"][t["advice"]["shape"] == shape]
    return rows.pivot_table(index="run", columns="adviser", values=column, sort=False)


def keepers(t: Measured, shape: str) -> list[str]:
    """Return the advisers, `diagnose` apart, who keep mean accuracy within half a point.

    The original itself is one of them: to change nothing is an advice.
    """
    means = _advice(t, shape, "test_accuracy").mean()
    kept = means[means >= means["none"] - HALF].index
    return [name for name in kept if not name.startswith("diagnose")]


def _followed(t: Measured, shape: str) -> Iterator[tuple[str, pd.Series]]:
    yield "kept", gap(t, shape, "diagnose", "none")
    yield "saved", 1 - ratio(t, shape, "diagnose")
    others = [ratio(t, shape, name) for name in keepers(t, shape)]
    fewest = pd.concat(others, axis=1).min(axis=1)
    yield "fewest", pd.Series(np.log2(ratio(t, shape, "diagnose") / fewest))


def _of_ledger(t: Measured) -> dict[str, pd.Series]:
    """Return the values that rest on the ledger of bits."""
    ledger = t["ledger"]
    eight = ledger[~ledger["from_data"]]
    single = eight[~eight["shape"].str.contains("-")]
    falls = _each(single, ["run", "kind"], _falls)
    slopes = _each(eight, ["run", "kind"], _slope)
    best = eight.groupby(["run", "kind"])["test_accuracy"].max()
    given = ledger[ledger["from_data"]].set_index(["run", "kind"])["test_accuracy"]
    middle = eight[eight["shape"] == "64-64"].set_index(["run", "kind"])["weights"]
    data = t["data"]
    code = data[data["quantity"] == "labels, prequential by rehearsal"].set_index("kind")["total"]
    needed = code.reindex(middle.index.get_level_values("kind")).to_numpy()
    distance = np.log2(middle / needed).abs()
    return {
        "saturation-width": falls.groupby("run").mean(),
        "weights-grow": slopes.groupby("run").max(),
        "weights-labels": distance.groupby("run").max(),
        "data-alone": (given - best).groupby("run").min(),
    }


def _each(
    rows: pd.DataFrame, keys: list[str], function: Callable[[pd.DataFrame], float]
) -> pd.Series:
    """Return a number a group of rows, by its keys."""
    numbers = [(*key, function(part)) for key, part in rows.groupby(keys)]
    return pd.DataFrame(numbers, columns=[*keys, "value"]).set_index(keys)["value"]


def _falls(rows: pd.DataFrame) -> float:
    return float(rows["saturation"].corr(rows["parameters"], method="spearman"))


def _slope(rows: pd.DataFrame) -> float:
    held = rows[rows["weights"] > 0]
    if len(held) < 2:
        return math.nan
    return float(np.polyfit(np.log2(held["parameters"]), np.log2(held["weights"]), 1)[0])


def capacity(memorised: pd.DataFrame) -> pd.DataFrame:
    """Return the measured capacity, the most bits over counts: depth, units, rate, run, bits."""
    keys = ["depth", "units", "rate", "run"]
    return memorised.groupby(keys, as_index=False)[["bits", "per_parameter", "parameters"]].max()


def _of_random_labels(memorised: pd.DataFrame) -> dict[str, pd.Series]:
    every = capacity(memorised)
    best = every.groupby(["depth", "units", "run"], as_index=False).max()
    shallow, deeper = best[best["depth"] == 1], best[best["depth"] == 2]
    sides = every.groupby(["depth", "units", "run"])["bits"].agg(["max", "min"])
    return {
        "two-layers": shallow.groupby("run")["per_parameter"].mean(),
        "three-layers": _each(deeper, ["run"], _exponent),
        "rate": (sides["max"] / sides["min"]).groupby("run").mean(),
    }


def _exponent(rows: pd.DataFrame) -> float:
    """Return how capacity grows with the width: the slope of both logarithms."""
    return float(np.polyfit(np.log2(rows["units"]), np.log2(rows["bits"]), 1)[0])


def tensors(weights: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of single tensors that hold anything, in bits a weight."""
    one = weights[weights["weight"] != "all"]
    some = one[one["size"] > 1]
    return some.replace(np.inf, np.nan).dropna(subset=["noise", "step"])


def _of_tensors(weights: pd.DataFrame) -> dict[str, pd.Series]:
    rows = tensors(weights)
    return {
        "noise-entropy": _each(rows, ["run"], _alike),
        "noise-entropy-size": _each(rows, ["run"], _alike_at_size),
    }


def _alike(rows: pd.DataFrame) -> float:
    return float(stats.spearmanr(rows["entropy"], rows["noise_entropy"]).statistic)


def _alike_at_size(rows: pd.DataFrame) -> float:
    """Return the rank correlation of what size and data set leave of both."""
    ranks = rows[["entropy", "noise_entropy", "size"]].rank()
    known = pd.get_dummies(rows["kind"]).assign(size=ranks["size"]).to_numpy(dtype=float)
    left = [
        ranks[name] - known @ np.linalg.lstsq(known, ranks[name], rcond=None)[0]
        for name in ("entropy", "noise_entropy")
    ]
    return float(np.corrcoef(*left)[0, 1])


def plateau(course: pd.DataFrame) -> pd.DataFrame:
    """Return, by kind and run, the last layer's directions at the end less (classes − 1)."""
    end = course[course["epoch"] == course.groupby(["kind", "run"])["epoch"].transform("max")]
    last = end.groupby(["kind", "run"], as_index=False, sort=False).last()
    return last.assign(beyond=last["directions_heard"] - (last["classes"] - 1))


def _mean_distance(beyond: pd.Series) -> float:
    return float(beyond.abs().mean())
