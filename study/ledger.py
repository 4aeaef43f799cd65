"""The ledger of a chapter: its claims from study/claims, filled with what a run measured."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from html import escape
from math import isinf, isnan
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from ibcore.claims import Claim

MIME = "application/vnd.ibcore.claims+json"
CLAIMS = Path(__file__).resolve().parent / "claims"
_NEEDED = ("figure", "claim", "published", "accepted", "reason")
_MORE = ("unit", "theorem", "flaw", "instead")


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

    def fill(self, key: str, values: Iterable[float], saturated: pd.Series | None = None) -> Claim:
        """Give a claim its values, one a seed, and return it.

        Args:
            key: of the claim.
            values: one a seed.
            saturated: whether the points behind a value sit at log₂N, by run; `values` then has
                runs for an index too. None where that is no question.
        Raises:
            ValueError: a key that the file doesn't have, or that was filled before; values that
                the claim refuses.
        """
        if key not in self.claims or key in self._filled:
            known = sorted(set(self.claims) - self._filled)
            raise ValueError(f"no claim {key!r} to fill: the file has {known} left")
        self._filled.add(key)
        held = () if saturated is None else saturated[pd.Series(values).index]
        found, flags = tuple(float(v) for v in values), tuple(map(bool, held))
        self.claims[key] = replace(self.claims[key], values=found, saturated=flags)
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
                "Claim": stated(r),
                "Published": r["published"],
                "Ours": ours(r),
                "Accepted": f"{r['tolerance']} {r['unit']}".strip(),
                "Why this interval": r["reason"],
                "Verdict": _verdict(r),
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
        shown = self.table.map(escape).assign(Verdict=[badge(r) for r in rows])
        with pd.option_context("display.max_colwidth", None):  # else claims are cut short
            html = shown.to_html(index=False, classes="ledger", border=0, escape=False)
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
        other = sorted(set(entry) - {*_NEEDED, *_MORE})
        if missing or other:
            raise ValueError(f"{path}: {key} lacks {missing} and has {other} that are unknown")
        if entry.get("instead", key) not in held["claims"]:
            raise ValueError(f"{path}: {key} names {entry['instead']!r}, which is no claim there")
    return held["claims"], held["full"]


def row(claim: Claim) -> dict[str, Any]:
    """Return a claim rounded for print, with its values to twelve digits."""
    low, high = (("" if isinf(v) else f"{v:g}") for v in claim.accepted)
    published, digits = claim.published, decimals(claim.spread or claim.measured)
    return {
        **{k: v for k, v in asdict(claim).items() if k not in ("accepted", "full", "saturated")},
        "published": published if isinstance(published, str) else f"{published:g}",
        "measured": number(claim.measured, digits),
        "spread": number(claim.spread, digits) if len(claim.values) > 1 else "–",
        "interval": [number(v, digits) for v in claim.interval] if len(claim.values) > 1 else [],
        "agree": round(claim.agreement * len(claim.values)) if claim.values else 0,
        "n": len(claim.values),
        "saturated": sum(claim.saturated),
        "values": [float(f"{v:.12g}") for v in claim.values],
        "tolerance": _edges(low, high),
        "verdict": claim.verdict,
    }


def decimals(spread: float) -> int:
    """Return how many decimals a number of this spread is shown with: two to four, to see it."""
    if isnan(spread):
        return 2
    return next((digits for digits in (2, 3, 4) if round(spread, digits)), 2)


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


def stated(row: Mapping[str, Any]) -> str:
    """Return a row's claim; where it is badly put, why, and which claim stands instead."""
    if not row["flaw"]:
        return str(row["claim"])
    instead = f"; see {row['instead']}" if row["instead"] else ""
    return f"{row['claim']} (badly put: {row['flaw']}{instead})"


def badge(row: Mapping[str, Any]) -> str:
    """Return a row's verdict in HTML, with a class of its own for its colour."""
    kind = row["verdict"].replace(" ", "-")
    return f'<span class="verdict {kind}">{escape(_verdict(row))}</span>'


def _verdict(row: Mapping[str, Any]) -> str:
    named = "" if row["source"] == "original" else f" ({row['source']})"
    return f"{row['verdict']}{named}"


def number(value: float, digits: int = 2) -> str:
    """Return a number rounded for print, a zero without sign, "–" for NaN."""
    return "–" if isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}"


def _edges(low: str, high: str) -> str:
    if low and high:
        return f"{low} to {high}"
    return f"≥ {low}" if low else f"≤ {high}" if high else "–"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
