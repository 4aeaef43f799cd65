"""Laws of the set-up: one package, one list of pins, told the same way everywhere."""

import ast
import itertools
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def requirements(*extras):
    """What the package needs, with the given extras."""
    lines = [PROJECT["dependencies"], *(EXTRAS[extra] for extra in extras)]
    return [Requirement(line) for line in itertools.chain(*lines)]


IMPORTED_AS = {
    "axe-playwright-python": "axe_playwright_python",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-dimension": "skdim",
    "scikit-learn": "sklearn",
    "torch-geometric": "torch_geometric",
    "torch-pruning": "torch_pruning",
}


@pytest.fixture(scope="module")
def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in found}


def test_constraints_are_exact_and_plain(pins):
    for pin in pins.values():
        assert re.fullmatch(r"==[\w.!]+", str(pin.specifier)), pin
        assert pin.url is None
        assert pin.marker is None


@pytest.mark.parametrize("requirement", requirements(*EXTRAS), ids=lambda found: found.name)
def test_every_requirement_is_pinned_to_a_version_it_allows(requirement, pins):
    (pin,) = pins[canonicalize_name(requirement.name)].specifier
    assert requirement.specifier.contains(pin.version)


def test_conda_installs_the_same_package_with_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert environment["name"] == PROJECT["name"]
    assert set(pip) == {"pip"}
    constraint, package = pip["pip"]
    assert constraint == "-c constraints.txt"
    extras = re.fullmatch(r"-e \.\[([a-z,]+)\]", package).group(1).split(",")
    assert set(extras) == set(EXTRAS)
    (python,) = [name.split("=")[1] for name in conda if name.startswith("python=")]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)
    assert {name.split("=")[0] for name in conda} == {"python", "pip", "make"}


def test_citation_and_codemeta_say_what_the_package_says():
    cite = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    meta = json.loads((ROOT / "codemeta.json").read_text())
    for told in cite, meta:
        assert told["version"] == PROJECT["version"]
        assert told["license"].endswith(PROJECT["license"])
        assert told["keywords"] == cite["keywords"]
    assert [author["name"] for author in cite["authors"]] == [PROJECT["authors"][0]["name"]]
    assert [author["name"] for author in meta["author"]] == [PROJECT["authors"][0]["name"]]
    assert (meta["name"], meta["description"]) == (PROJECT["name"], PROJECT["description"])
    assert meta["runtimePlatform"] == f"Python {PROJECT['requires-python']}"


def test_the_makefile_installs_the_same_extras_with_the_same_pins():
    install = f'-c constraints.txt -e ".[{",".join(EXTRAS)}]"'
    assert install in (ROOT / "Makefile").read_text()


def _imports(folder):
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield node.module.split(".")[0]


@pytest.mark.parametrize(
    ("folder", "extras"),
    [("ibcore", []), ("study", ["study"]), ("pipeline", ["study"]), ("tests", ["study", "test"])],
)
def test_what_is_imported_is_required(folder, extras):
    names = [requirement.name for requirement in requirements(*extras)]
    required = {IMPORTED_AS.get(name, name) for name in names} | {"nbclient", "myst_nb"}
    # papermill's, and jupyter-book's
    imported = set(_imports(folder)) - set(sys.stdlib_module_names)
    ours = {"ibcore", "study", "pipeline", "closeness", "weight_file_reader"}
    assert imported - required <= ours


def test_installed_files_hold_style_types_and_hashes():
    for name in ("plotting/ib.mplstyle", "py.typed", "data/sha256sums.txt"):
        assert (files("ibcore") / name).is_file()


def test_ci_runs_the_command_of_the_readme():
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize(
    "target",
    ["study", "thesis", "test", "test-plain", "bench", "lint", "reference", "clean", "help"],
)
def test_make_help_lists_each_target(target):
    printed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True
    )
    assert re.search(rf"^  make {target} +\S", printed.stdout, re.MULTILINE)


def test_an_old_python_is_refused_with_a_clear_word(tmp_path):
    old = tmp_path / "python-old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    printed = subprocess.run(
        ["make", "study", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert printed.returncode != 0
    assert "needs Python 3.11 or later" in printed.stdout
