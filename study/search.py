"""A search over hyper-parameters by Optuna: trials are kept, and it goes on where it was."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

FORM = 1  # of what a journal says of its search
STARTUP = 8  # trials at random before the Parzen estimators have something to go by
SAMPLERS = ("TPE", "random")
DEPTH = 4  # hidden layers at most
# What can be searched, and what it is where it isn't. A layer that isn't there has no width.
SPACE: dict[str, BaseDistribution] = {
    "depth": IntDistribution(1, DEPTH),
    "width": IntDistribution(4, 128, log=True),  # of each hidden layer by itself
    "activation": CategoricalDistribution(("relu", "tanh")),
    "learning_rate": FloatDistribution(1e-4, 3e-2, log=True),
    "decay": FloatDistribution(1e-5, 1e-1, log=True),
    "batch_size": IntDistribution(16, 256, log=True),
}
ORDINARY: dict[str, Any] = {
    "depth": 2, "width": 32, "activation": "relu", "learning_rate": 1e-3, "decay": 1e-5,
    "batch_size": 64,
}  # fmt: skip
_DONE = (TrialState.COMPLETE, TrialState.FAIL)
_DIGITS = 6  # of an objective: the last digits of another processor don't lead elsewhere

Parameters = Mapping[str, Any]
optuna.logging.set_verbosity(optuna.logging.WARNING)


def search(
    evaluate: Callable[[Parameters], Mapping[str, float]],
    objective: Callable[[Mapping[str, float]], float],
    *,
    sampler: str,
    trials: int,
    seed: int,
    journal: Path,
    asked: str,
    searched: Sequence[str] = (),
) -> pd.DataFrame:
    """Search for the largest objective, and return a row a trial.

    Every trial has a sampler of its own seed, so that a search which was cut off and goes on finds
    the same as one that wasn't. A trial that diverges is kept as failed and counts.

    Args:
        evaluate: trains with parameters, and returns what was measured.
        objective: of what was measured, finite; to be large.
        sampler: one of `SAMPLERS`; the first `STARTUP` trials of "TPE" are those of "random".
        trials: how many, those included that the journal holds.
        seed: of what is drawn.
        journal: file that trials are kept in; made where it is missing.
        asked: what the search is of; a journal of another one is refused.
        searched: names in `SPACE`, the others are as in `ORDINARY`; none takes all.
    Returns:
        number, failed, depth, widths, activation, learning_rate, decay, batch_size, and a column
        for each number that was measured.
    Raises:
        ValueError: an unknown sampler or name, a journal of another search, of another form, or a
            damaged one; it is left as it is.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r}: there are {list(SAMPLERS)}")
    if unknown := sorted(set(searched) - set(SPACE)):
        raise ValueError(f"the search space has no {unknown}: it has {list(SPACE)}")
    study = _opened(journal, asked)
    while (number := len(study.get_trials(deepcopy=False, states=_DONE))) < trials:
        study.sampler = _sampler(sampler, seed * 100_000 + number)
        trial = study.ask()
        given = drawn(trial, searched or tuple(SPACE))
        trial.set_user_attr("given", given)
        try:
            found = dict(evaluate(given))
        except ArithmeticError as error:
            trial.set_user_attr("failed", str(error))
            study.tell(trial, state=TrialState.FAIL)
            continue
        trial.set_user_attr("found", found)
        study.tell(trial, round(objective(found), _DIGITS))
    return _rows(study)


def drawn(trial: Trial, searched: Sequence[str]) -> dict[str, Any]:
    """Return the parameters of a trial: those searched as Optuna draws them, and the widths."""

    def one(name: str, label: str) -> Any:
        match SPACE[name] if name in searched else None:
            case IntDistribution(low=low, high=high, log=log):
                return trial.suggest_int(label, low, high, log=log)
            case FloatDistribution(low=low, high=high, log=log):
                return trial.suggest_float(label, low, high, log=log)
            case CategoricalDistribution(choices=choices):
                return trial.suggest_categorical(label, choices)
        return ORDINARY[name]

    given = {name: one(name, name) for name in SPACE if name != "width"}
    layers = range(1, given["depth"] + 1)
    return given | {"widths": [one("width", f"width {layer}") for layer in layers]}


def _sampler(name: str, seed: int) -> BaseSampler:
    if name == "random":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, n_startup_trials=STARTUP, constant_liar=False)  # one at a time


def _opened(journal: Path, asked: str) -> optuna.Study:
    """Return the study that a journal holds, or a new one that says what it is of."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    said = {"form": FORM, "asked": asked}
    try:
        _cut(journal)
        storage = JournalStorage(JournalFileBackend(str(journal)))
        begun = "search" in optuna.get_all_study_names(storage)
        begin = optuna.load_study if begun else partial(optuna.create_study, direction="maximize")
        study = begin(storage=storage, study_name="search")
        held = study.user_attrs.get("said")
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise ValueError(
            f"{journal} is no journal of a search that this version can read "
            f"({type(error).__name__}: {error}); move it away, and the search begins anew"
        ) from error
    if held is None and not study.trials:  # new, or cut off before it could say so
        study.set_user_attr("said", said)
    elif held != said:
        raise ValueError(
            f"{journal} holds another search: {json.dumps(held)}, asked is {json.dumps(said)}; "
            "move it away, and the search begins anew"
        )
    return study


def _cut(journal: Path) -> None:
    """Cut a journal's last line where it was half written: what it held was never done."""
    held = journal.read_bytes() if journal.exists() else b""
    whole = held[: held.rfind(b"\n") + 1]
    for line in whole.splitlines():
        json.loads(line)["op_code"]
    if len(whole) < len(held):
        with journal.open("r+b") as file:
            file.truncate(len(whole))


def _rows(study: optuna.Study) -> pd.DataFrame:
    rows = []
    for number, trial in enumerate(study.get_trials(deepcopy=False, states=_DONE)):
        given = dict(trial.user_attrs["given"])
        widths = given.pop("widths") + [0] * DEPTH
        found = {f"width_{layer}": float(widths[layer - 1]) for layer in range(1, DEPTH + 1)}
        found |= {"tanh": float(given.pop("activation") == "tanh")}
        found |= {name: float(value) for name, value in given.items()}
        failed = float(trial.state is TrialState.FAIL)
        rows.append(
            {"number": number, "failed": failed, **found, **trial.user_attrs.get("found", {})}
        )
    return pd.DataFrame(rows)
