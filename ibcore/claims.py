"""Published values beside ours: tolerance, verdict, and the ledger that shows them."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

MIME = "application/vnd.ibcore.claims+json"
VERDICTS = ("reproduced", "partly", "not reproduced", "not testable", "stand-in", "reduced run")


@dataclass(frozen=True)
class Claim:
    """One published statement and what we measured.

    Args:
        figure: the figure or section of the thesis or paper.
        claim: the statement as a quantity that can be measured.
        published: what the source says, as a number or in words.
        accepted: the interval, low to high, in which a value agrees with the source.
        reason: why this interval.
        values: our value for each seed; empty where it can't be measured.
        unit: of the values, "" for none.
        source: "original", or the name of the stand-in data.
        full: whether the run had the published length; a shorter one decides nothing.
    """

    figure: str
    claim: str
    published: float | str
    accepted: tuple[float, float]
    reason: str
    values: tuple[float, ...]
    unit: str = ""
    source: str = "original"
    full: bool = True

    def __post_init__(self) -> None:
        if not self.accepted[0] <= self.accepted[1]:
            raise ValueError(f"accepted runs from low to high, got {self.accepted}")
        if not np.isfinite(self.values).all():
            raise ValueError(f"values of {self.claim!r} must be finite, got {self.values}")

    @property
    def measured(self) -> float:
        """Mean over seeds; NaN without values."""
        return float(np.mean(self.values)) if self.values else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation over seeds; 0 for one seed."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else 0.0

    @property
    def verdict(self) -> str:
        """Where mean ± spread lies: inside the accepted interval, across its edge, or outside."""
        if not self.values:
            return "not testable"
        if self.source != "original":
            return "stand-in"
        if not self.full:
            return "reduced run"
        low, high = self.measured - self.spread, self.measured + self.spread
        if self.accepted[0] <= low and high <= self.accepted[1]:
            return "reproduced"
        return (
            "partly" if low <= self.accepted[1] and high >= self.accepted[0] else "not reproduced"
        )


@dataclass
class Ledger:
    """The claims of a notebook; shown as a table, and read by the book's figure index.

    Args:
        source: "original", or the name of the stand-in data that all claims rest on.
        full: whether the run had the published length.
        digits: decimals that are shown and kept.
    """

    source: str = "original"
    full: bool = True
    digits: int = 2
    claims: list[Claim] = field(default_factory=list)

    def add(
        self,
        figure: str,
        claim: str,
        published: float | str,
        accepted: tuple[float, float],
        reason: str,
        values: Sequence[float],
        unit: str = "",
    ) -> Claim:
        """Record a claim and return it; see `Claim` for the arguments."""
        values = tuple(float(v) for v in values)
        entry = Claim(
            figure, claim, published, accepted, reason, values, unit, self.source, self.full
        )
        self.claims.append(entry)
        return entry

    def rows(self) -> list[dict[str, Any]]:
        """Return the claims rounded for print, in a form that JSON can hold."""
        return [self._row(claim) for claim in self.claims]

    @property
    def table(self) -> pd.DataFrame:
        """The claims as they are shown: a row a claim."""
        return pd.DataFrame(
            {
                "Figure": r["figure"],
                "Claim": r["claim"],
                "Published": r["published"],
                "Ours": f"{r['measured']} ± {r['spread']} {r['unit']} (n = {r['n']})",
                "Accepted": r["tolerance"],
                "Why this interval": r["reason"],
                "Verdict": r["verdict"]
                + ("" if r["source"] == "original" else f" ({r['source']})"),
            }
            for r in self.rows()
        )

    def _row(self, claim: Claim) -> dict[str, Any]:
        def number(value: float) -> str:
            return (
                "–" if math.isnan(value) else f"{round(value, self.digits) + 0.0:.{self.digits}f}"
            )

        low, high = (("" if math.isinf(v) else f"{v:g}") for v in claim.accepted)
        return {
            **{k: v for k, v in asdict(claim).items() if k not in ("values", "accepted")},
            "published": f"{claim.published:g}" if isinstance(claim.published, float | int)
            else claim.published,
            "measured": number(claim.measured),
            "spread": number(claim.spread) if len(claim.values) > 1 else "–",
            "n": len(claim.values),
            "tolerance": _interval(low, high),
            "verdict": claim.verdict,
        }  # fmt: skip

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        rows = self.rows()
        text = "\n".join(
            f"{r['figure']}: {r['claim']}: published {r['published']}, ours {r['measured']} ± "
            f"{r['spread']} {r['unit']} (n = {r['n']}), accepted {r['tolerance']}: {r['verdict']}"
            for r in rows
        )
        with pd.option_context("display.max_colwidth", None):  # else claims are cut short
            html = self.table.to_html(index=False, classes="ledger", border=0)
        return {"text/plain": text, "text/html": html, MIME: rows}


def _interval(low: str, high: str) -> str:
    if low and high:
        return f"{low} to {high}"
    return f"≥ {low}" if low else f"≤ {high}" if high else "–"
