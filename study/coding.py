"""Chapter 10: from its tables to the values of its claims, one a seed."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

Measured = Mapping[str, pd.DataFrame]
ERRORS = {"784-300-100-10": 0.019, "LeNet-5": 0.010}  # test errors that files are published at
PRICED = {"priced": 0.6, "small": 1.2}  # of LeNet-5
BEST = "by inputs and cost"
PLAIN = "by the cost of bits"  # the best rounding where a layer has no form for inputs
KNOWN = 0.99  # of the labels, at least, that a file has to give back to be counted
LEARNED = 0.95  # of the training samples, from where on a course is looked at


def values(t: Measured) -> dict[str, pd.Series]:
    """Return key → values by run, of all claims of study/claims/compression.yml."""
    found = dict[str, pd.Series]()
    for word, shape in (("fc", "784-300-100-10"), ("conv", "LeNet-5")):
        marks = t["marks"][t["marks"]["shape"] == shape]
        if len(marks):
            chosen = within(marks, ERRORS[shape])
            found[f"{word}-bytes"] = chosen["bytes"]
            found[f"{word}-error"] = 1 - chosen["test_accuracy"]
            found[f"{word}-labels"] = chosen["code"] / chosen["needed"]
    conv = t["marks"][t["marks"]["shape"] == "LeNet-5"]
    for word, price in PRICED.items():
        at = conv[np.isclose(conv["price"], price)].set_index("run")
        if len(at):
            found[f"conv-{word}-bytes"] = at["bytes"]
            found[f"conv-{word}-error"] = 1 - at["test_accuracy"]
    ratios = by_technique(t["techniques"], "bytes")
    entropies = by_technique(t["techniques"], "entropy_bytes")
    for key, (technique, other) in RATIOS.items():
        if {technique, other} <= set(ratios):
            found[key] = _each_run(ratios[technique] / ratios[other])
    if BEST in ratios:
        found["context"] = _each_run(ratios[BEST] / entropies[BEST])
    found["lossless"] = _each_run(lossless(t["general"]).set_index(["kind", "run"])["ratio"])
    found["ticket"] = _tickets(t["tickets"])
    found |= _of_sizes(t["sizes"]) | _of_course(t["course"]) | _of_labels(t["learned"])
    return {key: s.replace([np.inf, -np.inf], np.nan).dropna() for key, s in found.items()}


RATIOS = {
    "inputs": (BEST, PLAIN),
    "gradual": ("pruned gradually", BEST),
    "penalty": ("penalised", BEST),
    "means": ("k-means", "nearest"),
}


def within(marks: pd.DataFrame, error: float) -> pd.DataFrame:
    """Return, by run, the smallest file with at most this error on the samples that choose.

    Where none has so few errors it is the one with the fewest.
    """
    rows = marks.assign(error=1 - marks["choose_accuracy"])
    rows = rows[rows["technique"] != "as it is"]
    good = rows[rows["error"] <= error + 1e-9].sort_values("bytes")
    least = rows.sort_values("error")
    return pd.concat([good, least]).groupby("run").first()


def by_technique(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return a column, a row a kind and run, a column a technique."""
    found: pd.DataFrame = table.pivot_table(
        index=["kind", "run"], columns="technique", values=column, sort=False
    )
    return found


def with_halvings(techniques: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with how often the file was halved: a unit is a factor of two.

    memory: bytes of the network as it was, in float32; halvings: from there to the file; beyond:
    from the file of the same network rounded alone, NaN where that is missing.
    """
    keys = ["kind", "run"]
    network = pd.MultiIndex.from_frame(techniques[keys])
    whole = techniques[techniques["technique"] == "as it is"].set_index(keys)["parameters"]
    each = by_technique(techniques, "bytes")
    rounding = each.reindex(columns=[BEST, PLAIN]).bfill(axis=1)[BEST]
    memory, size = 4 * whole.reindex(network).to_numpy(), techniques["bytes"]
    return techniques.assign(
        memory=memory,
        halvings=np.log2(memory / size),
        beyond=np.log2(rounding.reindex(network).to_numpy() / size),
    )


def _each_run(series: pd.Series) -> pd.Series:
    """Return by run the geometric mean over the kinds of networks that have a value."""
    groups = np.log(series).groupby("run")
    return pd.Series({run: math.exp(float(held.mean())) for run, held in groups})


def lossless(general: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of fp32 with the best compressor's bytes, and ours by them (`ratio`)."""
    others = [c for c in general if str(c).endswith(("plain", "regrouped"))]
    rows = general[general["form"] == "fp32"]
    best = rows[others].min(axis=1)
    return rows.assign(best=best, by=rows[others].idxmin(axis=1), ratio=rows["weight file"] / best)


def _tickets(tickets: pd.DataFrame) -> pd.Series:
    """Return by run the accuracy that the rewound start has over another, mean over all else."""
    mean = tickets.pivot_table("test_accuracy", ["kind", "share", "run"], "start")
    gains: pd.Series = (mean["rewound"] - mean["drawn anew"]).groupby("run").mean()
    return gains


def _of_sizes(sizes: pd.DataFrame) -> dict[str, pd.Series]:
    bits = sizes.assign(file=8 * sizes["bytes"])
    bits["code"] = bits["file"] + bits["labels"] - bits["learned"]
    return {
        "grows": _by_kind(bits, lambda rows: slope(rows["parameters"], rows["file"])),
        "prunable": _by_kind(bits, lambda rows: spearman(rows["parameters"], rows["prunable"])),
        "below-labels": _by_kind(bits, lambda rows: float((rows["file"] / rows["labels"]).min())),
        "below-labels-code": _by_kind(
            bits, lambda rows: float((rows["code"] / rows["labels"]).min())
        ),
        "prequential": _at_best(bits),
    }


def _by_kind(rows: pd.DataFrame, function: Callable[[pd.DataFrame], float]) -> pd.Series:
    """Return by run the mean over kinds of a number of the rows of each."""
    found = [(run, function(part)) for (run, _), part in rows.groupby(["run", "kind"])]
    return pd.DataFrame(found, columns=["run", "value"]).groupby("run")["value"].mean()


def _at_best(bits: pd.DataFrame) -> pd.Series:
    """Return by run the rank correlation over data sets of file and labels' prequential length.

    The file is the smallest of those within a point of the best test accuracy of a data set.
    """
    found = []
    for (run, _), rows in bits.groupby(["run", "kind"]):
        good = rows[rows["test_accuracy"] >= rows["test_accuracy"].max() - 0.01]
        best = good.loc[good["file"].idxmin()]
        found.append({"run": run, "file": best["file"], "code": best["prequential"]})
    table = pd.DataFrame(found)
    each = [(run, spearman(part["file"], part["code"])) for run, part in table.groupby("run")]
    return pd.DataFrame(each, columns=["run", "value"]).set_index("run")["value"]


def slope(x: pd.Series, y: pd.Series) -> float:
    """Return the exponent of y by x."""
    return float(np.polyfit(np.log2(x), np.log2(y), 1)[0])


def spearman(x: pd.Series, y: pd.Series) -> float:
    """Return the rank correlation; NaN where one side doesn't move."""
    if x.nunique() < 2 or y.nunique() < 2:
        return math.nan
    return float(stats.spearmanr(x, y).statistic)


def correlations(
    sizes: pd.DataFrame, what: Sequence[str], beside: Sequence[str], draws: int = 2000
) -> pd.DataFrame:
    """Return rank correlations over networks, within data sets and over all, with 95 % intervals.

    Intervals come from networks drawn again with replacement; within a data set ranks are taken
    there, and all are correlated together. Rows without a value are left out.

    Args:
        sizes: columns kind, and those named.
        what: columns that stand in rows.
        beside: columns that they are compared with.
        draws: of networks.
    Returns:
        what, beside, among ("all", "within data sets"), n, correlation, low, high.
    """
    rng, rows = np.random.default_rng(0), []
    for name in what:
        for other in beside:
            held = sizes[["kind", name, other]].dropna()
            if len(held) < 4:
                continue
            ranks = held.groupby("kind")[[name, other]].rank(pct=True)
            for among, pair in (("all", held[[name, other]].rank()), ("within data sets", ranks)):
                both = pair.to_numpy()
                if (both.std(axis=0) == 0).any():
                    continue
                drawn = [both[rng.integers(0, len(both), len(both))] for _ in range(draws)]
                found = [np.corrcoef(d.T)[0, 1] for d in drawn if (d.std(axis=0) > 0).all()]
                low, high = np.quantile(found, [0.025, 0.975])
                value = float(np.corrcoef(both.T)[0, 1])
                rows.append((name, other, among, len(both), value, low, high))
    columns = ["what", "beside", "among", "n", "correlation", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def learned_course(course: pd.DataFrame) -> pd.DataFrame:
    """Return the rows from the first epoch on where 0.95 of the training samples are learned."""
    parts = []
    for _, rows in course.groupby(["activation", "run"], sort=False):
        good = rows[rows["train_accuracy"] >= LEARNED]
        if len(good):
            parts.append(rows[rows["epoch"] >= good["epoch"].min()])
    return pd.concat(parts, ignore_index=True) if parts else course.iloc[:0]


def _of_course(course: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the change of the tanh network's file and of its plane since it had learned."""
    found: dict[str, dict[Any, float]] = {"file-falls": {}, "with-plane": {}}
    tanh = learned_course(course[course["activation"] == "tanh"])
    for run, rows in tanh.groupby("run"):
        ends = last_layer(rows)
        found["file-falls"][run] = float(ends["bytes"].iloc[-1] / ends["bytes"].iloc[0])
        if len(ends) > 2:
            found["with-plane"][run] = spearman(ends["bytes"], ends["i_xz"])
    return {key: pd.Series(held, dtype=float) for key, held in found.items()}


def last_layer(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the last hidden layer, by epoch: the output is the layer after it."""
    names = list(dict.fromkeys(rows["layer"]))
    hidden = [name for name in names if not name.startswith("linear")]
    last: pd.DataFrame = rows[rows["layer"] == hidden[-1]]
    return last.sort_values("epoch")


def _of_labels(learned: pd.DataFrame) -> dict[str, pd.Series]:
    """Return what labels cost, of the files that know them: what was not learned costs nothing."""
    bits = learned[learned["choose_accuracy"] >= KNOWN].assign(file=8 * learned["bytes"])
    if set(bits["labels"]) != {"true", "random"}:
        return {}
    least = bits.groupby(["samples", "labels", "run"], as_index=False)[["file", "needed"]].min()
    both = least.pivot_table(index=["samples", "run"], columns="labels", values="file")
    found = {
        "random-true": (both["random"] / both["true"]).groupby("run").mean(),
        "random-least": (
            least[least["labels"] == "random"].assign(by=lambda r: r["file"] / r["needed"])
        ).groupby("run")["by"].min(),
    }  # fmt: skip
    return found | {"random-slope": cost_of_a_label(least, "random")}


def cost_of_a_label(least: pd.DataFrame, labels: str) -> pd.Series:
    """Return by run how many bits of file a further label takes: the slope over the samples."""
    rows = least[least["labels"] == labels]
    found = {
        run: float(np.polyfit(part["samples"], part["file"], 1)[0])
        for run, part in rows.groupby("run")
        if part["samples"].nunique() > 1
    }
    return pd.Series(found, dtype=float)
