"""A chapter's settings: from a profile or a notebook's parameters, checked before anything runs."""

import dataclasses
import importlib
import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from ibcore import models
from ibcore.data import load
from ibcore.data.originals import DataUnavailableError
from ibcore.estimators import named

PROFILES = Path(__file__).resolve().parent / "profiles"
CHAPTERS = {
    "tishby": "01_tishby",
    "cora": "02_cora",
    "names": "03_names",
    "mnist": "04_mnist",
    "estimators": "05_estimators",
    "black_box": "06_black_box",
    "model_fit": "07_model_fit",
    "hyperparameters": "08_hyperparameters",
    "capacity": "09_capacity",
    "compression": "10_compression",
}
_MOST_WEIGHTS = 200_000_000  # of one network: 1.6 GB in float64
_OPTIONS = {
    "source": ("original", "stand-in", "any"),
    "dtype": ("float32", "float64"),
    "activation": tuple(models._ACTIVATIONS),
    "other_activation": tuple(models._ACTIVATIONS),
}
_NETWORKS = ("widths", "hidden", "small")


def chapter_module(chapter: str) -> Any:
    """Return the compute module of a chapter.

    Raises:
        ValueError: there is none of that name.
    """
    if chapter not in CHAPTERS:
        raise ValueError(f"unknown chapter {chapter!r}: known are {sorted(CHAPTERS)}")
    return importlib.import_module(f"study.{chapter}")


def make(chapter: str, values: Mapping[str, Any]) -> Any:
    """Return the chapter's `Settings` with these values in place of the defaults, checked.

    Raises:
        ValueError: an unknown name, a value of another type, or one that can't be: it is named,
            with what would do.
    """
    module = chapter_module(chapter)
    kinds = get_type_hints(module.Settings)
    known = ", ".join(f"{name}: {_word(kind)}" for name, kind in kinds.items())
    for name, value in values.items():
        if name not in kinds:
            raise ValueError(f"{chapter}: unknown parameter {name!r}. Known are {known}.")
        if not fits(value, kinds[name]):
            raise ValueError(
                f"{chapter}: {name} is {_word(kinds[name])}, not {value!r}{_yaml_word(value)}"
            )
    settings = module.Settings(
        **{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    )
    for field in dataclasses.fields(settings):
        _check_value(chapter, field.name, getattr(settings, field.name), module)
    _check_networks(chapter, settings)
    module.check(settings)
    return settings


def of(chapter: str, namespace: Mapping[str, Any]) -> Any:
    """Return the settings that a notebook's parameters give: pass its `globals()`."""
    names = [field.name for field in dataclasses.fields(chapter_module(chapter).Settings)]
    return make(chapter, {name: namespace[name] for name in names})


def profile(chapter: str, path: Path) -> Any:
    """Return the settings of a chapter in a profile; see `sections`."""
    return make(chapter, sections(path).get(CHAPTERS[chapter], {}))


def sections(path: Path) -> dict[str, dict[str, Any]]:
    """Return a profile: a notebook's stem → parameter → value.

    Raises:
        ValueError: the file is missing, no YAML, or no such mapping.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        known = sorted(p.stem for p in path.parent.glob("*.yml"))
        raise ValueError(f"no profile {path}: known are {known}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} must map notebooks to parameters, it is {found!r}")
    for stem, section in found.items():
        if section is not None and not isinstance(section, dict):
            raise ValueError(f"{path}: {stem} must map parameters to values, it is {section!r}")
    return {stem: section or {} for stem, section in found.items()}


def resolved(settings: Any) -> Any:
    """Return the settings with the source "any" replaced by the one that can be had."""
    if getattr(settings, "source", None) != "any":
        return settings
    try:
        load(getattr(settings, "data", "mnist"), source="original")
    except DataUnavailableError:
        return dataclasses.replace(settings, source="stand-in")
    return dataclasses.replace(settings, source="original")


def fits(value: Any, kind: Any) -> bool:
    """Return whether a value fits an annotation; an int is a float, a bool is neither."""
    if inner := get_args(kind):  # tuple[int, ...]
        return isinstance(value, list | tuple) and all(fits(item, inner[0]) for item in value)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _word(kind: Any) -> str:
    inner = get_args(kind)
    return f"list[{inner[0].__name__}]" if inner else str(kind.__name__)


def _yaml_word(value: Any) -> str:
    """Return a word on numbers such as 4e-4, which YAML reads as text."""
    try:
        number = float(value) if isinstance(value, str) else None
    except ValueError:
        number = None
    return "" if number is None else " (YAML reads it as text; a number has a point: 4.0e-4)"


def _check_value(chapter: str, name: str, value: Any, module: Any) -> None:
    if isinstance(value, tuple):
        if not value and name not in module.MAY_BE_EMPTY:
            raise ValueError(f"{chapter}: {name} is empty, it needs at least one value")
        if len(set(value)) < len(value) and name not in _NETWORKS and name not in module.MAY_REPEAT:
            raise ValueError(f"{chapter}: {name} names a value twice: {value}")
        for item in value:
            _check_value(chapter, name, item, module)
    elif isinstance(value, str):
        if not value or value not in _OPTIONS.get(name, (value,)):
            known = _OPTIONS.get(name, "the names that there are")
            raise ValueError(f"{chapter}: {name} must be one of {known}, got {value!r}")
        if name in module.ESTIMATORS:
            named([value], 1.0)
    elif not isinstance(value, bool):
        zero = name == "seed" or name in module.MAY_BE_ZERO
        if not (math.isfinite(value) and (value >= 0 if zero else value > 0) and value < 2**62):
            least = "from 0" if zero else "above 0"
            raise ValueError(f"{chapter}: {name} must be {least} and below 2^62, got {value}")


def _check_networks(chapter: str, settings: Any) -> None:
    for name in _NETWORKS:
        widths = getattr(settings, name, ())
        count = sum(a * b for a, b in pairwise(widths))
        if count > _MOST_WEIGHTS or max(widths, default=0) > 100_000:
            raise ValueError(
                f"{chapter}: {name} = {list(widths)} would have {count:,} weights; at most "
                f"{_MOST_WEIGHTS:,}, and 100 000 units a layer"
            )
