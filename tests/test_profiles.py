"""Laws of the profiles: every value is a parameter of its notebook, of the annotated type."""

from pathlib import Path
from typing import get_type_hints

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from pipeline.run import check_parameters, main
from study import settings

ROOT = Path(__file__).resolve().parent.parent
PROFILES = sorted(settings.PROFILES.glob("*.yml"))
SOURCES = sorted((ROOT / "notebooks").glob("*.ipynb"))
PARAMETERS = """\
runs: int = 50  # number of seeds
rate: float = 1e-3  # step size
sizes: list[int] = [1, 2]  # units
label: str = "a"  # shown
full: bool = True  # whether all
"""


def write(path, parameters):
    cell = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    notebook = new_notebook(cells=[new_markdown_cell("# Small"), cell])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(notebook, path)


@pytest.fixture
def notebook(tmp_path):
    path = tmp_path / "01_small.ipynb"
    write(path, PARAMETERS)
    return path


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_every_section_fits_its_notebook(profile):
    sections = settings.sections(profile)
    assert set(sections) == {source.stem for source in SOURCES}
    for source in SOURCES:
        check_parameters(source, sections[source.stem])


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_sources_are_clean(source):
    notebook = nbformat.read(source, as_version=4)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert not {"papermill", "execution"} & set(cell.metadata)
        # A last semicolon hides the value everywhere but in nbval, which then sees a difference.
        assert not (cell.cell_type == "code" and cell.source.rstrip().endswith(";"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_each_parameter_is_typed_and_explained(source):
    cells = nbformat.read(source, as_version=4).cells
    (cell,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    for line in filter(str.strip, cell.source.splitlines()):
        assert ": " in line.split("=")[0], line
        assert "  # " in line, line


@pytest.mark.parametrize(("chapter", "stem"), settings.CHAPTERS.items())
def test_the_parameters_of_a_chapter_are_its_settings(chapter, stem):
    cells = nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", as_version=4).cells
    (cell,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    kinds = get_type_hints(settings.chapter_module(chapter).Settings)
    defaults = settings.make(chapter, {})
    given: dict = {}
    exec(cell.source, given)  # the cell holds assignments alone, as the test above says
    names = [line.split(":")[0] for line in cell.source.splitlines() if line.strip()]
    assert names == list(kinds)
    for name, line in zip(names, filter(str.strip, cell.source.splitlines()), strict=True):
        assert settings.fits(given[name], kinds[name])
        plain = tuple(given[name]) if isinstance(given[name], list) else given[name]
        assert plain == getattr(defaults, name), line


@pytest.mark.parametrize(
    ("value", "kind", "fits"),
    [
        (3, int, True),
        (3.0, int, False),
        (True, int, False),
        (True, float, False),
        (True, bool, True),
        (1, bool, False),
        (3, float, True),
        ("4e-4", float, False),
        ("a", str, True),
        (None, str, False),
        ([1, 2], tuple[int, ...], True),
        ([1, 2.5], tuple[int, ...], False),
        ([1, 2.5], tuple[float, ...], True),
        (["a"], tuple[str, ...], True),
        (1, tuple[int, ...], False),
    ],
)
def test_types(value, kind, fits):
    assert settings.fits(value, kind) is fits


def test_a_good_section_passes(notebook):
    section = {"runs": 5, "rate": 1, "sizes": [3], "label": "b", "full": False}
    check_parameters(notebook, section)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"rnus": 5}, ["Unknown parameter 'rnus'"]),
        ({"runs": "five"}, ["runs is int, not 'five'"]),
        ({"runs": True}, ["runs is int, not True"]),
        ({"rate": "4e-4"}, ["rate is float, not '4e-4'"]),
        ({"sizes": [1, "2"]}, ["sizes is list[int], not [1, '2']"]),
    ],
)
def test_a_bad_section_is_named_with_what_is_known(notebook, section, words):
    with pytest.raises(ValueError, match="Parameters of") as caught:
        check_parameters(notebook, section)
    for word in [*words, "01_small.ipynb", "runs: int, rate: float, sizes: list[int]"]:
        assert word in str(caught.value)


def test_a_parameter_without_a_type_is_an_error(tmp_path):
    path = tmp_path / "01_untyped.ipynb"
    write(path, "runs = 5")
    with pytest.raises(ValueError, match="runs has no type"):
        check_parameters(path, {})


def test_the_command_stops_before_it_runs_anything(notebook, capsys):
    profile = notebook.with_name("odd.yml")
    profile.write_text("01_small: {rnus: 5}\n")
    output = notebook.parent / "build" / "notebooks" / notebook.name
    assert main([str(notebook), str(output), "--profile", str(profile)]) == 1
    assert "Unknown parameter 'rnus'" in capsys.readouterr().err
    assert not output.parent.exists()
