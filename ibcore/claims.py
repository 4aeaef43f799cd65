"""A published statement beside what was measured: values, interval, verdict."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

VERDICTS = (
    "reproduced", "partly", "not reproduced", "theorem", "saturated", "badly put", "not testable",
    "stand-in", "reduced run",
)  # fmt: skip
_LEVEL, _RESAMPLES = 0.95, 9999


@dataclass(frozen=True)
class Claim:
    """One published statement and what we measured.

    Args:
        key: short name that prose refers to.
        figure: the figure or section of the thesis or paper.
        claim: the statement as a quantity that can be measured.
        published: what the source says, as a number or in words.
        accepted: the interval, low to high, in which a value agrees with the source.
        reason: why this interval.
        values: our value for each seed; empty where it can't be measured.
        unit: of the values, "" for none.
        source: "original", or the name of the stand-in data.
        full: whether the run had the published length; a shorter one decides nothing.
        saturated: whether the points that a value is made of sit at log₂N, for each value.
        theorem: whether a proof, and no run, decides; `accepted` is then what it says.
        flaw: why the claim can't be tested as it is put; it is kept, and decides nothing.
        instead: key of the better claim that stands beside it.
    Raises:
        ValueError: an interval from high to low, a value that is not finite or that a theorem
            rules out, or not one entry of `saturated` a value.
    """

    key: str
    figure: str
    claim: str
    published: float | str
    accepted: tuple[float, float]
    reason: str
    values: tuple[float, ...] = ()
    unit: str = ""
    source: str = "original"
    full: bool = True
    saturated: tuple[bool, ...] = ()
    theorem: bool = False
    flaw: str = ""
    instead: str = ""

    def __post_init__(self) -> None:
        if not self.accepted[0] <= self.accepted[1]:
            raise ValueError(f"{self.key}: accepted runs from low to high, got {self.accepted}")
        if not np.isfinite(self.values).all():
            raise ValueError(f"values of {self.key!r} must be finite, got {self.values}")
        if self.saturated and len(self.saturated) != len(self.values):
            raise ValueError(
                f"{self.key}: saturated needs an entry for each of {len(self.values)} values, got "
                f"{len(self.saturated)}"
            )
        if self.theorem and self.values and self.agreement < 1:
            raise ValueError(f"{self.key}: a theorem rules out one of the values {self.values}")

    @property
    def measured(self) -> float:
        """Mean over seeds; NaN without values."""
        return float(np.mean(self.values)) if self.values else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation over seeds; 0 for one seed."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else 0.0

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean over seeds, low to high: bootstrap, by percentiles.

        One seed gives its value twice, none gives NaN. Few seeds give an interval that is too
        narrow: of three seeds it covers the mean in some 75 of 100 cases, of ten in 90.
        """
        if len(self.values) < 2:
            return (self.measured, self.measured)
        found = stats.bootstrap(
            (self.values,), np.mean, confidence_level=_LEVEL, n_resamples=_RESAMPLES,
            method="percentile", rng=np.random.default_rng(0),
        )  # fmt: skip
        low, high = found.confidence_interval
        return float(low), float(high)

    @property
    def agreement(self) -> float:
        """Share of the seeds whose value is accepted; NaN without values."""
        low, high = self.accepted
        return float(np.mean([low <= v <= high for v in self.values])) if self.values else math.nan

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`; the first three say where the interval of the mean lies.

        All of it is accepted, it crosses an edge, or it lies outside. A claim that accepts every
        number, or has no values, is not testable; one whose points sit at log₂N in half of the
        values or more is saturated, whatever its interval.
        """
        if not self.values or np.isinf(self.accepted).all():
            return "not testable"
        if self.source != "original":
            return "stand-in"
        if not self.full:
            return "reduced run"
        if self.flaw:
            return "badly put"
        if self.theorem:
            return "theorem"
        if self.saturated and np.mean(self.saturated) >= 0.5:
            return "saturated"
        low, high = self.interval
        if self.accepted[0] <= low and high <= self.accepted[1]:
            return "reproduced"
        apart = high < self.accepted[0] or low > self.accepted[1]
        return "not reproduced" if apart else "partly"
