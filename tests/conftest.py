"""What all tests share: no windows, repeatable examples, notebooks compared as numbers."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from closeness import Printed
from hypothesis import settings
from playwright.sync_api import sync_playwright

os.environ["MPLBACKEND"] = "Agg"
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("repeatable")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the project."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def book(root: Path) -> Path:
    """The record's book, as `make record-book` builds it."""
    folder = root / "build" / "record" / "book" / "_build" / "html"
    if not (folder / "index.html").exists():
        pytest.skip("no book to look at: make record-book builds it")
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A Chromium that is installed, such as Debian's package; nothing is downloaded."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: install Chromium, as one of {BROWSERS}")
    with sync_playwright() as driver:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = driver.chromium.launch(executable_path=found, args=options)
        yield chromium
        chromium.close()


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
