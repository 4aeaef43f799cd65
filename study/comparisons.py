"""From a chapter's tables to what its notebook shows: planes, comparisons, numbers for prose."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from myst_nb import glue

from ibcore.claims import Claim
from ibcore.plane import COLUMNS, KEYS, InformationPlane
from ibcore.settling import CHECKS
from study.ledger import Ledger, decimals, number

Planes = Mapping[str, InformationPlane]
SCORES = ["train_accuracy", "test_accuracy", "train_loss", "test_loss"]
_TOP = 0.99  # of log₂N: from here on a point is saturated, as `InformationPlane.flags` has it
_FLAGS = ["saturated", "above H(Y)", "negative", "not finite"]
_LEAST = 0.01  # of a deviation, so that seeds that agree to the last digit don't divide by zero


def note(facts: pd.DataFrame) -> str:
    """Return the words that a figure says of its data: "" for originals."""
    source = facts["source"].iloc[0]
    return "" if source == "original" else f"stand-in data: {source}"


def describe(facts: pd.DataFrame) -> None:
    """Print what a data set is, from the first row of `measures.facts`."""
    row = facts.iloc[0]
    print(f"{row['data']}, source: {row['source']}, SHA-256 {row['sha256'][:16]}…")
    print(f"x {row['shape']}, {row['classes']} classes")
    print(f"{row['train']} samples to train on, {row['test']} to test on")
    print(f"H(Y) = {row['label_entropy']:.3f} bits, log2 N = {np.log2(row['samples']):.2f} bits")


def plane(rows: pd.DataFrame, checks: pd.DataFrame | None = None, **where: Any) -> InformationPlane:
    """Return the plane of a table's rows, those where columns have the values of `where`.

    Args:
        rows: of `measures.plane_rows`, layers in order.
        checks: of `measures.check_rows`, with the same columns; None for none.
        where: column → value.
    Raises:
        ValueError: no such rows.
    """
    found = chosen(rows, **where)
    first = found.iloc[0]
    metadata = {
        "n_samples": int(first["n_samples"]),
        "label_entropy": float(first["label_entropy"]),
        "layers": list(found["layer"].unique()),
    }
    table = found[COLUMNS].reset_index(drop=True)
    if checks is None:
        return InformationPlane(table, metadata)
    return InformationPlane(table, metadata, chosen(checks, **where)[[*KEYS, *CHECKS]])


def planes(rows: pd.DataFrame, by: str, **where: Any) -> dict[str, InformationPlane]:
    """Return a plane for each value of a column, in the order of the rows."""
    found = chosen(rows, **where)
    return {value: plane(found, **{by: value}) for value in found[by].unique()}


def chosen(rows: pd.DataFrame, **where: Any) -> pd.DataFrame:
    """Return the rows where columns have these values.

    Raises:
        ValueError: there are none; the values that the columns have are named.
    """
    found = rows
    for column, value in where.items():
        found = found[found[column] == value]
    if found.empty:
        has = {column: sorted(rows[column].unique()) for column in where}
        raise ValueError(f"no rows where {where}: there are {has}")
    return found


def by(rows: pd.DataFrame, column: str) -> dict[Any, pd.DataFrame]:
    """Return the rows of each value of a column, in the order in which they come."""
    return dict(list(rows.groupby(column, sort=False)))


def ends(scores: pd.DataFrame, by: Any = "network") -> pd.DataFrame:
    """Return the last epoch of each group."""
    return scores[scores["epoch"] == scores.groupby(by)["epoch"].transform("max")]


def mean_and_spread(table: pd.DataFrame, by: Any, columns: Sequence[str] = SCORES) -> pd.DataFrame:
    """Return mean and standard deviation over seeds of the columns, three decimals."""
    return table.groupby(by, sort=False)[list(columns)].agg(["mean", "std"]).fillna(0).round(3)


def broken_pairs(planes: Planes, bound: str = "BD") -> pd.DataFrame:
    """Return how often each network breaks the data-processing inequality, by noise policy.

    Columns: ("DPI, X", mean or std), ("DPI, Y", …), ("of", mean): pairs of layers and epochs.

    Args:
        planes: network → plane with estimators named "policy bound".
        bound: the bound that is counted.
    """
    counts = pd.concat([p.violations().assign(network=name) for name, p in planes.items()])
    counts = counts[counts["estimator"].str.endswith(f" {bound}")]
    counts = counts.assign(policy=counts["estimator"].str.removesuffix(f" {bound}"))
    groups = counts.groupby(["network", "policy"], sort=False)[["DPI, X", "DPI, Y", "of"]]
    return groups.agg(["mean", "std"]).fillna(0).round(1).drop(columns=("of", "std"))


def flag_counts(planes: Planes, bound: str = "BD") -> pd.DataFrame:
    """Return how many points of each plane can't be believed, by network, estimator and flag."""
    flags = pd.concat([p.flags().assign(network=name) for name, p in planes.items()])
    flags = flags[flags["estimator"].str.endswith(bound) & flags["flag"].isin(_FLAGS)]
    wide = flags.pivot_table(
        index=["network", "estimator"], columns="flag", values="count", sort=False
    )
    return wide.astype(int)


def side(ends: pd.DataFrame, plane: InformationPlane, policies: Sequence[str]) -> pd.DataFrame:
    """Return what one network is at the last epoch, a row a seed: accuracies, places in the plane.

    Args:
        ends: its last epoch, see `ends`.
        plane: its plane, estimators named "policy BD".
        policies: those to be compared.
    """
    end = ends.set_index("run")
    gap = end["train_accuracy"] - end["test_accuracy"]
    found = {"test accuracy": end["test_accuracy"], "train − test accuracy": gap}
    for label in policies:
        last = plane.last(f"{label} BD")
        for column, quantity in (("i_xz", "I(X;T)"), ("i_zy", "I(T;Y)")):
            found[f"{quantity}, last layer, {label}"] = last[column][plane.layers[-1]]
        found[f"I(X;T), last − first layer, {label}"] = rise(plane, f"{label} BD")
    return pd.DataFrame(found)


def rise(plane: InformationPlane, estimator: str, column: str = "i_xz") -> pd.Series:
    """Return, for each run, the last layer's bits less the first's at the last epoch."""
    last = plane.last(estimator)[column]
    gain: pd.Series = last[plane.layers[-1]] - last[plane.layers[0]]
    return gain


def learned(scores: pd.DataFrame, share: float = 0.95) -> pd.Series:
    """Return the first epoch at which each run's training accuracy is that share or more.

    Runs that never get there are missing.

    Args:
        scores: `History.table` of one network.
        share: of the training samples.
    """
    found: pd.Series = scores[scores["train_accuracy"] >= share].groupby("run")["epoch"].min()
    return found


def since(
    plane: InformationPlane, estimator: str, layer: str, column: str, start: pd.Series | int
) -> pd.Series:
    """Return, for each run, a layer's last bits less those at the first look from an epoch on.

    A start that no value of the plane decides has no bias, as the peak of a course has. Runs
    without a start, or with no look between it and the last one, are missing.

    Args:
        plane: where it is measured.
        estimator: in the plane.
        layer: in the plane.
        column: "i_xz" or "i_zy".
        start: epoch, one for all runs or one each, as `learned` gives them.
    """
    rows = chosen(plane.select(estimator), layer=layer).sort_values("epoch")
    starts = start if isinstance(start, int) else rows["run"].map(start)
    looks = rows[rows["epoch"] >= starts].groupby("run")[column]
    found: pd.Series = looks.last() - looks.first()
    return found[looks.count() > 1]


def saturated(
    plane: InformationPlane,
    estimator: str,
    layers: Sequence[str] = (),
    course: bool = False,
) -> pd.Series:
    """Return, for each run, whether what is read off a plane sits at log₂N, within 1 %.

    Args:
        plane: what is read.
        estimator: in the plane.
        layers: those that are read; none takes all.
        course: False reads the last epoch, all points of which must sit there; True reads all
            epochs, of whose points half or more must.
    """
    rows = plane.select(estimator)
    rows = rows[rows["layer"].isin(layers or plane.layers)]
    if not course:
        rows = rows[rows["epoch"] == rows["epoch"].max()]
    top = rows["i_xz"] >= _TOP * rows["ceiling"].clip(upper=plane.ceiling)
    shares = top.groupby(rows["run"]).mean()
    return shares >= (0.5 if course else 1.0)


def by_noise(rows: pd.DataFrame, layers: Sequence[str], column: str = "i_xz") -> pd.DataFrame:
    """Return the last layer's bits less the first's: a row a run, a column a noise variance.

    Args:
        rows: `measures.noise_rows` of one network.
        layers: first to last.
        column: "i_xz" or "i_zy".
    """
    wide = rows.pivot(index=["run", "scale"], columns="layer", values=column)
    found: pd.DataFrame = (wide[layers[-1]] - wide[layers[0]]).unstack("scale")
    return found


def verdicts_by_noise(
    claims: Mapping[str, tuple[Claim, pd.DataFrame, Sequence[str]]], samples: int
) -> pd.DataFrame:
    """Return what claims on I(X;T), last less first layer, would be called under other noises.

    Args:
        claims: title → the claim, `measures.noise_rows` of its network, its layers first to last.
        samples: that the layers are measured on.
    Returns:
        Verdicts: a row a title, a column a noise variance.
    """
    found = {}
    for title, (claim, rows, layers) in claims.items():
        ends = rows[rows["layer"].isin([layers[0], layers[-1]])]
        sits = (ends["i_xz"] >= _TOP * np.log2(samples)).groupby([ends["scale"], ends["run"]]).all()
        spans = by_noise(rows, layers)
        found[title] = {
            f"{scale:.2g}": replace(
                claim, values=tuple(spans[scale]), saturated=tuple(sits[scale])
            ).verdict
            for scale in spans
        }
    return pd.DataFrame(found).T


def rank_products(a: pd.Series, b: pd.Series) -> pd.Series:
    """Return a value a run, the mean of which is Spearman's rank correlation of a and b.

    So a correlation has an interval over seeds as any other claim. Empty where one is constant.

    Args:
        a: a number a run, by run.
        b: the same; runs that one of them lacks are left out.
    """
    both = pd.concat([a, b], axis=1, keys=["a", "b"]).dropna().rank()
    spread = both.std(ddof=0)
    product: pd.Series = ((both - both.mean()) / spread).prod(axis=1)
    return product if (spread > 0).all() else product.iloc[:0]


def compare(sides: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return means of two networks, the second less the first, and this in units of the spread.

    The unit is the root of the mean of the two variances over seeds, 0.01 at least.
    """
    (first, a), (second, b) = sides.items()
    spread = np.sqrt((a.var() + b.var()) / 2).clip(lower=_LEAST)
    difference = b.mean() - a.mean()
    means = {first: a.mean(), second: b.mean()}
    return pd.DataFrame({**means, "difference": difference, "in deviations": difference / spread})


def histograms(rows: pd.DataFrame, by: str = "layer") -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the histograms of `measures.histogram_rows` as `plotting.distances` takes them."""
    return {
        str(name): (part["share"].to_numpy(), np.append(part["left"], part["right"].iloc[-1]))
        for name, part in rows.groupby(by, sort=False)
    }


def every_estimator(planes: Planes) -> dict[str, tuple[InformationPlane, str]]:
    """Return a panel for each plane and each estimator in it."""
    return {
        f"{name}, {estimator}": (plane, estimator)
        for name, plane in planes.items()
        for estimator in plane.table["estimator"].unique()
    }


def tell(name: str, value: float | str, digits: int = 2) -> None:
    """Keep a number, rounded, or a word for the prose to refer to by its name."""
    text = value if isinstance(value, str) else number(float(value), digits)
    glue(name, text, display=False)


def tell_claims(ledger: Ledger) -> None:
    """Keep each claim's mean, spread, interval and verdict for the prose, by its key."""
    for key, claim in ledger.claims.items():
        digits = 0 if claim.unit == "epochs" else decimals(claim.spread or claim.measured)
        tell(key, claim.measured, digits)
        tell(f"{key}-std", claim.spread, digits)
        tell(f"{key}-low", claim.interval[0], digits)
        tell(f"{key}-high", claim.interval[1], digits)
        tell(f"{key}-verdict", claim.verdict)


def tell_sides(both: pd.DataFrame) -> None:
    """Keep the differences of `compare` for the prose, and how many are large or small."""
    information = both[both.index.str.startswith("I(")]["in deviations"].abs()
    tell("differences", len(information), 0)
    tell("differences above five", (information > 5).sum(), 0)
    tell("differences below one", (information < 1).sum(), 0)
    for quantity, row in both.iterrows():
        tell(f"{quantity} difference", row["difference"])
        tell(f"{quantity} deviations", abs(row["in deviations"]), 1)


def tell_broken_pairs(table: pd.DataFrame) -> None:
    """Keep the counts of `broken_pairs` for the prose, as "3.5 of 16"."""
    names = [", ".join(index) for index in table.index.tolist()]
    for name, (_, row) in zip(names, table.iterrows(), strict=True):
        for axis in "XY":
            count = f"{row[f'DPI, {axis}', 'mean']:.1f} of {row['of', 'mean']:.0f}"
            tell(f"{name}, DPI {axis}", count)


def tell_scores(ends: pd.DataFrame, prefix: str = "network") -> None:
    """Keep the last accuracies of each network for the prose, with their spread over seeds."""
    for name, rows in ends.groupby(prefix, sort=False):
        for part in ("train", "test"):
            found = rows[f"{part}_accuracy"]
            digits = decimals(found.std())
            tell(f"{name} {part}", found.mean(), digits)
            tell(f"{name} {part} spread", found.std(), digits)
