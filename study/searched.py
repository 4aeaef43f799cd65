"""Chapter 08: from its tables to regrets, to what each stopping rule costs, and claims' values."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from ibcore.snr import turning_epoch
from study.hyperparameters import HELD_BACK, OBJECTIVES
from study.protocol import holm, student

Measured = Mapping[str, pd.DataFrame]
NOTHING = "no objective"  # a trial drawn at random
BESIDE = ("validation", HELD_BACK, "training loss", NOTHING)  # what others are compared with
KEYS = ["data", "run"]
PATIENCE = 10  # epochs without a gain before a training ends
STEP = 0.01  # bits that count as a gain
VALIDATION = "validation"
_CLAIMED = {"I(T;Y)": "relevant", "I(T;Y) − I(X;T|Y)": "difference", "error and bound": "bound"}


def regrets(trials: pd.DataFrame) -> pd.DataFrame:
    """Return what a search lacks after each trial: data, run, sampler, objective, number, regret.

    Regret, in points: the best test accuracy of any trial of the same data and run, less that of
    the trial whose objective is largest so far. Random trials are read by every objective but that
    which trains on fewer samples, and by none: then it is the mean of the trials so far. `number`
    counts trials from 1.

    Args:
        trials: the table of `study.hyperparameters`.
    """
    trials = trials.assign(best=trials.groupby(KEYS)["test_accuracy"].transform("max"))
    read = [word for word in (*OBJECTIVES, NOTHING) if word != HELD_BACK]
    parts = []
    for keys, rows in trials.groupby([*KEYS, "sampler", "objective"], sort=False):
        rows = rows.sort_values("number")
        held = dict(zip((*KEYS, "sampler", "objective"), keys, strict=True))
        for by in [str(keys[-1])] if held["sampler"] == "TPE" else read:
            left = 100 * (rows["best"] - _reached(rows, by))
            each = {**held, "objective": by, "number": rows["number"] + 1, "regret": left}
            parts.append(pd.DataFrame(each))
    return pd.concat(parts, ignore_index=True)


def _reached(rows: pd.DataFrame, word: str) -> pd.Series:
    """Return the test accuracy of what is chosen after each trial; NaN before one has ended."""
    accuracy = rows["test_accuracy"]
    if word == NOTHING:
        return accuracy.expanding().mean()
    most, chosen, found = -math.inf, math.nan, []
    measured: list[dict[str, float]] = rows.select_dtypes("number").to_dict("records")  # type: ignore[assignment]
    for row, right in zip(measured, accuracy, strict=True):
        now = OBJECTIVES[word](row)  # NaN where the trial failed
        if now > most:
            most, chosen = now, right
        found.append(chosen)
    return pd.Series(found, rows.index, dtype=float)


def last(regret: pd.DataFrame) -> pd.DataFrame:
    """Return the regrets of whole searches: rows (data, run), columns (sampler, objective)."""
    end = regret[regret["number"] == regret["number"].max()]
    found: pd.DataFrame = end.pivot(index=KEYS, columns=["sampler", "objective"], values="regret")
    return found.loc[regret["data"].unique().tolist()]


def beside(end: pd.DataFrame) -> pd.DataFrame:
    """Return every objective's regret less each of `BESIDE`, by data, points; no pair comes twice.

    Columns: data, objective, beside, mean, low, high (Student's 95 % interval over runs), n, p
    (that the mean is 0, corrected by Holm's rule for all rows).

    Args:
        end: as `last` returns it.
    """
    rows = []
    for data, part in end.groupby(level="data", sort=False):
        for word in OBJECTIVES:
            for other in BESIDE:
                told = word in BESIDE[BESIDE.index(other) :]
                if not told and _has(part, word) and _has(part, other):
                    gap = part["TPE", word] - _other(part, other)
                    rows.append((data, word, other, *student(gap)))
    columns = ["data", "objective", "beside", "mean", "low", "high", "n", "p"]
    found = pd.DataFrame(rows, columns=columns)
    return found.assign(p=holm(found["p"]))


def _has(end: pd.DataFrame, word: str) -> bool:
    return word == NOTHING or ("TPE", word) in end


def _other(end: pd.DataFrame, word: str) -> pd.Series:
    found: pd.Series = end["random" if word == NOTHING else "TPE", word]
    return found


def patient(values: np.ndarray, least: float = 0.0) -> tuple[int, int]:
    """Return the epoch of the last gain, and the one where `PATIENCE` ends without another; from 1.

    Args:
        values: one an epoch, to be large.
        least: what counts as a gain is more than this.
    """
    best = 0
    for now in range(len(values)):
        if values[now] > values[best] + least:
            best = now
        if now - best >= PATIENCE:
            return best + 1, now + 1
    return best + 1, len(values)


def turn(course: pd.DataFrame) -> int:
    """Return the epoch where a training's gradients turn, all weights together; 0 where none is.

    Args:
        course: rows of `study.hyperparameters`, of one training.
    """
    found = turning_epoch(course.assign(weight="all", ratio=np.exp2(course["drift"])))
    return int(found.fillna(0).iloc[0])


def _at_turn(rows: pd.DataFrame) -> tuple[int, int]:
    epoch = turn(rows) or len(rows)
    return epoch, epoch


# A rule: from a training's epochs to the epoch whose weights are kept, and the epochs it takes.
RULES: dict[str, Callable[[pd.DataFrame], tuple[int, int]]] = {
    VALIDATION: lambda rows: patient(rows["validation"].to_numpy()),
    "gradients turn": _at_turn,
    "I(X;T) turns": lambda rows: patient(rows["i_xz"].to_numpy(), STEP),
    "I(T;Y) turns": lambda rows: patient(rows["i_zy"].to_numpy(), STEP),
    "training loss settles": lambda rows: patient(-rows["train_loss"].to_numpy(), STEP),
    "training accuracy settles": lambda rows: patient(rows["train_accuracy"].to_numpy()),
    "last epoch": lambda rows: (len(rows), len(rows)),
}
FIXED = "fixed epoch"  # the one that is best on the mean of all other data sets


def stopped(courses: pd.DataFrame) -> pd.DataFrame:
    """Return what each rule makes of each training: a row each.

    Columns: data, run, noisy, rule, epoch (whose weights are kept), used (epochs), test_accuracy,
    lost (points less than by validation), short (points less than at the best epoch).

    Args:
        courses: the table of `study.hyperparameters`.
    """
    fixed = {data: _fixed(courses[courses["data"] != data]) for data in courses["data"].unique()}
    rows = []
    for keys, part in courses.groupby(["data", "run", "noisy"], sort=False):
        part = part.sort_values("epoch")
        right = part["test_accuracy"].to_numpy()
        ends = {rule: find(part) for rule, find in RULES.items()}
        if known := fixed[keys[0]]:
            ends[FIXED] = (known, known)
        at = right[ends[VALIDATION][0] - 1]
        for rule, (epoch, used) in ends.items():
            found = right[epoch - 1]
            losses = (100 * (at - found), 100 * (right.max() - found))
            rows.append((*keys, rule, epoch, used, found, *losses))
    columns = ["data", "run", "noisy", "rule", "epoch", "used", "test_accuracy", "lost", "short"]
    return pd.DataFrame(rows, columns=columns)


def _fixed(courses: pd.DataFrame) -> int:
    """Return the epoch of the best mean test accuracy; 0 where there is no training."""
    if courses.empty:
        return 0
    means = courses.groupby("epoch")["test_accuracy"].mean()
    return int(means.index.to_numpy()[means.to_numpy().argmax()])


def costs(stops: pd.DataFrame) -> pd.DataFrame:
    """Return what each rule loses by data and share of wrong labels, against validation, points.

    Columns: data, noisy, rule, mean, low, high, n, p (Holm's, as in `beside`), epochs (mean used).

    Args:
        stops: as `stopped` returns it.
    """
    rows = []
    for keys, part in stops[stops["rule"] != VALIDATION].groupby(
        ["data", "noisy", "rule"], sort=False
    ):
        rows.append((*keys, *student(part["lost"]), part["used"].mean()))
    columns = ["data", "noisy", "rule", "mean", "low", "high", "n", "p", "epochs"]
    found = pd.DataFrame(rows, columns=columns)
    return found.assign(p=holm(found["p"]))


def values(t: Measured) -> dict[str, pd.Series]:
    """Return key → values by run, of all claims of study/claims/hyperparameters.yml."""
    end = last(regrets(t["trials"]))
    found = dict[str, pd.Series]()
    for word, key in _CLAIMED.items():
        for other, name in zip(BESIDE, ("validation", "held-back", "loss", "nothing"), strict=True):
            if _has(end, word) and _has(end, other):
                gap = end["TPE", word] - _other(end, other)
                found[f"{key}-beside-{name}"] = _by_run(gap)
    if _has(end, VALIDATION):
        found["sampler"] = _by_run(end["TPE", VALIDATION] - end["random", VALIDATION])
    stops = stopped(t["courses"])
    keys = ["data", "run", "noisy"]
    turned = {each: float(turn(rows) > 0) for each, rows in t["courses"].groupby(keys)}
    found["turn-found"] = _by_run(pd.Series(turned).rename_axis(keys))
    lost = stops.pivot(index=keys, columns="rule", values="lost")
    for rule, key in {
        "gradients turn": "turn", "I(X;T) turns": "xz", "I(T;Y) turns": "zy", FIXED: "fixed",
        "last epoch": "last", "training loss settles": "loss",
    }.items():  # fmt: skip
        found[f"{key}-lost"] = _by_run(lost[rule]) if rule in lost else pd.Series(dtype=float)
    found["zy-beside-loss"] = _by_run(lost["I(T;Y) turns"] - lost["training loss settles"])
    noisy = lost[lost.index.get_level_values("noisy") > 0]
    found["turn-lost-noisy"] = _by_run(noisy["gradients turn"])
    used = stops.pivot(index=keys, columns="rule", values="used")
    found["turn-epochs"] = _by_run(used["gradients turn"] / used[VALIDATION])
    return {key: series.dropna() for key, series in found.items()}


def _by_run(values: pd.Series) -> pd.Series:
    found: pd.Series = values.groupby(level="run").mean()
    return found


def curve(regret: pd.DataFrame) -> pd.DataFrame:
    """Return the regrets of TPE, and of no objective, for `plotting.searches`."""
    guided = (regret["sampler"] == "TPE") | (regret["objective"] == NOTHING)
    rows = regret[guided]
    return rows.assign(x=rows["number"], value=rows["regret"], series=rows["objective"])


def over_data(curves: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over data sets of what `curve` returns, by seed."""
    found = curves.groupby(["series", "x", "run"], sort=False)["value"].mean()
    return found.reset_index()


def told(table: pd.DataFrame, index: list[str], columns: str) -> pd.DataFrame:
    """Return `beside` or `costs` as words: mean ± half its interval, a star where p is below 0.05.

    Args:
        table: as one of them returns it.
        index: columns of it that become rows.
        columns: the one that becomes columns.
    """
    half = (table["high"] - table["low"]) / 2
    words = [
        f"{round(mean, 1) + 0.0:.1f} ± {reach:.1f}{'*' if p < 0.05 else ''}"
        for mean, reach, p in zip(table["mean"], half, table["p"], strict=True)
    ]
    held: pd.DataFrame = table.assign(words=words)
    for column in (*index, columns):
        held[column] = pd.Categorical(held[column], held[column].unique(), ordered=True)
    found: pd.DataFrame = held.pivot(index=index, columns=columns, values="words")
    return found.sort_index()
