"""What all tests share: no windows, repeatable examples, and the folder of the project."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["MPLBACKEND"] = "Agg"
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the project."""
    return Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let nbval pass over stderr: progress bars go there, and executed copies have none."""
    for notebook in {item.parent for item in items if type(item).__name__ == "IPyNbCell"}:
        notebook.skip_compare = (*notebook.skip_compare, "stderr")
