"""Run jobs of committed tables again, and say how far what they find now lies from the record."""

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from study import settings
from study.closure import ROOT, fingerprint
from study.jobs import FORMAT, MANIFEST, Job, machine, read_set

# How far a number may lie from the committed one, and why. The first name that fits counts.
TOLERANCES: Mapping[str, tuple[float, float, str]] = {
    # column: (absolute, relative, reason)
    "seconds": (np.inf, np.inf, "the machine's"),
    "memory": (np.inf, np.inf, "the machine's"),
    "_error": (0.02, 0.5, "an error is known to about half of itself from so few samples"),
    "i_": (0.02, 0.02, "bits are shown with two decimals; training amplifies the last digit"),
    "_norm": (1e-6, 0.02, "norms of small gradients are sums that cancel"),
    "accuracy": (0.01, 0.0, "a sample in a hundred may lie on the edge of two classes"),
    "loss": (0.01, 0.02, "bits, as above"),
    "directions": (1.0, 0.0, "one may have as much noise as signal"),
    "bytes": (8.0, 0.02, "a weight on the edge between two multiples is coded by either"),
    "": (0.01, 0.02, "what is shown has two decimals"),
}
# A long training amplifies the last digit: on another processor it takes another course from the
# same start, and ends where another seed might. Two seeds differ by √2 of their spread. So much,
# and a margin for a spread that is known from few seeds, a job on another processor may be off by,
# as a root mean square over rows: a course may have its leaps at other epochs, and a single row
# says nothing. What was found is printed and stands in the manifest: much less where trainings
# are short.
SHARE = 2.0
# One network has no spread over seeds. Twice what `TOLERANCES` allow stand for all this: they were
# set on short trainings.
LONG = 2
# Floats that say what was asked.
ASKED = {"share", "scale", "homophily", "factor", "truth", "price"}
# Whole numbers that were measured, and are near, not equal; those of compressors by their endings.
COUNTED = {"directions", "bytes", "whole", "weight file"}
COMPRESSED = (", plain", ", regrouped")
TRAINED = ("Mine", "Nwj", "InfoNCE", "Smile")  # critics: a step more or less at their stop
TRAINED_BITS = 0.1
# Tolerated noise is searched for. With few samples a change in the last digit of the weights can
# lead the search to another set of directions with nearly the same rate: 0.17 bits at N = 256,
# where torch's plainest kernels trained the network. What the noise leaves of the labels moves with
# it: I(X;T) by 0.14 and I(T;Y) by 0.05 bits at N = 200, on a processor without AVX-512.
SEARCHED = {"rate": 0.2, "i_xz": 0.2, "before": 0.2, "after": 0.2, "i_zy": 0.1}  # bits


def differences(new: pd.DataFrame, old: pd.DataFrame) -> pd.DataFrame:
    """Return how far two tables of one job differ: column, largest, typical, share.

    `largest` is |new − old|, `typical` its root mean square over rows; `share` is the largest ratio
    to what `TOLERANCES` allow, 0 to 1 where all is well. What isn't a number must agree, NaN with
    NaN.

    Raises:
        ValueError: other columns, other rows, or another word in them.
    """
    if set(new.columns) != set(old.columns) or len(new) != len(old):
        raise ValueError(
            f"the tables have other columns or rows: {len(new)} rows of {sorted(new.columns)}, "
            f"committed are {len(old)} of {sorted(old.columns)}"
        )
    estimator = old.get("estimator", pd.Series("", old.index))
    loose = estimator.str.contains("|".join(TRAINED))
    searched = (estimator == "tolerated") | bool({"rate", "form"} & set(old.columns))
    rows = []
    for column in old.columns:
        a, b = new[column].reset_index(drop=True), old[column].reset_index(drop=True)
        if not (pd.api.types.is_float_dtype(b) or _counted(column)):
            if list(a) != list(b):
                raise ValueError(f"column {column!r} holds other values than the committed one")
            continue
        absolute, relative, _ = tolerance(str(column))
        allowed = absolute + relative * b.abs().to_numpy()
        if str(column).startswith("i_"):
            allowed = np.where(loose, TRAINED_BITS + allowed, allowed)
        if column in SEARCHED:
            allowed = np.where(searched, SEARCHED[str(column)] + allowed, allowed)
        gap = (a - b).abs().to_numpy()
        same = (a.isna() & b.isna()).to_numpy() | (a == b).to_numpy()
        gap = np.where(same, 0.0, np.where(np.isnan(gap), np.inf, gap))
        with np.errstate(invalid="ignore"):
            share = np.nan_to_num(np.where(gap == 0, 0.0, gap / allowed), posinf=np.inf)
        typical = float(np.sqrt((gap**2).mean()))
        rows.append((column, gap.max(), typical, share.max()))
    return pd.DataFrame(rows, columns=["column", "largest", "typical", "share"])


def _counted(column: Any) -> bool:
    return column in COUNTED or str(column).endswith(COMPRESSED)


def tolerance(column: str) -> tuple[float, float, str]:
    """Return what a column may be off by: absolute, relative, and why."""
    return next(found for name, found in TOLERANCES.items() if name in column)


def committed_job(folder: Path, name: str) -> tuple[Job, dict[str, pd.DataFrame]]:
    """Return a job of a committed set, and its rows of each table."""
    found, facts = read_set(folder)
    job = Job(facts["chapter"], name, facts["jobs"][name]["arguments"])
    tables = {
        table: rows[rows["job"] == name].drop(columns="job").reset_index(drop=True)
        for table, rows in found.items()
    }
    return job, {table: rows for table, rows in tables.items() if len(rows)}


def again(folder: Path, name: str) -> pd.DataFrame:
    """Run one job of a committed set again; return its differences, with a column `table`.

    Raises:
        ValueError: it makes other tables, or what `differences` raises.
    """
    job, old = committed_job(folder, name)
    found = settings.chapter_module(job.chapter).run(dict(job.arguments))
    new = {table: rows for table, rows in found.items() if len(rows)}
    if set(new) != set(old):
        raise ValueError(f"{name}: it makes {sorted(new)}, committed are {sorted(old)}")
    parts = []
    for table, rows in new.items():
        try:
            parts.append(differences(rows.reset_index(drop=True), old[table]).assign(table=table))
        except ValueError as error:
            raise ValueError(f"{name}, {table}: {error}") from None
    return pd.concat(parts, ignore_index=True)


def picked(facts: Mapping[str, Any], count: int) -> list[str]:
    """Return jobs of a manifest, chosen by the hash of today's sources and of their own key."""
    now = fingerprint(facts["chapter"])
    lot = {
        n: hashlib.sha256(f"{now} {j['key']}".encode()).digest() for n, j in facts["jobs"].items()
    }
    return sorted(lot, key=lot.__getitem__)[:count]


def over_spread(folder: Path, found: pd.DataFrame) -> pd.Series:
    """Return each difference in units of the column's spread over seeds in the whole table.

    Rows are those of one quantity where all but run, job and measured numbers agree; the spread is
    the root of their mean variance. The difference is the root mean square over the job's rows.
    Where each quantity has one row, `LONG` times what `TOLERANCES` allow stand in for `SHARE` of
    the spread.
    """
    tables = read_set(folder)[0]
    shares = []
    for _, row in found.iterrows():
        spread = _spread(tables[row["table"]], row["column"])
        share = row["typical"] / spread if spread > 0 else SHARE * row["share"] / LONG
        shares.append(share if row["largest"] else 0.0)
    return pd.Series(shares, found.index, dtype=float)


def _spread(table: pd.DataFrame, column: str) -> float:
    """Return the standard deviation of a column over seeds; NaN where there is one seed."""
    given = [c for c in table if c in ASKED or not pd.api.types.is_float_dtype(table[c])]
    left_out = ("run", "job", "sha256", column)
    keys = [c for c in given if c not in left_out and not _counted(c)]
    variances = (table.groupby(keys, sort=False)[column] if keys else table[[column]]).var()
    return float(np.sqrt(variances.mean()))  # mean leaves out NaN, the variance of one


def verify(folder: Path, count: int) -> list[str]:
    """Verify jobs of one committed set, print what was compared, stamp the manifest.

    On the kind of processor that made them numbers are equal to the last digit, on another no
    farther off than another seed, `SHARE` of their spread. Columns that are the machine's, such as
    seconds, are left out.

    Returns:
        What is wrong, in words; nothing where all is well.
    """
    facts = read_set(folder)[1]
    wrong, largest, names = [], 0.0, picked(facts, count)
    for name in names:
        same = facts["jobs"][name]["processor"] == machine()["processor"]
        same = same and facts["jobs"][name]["versions"] == machine()["versions"]
        try:
            found = again(folder, name)
        except ValueError as error:
            wrong.append(f"{facts['chapter']}: {error}")
            continue
        found = found[[bool(np.isfinite(tolerance(c)[0])) for c in found["column"]]]
        share = over_spread(folder, found)
        largest = max(largest, float(share.max()))
        limit = 0.0 if same else SHARE
        for index in found.index[share > limit]:
            row = found.loc[index]
            wrong.append(
                f"{facts['chapter']}, job {name}, table {row['table']}, column {row['column']}: "
                f"off by {row['largest']:.3g} at most, {share[index]:.2g} of the spread, "
                f"allowed {limit:g}"
            )
        kind = "the same" if same else "another"
        print(f"{facts['chapter']}, {name}: off by {share.max():.2g} of the spread, "
              f"on {kind} kind of processor")  # fmt: skip
    if not wrong:
        stamp = {"sources": fingerprint(facts["chapter"]), "jobs": names, "largest": largest}
        facts["verified"] = {**stamp, **machine()}
        part = folder / f".{MANIFEST}.part"
        part.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        part.replace(folder / MANIFEST)
    return wrong


def is_stale(folder: Path) -> bool:
    """Return whether a committed set was made, and verified last, by other sources than today's."""
    try:
        facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True
    if facts.get("format") != FORMAT:
        return True
    made = {facts["sources"], facts.get("verified", {}).get("sources")}
    return fingerprint(facts["chapter"]) not in made


def main(given: Sequence[str] | None = None) -> int:
    """Verify all sets of a folder from the command line; 0, or 1 with what is wrong."""
    parser = argparse.ArgumentParser(prog="study.verify", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "book" / "tables")
    parser.add_argument("--jobs", type=int, default=1, help="of each chapter")
    options = parser.parse_args(given)
    folders = sorted(path.parent for path in options.folder.glob(f"*/{MANIFEST}"))
    if not folders:
        print(f"no tables in {options.folder}: make thesis writes them", file=sys.stderr)
        return 1
    try:
        wrong = [words for folder in folders for words in verify(folder, options.jobs)]
    except (OSError, ValueError) as error:
        wrong = [str(error)]
    for words in wrong:
        print(words, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
