"""Chapter 05, laws: what each estimator promises, how far it is from a truth, its flags."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from ibcore.estimators import InfoNCE, Ksg, Mine, Nwj, Renyi, Smile
from ibcore.trials import contract
from ibcore.trials import flags as trial
from ibcore.trials.distributions import STANDARD
from study.measures import Tables

CRITICS: Mapping[str, Callable[..., Any]] = {
    "Mine": Mine,
    "Nwj": Nwj,
    "InfoNCE": InfoNCE,
    "Smile": Smile,
}
PROMISING = tuple(contract.subjects())
FLAGGED = ("Ksg", "Mine", "InfoNCE")
QUICK: Mapping[str, Any] = {"Ksg": Ksg(), "Renyi, α = 2": Renyi(), "Renyi, α = 1.01": Renyi(1.01)}
_MOST = {"Renyi, α = 1.01": 2000}  # samples: its time grows as their cube


def promises(arguments: Mapping[str, Any]) -> Tables:
    """Return the promises of some estimators, each on each law of the contract."""
    subjects = contract.subjects()
    parts = [
        contract.check(subjects[name]).assign(estimator=name) for name in arguments["estimators"]
    ]
    return {"promises": pd.concat(parts, ignore_index=True)}


def estimates(arguments: Mapping[str, Any]) -> Tables:
    """Return what each estimator says of one sample of each law, beside the truth.

    Each critic is trained on its own, so that no estimate hangs on which others are made.
    """
    size, run = arguments["size"], arguments["seed"]
    tried: dict[str, Any] = {n: kind(steps=arguments["steps"]) for n, kind in CRITICS.items()}
    tried |= {name: e for name, e in QUICK.items() if size <= _MOST.get(name, size)}
    rows = []
    for law in STANDARD:
        a, b = law.sample(size, run)
        for name, estimator in tried.items():
            rows.append((name, law.name, size, run, estimator.between(a, b).bits, law.bits))
    columns = ["estimator", "law", "size", "run", "i_ab", "truth"]
    return {"laws": pd.DataFrame(rows, columns=columns)}


def flags(arguments: Mapping[str, Any]) -> Tables:
    """Return estimates of one estimator on one seed of each law, with the flags they raise."""
    name = arguments["estimator"]
    quick = name not in CRITICS
    tried: Any = QUICK[name] if quick else CRITICS[name](steps=arguments["steps"])
    return {"flags": trial.measure({name: tried}, arguments["sizes"], [arguments["seed"]])}
