"""The ledger of a chapter: its claims from study/claims, filled with what a run measured."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from math import isinf, isnan
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from ibcore.claims import Claim

MIME = "application/vnd.ibcore.claims+json"
CLAIMS = Path(__file__).resolve().parent / "claims"
_NEEDED = ("figure", "claim", "published", "accepted", "reason")


class Ledger:
    """The claims of a chapter, by key, in the order of their file; shown as a table.

    Words of a claim may hold settings, as in "σ² = {low_noise:g}". A run with other settings than
    the file's `full` is a reduced one, and decides nothing; runs may be more.

    Args:
        chapter: name of the file in study/claims.
        settings: the chapter's settings.
        source: "original", or the name of the stand-in data that all claims rest on.
    Raises:
        ValueError: the file is missing, or a claim in it lacks something.
    """

    def __init__(self, chapter: str, settings: Any, source: str) -> None:
        held, full = read(chapter)
        given = vars(settings)
        whole = all(
            given[name] >= wanted if name.endswith("runs") else _plain(given[name]) == wanted
            for name, wanted in full.items()
        )
        self.claims: dict[str, Claim] = {}
        for key, entry in held.items():
            words = {n: v.format(**given) for n, v in entry.items() if isinstance(v, str)}
            interval = tuple(map(float, entry["accepted"]))
            self.claims[key] = Claim(
                **{**entry, **words, "key": key, "accepted": interval, "source": source},
                full=whole,
            )
        self._filled: set[str] = set()

    def fill(self, key: str, values: Iterable[float]) -> Claim:
        """Give a claim its values, one a seed, and return it.

        Raises:
            ValueError: a key that the file doesn't have, or that was filled before.
        """
        if key not in self.claims or key in self._filled:
            known = sorted(set(self.claims) - self._filled)
            raise ValueError(f"no claim {key!r} to fill: the file has {known} left")
        self._filled.add(key)
        self.claims[key] = replace(self.claims[key], values=tuple(float(v) for v in values))
        return self.claims[key]

    def rows(self) -> list[dict[str, Any]]:
        """Return the claims in a form that JSON can hold: rounded for print, and the values."""
        return [row(claim) for claim in self.claims.values()]

    @property
    def table(self) -> pd.DataFrame:
        """The claims as they are shown: a row a claim."""
        return pd.DataFrame(
            {
                "Figure": r["figure"],
                "Claim": r["claim"],
                "Published": r["published"],
                "Ours": ours(r),
                "Accepted": f"{r['tolerance']} {r['unit']}".strip(),
                "Why this interval": r["reason"],
                "Verdict": r["verdict"]
                + ("" if r["source"] == "original" else f" ({r['source']})"),
            }
            for r in self.rows()
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        rows = self.rows()
        text = "\n".join(
            f"{r['figure']}: {r['claim']}: published {r['published']}, ours {ours(r)}, "
            f"accepted {r['tolerance']}: {r['verdict']}"
            for r in rows
        )
        with pd.option_context("display.max_colwidth", None):  # else claims are cut short
            html = self.table.to_html(index=False, classes="ledger", border=0)
        return {"text/plain": text, "text/html": html, MIME: rows}


def read(chapter: str) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return a chapter's claims by key, and the settings of a full run.

    Raises:
        ValueError: the file is missing, or a claim in it lacks something or has too much.
    """
    path = CLAIMS / f"{chapter}.yml"
    if not path.is_file():
        raise ValueError(f"no claims of {chapter!r}: {path} is missing")
    held = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key, entry in held["claims"].items():
        missing = [name for name in _NEEDED if name not in entry]
        other = sorted(set(entry) - {*_NEEDED, "unit"})
        if missing or other:
            raise ValueError(f"{path}: {key} lacks {missing} and has {other} that are unknown")
    return held["claims"], held["full"]


def row(claim: Claim) -> dict[str, Any]:
    """Return a claim rounded to two decimals for print, with its values to twelve digits."""
    low, high = (("" if isinf(v) else f"{v:g}") for v in claim.accepted)
    published = claim.published
    return {
        **{k: v for k, v in asdict(claim).items() if k not in ("accepted", "full")},
        "published": published if isinstance(published, str) else f"{published:g}",
        "measured": number(claim.measured),
        "spread": number(claim.spread) if len(claim.values) > 1 else "–",
        "interval": [number(v) for v in claim.interval] if len(claim.values) > 1 else [],
        "agree": round(claim.agreement * len(claim.values)) if claim.values else 0,
        "n": len(claim.values),
        "values": [float(f"{v:.12g}") for v in claim.values],
        "tolerance": _edges(low, high),
        "verdict": claim.verdict,
    }


def ours(row: Mapping[str, Any]) -> str:
    """Return what a row measured, in words: mean, 95 % interval, spread, seeds, how many agree."""
    if not row["n"]:
        return "–"
    unit = f" {row['unit']}" if row["unit"] else ""
    if row["n"] == 1:
        return f"{row['measured']}{unit} (n = 1)"
    low, high = row["interval"]
    return (
        f"{row['measured']} [{low}, {high}]{unit}, ± {row['spread']} "
        f"(n = {row['n']}, {row['agree']} agree)"
    )


def number(value: float, digits: int = 2) -> str:
    """Return a number rounded for print, a zero without sign, "–" for NaN."""
    return "–" if isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}"


def _edges(low: str, high: str) -> str:
    if low and high:
        return f"{low} to {high}"
    return f"≥ {low}" if low else f"≤ {high}" if high else "–"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
