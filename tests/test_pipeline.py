"""Laws of the pipeline: what is finished stays, nothing is half written, nothing runs in vain."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from pipeline import assemble, offline, pages, run
from study import closure, jobs, protocol, settings
from study.ledger import MIME

pytestmark = pytest.mark.slow  # it starts kernels and Snakemake, whatever the kernels of torch

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "notebooks").glob("*.ipynb"))
RECORD = sorted((ROOT / "book" / "notebooks").glob("*.ipynb"))
CLAIM = {
    "key": "gap",
    "figure": "4.1",
    "claim": "gap |KL − BD| shrinks",
    "published": "shrinks",
    "measured": "0.12",
    "spread": "0.01",
    "interval": ["0.11", "0.13"],
    "agree": 3,
    "n": 3,
    "values": [0.11, 0.12, 0.13],
    "unit": "bits",
    "tolerance": "≤ 0.5",
    "reason": "read off a plot",
    "verdict": "reproduced",
    "source": "original",
    "flaw": "",
    "instead": "",
}


def write(path, *cells, first="runs: int = 50  # seeds"):
    path.parent.mkdir(parents=True, exist_ok=True)
    parameters = new_code_cell(first, metadata={"tags": ["parameters"]})
    head = new_markdown_cell("(label)=\n# A title")
    notebook = new_notebook(cells=[head, parameters, *map(new_code_cell, cells)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(notebook, path)
    return path


def with_claims(path, *claims):
    cell = new_code_cell("ledger")
    cell.outputs = [
        nbformat.v4.new_output("execute_result", {"text/plain": "", MIME: list(claims)})
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
    """A small copy of the project that Snakemake works on: two chapters of the study are toys."""

    CHAPTER = (
        "from dataclasses import dataclass\nimport pandas as pd\nfrom study import shared\n"
        "MAY_BE_EMPTY = MAY_BE_ZERO = MAY_REPEAT = ESTIMATORS = frozenset()\n"
        "@dataclass(frozen=True)\nclass Settings:\n    runs: int = 1\n"
        "def check(settings): pass\n"
        "def jobs(s): return {f's-{n}': {'seed': n} for n in range(s.runs)}\n"
        "def run(a): return {'t': pd.DataFrame({'run': [a['seed']], 'x': [shared.value]})}\n"
    )
    CELL = (
        "from study import settings, tables\n"
        "print(len(tables.tables('NAME', settings.of('NAME', globals()))['t']))"
    )

    def __init__(self, folder):
        self.folder = folder
        shutil.copy(ROOT / "Snakefile", folder)
        shutil.copy(ROOT / "constraints.txt", folder)
        shutil.copytree(ROOT / "pipeline", folder / "pipeline")
        for name in ("ibcore", "study", "book", "notebooks"):
            (folder / name).mkdir()
        for name in (
            "__init__", "closure", "jobs", "scratch", "tables", "settings", "verify", "ledger",
        ):  # fmt: skip
            shutil.copy(ROOT / "study" / f"{name}.py", folder / "study")
        chapters = folder / "study" / "settings.py"
        text = chapters.read_text()
        names = text[text.index("CHAPTERS = {") : text.index("}", text.index("CHAPTERS = {")) + 1]
        toys = 'CHAPTERS = {"good": "01_good", "bad": "02_bad"}'
        chapters.write_text(text.replace(names, toys))
        self.shared = folder / "study" / "shared.py"
        self.shared.write_text("value = 1\n")
        for name in ("good", "bad"):
            (folder / "study" / f"{name}.py").write_text(self.CHAPTER)
        (folder / "study" / "profiles").mkdir()
        self.profile = folder / "study" / "profiles" / "smoke.yml"
        self.profile.write_text("01_good: {runs: 2}\n02_bad: {}\n")
        cell = "runs: int = 1  # seeds"
        write(folder / "notebooks" / "01_good.ipynb", self.CELL.replace("NAME", "good"), first=cell)
        write(folder / "notebooks" / "02_bad.ipynb", "1 / 0", first=cell)

    def snakemake(self, *arguments):
        options = ["--cores", "1", "--rerun-incomplete", "--nolock", *arguments]
        environment = {**os.environ, "XDG_CACHE_HOME": str(self.folder / "cache")}
        environment["PYTHONPATH"] = f"{self.folder}{os.pathsep}{ROOT}"
        environment.pop("STUDY_TABLES", None)
        environment.pop("STUDY_JOBS", None)
        return subprocess.run(
            [sys.executable, "-m", "snakemake", *options],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
        )

    def would_run(self):
        """The rules that would run again for the good notebook."""
        printed = self.snakemake("--dry-run", "build/smoke/notebooks/01_good.ipynb")
        assert printed.returncode == 0, printed.stdout + printed.stderr
        text = printed.stdout + printed.stderr
        return {rule for rule in ("job", "join", "notebook") if f"rule {rule}:" in text}

    @property
    def jobs(self):
        return sorted(path.parent.name for path in (self.folder / "build").rglob("t.parquet")
                      if "jobs" in path.parts)  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    made = Tree(tmp_path_factory.mktemp("a tree"))
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
    assert len(tree.jobs) == 3


def test_what_runs_again_is_what_has_changed(tree):
    assert tree.would_run() == set()
    tree.profile.write_text("01_good: {runs: 2}\n02_bad: {runs: 7}\n")
    assert tree.would_run() == set()
    tree.profile.write_text("01_good: {runs: 3}\n02_bad: {}\n")
    assert tree.would_run() == {"job", "join", "notebook"}
    assert tree.snakemake("build/smoke/notebooks/01_good.ipynb").returncode == 0
    assert len(tree.jobs) == 4  # the third run alone was added
    drawing = tree.folder / "study" / "ledger.py"
    drawing.write_text(drawing.read_text() + "# drawn otherwise\n")
    assert tree.would_run() == {"notebook"}
    tree.shared.write_text("value = 2\n")
    assert tree.would_run() == {"job", "join", "notebook"}


def test_after_a_kill_the_same_command_goes_on(tree):
    tree.profile.write_text("01_good: {runs: 4}\n02_bad: {}\n")
    slow = "import time\nfrom pathlib import Path\nvalue = 3\n"
    tree.shared.write_text(slow + "if not Path('go').exists():\n    time.sleep(1)\n")
    options = ["--cores", "1", "--rerun-incomplete", "--nolock"]
    environment = {**os.environ, "PYTHONPATH": f"{tree.folder}{os.pathsep}{ROOT}"}
    environment["XDG_CACHE_HOME"] = str(tree.folder / "cache")
    command = [sys.executable, "-m", "snakemake", *options, "build/smoke/notebooks/01_good.ipynb"]
    before = set(tree.jobs)
    with subprocess.Popen(
        command, cwd=tree.folder, env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 120
        while not set(tree.jobs) - before and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    kept = set(tree.jobs) - before
    assert 1 <= len(kept) < 4
    stamps = {path: path.stat().st_mtime for name in kept
              for path in (tree.folder / "build/jobs/good" / name).glob("t.parquet")}  # fmt: skip
    (tree.folder / "go").touch()
    printed = tree.snakemake("build/smoke/notebooks/01_good.ipynb")
    assert printed.returncode == 0, printed.stderr
    assert "unlock" not in printed.stdout + printed.stderr
    again = [path for path, stamp in stamps.items() if path.stat().st_mtime != stamp]
    assert len(again) <= 1  # the job that was running, or had just ended, when it was killed


def test_a_profile_that_names_no_notebook_or_a_wrong_value_stops_at_once(tree):
    for text, words in (
        ("03_none: {}\n", "03_none"),
        ("01_good: {runs: 0}\n", "runs must be above 0"),
        ("01_good: {runs: [\n", "is no YAML"),
    ):
        tree.profile.write_text(text)
        started = time.monotonic()
        printed = tree.snakemake("notebooks")
        assert printed.returncode != 0
        assert words in printed.stdout + printed.stderr
        assert time.monotonic() - started < 30


def toy_tables(folder, commit="abc", seed=0):
    """Tables of the names, as a manifest has them."""
    table = pd.DataFrame({"run": [seed], "job": ["j"]})
    job = {"arguments": {}, "key": "k", "seconds": 60.0}
    facts = {"chapter": "names", "commit": commit, "sources": "s", "jobs": {"j": job}}
    jobs.write_set(folder / "names", {"t": table}, facts)
    return folder


def test_a_ledger_becomes_a_row(tmp_path):
    page = pages.figures([with_claims(tmp_path / "01_a.ipynb", CLAIM)])
    assert page.splitlines()[-2] == (
        r"| [4.1](notebooks/01_a.ipynb)<br>`gap` | gap \|KL − BD\| shrinks | shrinks "
        "| 0.12 [0.11, 0.13] bits, ± 0.01 (n = 3, 3 agree) | ≤ 0.5 bits: read off a plot "
        '| <span class="verdict reproduced">reproduced</span> |'
    )
    assert page.count("## A title") == 1


def test_the_tally_counts_the_verdicts_of_each_chapter_and_of_all(tmp_path):
    partly = {**CLAIM, "verdict": "partly"}
    held = {Path("01_a.ipynb"): (CLAIM, partly), Path("02_b.ipynb"): (partly,), Path("x.ipynb"): ()}
    paths = [with_claims(tmp_path / path, *found) for path, found in held.items()]
    page = pages.figures(paths)
    lines = page[page.index("<!-- tally -->") : page.index("<!-- /tally -->")].splitlines()
    rows = [line.split(" | ")[1:] for line in lines if line.startswith("| [") or "| all" in line]
    assert rows == [["1", "1", "2 |"], ["–", "1", "1 |"], ["1", "2", "3 |"]]


def test_a_section_that_shows_nothing_is_left_out_of_the_book(tmp_path):
    def laid(*outputs):
        cells = [new_markdown_cell("# A title"), new_markdown_cell("## Other estimators")]
        cells += [new_code_cell("plot", outputs=list(outputs)), new_code_cell("always")]
        for cell in cells[1:3]:
            cell.metadata["tags"] = ["optional"]
        path = tmp_path / "01_a.ipynb"
        nbformat.write(new_notebook(cells=cells), path)
        assemble.assemble([path], tmp_path / "book", tmp_path / "tables", tmp_path / "pages")
        found = nbformat.read(tmp_path / "book" / "notebooks" / "01_a.ipynb", as_version=4)
        return [cell.source for cell in found.cells]

    (tmp_path / "pages").mkdir()
    assert laid() == ["# A title", "always"]
    picture = nbformat.v4.new_output("display_data", {"text/plain": "a picture"})
    assert laid(picture) == ["# A title", "## Other estimators", "plot", "always"]


def test_a_stand_in_is_said_aloud_and_never_becomes_the_record(tmp_path):
    path = with_claims(tmp_path / "in" / "03_names.ipynb", CLAIM, {**CLAIM, "source": "made up"})
    last = pages.figures([path]).splitlines()[-2]
    assert last.endswith('| <span class="verdict reproduced">reproduced (made up)</span> |')
    book = tmp_path / "book"
    kept = with_claims(book / "notebooks" / "03_names.ipynb", CLAIM).read_bytes()
    tables = str(toy_tables(tmp_path / "tables"))
    assert assemble.main(["--record", str(path), str(book), "--tables", tables]) == 1
    assert (book / "notebooks" / "03_names.ipynb").read_bytes() == kept


def test_verdicts_on_a_stand_in_never_become_the_record(tmp_path, capsys):
    held = {protocol.MIME: {"source": "made up", "full": True, "claims": {}, "rows": []}}
    shown = nbformat.v4.new_output("display_data", held)
    path = tmp_path / "03_names.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("verdicts", outputs=[shown])]), path)
    tables = str(toy_tables(tmp_path / "tables"))
    assert assemble.main(["--record", str(path), str(tmp_path / "book"), "--tables", tables]) == 1
    assert "page of verdicts rests on stand-in 'made up'" in capsys.readouterr().err
    assert not (tmp_path / "book").exists()


def test_sources_that_are_not_committed_make_no_record(tmp_path, capsys):
    path = with_claims(tmp_path / "in" / "03_names.ipynb", CLAIM)
    tables = str(toy_tables(tmp_path / "tables", commit="abc+"))
    assert assemble.main(["--record", str(path), str(tmp_path / "book"), "--tables", tables]) == 1
    assert "commit them" in capsys.readouterr().err
    assert not (tmp_path / "book").exists()


def test_the_record_holds_just_the_new_notebooks_and_tables(tmp_path):
    book = tmp_path / "book"
    with_claims(book / "notebooks" / "00_gone.ipynb", CLAIM)
    toy_tables(book / "tables", seed=9)
    path = with_claims(tmp_path / "in" / "03_names.ipynb", CLAIM)
    tables = toy_tables(tmp_path / "tables")
    assert assemble.main(["--record", str(path), str(book), "--tables", str(tables)]) == 0
    assert [kept.name for kept in (book / "notebooks").iterdir()] == ["03_names.ipynb"]
    assert jobs.read_set(book / "tables" / "names")[0]["t"]["run"].tolist() == [0]
    values = pd.read_parquet(book / "tables" / "claims.parquet")
    assert values["value"].tolist() == CLAIM["values"]
    assert (book / "figures.md").read_text(encoding="utf-8") == pages.figures([path])
    assert [p.name for p in book.rglob(".*")] == []


@pytest.mark.parametrize("fails", ["copytree", "copy"])
def test_the_old_record_stays_whole_until_the_new_one_is(tmp_path, monkeypatch, fails):
    book = tmp_path / "book"
    with_claims(book / "notebooks" / "03_names.ipynb", CLAIM)
    toy_tables(book / "tables", seed=9)
    before = {p: p.read_bytes() for p in book.rglob("*") if p.is_file()}
    path = with_claims(tmp_path / "in" / "03_names.ipynb")
    tables = toy_tables(tmp_path / "tables")

    def full(*given, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(assemble.shutil, fails, full)
    assert assemble.main(["--record", str(path), str(book), "--tables", str(tables)]) == 1
    kept = {p: p.read_bytes() for p in book.rglob("*") if p.is_file() and ".part" not in str(p)}
    assert kept == before


def test_a_record_can_be_drawn_from_its_own_tables(tmp_path):
    book = tmp_path / "book"
    path = with_claims(book / "notebooks" / "03_names.ipynb", CLAIM)
    tables = str(toy_tables(book / "tables"))
    assert assemble.main(["--record", str(path), str(book), "--tables", tables]) == 0
    assert path.exists()
    assert jobs.read_set(book / "tables" / "names")[0]["t"]["run"].tolist() == [0]


def test_a_book_is_laid_out_with_its_tables_and_without_old_notebooks(tmp_path):
    laid = tmp_path / "pages"
    with_claims(laid / "notebooks" / "00_gone.ipynb", CLAIM)
    (laid / "intro.md").write_text("# Hello")
    path = with_claims(tmp_path / "in" / "03_names.ipynb", CLAIM)
    tables = toy_tables(tmp_path / "tables")
    assemble.assemble([path], tmp_path / "book", tables, laid)
    found = {str(p.relative_to(tmp_path / "book")) for p in (tmp_path / "book").rglob("*.*")}
    data = {"tables/claims.parquet", "tables/names/t.parquet", "tables/names/manifest.json"}
    written = {"intro.md", "figures.md", "gallery.md", "data.md", "notebooks/03_names.ipynb"}
    scripts = {f"extra/explorer/{name}.js" for name in ("planes", "sizes_data")}
    assert found == written | data | scripts
    page = (tmp_path / "book" / "data.md").read_text(encoding="utf-8")
    assert "{download}`t <tables/names/t.parquet>` | 1 |" in page


@pytest.mark.parametrize("chapter", settings.CHAPTERS)
def test_the_page_of_data_says_what_each_table_holds(chapter):
    tables, _ = jobs.read_set(ROOT / "tests" / "reference" / "tables" / chapter)
    says = pages.described(chapter)
    assert set(tables) <= set(says)
    assert all(says.values())


def test_a_chapter_of_older_sources_says_so(tmp_path):
    text = nbformat.read(SOURCES[2], as_version=4)
    copies = tmp_path / "in"
    copies.mkdir()
    nbformat.write(text, copies / "03_names.ipynb")
    assemble.assemble([copies / "03_names.ipynb"], tmp_path / "book", toy_tables(tmp_path / "t"))
    shown = (tmp_path / "book" / "notebooks" / "03_names.ipynb").read_text(encoding="utf-8")
    assert "older source" in shown  # the toy's sources are none of today's
    facts = json.loads((tmp_path / "t" / "names" / "manifest.json").read_text())
    facts["sources"] = closure.fingerprint("names")
    (tmp_path / "t" / "names" / "manifest.json").write_text(json.dumps(facts))
    assert not assemble.lags(copies / "03_names.ipynb", tmp_path / "t")
    text.cells[3].source += " more"
    nbformat.write(text, copies / "03_names.ipynb")
    assert assemble.lags(copies / "03_names.ipynb", tmp_path / "t")


def test_the_figure_index_is_that_of_the_record():
    page = ROOT / "book" / "figures.md"
    assert page.read_text(encoding="utf-8") == pages.figures(RECORD)


@pytest.mark.parametrize(("name", "cell"), assemble.PICTURES.items())
def test_the_pictures_of_pages_are_those_of_the_record(name, cell):
    assert (ROOT / "book" / "_static" / name).read_bytes() == assemble.picture(RECORD, cell)


TABLES = ROOT / "book" / "tables"
KEPT = [("tests/reference", "tests/reference/tables"), ("book/notebooks", "book/tables")]


def test_the_record_is_that_of_the_thesis_profile():
    for chapter in settings.CHAPTERS:
        facts = jobs.read_set(TABLES / chapter)[1]
        assert len(facts["commit"]) == 40  # a plus at its end: sources that were not committed
        chosen = settings.profile(chapter, settings.PROFILES / "thesis.yml")
        planned = {job.id: job.arguments for job in jobs.plan(chapter, chosen)}
        assert planned == {name: job["arguments"] for name, job in facts["jobs"].items()}
        assert {job["sources"] for job in facts["jobs"].values()} == {facts["sources"]}


def test_a_stamp_is_no_other_record_and_any_other_change_is(tmp_path):
    tables = toy_tables(tmp_path / "tables")
    notebooks = with_claims(tmp_path / "in" / "03_names.ipynb", CLAIM).parent
    before = assemble.hashes(notebooks, tables)
    assert set(before) == {"03_names.ipynb", "names/manifest.json"}
    manifest = tables / "names" / "manifest.json"
    facts = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**facts, "verified": {"sources": "s"}}))
    assert assemble.hashes(notebooks, tables) == before
    manifest.write_text(json.dumps({**facts, "sources": "others"}))
    assert assemble.hashes(notebooks, tables) != before


@pytest.mark.parametrize(("notebooks", "tables"), KEPT)
def test_notebooks_and_tables_are_those_of_one_run(notebooks, tables):
    listed = json.loads((ROOT / tables / assemble.LIST).read_text(encoding="utf-8"))
    assert assemble.hashes(ROOT / notebooks, ROOT / tables) == listed
    for chapter in settings.CHAPTERS:
        jobs.read_set(ROOT / tables / chapter)  # raises where a table isn't the one of its manifest


def test_the_record_is_small_enough_to_be_cloned():
    size = sum(path.stat().st_size for path in (ROOT / "book").rglob("*") if path.is_file())
    assert size < 30e6  # its tables are to have 15, its notebooks have 7


@pytest.mark.parametrize("folder", [notebooks for notebooks, _ in KEPT])
def test_every_notebook_has_an_executed_copy_of_its_present_form(folder):
    copies = sorted((ROOT / folder).glob("*.ipynb"))
    assert [copy.name for copy in copies] == [source.name for source in SOURCES]
    for source, copy in zip(SOURCES, copies, strict=True):
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
