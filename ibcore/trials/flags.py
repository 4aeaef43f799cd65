"""How often a plane's flags are right, on laws of known information."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from ibcore.interface import Estimator, apply
from ibcore.settling import FLAGS, settle
from ibcore.trials.distributions import STANDARD, Law

WRONG = 0.25  # bits from the truth that a flag should warn of


def measure(
    estimators: Mapping[str, Estimator],
    sizes: Sequence[int],
    seeds: Iterable[int],
    laws: Sequence[Law] = STANDARD,
) -> pd.DataFrame:
    """Return a row an estimator, law, size and run: estimate, truth and flags of I(A;B).

    Args:
        estimators: by name; they take A as the inputs x and B as the representation.
        sizes: numbers of samples.
        seeds: of the samples.
        laws: of A and B.
    Returns:
        The columns estimator, law, size, run, bits, truth, and a flag each.
    """
    rows: list[dict[str, Any]] = []
    for run in seeds:
        for law in laws:
            for size in sizes:
                a, b = law.sample(size, run)
                y = (a[:, 0] > a[:, 0].mean()).long()  # any labels; the laws say nothing of them
                for name, estimator in estimators.items():
                    (mi,) = apply(estimator, b, y, a).values()
                    (checks,) = settle(estimator, b, y, a)
                    row = {**mi._asdict(), **checks, "i_zy": math.nan, "estimator": name}
                    row |= {"law": law.name, "size": size, "run": run, "truth": law.bits}
                    rows.append(row)
    found = pd.DataFrame(rows).rename(columns={"i_xz": "bits"})
    for flag, holds in FLAGS.items():
        found[flag] = holds(found.rename(columns={"bits": "i_xz"}))
    return found[["estimator", "law", "size", "run", "bits", "truth", *FLAGS]]


def rates(found: pd.DataFrame) -> pd.DataFrame:
    """Return how often a flag is raised where the estimate is wrong, and where it is not.

    Wrong is more than a quarter of a bit from the truth.

    Args:
        found: what `measure` returns.
    Returns:
        By estimator and flag: wrong and right (how many estimates), "of the wrong" and "of the
        right" (shares of them that are flagged; NaN where there are none). "any" is any flag.
    """
    wrong = (found["bits"] - found["truth"]).abs() > WRONG
    flagged = found[[*FLAGS]].assign(any=found[[*FLAGS]].any(axis=1))
    rows = [
        {
            "estimator": name,
            "flag": flag,
            "wrong": int(wrong[part].sum()),
            "of the wrong": flagged.loc[part][wrong[part]][flag].mean(),
            "right": int((~wrong[part]).sum()),
            "of the right": flagged.loc[part][~wrong[part]][flag].mean(),
        }
        for name, part in found.groupby("estimator", sort=False).groups.items()
        for flag in flagged
    ]
    return pd.DataFrame(rows).set_index(["estimator", "flag"])
