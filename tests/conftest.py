"""What all tests share: no windows, repeatable examples, notebooks compared as numbers."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from closeness import Printed
from hypothesis import settings

os.environ["MPLBACKEND"] = "Agg"
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the project."""
    return Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let nbval pass over stderr, where progress bars go, and compare numbers as numbers.

    A cell whose numbers hang on a trained critic says in its metadata how far they may differ, and
    why: "nbval": {"tolerance": 0.05, "counts": 2, "reason": "..."}.
    """
    for item in items:
        if type(item).__name__ == "IPyNbCell":
            item.parent.skip_compare = (*item.parent.skip_compare, "stderr")
            allowed = item.cell.metadata.get("nbval", {})
            bounds = {name: allowed[name] for name in ("tolerance", "counts") if name in allowed}
            item.sanitize = _printed(item.sanitize, bounds)


def _printed(sanitize: Callable[[Any], Any], bounds: dict[str, Any]) -> Callable[[Any], Any]:
    def printed(value: Any) -> Printed:
        found = sanitize(value)
        text = found if isinstance(found, str) else json.dumps(found, sort_keys=True)
        return Printed(text, **bounds)

    return printed
