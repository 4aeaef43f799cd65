"""Chapter 07: from its tables to what tells how well a network fits, and the claims' values."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from study.protocol import holm, student

Measured = Mapping[str, pd.DataFrame]
KEYS = ["kind", "run", "share", "variant"]
OUTCOMES = {"accuracy": "test accuracy", "gap": "training less test accuracy"}
AT_HAND = {  # column → what it is called; all of the training samples
    "train_loss": "training loss",
    "train_accuracy": "training accuracy",
    "margin": "margin",
    "norm": "norm of the weights",
    "distance": "distance from the start",
    "parameters": "parameters",
    "samples": "samples",
}
FAMILIES = {  # what a predictor needs → how its name begins
    "training samples": "training, ",
    "held-out samples": "held out, ",
    "all samples": "all, ",
    "held-out inputs": "held out less training, ",
    "plane and weights": "training and weights, ",
    "weights alone": "weights alone, ",
    "labels alone": "labels alone, ",
    "no plane": "at hand, ",
    "few labels": "validation",
}
BREAK = 0.05  # bits that a layer must have above the one before it to break the inequality
CONDITIONAL = "training, bins, last, I(X;T|Y)"
WITH_WEIGHTS = "training and weights, √((I(X;T|Y) + distance) / samples)"
WEIGHTS_ALONE = "weights alone, √(distance / samples)"
LABELS_ALONE = "labels alone, log₂ n − H(Y)"  # what I(X;T|Y) is where every sample is told apart
GUESSED_GAP = "validation, training accuracy less it"
BREAKS = "training, bound, breaks"
SAMPLED = "all, bound, last, I(X;T)"  # as the thesis drew planes: of all samples


def predictors(t: Measured) -> pd.DataFrame:
    """Return a row a network (`KEYS`), a column a predictor, and both outcomes.

    Of planes: set, estimator, layer ("last", or "mean" over layers), quantity; `breaks` are the
    bits by which layers stand above the one before them. Held-out less training: the difference of
    I(X;T), for which no label is needed.
    """
    networks = t["networks"].set_index(KEYS)
    wide = _of_planes(t["planes"])
    names = [str(name) for name in wide]
    for name in [n for n in names if n.startswith("held out, ") and n.endswith("I(X;T)")]:
        rest = name.removeprefix("held out, ")
        wide[f"held out less training, {rest}"] = wide[name] - wide[f"training, {rest}"]
    for column, word in AT_HAND.items():
        wide[f"at hand, {word}"] = networks[column]
    wide["validation"] = networks["validation"]
    wide[GUESSED_GAP] = networks["train_accuracy"] - networks["validation"]
    bits = wide[CONDITIONAL] + networks["distance"]
    wide[WITH_WEIGHTS] = np.sqrt(bits / networks["samples"])
    wide[WEIGHTS_ALONE] = np.sqrt(networks["distance"] / networks["samples"])
    planes = t["planes"]
    seen = planes[(planes["samples"] == "training") & (planes["estimator"] == "bins")]
    wide[LABELS_ALONE] = np.log2(seen.groupby(KEYS)["n"].first()) - networks["label_entropy"]
    wide["accuracy"] = networks["test_accuracy"]
    wide["gap"] = networks["train_accuracy"] - networks["test_accuracy"]
    return wide.copy()


def _of_planes(planes: pd.DataFrame) -> pd.DataFrame:
    rows = planes.assign(conditional=planes["i_xz"] - planes["i_zy"])
    by = [*KEYS, "samples", "estimator"]
    rows = rows.sort_values([*by, "place"])
    last = rows.groupby(by).last()
    mean = rows[rows["estimator"] != "tolerated"].groupby(by)  # these have the last layer alone
    parts = {}
    for column, word in (("i_xz", "I(X;T)"), ("i_zy", "I(T;Y)"), ("conditional", "I(X;T|Y)")):
        parts[f"last, {word}"], parts[f"mean, {word}"] = last[column], mean[column].mean()
    gains = rows.groupby(by)["i_xz"].diff() - BREAK
    parts["breaks"] = rows.assign(gain=gains.clip(lower=0)).groupby(by)["gain"].sum()
    long = pd.concat(parts, axis=1).reset_index()
    found = long.pivot(index=KEYS, columns=["samples", "estimator"])
    names = list(map(tuple, found.columns))
    found.columns = pd.Index([", ".join((of, by, what)) for what, of, by in names])
    found = found.drop(columns=[name for name in found if str(name).endswith("tolerated, breaks")])
    return found.dropna(axis=1, how="all")


def family(name: str) -> str:
    """Return what a predictor needs, one of `FAMILIES`."""
    return next(needs for needs, start in FAMILIES.items() if name.startswith(start))


def each(table: pd.DataFrame, outcome: str, by: Sequence[str] = ("run", "kind")) -> pd.DataFrame:
    """Return the rank correlations of predictors with an outcome, a row a run and kind.

    Args:
        table: as `predictors` returns it.
        outcome: one of `OUTCOMES`.
        by: what rows are told apart by; ("run",) ranks all kinds together.
    """
    names, found = [name for name in table if name not in OUTCOMES], {}
    for keys, rows in table.groupby(list(by)):
        ranks = rows.rank()
        moving = [name for name in names if ranks[name].nunique() > 1]
        found[keys] = ranks[moving].corrwith(ranks[outcome])
    return pd.DataFrame(found).T.rename_axis(list(by))


def correlations(table: pd.DataFrame, outcome: str, within: bool = True) -> pd.DataFrame:
    """Return the rank correlations of predictors with an outcome: a row a run, a column each.

    Args:
        table: as `predictors` returns it.
        outcome: one of `OUTCOMES`.
        within: means over kinds of networks of what holds in each; else all kinds together. What
            never moves in a kind has no value there.
    """
    found = each(table, outcome, ("run", "kind") if within else ("run",))
    return found.groupby("run").mean()


def leading(compared: pd.DataFrame) -> pd.DataFrame:
    """Return of each outcome and family, in their order, the row with the largest correlation.

    The sign doesn't count.

    Args:
        compared: as `compared` returns it.
    """
    order = compared.assign(size=compared["correlation"].abs()).sort_values("size")
    found: pd.DataFrame = order.groupby(["outcome", "needs"], sort=False).tail(1)
    places = {name: place for place, name in enumerate([*OUTCOMES, *FAMILIES])}
    return found.drop(columns="size").sort_values(
        ["outcome", "needs"], key=lambda words: words.map(places)
    )


def best(means: pd.DataFrame, needs: str) -> pd.Series:
    """Return by run the correlation of a family's best predictor, chosen by the other runs.

    Its sign is that of the other runs, so that a predictor which means nothing has 0 in the mean.

    Args:
        means: runs × predictors, of one outcome, as in `correlations`.
        needs: the family.
    """
    held = means[[name for name in means if family(str(name)) == needs]].dropna(axis=1, how="any")
    found = {}
    for run in held.index if len(held) > 1 else ():
        others = held.drop(run).mean()
        name = others.abs().idxmax()
        found[run] = float(held.at[run, name] * np.sign(others[name]))
    return pd.Series(found, dtype=float)


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """Return every predictor: needs, mean correlation over runs, its 95 % interval, n, corrected p.

    Correlations are those within kinds. The interval is Student's over runs; p tests that the mean
    is 0, corrected by Holm's rule for all predictors and outcomes.

    Args:
        table: as `predictors` returns it.
    """
    rows = []
    for outcome in OUTCOMES:
        for name, held in correlations(table, outcome).items():
            rows.append((outcome, family(str(name)), str(name), *student(held)))
    columns = ["outcome", "needs", "predictor", "correlation", "low", "high", "n", "p"]
    found = pd.DataFrame(rows, columns=columns)
    return found.assign(p=holm(found["p"]))


def values(t: Measured) -> dict[str, pd.Series]:
    """Return key → values by run, of all claims of study/claims/model_fit.yml."""
    table = predictors(t)
    found = dict[str, pd.Series]()
    for outcome in OUTCOMES:
        means = correlations(table, outcome)
        plane = best(means, "training samples")
        found[f"{outcome}-plane"] = plane
        found[f"{outcome}-beside-trivial"] = plane - best(means, "no plane")
        found[f"{outcome}-beside-validation"] = plane - means["validation"].abs()
        found[f"{outcome}-inputs"] = best(means, "held-out inputs")
        across = correlations(table, outcome, within=False)
        found[f"{outcome}-across"] = best(across, "training samples")
        labels = found[f"{outcome}-across"] - across[LABELS_ALONE].abs()
        found[f"{outcome}-across-beside-labels"] = labels
    gap = correlations(table, "gap")
    found["gap-beside-guessed-gap"] = found["gap-plane"] - gap[GUESSED_GAP].abs()
    found["information-in-the-bound"] = gap[WITH_WEIGHTS] - gap[WEIGHTS_ALONE]
    for key, name in {
        "conditional": CONDITIONAL, "with-weights": WITH_WEIGHTS, "breaks": BREAKS
    }.items():  # fmt: skip
        found[key] = gap.get(name, pd.Series(dtype=float))  # none where it never moves
    found["sampled"] = _sampled(table)
    return {key: series.dropna() for key, series in found.items()}


def _sampled(table: pd.DataFrame) -> pd.Series:
    """Return by run how the plane goes with the share of samples, ordinary networks alone."""
    rows = table.xs("ordinary", level="variant")[SAMPLED].reset_index()
    each = {
        key: float(part["share"].rank().corr(part[SAMPLED].rank()))
        for key, part in rows.groupby(["kind", "run"])
    }
    return pd.Series(each, dtype=float).groupby(level=1).mean()
