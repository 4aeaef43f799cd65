"""The verdicts of chapter 06: claims from a file, a statistic and a test each, Holm's rule."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy import stats

from ibcore.claims import Claim
from study.ledger import CLAIMS, number
from study.statistics import STATISTICS, Measured, NotTestable, course, fall, others_peak, since

VERDICTS = ("supported", "refuted", "undecided", "saturated", "not testable")
MIME = "application/vnd.ibcore.verdicts+json"
TWIN = " ×4"  # behind the name of an estimator: the layer multiplied by four
LEVEL = 0.05  # of the tests, after Holm's correction over the rows of a claim
_LEAST = 3  # seeds
_SAME = 1e-9  # bits: values that differ by less differ by rounding
_TOP = 0.99  # of the ceiling: from here on a point is saturated
_NEEDED = {
    "source", "where", "quote", "quantity", "statistic", "accepted", "refuted_by", "reason",
    "arms", "estimators",
}  # fmt: skip
_MORE = {"options", "shares", "flaw", "instead"}
_FREE = (-math.inf, math.inf)


@dataclass(frozen=True)
class Row:
    """A claim on one arm by one estimator: what each seed says, and a verdict.

    Args:
        key: of the claim.
        arm: network and how it was trained.
        estimator: of the planes, or the table that is read.
        accepted: low to high.
        values: one a seed; none where it isn't testable.
        bounds: of the mean, by its nature; no edge there is tested, no interval goes beyond.
        shares: whether values are 0 or 1, and the claim is on their mean.
        saturated: whether half or more of the points that are read sit at log₂N.
        why: it isn't testable.
        p: of the test against the nearest edge, for the side on which the mean lies; NaN without.
        adjusted: p after Holm's correction for all rows of the claim.
    """

    key: str
    arm: str
    estimator: str
    accepted: tuple[float, float]
    values: tuple[float, ...] = ()
    bounds: tuple[float, float] = _FREE
    shares: bool = False
    saturated: bool = False
    why: str = ""
    p: float = math.nan
    adjusted: float = math.nan

    @cached_property
    def _as_claim(self) -> Claim:
        return Claim(self.key, "", "", "", self.accepted, "", self.values)

    @property
    def effect(self) -> float:
        """Mean over seeds."""
        return self._as_claim.measured

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean over seeds: bootstrap; of a share, the exact one."""
        if self.shares and self.values:
            found = stats.binomtest(round(sum(self.values)), len(self.values)).proportion_ci()
            return float(found.low), float(found.high)
        low, high = self._as_claim.interval
        return max(low, self.bounds[0]), min(high, self.bounds[1])

    @property
    def agreement(self) -> float:
        """Share of the seeds whose value is accepted."""
        return self._as_claim.agreement

    @property
    def inside(self) -> bool:
        """Whether the mean is accepted."""
        return _inside(self.effect, self.accepted)

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`: where Holm's rule lets the test stand, the side of the mean."""
        if self.why:
            return "not testable"
        if self.saturated:
            return "saturated"
        if not self.adjusted < LEVEL:
            return "undecided"
        return "supported" if self.inside else "refuted"


def read(path: Path | None = None) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return the claims by key, and the settings of a full run.

    Args:
        path: of the file; None takes that of the chapter.
    Raises:
        ValueError: the file is missing; a claim lacks something, has too much, or names a statistic
            that doesn't exist; a statistic that no claim names.
    """
    path = path or CLAIMS / "black_box.yml"
    if not path.is_file():
        raise ValueError(f"no claims: {path} is missing")
    held = yaml.safe_load(path.read_text(encoding="utf-8"))
    claims: dict[str, dict[str, Any]] = held["claims"]
    for key, entry in claims.items():
        missing, other = sorted(_NEEDED - set(entry)), sorted(set(entry) - _NEEDED - _MORE)
        if missing or other:
            raise ValueError(f"{path}: {key} lacks {missing} and has {other} that are unknown")
        if entry["statistic"] not in STATISTICS:
            raise ValueError(
                f"{path}: {key} asks for the statistic {entry['statistic']!r}; study/statistics.py "
                f"has {sorted(STATISTICS)}"
            )
        low, high = accepted = _accepted(entry)
        if not low <= high or not _edges(accepted, STATISTICS[entry["statistic"]].bounds):
            raise ValueError(f"{path}: {key} accepts {entry['accepted']}, which refutes nothing")
        if entry.get("instead", key) not in claims:
            raise ValueError(f"{path}: {key} names {entry['instead']!r}, which is no claim there")
    unused = sorted(set(STATISTICS) - {entry["statistic"] for entry in claims.values()})
    if unused:
        raise ValueError(f"{path}: no claim uses the statistics {unused} of study/statistics.py")
    return claims, held["full"]


def _accepted(entry: Mapping[str, Any]) -> tuple[float, float]:
    low, high = map(float, entry["accepted"])
    return low, high


def is_full(settings: Any) -> bool:
    """Return whether settings are those of a full run; runs may be more."""
    for name, wanted in read()[1].items():
        given = getattr(settings, name)
        given = list(given) if isinstance(given, tuple) else given
        if given < wanted if name.endswith("runs") else given != wanted:
            return False
    return True


def findings(t: Measured, claims: Mapping[str, Mapping[str, Any]] | None = None) -> list[Row]:
    """Return all rows: a claim, an arm, an estimator each, tested and corrected.

    Args:
        t: tables of the chapter.
        claims: as `read` returns them; None takes those of the file.
    """
    found = []
    for key, entry in (read()[0] if claims is None else claims).items():
        pairs = [(arm, name) for arm in entry["arms"] for name in entry["estimators"]]
        rows = [_measured(t, key, entry, arm, name) for arm, name in pairs]
        ps = holm([row.p for row in rows])
        found += [replace(row, adjusted=p) for row, p in zip(rows, ps, strict=True)]
    return found


def survivors(rows: Iterable[Row]) -> tuple[int, int]:
    """Return how many rows are decided, and how many still were if Holm's rule took all at once."""
    rows = list(rows)
    decided = [row.verdict in ("supported", "refuted") for row in rows]
    strict = [p < LEVEL for p in holm([row.p for row in rows])]
    return sum(decided), sum(a and b for a, b in zip(decided, strict, strict=True))


def _measured(t: Measured, key: str, entry: Mapping[str, Any], arm: str, estimator: str) -> Row:
    accepted, options = _accepted(entry), entry.get("options", {})
    asked = STATISTICS[entry["statistic"]]
    shares = bool(entry.get("shares"))
    row = Row(key, arm, estimator, accepted, bounds=asked.bounds, shares=shares)
    try:
        found = asked.function(t, arm, estimator, **options).dropna()
        if len(found) < _LEAST:
            raise NotTestable(f"{len(found)} seeds have a value")
    except NotTestable as error:
        return replace(row, why=str(error))
    values = tuple(map(float, found))
    held = asked.layer is not None and _sits(
        t, arm, estimator, options.get("layer", asked.layer).replace("least", "all")
    )
    p = p_share(values, accepted) if shares else p_mean(values, accepted, asked.bounds)
    return replace(row, values=values, saturated=held, p=p)


def _sits(t: Measured, arm: str, estimator: str, layer: str) -> bool:
    """Return whether half or more of the points that are read sit at what N samples can show."""
    names = arm.replace("/", "+").split("+")
    at_top = []
    for name in names:
        held = t["planes"]
        held = held[(held["arm"] == name) & (held["estimator"] == estimator)]
        top = np.minimum(held["ceiling"].min(), np.log2(held["n_samples"].iloc[0]))
        at_top.append(course(t, name, estimator, layer).to_numpy() >= _TOP * top)
    return bool(np.mean([part.mean() for part in at_top]) >= 0.5)


def p_mean(
    values: Iterable[float], accepted: tuple[float, float], bounds: tuple[float, float] = _FREE
) -> float:
    """Return the p of a t-test of the mean: for "inside" where it lies inside, else for "outside".

    Inside: the larger p of the two edges, both must be passed. Outside: twice the p of the edge
    that it passes, where there are two. Seeds that agree up to rounding have the p of a sign test,
    ½ⁿ; on an edge, 1. An edge at a bound is none: nothing lies beyond.

    Args:
        values: one a seed, three or more.
        accepted: low to high.
        bounds: of the mean, by its nature.
    """
    v = np.array(list(values))
    edges = _edges(accepted, bounds)
    inside = _inside(float(v.mean()), accepted)
    turned = {"greater": "less", "less": "greater"}
    ps = [_against(v, edge, side if inside else turned[side]) for edge, side in edges]
    return max(ps) if inside else min(1.0, len(ps) * min(ps))


def _inside(mean: float, accepted: tuple[float, float]) -> bool:
    return accepted[0] - _SAME <= mean <= accepted[1] + _SAME


def _edges(accepted: tuple[float, float], bounds: tuple[float, float]) -> list[tuple[float, str]]:
    """Return each edge that a mean can lie beyond, and the side of it that is accepted."""
    sides = zip(accepted, bounds, ("greater", "less"), strict=True)
    return [(edge, side) for edge, bound, side in sides if np.isfinite(edge) and edge != bound]


def _against(v: np.ndarray, edge: float, side: str) -> float:
    if np.ptp(v) < _SAME:
        beyond = v[0] > edge + _SAME if side == "greater" else v[0] < edge - _SAME
        return float(0.5 ** len(v)) if beyond else 1.0
    return float(stats.ttest_1samp(v, edge, alternative=side).pvalue)


def p_share(values: Iterable[float], accepted: tuple[float, float]) -> float:
    """Return the p of a share of seeds that is claimed to be large, or small.

    Where the share is accepted: of as many seeds or more by lot, a half each. Where it isn't: of as
    few or fewer where the share is the edge of what is accepted.

    Args:
        values: 0 or 1, one a seed.
        accepted: from an edge up to 1, or from 0 up to an edge.
    """
    v = list(values)
    count, n = round(sum(v)), len(v)
    large = accepted[1] == 1
    edge = accepted[0] if large else accepted[1]
    if accepted[0] <= count / n <= accepted[1]:
        side = "greater" if large else "less"
        return float(stats.binomtest(count, n, 0.5, alternative=side).pvalue)
    side = "less" if large else "greater"
    return float(stats.binomtest(count, n, edge, alternative=side).pvalue)


def student(values: pd.Series) -> tuple[float, float, float, int, float]:
    """Return mean, the ends of Student's 95 % interval, n, and the p of a mean of 0; NaN left out.

    Args:
        values: one a seed.
    """
    v = values.dropna()
    n, mean = len(v), float(v.mean())
    error = float(v.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    reach = error * float(stats.t.ppf(0.975, n - 1)) if n > 1 else math.nan
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1)) if error > 0 else math.nan
    return mean, mean - reach, mean + reach, n, p


def holm(ps: Iterable[float]) -> list[float]:
    """Return p-values corrected for their number, so that one error in all has the level's chance.

    NaN stays, and does not count.

    Source: Holm (1979) [holm1979simple].
    """
    given = np.array(list(ps), dtype=float)
    found = np.full(len(given), np.nan)
    order = np.argsort(given)[: int(np.isfinite(given).sum())]
    found[order] = np.maximum.accumulate(given[order] * np.arange(len(order), 0, -1)).clip(max=1)
    return found.tolist()


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Return the rows as a table, with `turns`: another verdict when the layer is rescaled.

    Columns: key, arm, estimator, verdict, effect, low, high, agree (share), n, p (corrected),
    turns, why.
    """
    rows = list(rows)
    by = {(row.key, row.arm, row.estimator): row.verdict for row in rows}
    found = []
    for row in rows:
        plain = row.estimator.removesuffix(TWIN)
        twins = {by.get((row.key, row.arm, name), row.verdict) for name in (plain, plain + TWIN)}
        low, high = row.interval
        found.append(
            {
                "key": row.key,
                "arm": row.arm,
                "estimator": row.estimator,
                "verdict": row.verdict,
                "effect": row.effect,
                "low": low,
                "high": high,
                "agree": row.agreement,
                "n": len(row.values),
                "p": row.adjusted,
                "turns": len(twins) > 1,
                "why": row.why,
            }
        )
    return pd.DataFrame(found)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return a line a claim: its verdict, how many rows say what, and how many turn when rescaled.

    "supported" or "refuted" where no row says the other. Where both are said it "depends on" the
    estimator if no estimator says both, else on the network if no network does, else on both. A
    claim with a flaw is "badly put", and decides nothing.

    Args:
        table: as `frame` returns it.
    """
    claims, lines = read()[0], {}
    for key, part in table.groupby("key", sort=False):
        counts = part["verdict"].value_counts().reindex(list(VERDICTS), fill_value=0)
        flaw = claims.get(str(key), {}).get("flaw")
        verdict = "badly put" if flaw else _whole(part, counts)
        lines[key] = {"verdict": verdict, **counts, "turns": int(part["turns"].sum())}
    return pd.DataFrame(lines).T


def _whole(part: pd.DataFrame, counts: pd.Series) -> str:
    if counts["supported"] and counts["refuted"]:
        decided = part[part["verdict"].isin(["supported", "refuted"])]
        alone = {by: (decided.groupby(by)["verdict"].nunique() == 1).all() for by in _FACTORS}
        on = [word for by, word in _FACTORS.items() if alone[by]] or ["estimator and network"]
        return f"depends on the {on[0]}"
    return next((v for v in VERDICTS if counts[v]), "not testable")


_FACTORS = {"estimator": "estimator", "arm": "network"}


class Verdicts:
    """The verdicts of a run, shown as a line a claim; the page of verdicts is made from it.

    Args:
        rows: of `findings`.
        settings: the chapter's settings: a reduced run decides nothing.
        source: "original", or the name of the stand-in data among the arms.
    """

    def __init__(self, rows: Iterable[Row], settings: Any, source: str) -> None:
        self.rows = list(rows)
        self.full, self.source = is_full(settings), source
        self.table = frame(self.rows)
        self.summary = summary(self.table)

    @property
    def decides(self) -> bool:
        """Whether this is a full run on the original data."""
        return self.full and self.source == "original"

    def says(self, key: str) -> str:
        """Return the verdict on a claim; of a run that decides nothing, why it doesn't."""
        if self.decides:
            return str(self.summary.loc[key, "verdict"])
        return "reduced run" if self.source == "original" else "stand-in"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        claims = read()[0]
        shown = self.summary.assign(verdict=[self.says(key) for key in self.summary.index])
        html = shown.assign(verdict=[badge(word) for word in shown["verdict"]])
        html.insert(0, "claim", [escape(stated(claims[key])) for key in html.index])
        with pd.option_context("display.max_colwidth", None):
            text = html.rename_axis("key").reset_index()
            table = text.to_html(index=False, classes="ledger", border=0, escape=False)
        held = json.loads(self.table.to_json(orient="records", double_precision=6))
        said = {key: self.says(key) for key in self.summary.index}
        return {
            "text/plain": shown.to_string(),
            "text/html": table,
            MIME: {"source": self.source, "full": self.full, "claims": said, "rows": held},
        }


def stated(entry: Mapping[str, Any]) -> str:
    """Return a claim in words: the quote where there is one, the quantity, and what is wrong."""
    quote = f"“{entry['quote']}”: " if entry["quote"] else ""
    flaw = f" (badly put: {entry['flaw']}; see {entry['instead']})" if "flaw" in entry else ""
    return f"{quote}{entry['quantity']}{flaw}"


def badge(verdict: str) -> str:
    """Return a verdict in HTML, with a class of its own for its colour."""
    kind = "depends" if verdict.startswith("depends") else verdict.replace(" ", "-")
    return f'<span class="verdict {kind}">{escape(verdict)}</span>'


def numbers(row: Mapping[str, Any]) -> str:
    """Return the numbers of a row of the table: mean, 95 % interval, how many seeds agree."""
    if row["why"]:
        return str(row["why"])
    low, high, effect = (number(row[name]) for name in ("low", "high", "effect"))
    return f"{effect} [{low}, {high}], {round(row['agree'] * row['n'])} of {row['n']} seeds"


def false_alarms(t: Measured, arm: str, estimator: str, rounds: int = 200) -> dict[str, float]:
    """Return how often a course without order is called a compression, as a share.

    The looks of each run are shuffled, each run by itself, so that no run falls but by chance.
    "others": from the peak of the other seeds, as the claims have it. "own": from each run's own
    peak, as figures are often read. A share of 0.05 is what a test of that level may have.

    Args:
        t: tables of the chapter.
        arm: of the study.
        estimator: of the planes.
        rounds: of shuffling.
    """
    held = course(t, arm, estimator)
    draw = np.random.default_rng(0)
    counts = {"others": 0, "own": 0}
    for _ in range(rounds):
        shuffled = held.apply(lambda run: draw.permutation(run.to_numpy()), axis=1)
        mixed = pd.DataFrame(shuffled.tolist(), index=held.index, columns=held.columns)
        for name, start in (("others", others_peak(mixed)), ("own", mixed.idxmax(axis=1))):
            falls = since(mixed, start)
            counts[name] += bool(falls.mean() < 0 and p_mean(falls, (-math.inf, 0.0)) < LEVEL)
    return {name: count / rounds for name, count in counts.items()}


def effects(t: Measured, arms: Iterable[str], estimators: Iterable[str]) -> pd.DataFrame:
    """Return the last layer's fall of I(X;T), bits: arm, estimator, and a value a seed."""
    found = []
    for arm in arms:
        for estimator in estimators:
            try:
                falls = fall(t, arm, estimator)
            except NotTestable:
                continue
            found += [(arm, estimator, run, value) for run, value in falls.items()]
    return pd.DataFrame(found, columns=["arm", "estimator", "run", "fall"])
