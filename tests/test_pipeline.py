"""Laws of the pipeline: what is finished stays, nothing is half written, nothing runs in vain."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from pipeline import assemble, offline, run

pytestmark = pytest.mark.slow  # it starts kernels and Snakemake, whatever the kernels of torch

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "notebooks").glob("*.ipynb"))
RECORD = sorted((ROOT / "book" / "notebooks").glob("*.ipynb"))
CLAIM = {
    "figure": "4.1",
    "claim": "gap |KL − BD| shrinks",
    "published": "shrinks",
    "measured": "0.12",
    "spread": "0.01",
    "n": 3,
    "unit": "bits",
    "tolerance": "≤ 0.5",
    "reason": "read off a plot",
    "verdict": "reproduced",
    "source": "original",
}


def write(path, *cells):
    path.parent.mkdir(parents=True, exist_ok=True)
    parameters = new_code_cell("runs: int = 50  # seeds", metadata={"tags": ["parameters"]})
    head = new_markdown_cell("(label)=\n# A title")
    notebook = new_notebook(cells=[head, parameters, *map(new_code_cell, cells)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(notebook, path)
    return path


def with_claims(path, *claims):
    cell = new_code_cell("ledger")
    cell.outputs = [
        nbformat.v4.new_output("execute_result", {"text/plain": "", assemble.CLAIMS: list(claims)})
    ]
    head = new_markdown_cell("(label)=\n# A title")
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[head, cell]), path)
    return path


def outputs(path):
    return [
        out for cell in nbformat.read(path, as_version=4).cells for out in cell.get("outputs", [])
    ]


def test_an_executed_copy_is_complete_and_free_of_noise(tmp_path):
    progress = "import sys, os\nprint(runs, os.getcwd())\nprint('12 %', file=sys.stderr)"
    source = write(tmp_path / "01_small.ipynb", progress)
    output = tmp_path / "build" / "notebooks" / "01_small.ipynb"
    run.execute(source, output, {"runs": 5})
    assert [out.text for out in outputs(output)] == [f"5 {output.parent}\n"]
    copy, ids = nbformat.read(output, as_version=4), []
    for cell in copy.cells:
        ids.append(cell.id)
        assert not {"papermill", "execution"} & set(cell.metadata)
    assert "papermill" not in copy.metadata
    assert "injected-parameters" in ids
    assert {cell.id for cell in nbformat.read(source, as_version=4).cells} < set(ids)
    assert not (tmp_path / "build" / "partial" / "01_small.ipynb").exists()


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("# why\nraise ValueError('boom')", "ValueError: boom"),
        ("import os; os._exit(1)", "the kernel died"),
    ],
)
def test_a_failed_run_names_the_cell_and_leaves_a_partial_copy(tmp_path, capsys, cell, reason):
    source = write(tmp_path / "01_bad.ipynb", "print('before')", cell, "print('after')")
    output = tmp_path / "build" / "notebooks" / "01_bad.ipynb"
    assert run.main([str(source), str(output)]) == 1
    printed = capsys.readouterr().err
    for word in ("01_bad.ipynb", f"`{cell.splitlines()[0]}`", reason, "partial copy"):
        assert word in printed
    assert not output.exists()
    texts = [out.get("text") for out in outputs(tmp_path / "build" / "partial" / "01_bad.ipynb")]
    assert "before\n" in texts
    assert "after\n" not in texts


def test_an_interrupted_run_leaves_what_was_finished(tmp_path):
    marker = tmp_path / "running"
    cell = f"import pathlib, time\npathlib.Path({str(marker)!r}).touch()\ntime.sleep(60)"
    source = write(tmp_path / "01_long.ipynb", "print('before')", cell)
    output = tmp_path / "build" / "notebooks" / "01_long.ipynb"
    output.parent.mkdir(parents=True)
    output.write_text("the last complete copy")
    command = [sys.executable, "-m", "pipeline.run", str(source), str(output)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not marker.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
    assert marker.exists()
    assert process.returncode != 0
    assert output.read_text() == "the last complete copy"
    assert list(output.parent.iterdir()) == [output]
    assert outputs(tmp_path / "build" / "partial" / "01_long.ipynb")[0].text == "before\n"


class Tree:
    """A small copy of the project that Snakemake works on."""

    def __init__(self, folder):
        self.folder = folder
        shutil.copy(ROOT / "Snakefile", folder)
        shutil.copytree(ROOT / "pipeline", folder / "pipeline")
        for name in ("ibcore", "profiles", "book"):
            (folder / name).mkdir()
        self.package = folder / "ibcore" / "__init__.py"
        self.package.write_text("value = 1\n")
        self.profile = folder / "profiles" / "smoke.yml"
        self.profile.write_text("01_good: {runs: 2}\n02_bad: {}\n")
        write(folder / "notebooks" / "01_good.ipynb", "print(runs)")
        write(folder / "notebooks" / "02_bad.ipynb", "1 / 0")

    def snakemake(self, *arguments):
        command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
        environment = {**os.environ, "XDG_CACHE_HOME": str(self.folder / "cache")}
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True
        )

    def would_run(self):
        """Whether the good notebook would run again."""
        target = "build/smoke/notebooks/01_good.ipynb"
        printed = self.snakemake("--dry-run", target)
        assert printed.returncode == 0, printed.stderr
        return "rule notebook" in printed.stdout + printed.stderr


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    made = Tree(tmp_path_factory.mktemp("tree"))
    made.first = made.snakemake("--keep-going", "notebooks")
    return made


def test_after_a_failure_the_rest_goes_on(tree):
    assert tree.first.returncode != 0
    assert "ZeroDivisionError" in tree.first.stderr
    assert [out.text for out in outputs(tree.folder / "build/smoke/notebooks/01_good.ipynb")] == [
        "2\n"
    ]
    assert not (tree.folder / "build/smoke/notebooks/02_bad.ipynb").exists()
    assert (tree.folder / "build/smoke/partial/02_bad.ipynb").exists()


def test_a_notebook_runs_again_only_for_its_own_sake(tree):
    assert not tree.would_run()
    tree.profile.write_text("01_good: {runs: 2}\n02_bad: {runs: 7}\n")
    assert not tree.would_run()
    tree.profile.write_text("01_good: {runs: 3}\n02_bad: {}\n")
    assert tree.would_run()
    tree.profile.write_text("01_good: {runs: 2}\n02_bad: {}\n")
    tree.package.write_text("value = 2\n")
    assert tree.would_run()


def test_a_profile_that_names_no_notebook_stops_at_once(tree):
    tree.profile.write_text("03_none: {}\n")
    printed = tree.snakemake("--dry-run", "notebooks")
    assert printed.returncode != 0
    assert "03_none" in printed.stdout + printed.stderr


def test_a_ledger_becomes_a_row(tmp_path):
    page = assemble.figures([with_claims(tmp_path / "01_a.ipynb", CLAIM)])
    assert page.splitlines()[-2] == (
        r"| [4.1](notebooks/01_a.ipynb) | gap \|KL − BD\| shrinks | shrinks "
        "| 0.12 ± 0.01 bits (n = 3) | ≤ 0.5 bits: read off a plot | reproduced |"
    )


def test_a_stand_in_is_said_aloud_and_never_becomes_the_record(tmp_path):
    path = with_claims(tmp_path / "in" / "01_a.ipynb", CLAIM, {**CLAIM, "source": "made up"})
    last = assemble.figures([path]).splitlines()[-2]
    assert last.endswith("| stand-in: made up |")
    book = tmp_path / "book"
    kept = with_claims(book / "notebooks" / "01_a.ipynb", CLAIM).read_bytes()
    assert assemble.main(["--record", str(path), str(book)]) == 1
    assert (book / "notebooks" / "01_a.ipynb").read_bytes() == kept


def test_the_record_holds_just_the_new_notebooks(tmp_path):
    book = tmp_path / "book"
    with_claims(book / "notebooks" / "00_gone.ipynb", CLAIM)
    path = with_claims(tmp_path / "in" / "01_a.ipynb", CLAIM)
    assert assemble.main(["--record", str(path), str(book)]) == 0
    assert [kept.name for kept in (book / "notebooks").iterdir()] == ["01_a.ipynb"]
    assert (book / "figures.md").read_text(encoding="utf-8") == assemble.figures([path])


def test_a_book_is_laid_out_without_old_notebooks(tmp_path):
    pages = tmp_path / "pages"
    with_claims(pages / "notebooks" / "00_gone.ipynb", CLAIM)
    (pages / "intro.md").write_text("# Hello")
    path = with_claims(tmp_path / "in" / "01_a.ipynb", CLAIM)
    assemble.assemble([path], tmp_path / "book", pages)
    found = {str(p.relative_to(tmp_path / "book")) for p in (tmp_path / "book").rglob("*.*")}
    assert found == {"intro.md", "figures.md", "notebooks/01_a.ipynb"}


def test_a_record_that_lags_behind_its_source_says_so_until_it_is_renewed(tmp_path):
    pages = tmp_path / "pages"
    copies = [with_claims(pages / "notebooks" / f"0{n}_a.ipynb", CLAIM) for n in (1, 2)]
    (pages / assemble.LAGGING).write_text("02_a\n")
    assemble.assemble(copies, tmp_path / "book", pages)
    texts = [(tmp_path / "book" / "notebooks" / copy.name).read_text() for copy in copies]
    assert ["older source" in text for text in texts] == [False, True]
    assemble.assemble([with_claims(tmp_path / "new" / "02_a.ipynb")], tmp_path / "book", pages)
    assert "older source" not in (tmp_path / "book" / "notebooks" / "02_a.ipynb").read_text()
    assert assemble.main(["--record", str(tmp_path / "new" / "02_a.ipynb"), str(pages)]) == 0
    assert assemble.lagging(pages) == set()


def test_only_chapters_that_exist_lag():
    assert assemble.lagging() <= {source.stem for source in SOURCES}


def test_the_figure_index_is_that_of_the_record():
    page = ROOT / "book" / "figures.md"
    assert page.read_text(encoding="utf-8") == assemble.figures(RECORD)


def test_the_picture_of_the_readme_is_that_of_the_record():
    assert (ROOT / "book" / "_static" / "plane.png").read_bytes() == assemble.cover(RECORD)


@pytest.mark.parametrize("folder", ["book/notebooks", "tests/reference"])
def test_every_notebook_has_an_executed_copy_of_its_present_form(folder):
    copies = sorted((ROOT / folder).glob("*.ipynb"))
    assert [copy.name for copy in copies] == [source.name for source in SOURCES]
    for source, copy in zip(SOURCES, copies, strict=True):
        if folder == "book/notebooks" and source.stem in assemble.lagging():
            continue  # the book says so, see below
        executed = {cell.id: cell for cell in nbformat.read(copy, as_version=4).cells}
        for cell in nbformat.read(source, as_version=4).cells:
            assert executed[cell.id].source == cell.source, f"{copy}: cell {cell.id} is older"
            if cell.cell_type == "code":
                assert executed[cell.id].execution_count, f"{copy}: cell {cell.id} did not run"
            if "figure" in cell.metadata.get("mystnb", {}):
                (shown,) = executed[cell.id].outputs
                assert "image/png" in shown.data, f"{copy}: cell {cell.id} shows no figure"


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("a.html", '<script src="https://cdn.jsdelivr.net/x.js"></script>', 1),
        ("a.html", '<link rel="stylesheet" href="//fonts.googleapis.com/css">', 1),
        ("a.html", '<img src="http://example.org/x.png">', 1),
        ("a.css", "@import url(https://example.org/x.css);", 1),
        ("a.css", "a { background: url('https://example.org/x.png') }", 1),
        ("a.html", '<script src="_static/x.js"></script><img src="x.png">', 0),
        ("a.html", '<a href="https://example.org">a link may be followed</a>', 0),
        ("a.html", '<link rel="canonical" href="https://example.org/">', 0),
        ("a.css", "a { background: url(data:image/png;base64,AA==) }", 0),
    ],
)
def test_what_a_page_would_load_from_a_network_is_found(tmp_path, name, text, count):
    (tmp_path / name).write_text(text)
    assert len(offline.remote_loads(tmp_path)) == count
    assert offline.main([str(tmp_path)]) == min(count, 1)
